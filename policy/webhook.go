package policy

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
)

// A covered resource is one line of the flattened rules of all policies.
type covered struct {
	group, version, resource string
	scope                    admissionregistrationv1.ScopeType
	operation                admissionregistrationv1.OperationType
}

// WebhookRules returns the union of the resource rules of all validating
// policies, merged and in a fixed order, for the registration of a webhook that
// serves the set.
func (s *Set) WebhookRules() []admissionregistrationv1.RuleWithOperations {
	all := map[covered]bool{}
	for _, p := range s.policies {
		p.criteria.cover(all)
	}
	return webhookRules(all)
}

// MutatingWebhookRules is the same of mutating policies. A deletion mutates nothing.
func (s *Set) MutatingWebhookRules() []admissionregistrationv1.RuleWithOperations {
	all := map[covered]bool{}
	for _, p := range s.mutating {
		p.criteria.cover(all)
	}
	maps.DeleteFunc(all, func(c covered, _ bool) bool { return c.operation == admissionregistrationv1.Delete })
	return webhookRules(all)
}

// JoinRules returns the union of the rules of several engines, merged and in a
// fixed order. All have a scope.
func JoinRules(lists ...[]admissionregistrationv1.RuleWithOperations) []admissionregistrationv1.RuleWithOperations {
	all := map[covered]bool{}
	for _, rule := range slices.Concat(lists...) {
		cover(all, &rule)
	}
	return webhookRules(all)
}

func webhookRules(all map[covered]bool) []admissionregistrationv1.RuleWithOperations {
	operations := map[covered][]string{} // key without operation
	for c := range all {
		op := string(c.operation)
		c.operation = ""
		operations[c] = append(operations[c], op)
	}
	resources := map[covered][]string{} // key without resource, operations joined
	for c, ops := range operations {
		slices.Sort(ops)
		resource := c.resource
		c.resource, c.operation = "", admissionregistrationv1.OperationType(strings.Join(ops, " "))
		resources[c] = append(resources[c], resource)
	}
	var rules []admissionregistrationv1.RuleWithOperations
	for c, names := range resources {
		slices.Sort(names)
		rules = append(rules, webhookRule(c, names))
	}
	slices.SortFunc(rules, func(a, b admissionregistrationv1.RuleWithOperations) int {
		return cmp.Or(
			cmp.Compare(a.APIGroups[0], b.APIGroups[0]),
			cmp.Compare(a.APIVersions[0], b.APIVersions[0]),
			cmp.Compare(a.Resources[0], b.Resources[0]),
			cmp.Compare(*a.Scope, *b.Scope),
		)
	})
	return rules
}

// cover adds the flattened rules.
func (c *criteria) cover(all map[covered]bool) {
	for _, rule := range c.resources.ResourceRules {
		cover(all, &rule.RuleWithOperations)
	}
}

// cover adds one rule, flattened.
func cover(all map[covered]bool, rule *admissionregistrationv1.RuleWithOperations) {
	for _, group := range rule.APIGroups {
		for _, version := range rule.APIVersions {
			for _, resource := range rule.Resources {
				for _, op := range spellOut(rule.Operations) {
					all[covered{group, version, resource, *rule.Scope, op}] = true
				}
			}
		}
	}
}

func webhookRule(c covered, resources []string) admissionregistrationv1.RuleWithOperations {
	rule := admissionregistrationv1.RuleWithOperations{
		Rule: admissionregistrationv1.Rule{
			APIGroups: []string{c.group}, APIVersions: []string{c.version}, Resources: resources, Scope: &c.scope,
		},
	}
	for op := range strings.FieldsSeq(string(c.operation)) {
		rule.Operations = append(rule.Operations, admissionregistrationv1.OperationType(op))
	}
	return rule
}
