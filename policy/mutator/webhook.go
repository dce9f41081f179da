package mutator

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/gatekeeper"
)

// MutatingWebhookRules returns what the mutators apply to, for the registration
// of a webhook that serves the set.
func (s *Set) MutatingWebhookRules() []admissionregistrationv1.RuleWithOperations {
	var rules []admissionregistrationv1.RuleWithOperations
	for _, m := range s.mutators {
		rules = append(rules, m.webhookRules()...)
	}
	return policy.JoinRules(rules)
}

func (m *mutator) webhookRules() (rules []admissionregistrationv1.RuleWithOperations) {
	if m.kind == metadataKind { // to all objects that its match selects
		return []admissionregistrationv1.RuleWithOperations{gatekeeper.KindRule(schema.GroupKind{Group: "*", Kind: "*"}, "CREATE", "UPDATE")}
	}
	for _, to := range m.applyTo {
		var operations []string
		for _, o := range to.operations() {
			operations = append(operations, string(o))
		}
		for _, group := range to.Groups {
			for _, kind := range to.Kinds {
				rules = append(rules, gatekeeper.KindRule(schema.GroupKind{Group: group, Kind: kind}, operations...))
			}
		}
	}
	return rules
}
