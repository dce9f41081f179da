// Package enforcement says whether admission holds anything back: which
// mechanism refuses objects, how easily its webhooks are passed by, which
// policies only watch, and whether they are those that a pipeline tested.
package enforcement

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

const (
	admissionGroup = "admissionregistration.k8s.io"
	constraints    = "constraints.gatekeeper.sh"
	kyverno        = "kyverno.io"
	enforceLabel   = "pod-security.kubernetes.io/enforce"
)

// Active says whether anything refuses objects: a Pod Security level, or a
// policy that denies. Files that hold no such thing say nothing.
func Active(inv *inventory.Inventory) []finding.Verdict {
	f := finding.Verdict{Subject: finding.Subject{Kind: "Cluster"}}
	if by := enforcer(inv); by != nil {
		f.Status, f.Evidence = finding.Pass, by.Subject().String()+" refuses what it forbids"
		return []finding.Verdict{f}
	}
	if inv.Origin == inventory.Files {
		return nil
	}
	f.Status, f.Message = finding.Fail, "nothing refuses an object: no Pod Security level, and no policy that denies"
	if reason := unread(inv); reason != "" {
		f.Status, f.Message, f.Reason = finding.Unknown, "", reason
	} else if hook := engineHook(inv); hook != nil {
		f.Status, f.Message = finding.Unknown, ""
		f.Reason = hook.Subject().String() + " belongs to a policy engine whose policies are not among the objects read; attest that they deny"
	}
	return []finding.Verdict{f}
}

func unread(inv *inventory.Inventory) string {
	for _, gk := range []schema.GroupKind{{Kind: "Namespace"}, {Group: admissionGroup, Kind: "ValidatingAdmissionPolicyBinding"}, {Group: kyverno, Kind: "ClusterPolicy"}} {
		if reason := inv.Gap(gk.Group, gk.Kind); reason != "" {
			return gk.Kind + " objects could not be read: " + reason
		}
	}
	return ""
}

// enforcer returns an object that makes the API server refuse others, or nil.
func enforcer(inv *inventory.Inventory) *inventory.Object {
	for _, o := range inv.Kind("", "Namespace") {
		if level := o.GetLabels()[enforceLabel]; level == "baseline" || level == "restricted" {
			return o
		}
	}
	for _, p := range policies(inv) {
		if p.mode == denies {
			return p.object
		}
	}
	return nil
}

// engineHook returns a webhook of a policy engine, or nil.
func engineHook(inv *inventory.Inventory) *inventory.Object {
	for _, o := range inv.Kind(admissionGroup, "ValidatingWebhookConfiguration") {
		if engineOf(o) != nil {
			return o
		}
	}
	return nil
}

// A mode is what a policy does to what it forbids.
type mode string

const (
	denies  mode = "denies"
	watches mode = "watches"
	idle    mode = "idle"    // nothing binds it
	unclear mode = "unclear" // its binding may be elsewhere
)

// A policy is a rule of admission of any engine.
type policy struct {
	object *inventory.Object
	mode   mode
	why    string
}

func policies(inv *inventory.Inventory) []policy {
	var out []policy
	for _, o := range inv.Kind(admissionGroup, "ValidatingAdmissionPolicy") {
		m, why := boundMode(inv, o.GetName())
		out = append(out, policy{o, m, why})
	}
	for _, kind := range []string{"ClusterPolicy", "Policy"} {
		for _, o := range inv.Kind(kyverno, kind) {
			if m, why := kyvernoMode(o); m != "" {
				out = append(out, policy{o, m, why})
			}
		}
	}
	for _, o := range inv.Objects() {
		if o.GroupVersionKind().Group == constraints {
			m, why := constraintMode(o)
			out = append(out, policy{o, m, why})
		}
	}
	return out
}

