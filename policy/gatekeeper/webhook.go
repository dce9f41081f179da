package gatekeeper

import (
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/kubeguardian/kubeguardian/policy"
)

// WebhookRules returns what the constraints that act at the webhook match, for
// the registration of a webhook that serves the set. Constraints name kinds and
// webhooks name resources: of a kind that Kubernetes does not have, all
// resources of the group are asked for, because only its definition says which
// is its own.
func (s *Set) WebhookRules() []admissionregistrationv1.RuleWithOperations {
	var rules []admissionregistrationv1.RuleWithOperations
	for _, c := range s.constraints {
		if c.actions[Webhook] != nil {
			rules = append(rules, c.webhookRules()...)
		}
	}
	if len(rules) == 0 {
		return nil
	}
	for _, x := range s.expansions { // what makes objects that constraints match
		for _, kind := range x.applyTo {
			rules = append(rules, webhookRule([]string{kind.Group}, resources(kind.GroupKind()), []string{"CREATE", "UPDATE"}))
		}
	}
	return policy.JoinRules(rules)
}

// Served returns the set that a webhook judges by: a constraint is not asked for
// operations that are sent because of others, see [Set.WebhookRules].
func (s *Set) Served() *Set {
	variant := *s
	variant.served = true
	return &variant
}

// serves reports whether a template is asked for an operation.
func (s *Set) serves(t *template, operation string) bool {
	return t.at(s.point, operation) && (!s.served || len(t.operations) > 0 || slices.Contains(t.registered(), operation))
}

func (c *constraint) webhookRules() []admissionregistrationv1.RuleWithOperations {
	operations := c.template.registered()
	if c.match == nil || len(c.match.Kinds) == 0 {
		return []admissionregistrationv1.RuleWithOperations{webhookRule([]string{"*"}, everything(), operations)}
	}
	var rules []admissionregistrationv1.RuleWithOperations
	for _, k := range c.match.Kinds {
		groups, names := k.APIGroups, k.Kinds
		if len(groups) == 0 {
			groups = []string{"*"}
		}
		if len(names) == 0 {
			names = []string{"*"}
		}
		for _, group := range groups {
			for _, name := range names {
				kind := schema.GroupKind{Group: group, Kind: name}
				rules = append(rules, webhookRule([]string{group}, resources(kind), operations))
				if parents := subresources()[name]; parents != nil { // of another group than the object in the request
					rules = append(rules, webhookRule([]string{"*"}, parents, operations))
				}
			}
		}
	}
	return rules
}

// KindRule returns the rule for objects of a kind, which may be "*" in a group,
// or in all groups: of a kind that Kubernetes does not have, all resources of the
// group.
func KindRule(kind schema.GroupKind, operations ...string) admissionregistrationv1.RuleWithOperations {
	return webhookRule([]string{kind.Group}, resources(kind), operations)
}

func webhookRule(groups, resources, operations []string) admissionregistrationv1.RuleWithOperations {
	rule := admissionregistrationv1.RuleWithOperations{
		Rule: admissionregistrationv1.Rule{
			APIGroups: groups, APIVersions: []string{"*"}, Resources: resources, Scope: new(admissionregistrationv1.AllScopes),
		},
	}
	for _, operation := range operations {
		rule.Operations = append(rule.Operations, admissionregistrationv1.OperationType(operation))
	}
	return rule
}

// resources returns those whose requests may have an object of a kind. The kinds
// of Kubernetes have regular plurals.
func resources(kind schema.GroupKind) []string {
	if kind.Kind == "*" {
		return everything()
	}
	switch {
	case !builtin(kind):
		return []string{"*"}
	case strings.HasSuffix(kind.Kind, "Options"): // of subresources alone
		return nil
	}
	plural, _ := meta.UnsafeGuessKindToResource(kind.WithVersion("v1"))
	return []string{plural.Resource}
}

// builtin reports whether Kubernetes has a kind, in the group or, for *, in any.
func builtin(kind schema.GroupKind) bool {
	for known := range scheme.Scheme.AllKnownTypes() {
		if known.Kind == kind.Kind && (kind.Group == "*" || known.Group == kind.Group) {
			return true
		}
	}
	return false
}

// subresources returns those that have objects of a kind and change what runs.
func subresources() map[string][]string {
	return map[string][]string{
		"Binding":               {"pods/binding"},
		"Eviction":              {"pods/eviction"},
		"NodeProxyOptions":      {"nodes/proxy"},
		"Pod":                   {"pods/ephemeralcontainers", "pods/resize"},
		"PodAttachOptions":      {"pods/attach"},
		"PodExecOptions":        {"pods/exec"},
		"PodPortForwardOptions": {"pods/portforward"},
		"PodProxyOptions":       {"pods/proxy"},
		"Scale":                 {"deployments/scale", "replicasets/scale", "replicationcontrollers/scale", "statefulsets/scale"},
		"Service":               {"services/status"},
		"ServiceProxyOptions":   {"services/proxy"},
	}
}

// everything is all resources and these subresources.
func everything() []string {
	all := []string{"*"}
	for _, list := range subresources() {
		all = append(all, list...)
	}
	slices.Sort(all)
	return all
}

// ReadsInventory reports whether a template reads data.inventory.
func (s *Set) ReadsInventory() bool {
	return slices.ContainsFunc(s.templates, func(t *template) bool {
		rego, ok := t.engine.(*regoEngine)
		return ok && rego.inventory
	})
}
