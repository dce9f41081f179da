package enforcement

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// An engine is a product that judges objects by webhooks.
type engine struct {
	sign   string   // in the name of its configurations
	groups []string // of its own policies
}

var engines = []engine{
	{"gatekeeper", []string{constraints, "templates.gatekeeper.sh"}},
	{"kubeguardian", nil},
	{"kubewarden", []string{"policies.kubewarden.io"}},
	{"kyverno", []string{kyverno}},
	{"neuvector", nil},
	{"polaris", nil},
	{"stackrox", nil},
	{"opa-", nil},
}

func engineOf(o *inventory.Object) *engine {
	for i := range engines {
		if strings.Contains(o.GetName(), engines[i].sign) {
			return &engines[i]
		}
	}
	return nil
}

// A configuration has the fields that validating and mutating ones share.
type configuration struct {
	object *inventory.Object
	hooks  []admissionv1.ValidatingWebhook
}

// Webhooks says for each configuration of webhooks that guards workloads or
// rights whether it can be passed by: because the API server goes on without
// it, because much is left out, or because nothing judges a change of the
// engine's own policies.
func Webhooks(inv *inventory.Inventory) []finding.Verdict {
	var all []configuration
	var out []finding.Verdict
	for _, kind := range []string{"ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"} {
		for _, o := range inv.Kind(admissionGroup, kind) {
			var c admissionv1.ValidatingWebhookConfiguration
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &c); err != nil {
				out = append(out, finding.Verdict{Status: finding.Unknown, Reason: "it is not of the shape of its kind: " + err.Error(), Subject: o.Subject()})
				continue
			}
			all = append(all, configuration{o, c.Webhooks})
		}
	}
	for _, c := range all {
		f := c.judge(inv, all)
		f.Subject, f.Exposure = c.object.Subject(), finding.System
		out = append(out, f)
	}
	return out
}

func (c configuration) judge(inv *inventory.Inventory, all []configuration) finding.Verdict {
	by := engineOf(c.object)
	var wrong []string
	guards := false
	for _, h := range c.hooks {
		if by == nil && (c.object.GetKind() != "ValidatingWebhookConfiguration" || !slices.ContainsFunc(h.Rules, guarded)) {
			continue
		}
		guards = true
		wrong = append(wrong, c.holes(h)...)
	}
	if !guards {
		return finding.Verdict{Status: finding.NotApplicable, Reason: "it judges neither workloads nor rights"}
	}
	if by != nil && inv.Origin == inventory.Cluster {
		for _, group := range by.groups {
			if !slices.ContainsFunc(all, func(c configuration) bool { return c.judges(group) }) {
				wrong = append(wrong, "no webhook judges changes of its own policies in "+group)
			}
		}
	}
	if len(wrong) == 0 {
		return finding.Verdict{Status: finding.Pass}
	}
	return finding.Verdict{
		Status: finding.Fail, Message: "a security webhook can be passed by", Evidence: strings.Join(wrong[:min(len(wrong), 5)], "; "),
	}
}

func (c configuration) judges(group string) bool {
	return slices.ContainsFunc(c.hooks, func(h admissionv1.ValidatingWebhook) bool {
		return slices.ContainsFunc(h.Rules, func(r admissionv1.RuleWithOperations) bool {
			return slices.Contains(r.APIGroups, group) || slices.Contains(r.APIGroups, "*")
		})
	})
}

// guarded reports whether a rule is about workloads or rights.
func guarded(r admissionv1.RuleWithOperations) bool {
	on := map[string][]string{
		"": {"pods", "*"}, "apps": {"deployments", "daemonsets", "statefulsets", "*"}, "batch": {"jobs", "cronjobs", "*"},
		"rbac.authorization.k8s.io": {"clusterrolebindings", "rolebindings", "clusterroles", "roles", "*"}, "*": {"*", "*/*", "pods"},
	}
	return slices.ContainsFunc(r.APIGroups, func(group string) bool {
		return slices.ContainsFunc(r.Resources, func(resource string) bool { return slices.Contains(on[group], resource) })
	})
}

// holes returns how a webhook can be passed by.
func (c configuration) holes(h admissionv1.ValidatingWebhook) []string {
	var out []string
	if h.FailurePolicy != nil && *h.FailurePolicy == admissionv1.Ignore {
		out = append(out, h.Name+" fails open (failurePolicy: Ignore)")
	}
	own := ""
	if h.ClientConfig.Service != nil {
		own = h.ClientConfig.Service.Namespace
	}
	for _, hole := range leftOut(h.NamespaceSelector, own, c.guardsItsLabel()) {
		out = append(out, h.Name+" "+hole)
	}
	if h.ObjectSelector != nil && len(h.ObjectSelector.MatchLabels)+len(h.ObjectSelector.MatchExpressions) > 0 {
		out = append(out, h.Name+" goes by labels of the object, which who writes it chooses")
	}
	return out
}

// guardsItsLabel reports whether one of the webhooks judges namespaces for the
// label by which they leave: Gatekeeper has one for that.
func (c configuration) guardsItsLabel() bool {
	return slices.ContainsFunc(c.hooks, func(h admissionv1.ValidatingWebhook) bool {
		return strings.HasPrefix(h.Name, "check-ignore-label.") && (h.FailurePolicy == nil || *h.FailurePolicy == admissionv1.Fail)
	})
}

// nameLabel is a label that the API server sets and nobody can change.
const nameLabel = "kubernetes.io/metadata.name"

// leftOut returns which namespaces a selector leaves out beyond those of
// Kubernetes and of the engine itself.
func leftOut(selector *metav1.LabelSelector, own string, guarded bool) []string {
	if selector == nil {
		return nil
	}
	var out []string
	for _, key := range slices.Sorted(maps.Keys(selector.MatchLabels)) {
		out = append(out, fmt.Sprintf("judges only namespaces with %s=%s", key, selector.MatchLabels[key]))
	}
	for _, e := range selector.MatchExpressions {
		switch {
		case e.Key == nameLabel && e.Operator == metav1.LabelSelectorOpNotIn:
			more := slices.DeleteFunc(slices.Clone(e.Values), func(ns string) bool {
				return ns == own || slices.Contains([]string{"kube-system", "kube-public", "kube-node-lease", ""}, ns)
			})
			if len(more) > 0 {
				out = append(out, "leaves out namespaces "+strings.Join(more[:min(len(more), 5)], ", "))
			}
		case e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpExists:
			out = append(out, "judges only namespaces that a label "+e.Key+" selects")
		case !guarded:
			out = append(out, "leaves out every namespace that carries a label "+e.Key)
		}
	}
	return out
}
