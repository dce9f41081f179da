// Package reference finds objects that point at nothing: a Service without
// pods, an entry point without its Service, an autoscaler without its workload.
// Whoever can make what is missing takes over what is sent there.
//
// A file inventory speaks for a namespace only if it holds the Namespace object.
package reference

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Dangling says for each Service, Ingress, HTTPRoute and
// HorizontalPodAutoscaler whether what it points at exists.
func Dangling(inv *inventory.Inventory) []finding.Verdict {
	var out []finding.Verdict
	pods := podsOf(inv)
	ofService := func(inv *inventory.Inventory, o *inventory.Object) (target, error) { return ofService(inv, o, pods) }
	for _, k := range []struct {
		group, kind string
		missing     func(*inventory.Inventory, *inventory.Object) (target, error)
	}{
		{"", "Service", ofService},
		{"networking.k8s.io", "Ingress", ofIngress},
		{"gateway.networking.k8s.io", "HTTPRoute", ofRoute},
		{"autoscaling", "HorizontalPodAutoscaler", ofAutoscaler},
	} {
		for _, o := range inv.Kind(k.group, k.kind) {
			t, err := k.missing(inv, o)
			f := t.judge(inv)
			if err != nil {
				f = finding.Verdict{Status: finding.Unknown, Reason: err.Error()}
			}
			f.Subject = o.Subject()
			out = append(out, f)
		}
	}
	return out
}

// A target is what an object points at and was not found, or why there is
// nothing to look for. The zero value is one that was found.
type target struct {
	kinds     []schema.GroupKind
	namespace string
	missing   string
	none      string // why the object points at nothing by intention
}

func (t target) judge(inv *inventory.Inventory) finding.Verdict {
	switch {
	case t.none != "":
		return finding.Verdict{Status: finding.NotApplicable, Reason: t.none}
	case t.missing == "":
		return finding.Verdict{Status: finding.Pass}
	}
	for _, gap := range inv.Gaps {
		if slices.Contains(t.kinds, gap.Kind) {
			return finding.Verdict{Status: finding.Unknown, Reason: gap.Kind.Kind + " objects could not be read: " + gap.Reason}
		}
	}
	if inv.Origin == inventory.Files && inv.Get("", "Namespace", "", t.namespace) == nil {
		return finding.Verdict{Status: finding.Unknown, Reason: fmt.Sprintf("%s is not among the files, and neither is namespace %s", t.missing, t.namespace)}
	}
	return finding.Verdict{Status: finding.Fail, Message: "points at " + t.missing + ", which does not exist"}
}

var (
	services = []schema.GroupKind{{Kind: "Service"}}
	makers   = []schema.GroupKind{
		{Kind: "Pod"}, {Kind: "ReplicationController"}, {Group: "apps", Kind: "Deployment"}, {Group: "apps", Kind: "StatefulSet"},
		{Group: "apps", Kind: "DaemonSet"}, {Group: "apps", Kind: "ReplicaSet"}, {Group: "batch", Kind: "Job"}, {Group: "batch", Kind: "CronJob"},
	}
)

func convert(o *inventory.Object, into any) error {
	return runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into)
}

// podsOf returns the labels of pods by namespace: those of templates, and those
// that only pods have, as their own name.
func podsOf(inv *inventory.Inventory) map[string][]labels.Set {
	out := map[string][]labels.Set{}
	for _, w := range inv.Workloads() {
		ns := inv.NamespaceOf(w.Object)
		out[ns] = append(out[ns], w.Template.Labels)
	}
	for _, o := range inv.Kind("", "Pod") {
		ns := inv.NamespaceOf(o)
		out[ns] = append(out[ns], o.GetLabels())
	}
	return out
}