// boundMode returns the strongest action of the bindings of a
// ValidatingAdmissionPolicy.
func boundMode(inv *inventory.Inventory, name string) (mode, string) {
	m, why := idle, "no binding"
	if inv.Origin == inventory.Files {
		m, why = unclear, "no binding of it is among the files"
	}
	if reason := inv.Gap(admissionGroup, "ValidatingAdmissionPolicyBinding"); reason != "" {
		m, why = unclear, "ValidatingAdmissionPolicyBinding objects could not be read: "+reason
	}
	for _, o := range inv.Kind(admissionGroup, "ValidatingAdmissionPolicyBinding") {
		if text(o, "spec", "policyName") != name {
			continue
		}
		actions, _, _ := unstructured.NestedStringSlice(o.Object, "spec", "validationActions")
		if slices.Contains(actions, "Deny") {
			return denies, ""
		}
		m, why = watches, o.Subject().String()+": validationActions "+strings.Join(actions, ", ")
	}
	return m, why
}

// kyvernoMode returns what the validating rules of a Kyverno policy do; "" for
// a policy without any. The action of a rule goes before that of the policy,
// and without both it is to audit.
func kyvernoMode(o *inventory.Object) (mode, string) {
	rules, _, _ := unstructured.NestedSlice(o.Object, "spec", "rules")
	action := text(o, "spec", "validationFailureAction")
	m := mode("")
	for _, item := range rules {
		rule, _ := item.(map[string]any)
		validate, ok := rule["validate"].(map[string]any)
		if !ok {
			continue
		}
		own, _ := validate["failureAction"].(string)
		if own == "" {
			own = action
		}
		if !strings.EqualFold(own, "enforce") {
			return watches, "its action is to audit"
		}
		m = denies
	}
	return m, ""
}

// constraintMode returns what a Gatekeeper constraint does: deny, unless it
// says otherwise.
func constraintMode(o *inventory.Object) (mode, string) {
	action := text(o, "spec", "enforcementAction")
	switch action {
	case "", "deny":
		return denies, ""
	case "scoped":
		actions, _, _ := unstructured.NestedSlice(o.Object, "spec", "scopedEnforcementActions")
		for _, item := range actions {
			if scoped, _ := item.(map[string]any); scoped["action"] == "deny" {
				return denies, ""
			}
		}
	}
	return watches, "enforcementAction: " + action
}

func text(o *inventory.Object, path ...string) string {
	s, _, _ := unstructured.NestedString(o.Object, path...)
	return s
}

// controlKey is the annotation by which a policy names the control it defines.
const controlKey = "kubeguardian.dev/control"

// AuditOnly says for each policy of a critical control whether it refuses what
// it forbids. critical reports whether a control of ours is.
func AuditOnly(inv *inventory.Inventory, critical func(id string) bool) []finding.Verdict {
	var out []finding.Verdict
	for _, p := range policies(inv) {
		f := finding.Verdict{Subject: p.object.Subject(), Exposure: finding.System}
		switch {
		case !important(p.object, critical):
			f.Status, f.Reason = finding.NotApplicable, "it is not known to be of a critical control"
		case p.mode == denies:
			f.Status = finding.Pass
		case p.mode == unclear:
			f.Status, f.Reason = finding.Unknown, p.why
		default:
			f.Status, f.Message, f.Evidence = finding.Fail, "a policy of a critical control does not refuse what it forbids", p.why
		}
		out = append(out, f)
	}
	return out
}

// important reports whether a policy is of a critical control: by the control
// that it names, the severity that it gives itself, or what it is called.
func important(o *inventory.Object, critical func(id string) bool) bool {
	if id := o.GetAnnotations()[controlKey]; id != "" {
		return critical(id)
	}
	if slices.Contains([]string{"critical", "high"}, strings.ToLower(o.GetAnnotations()["policies.kyverno.io/severity"])) {
		return true
	}
	name := strings.NewReplacer("-", "", "_", "", ".", "").Replace(strings.ToLower(o.GetKind() + " " + o.GetName()))
	return slices.ContainsFunc([]string{
		"privileged", "hostpath", "hostnamespace", "hostpid", "hostipc", "clusteradmin", "dockersock", "runtimesocket", "anonymous",
	}, func(word string) bool { return strings.Contains(name, word) })
}
