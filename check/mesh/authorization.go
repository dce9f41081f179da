package mesh

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Authorization says for each workload that the internet reaches, as exposure
// knows, whether a mesh or gateway decides per request who may do what.
func Authorization(inv *inventory.Inventory, exposure func(*inventory.Workload) finding.Exposure) []finding.Verdict {
	var out []finding.Verdict
	for _, w := range inv.Workloads() {
		f := authorization(inv, w, exposure(w))
		f.Subject = w.Subject()
		out = append(out, f)
	}
	return out
}

func authorization(inv *inventory.Inventory, w *inventory.Workload, exposure finding.Exposure) finding.Verdict {
	switch exposure {
	case finding.InCluster, finding.System:
		return finding.Verdict{Status: finding.NotApplicable, Reason: "not exposed to the outside"}
	case finding.ExposureUnknown:
		return unknown("no Service or entry point of the namespace is among the files; the workload may be exposed")
	}
	if by := authorizes(inv, w); by != nil {
		return finding.Verdict{Status: finding.Pass, Evidence: by.Subject().String()}
	}
	if of(inv, w) == none {
		return unknown("no mesh or gateway with authorization policies is seen; where the application itself authorises each request, attest it")
	}
	if reason := gap(inv); reason != "" {
		return unknown(reason)
	}
	if inv.Origin == inventory.Files && inv.Get("", "Namespace", "", inv.NamespaceOf(w.Object)) == nil {
		return unknown("the Namespace is not among the files; an authorization policy may be elsewhere")
	}
	return finding.Verdict{Status: finding.Fail, Message: "is exposed, and no authorization policy of its mesh says who may call what"}
}

// authorizes returns a policy that decides about requests to a workload, or
// nil.
func authorizes(inv *inventory.Inventory, w *inventory.Workload) *inventory.Object {
	ns := inv.NamespaceOf(w.Object)
	for _, o := range inv.Kind("security.istio.io", "AuthorizationPolicy") {
		if own := inv.NamespaceOf(o); (own == ns || own == "istio-system") && restricts(o) && targets(inv, o, w) {
			return o
		}
	}
	for _, o := range inv.Kind("policy.linkerd.io", "AuthorizationPolicy") {
		if inv.NamespaceOf(o) == ns && linkerdTarget(inv, o, w) {
			return o
		}
	}
	for _, o := range inv.Kind("gateway.envoyproxy.io", "SecurityPolicy") {
		_, rules, _ := unstructured.NestedMap(o.Object, "spec", "authorization")
		if inv.NamespaceOf(o) == ns && rules {
			return o
		}
	}
	return nil
}

// restricts reports whether a policy of Istio leaves anything out: one with an
// empty rule allows everybody everything.
func restricts(o *inventory.Object) bool {
	rules, _, _ := unstructured.NestedSlice(o.Object, "spec", "rules")
	action, _, _ := unstructured.NestedString(o.Object, "spec", "action")
	return action != "AUDIT" && !slices.ContainsFunc(rules, func(r any) bool {
		rule, _ := r.(map[string]any)
		return len(rule) == 0 && (action == "" || action == "ALLOW")
	})
}

// targets reports whether a policy of Istio is about a workload: by its
// selector, by a Service that selects it, or as one for the whole namespace.
func targets(inv *inventory.Inventory, o *inventory.Object, w *inventory.Workload) bool {
	selector, _, _ := unstructured.NestedStringMap(o.Object, "spec", "selector", "matchLabels")
	refs, _, _ := unstructured.NestedSlice(o.Object, "spec", "targetRefs")
	if ref, ok, _ := unstructured.NestedMap(o.Object, "spec", "targetRef"); ok {
		refs = append(refs, ref)
	}
	if len(refs) == 0 {
		return labels.SelectorFromSet(selector).Matches(labels.Set(w.Template.Labels))
	}
	return slices.ContainsFunc(refs, func(r any) bool {
		ref, _ := r.(map[string]any)
		name, _ := ref["name"].(string)
		return ref["kind"] == "Service" && serves(inv, name, w)
	})
}

func serves(inv *inventory.Inventory, service string, w *inventory.Workload) bool {
	o := inv.Get("", "Service", inv.NamespaceOf(w.Object), service)
	if o == nil {
		return false
	}
	selector, _, _ := unstructured.NestedStringMap(o.Object, "spec", "selector")
	return len(selector) > 0 && labels.SelectorFromSet(selector).Matches(labels.Set(w.Template.Labels))
}

// linkerdTarget reports whether a policy of Linkerd is about a workload: by a
// Server that selects it, or as one for the whole namespace.
func linkerdTarget(inv *inventory.Inventory, o *inventory.Object, w *inventory.Workload) bool {
	kind, _, _ := unstructured.NestedString(o.Object, "spec", "targetRef", "kind")
	name, _, _ := unstructured.NestedString(o.Object, "spec", "targetRef", "name")
	if kind == "Namespace" {
		return name == inv.NamespaceOf(w.Object)
	}
	server := inv.Get("policy.linkerd.io", "Server", inv.NamespaceOf(w.Object), name)
	if kind != "Server" || server == nil {
		return false
	}
	var s struct {
		Spec struct {
			PodSelector *metav1.LabelSelector `json:"podSelector"`
		} `json:"spec"`
	}
	if runtime.DefaultUnstructuredConverter.FromUnstructured(server.Object, &s) != nil || s.Spec.PodSelector == nil {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(s.Spec.PodSelector)
	return err == nil && selector.Matches(labels.Set(w.Template.Labels))
}