func ofService(inv *inventory.Inventory, o *inventory.Object, pods map[string][]labels.Set) (target, error) {
	var s corev1.Service
	if err := convert(o, &s); err != nil {
		return target{}, err
	}
	switch {
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		return target{none: "points at a name outside the cluster"}, nil
	case len(s.Spec.Selector) == 0:
		return target{none: "without a selector others say what it points at"}, nil
	}
	ns, selector := inv.NamespaceOf(o), labels.SelectorFromSet(s.Spec.Selector)
	if slices.ContainsFunc(pods[ns], func(set labels.Set) bool { return selector.Matches(set) }) {
		return target{}, nil
	}
	return target{kinds: makers, namespace: ns, missing: "pods with " + selector.String()}, nil
}

func ofIngress(inv *inventory.Inventory, o *inventory.Object) (target, error) {
	var i networkingv1.Ingress
	if err := convert(o, &i); err != nil {
		return target{}, err
	}
	backends := []networkingv1.IngressBackend{}
	if i.Spec.DefaultBackend != nil {
		backends = append(backends, *i.Spec.DefaultBackend)
	}
	for _, rule := range i.Spec.Rules {
		if rule.HTTP != nil {
			for _, p := range rule.HTTP.Paths {
				backends = append(backends, p.Backend)
			}
		}
	}
	for _, b := range backends {
		if b.Service == nil {
			continue
		}
		port := b.Service.Port
		if t := service(inv, inv.NamespaceOf(o), b.Service.Name, port.Name, port.Number); t.missing != "" {
			return t, nil
		}
	}
	return target{}, nil
}

// service looks for a Service with a port, by name or number if one is given.
func service(inv *inventory.Inventory, ns, name, portName string, port int32) target {
	t := target{kinds: services, namespace: ns}
	o := inv.Get("", "Service", ns, name)
	if o == nil {
		t.missing = "Service " + name
		return t
	}
	var s corev1.Service
	if convert(o, &s) != nil || portName == "" && port == 0 {
		return target{}
	}
	if !slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return portName != "" && p.Name == portName || p.Port == port }) {
		t.missing = fmt.Sprintf("port %s of Service %s", cmp.Or(portName, fmt.Sprint(port)), name)
	}
	return t
}

func ofRoute(inv *inventory.Inventory, o *inventory.Object) (target, error) {
	var r struct {
		Spec struct {
			Rules []struct {
				BackendRefs []struct {
					Group     string `json:"group"`
					Kind      string `json:"kind"`
					Name      string `json:"name"`
					Namespace string `json:"namespace"`
					Port      int32  `json:"port"`
				} `json:"backendRefs"`
			} `json:"rules"`
		} `json:"spec"`
	}
	if err := convert(o, &r); err != nil {
		return target{}, err
	}
	for _, rule := range r.Spec.Rules {
		for _, b := range rule.BackendRefs {
			if b.Group != "" || b.Kind != "" && b.Kind != "Service" {
				continue
			}
			if t := service(inv, cmp.Or(b.Namespace, inv.NamespaceOf(o)), b.Name, "", b.Port); t.missing != "" {
				return t, nil
			}
		}
	}
	return target{}, nil
}

func ofAutoscaler(inv *inventory.Inventory, o *inventory.Object) (target, error) {
	ref, _, err := unstructured.NestedStringMap(o.Object, "spec", "scaleTargetRef")
	if err != nil {
		return target{}, err
	}
	gv, err := schema.ParseGroupVersion(ref["apiVersion"])
	if err != nil {
		return target{}, err
	}
	gk := schema.GroupKind{Group: gv.Group, Kind: ref["kind"]}
	if !inventory.IsWorkload(gk) {
		return target{none: "scales a kind that is not read"}, nil
	}
	if inv.Get(gk.Group, gk.Kind, inv.NamespaceOf(o), ref["name"]) != nil {
		return target{}, nil
	}
	return target{kinds: []schema.GroupKind{gk}, namespace: inv.NamespaceOf(o), missing: gk.Kind + " " + ref["name"]}, nil
}
