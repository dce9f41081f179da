// Package mesh says whether a service mesh encrypts and authorises what
// workloads say to each other: Istio, Linkerd, Cilium, and the Gateway API for
// authorisation.
//
// Without a mesh nothing is known: an application may do the same by itself,
// and only a person can say so. In files a setting that is missing may be set
// elsewhere, for the whole mesh.
package mesh

import (
	"cmp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// The meshes.
const (
	none    = ""
	istio   = "Istio"
	linkerd = "Linkerd"
)

// of returns the mesh that a workload is part of, by its own labels and
// annotations and those of its namespace.
func of(inv *inventory.Inventory, w *inventory.Workload) string {
	var space, notes map[string]string
	if o := inv.Get("", "Namespace", "", inv.NamespaceOf(w.Object)); o != nil {
		space, notes = o.GetLabels(), o.GetAnnotations()
	}
	pod := w.Template
	inject := cmp.Or(pod.Labels["sidecar.istio.io/inject"], pod.Annotations["sidecar.istio.io/inject"])
	ambient := cmp.Or(pod.Labels["istio.io/dataplane-mode"], space["istio.io/dataplane-mode"])
	switch {
	case inject == "true", ambient == "ambient", hasContainer(w, "istio-proxy"):
		return istio
	case inject != "false" && (space["istio-injection"] == "enabled" || cmp.Or(pod.Labels["istio.io/rev"], space["istio.io/rev"]) != ""):
		return istio
	case cmp.Or(pod.Annotations["linkerd.io/inject"], notes["linkerd.io/inject"]) == "enabled", hasContainer(w, "linkerd-proxy"):
		return linkerd
	}
	return none
}

func hasContainer(w *inventory.Workload, name string) bool {
	for _, c := range slices.Concat(w.Template.Spec.InitContainers, w.Template.Spec.Containers) {
		if c.Name == name {
			return true
		}
	}
	return false
}

func system(ns string) bool {
	return ns == "kube-system" || ns == "kube-public" || ns == "kube-node-lease"
}

// kinds are what is read of each mesh.
var kinds = []struct{ group, kind string }{
	{"security.istio.io", "PeerAuthentication"}, {"security.istio.io", "AuthorizationPolicy"},
	{"policy.linkerd.io", "AuthorizationPolicy"}, {"policy.linkerd.io", "Server"},
	{"cilium.io", "CiliumNetworkPolicy"}, {"cilium.io", "CiliumClusterwideNetworkPolicy"},
}

// gap says why settings of a mesh may be missing, or "".
func gap(inv *inventory.Inventory) string {
	for _, k := range kinds {
		if reason := inv.Gap(k.group, k.kind); reason != "" {
			return k.kind + " objects could not be read: " + reason
		}
	}
	if reason := inv.Gap("", "Namespace"); reason != "" {
		return "Namespace objects could not be read: " + reason
	}
	return ""
}

func unknown(reason string) finding.Verdict {
	return finding.Verdict{Status: finding.Unknown, Reason: reason}
}

// MutualTLS says for each workload whether a mesh makes mutual TLS strict for
// what reaches it.
func MutualTLS(inv *inventory.Inventory) []finding.Verdict {
	var out []finding.Verdict
	for _, w := range inv.Workloads() {
		f := mutual(inv, w)
		f.Subject = w.Subject()
		out = append(out, f)
	}
	return out
}

func mutual(inv *inventory.Inventory, w *inventory.Workload) finding.Verdict {
	switch {
	case system(inv.NamespaceOf(w.Object)):
		return finding.Verdict{Status: finding.NotApplicable, Reason: "part of Kubernetes"}
	case w.Template.Spec.HostNetwork:
		return finding.Verdict{Status: finding.NotApplicable, Reason: "pods on the host's network are not part of a mesh"}
	}
	if by := ciliumAuthentication(inv, w); by != "" {
		return finding.Verdict{Status: finding.Pass, Evidence: by}
	}
	f := unknown("no mesh is seen; where the application itself does mutual TLS, attest it")
	switch of(inv, w) {
	case istio:
		f = istioMode(inv, w)
	case linkerd:
		f = linkerdMode(inv, w)
	}
	if f.Status == finding.Unknown {
		if by := plain(w); by != "" {
			return finding.Verdict{Status: finding.Fail, Message: "turns TLS off for what it calls", Evidence: by}
		}
		if reason := gap(inv); reason != "" {
			f.Reason = reason
		}
	}
	return f
}

// plain names a setting of a workload that turns TLS off, or "".
func plain(w *inventory.Workload) string {
	for _, c := range w.Template.Spec.Containers {
		for _, e := range c.Env {
			if strings.Contains(e.Value, "sslmode=disable") || e.Name == "PGSSLMODE" && e.Value == "disable" {
				return "sslmode=disable in variable " + e.Name + " of container " + c.Name
			}
		}
	}
	return ""
}

// istioMode finds the PeerAuthentication that counts: one for the workload, else
// one for its namespace, else one for the mesh; without any it is permissive.
func istioMode(inv *inventory.Inventory, w *inventory.Workload) finding.Verdict {
	const root = "istio-system"
	ns := inv.NamespaceOf(w.Object)
	var found [3]*inventory.Object // by how narrow it is
	for _, o := range inv.Kind("security.istio.io", "PeerAuthentication") {
		selector, _, _ := unstructured.NestedStringMap(o.Object, "spec", "selector", "matchLabels")
		at := -1
		switch own := inv.NamespaceOf(o); {
		case own == ns && len(selector) > 0 && labels.SelectorFromSet(selector).Matches(labels.Set(w.Template.Labels)):
			at = 0
		case own == ns && len(selector) == 0:
			at = 1
		case own == root && len(selector) == 0:
			at = 2
		}
		if at >= 0 && (found[at] == nil || o.GetCreationTimestamp().Time.Before(found[at].GetCreationTimestamp().Time)) {
			found[at] = o
		}
	}
	for _, o := range found {
		if o == nil {
			continue
		}
		mode, _, _ := unstructured.NestedString(o.Object, "spec", "mtls", "mode")
		if open := openPort(o); open != "" {
			return finding.Verdict{Status: finding.Fail, Message: "accepts traffic without TLS on port " + open, Evidence: o.Subject().String()}
		}
		switch mode {
		case "STRICT":
			return finding.Verdict{Status: finding.Pass, Evidence: o.Subject().String() + " is STRICT"}
		case "", "UNSET": // inherits
		default:
			return finding.Verdict{Status: finding.Fail, Message: "accepts traffic without TLS: the mode of Istio is " + mode, Evidence: o.Subject().String()}
		}
	}
	if reason := gap(inv); reason != "" || inv.Origin == inventory.Files {
		return unknown(cmp.Or(reason, "no PeerAuthentication is among the files; one for the whole mesh may be elsewhere"))
	}
	return finding.Verdict{Status: finding.Fail, Message: "accepts traffic without TLS: no PeerAuthentication makes Istio strict"}
}

// openPort returns a port that a PeerAuthentication exempts, or "".
func openPort(o *inventory.Object) string {
	ports, _, _ := unstructured.NestedMap(o.Object, "spec", "portLevelMtls")
	open := ""
	for port, setting := range ports {
		setting, _ := setting.(map[string]any)
		if mode := setting["mode"]; (mode == "PERMISSIVE" || mode == "DISABLE") && (open == "" || port < open) {
			open = port
		}
	}
	return open
}

// linkerdMode looks at the default policy for what no Server speaks of.
func linkerdMode(inv *inventory.Inventory, w *inventory.Workload) finding.Verdict {
	const key = "config.linkerd.io/default-inbound-policy"
	policy := w.Template.Annotations[key]
	if o := inv.Get("", "Namespace", "", inv.NamespaceOf(w.Object)); o != nil && policy == "" {
		policy = o.GetAnnotations()[key]
	}
	switch policy {
	case "all-authenticated", "cluster-authenticated", "deny":
		return finding.Verdict{Status: finding.Pass, Evidence: key + " is " + policy}
	case "":
		return unknown("the default policy of Linkerd is not written here; set " + key + " on the namespace")
	}
	return finding.Verdict{Status: finding.Fail, Message: "accepts traffic without TLS: the default policy of Linkerd is " + policy}
}

// ciliumAuthentication names a policy of Cilium that asks whoever reaches a
// workload for mutual authentication in each of its rules, or returns "".
func ciliumAuthentication(inv *inventory.Inventory, w *inventory.Workload) string {
	for _, kind := range []string{"CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"} {
		for _, o := range inv.Kind("cilium.io", kind) {
			var p struct {
				Spec struct {
					EndpointSelector *metav1.LabelSelector `json:"endpointSelector"`
					Ingress          []struct {
						Authentication *struct {
							Mode string `json:"mode"`
						} `json:"authentication"`
					} `json:"ingress"`
				} `json:"spec"`
			}
			if runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &p) != nil || p.Spec.EndpointSelector == nil || len(p.Spec.Ingress) == 0 {
				continue
			}
			strict := true
			for _, r := range p.Spec.Ingress {
				strict = strict && r.Authentication != nil && r.Authentication.Mode == "required"
			}
			if strict && (kind != "CiliumNetworkPolicy" || inv.NamespaceOf(o) == inv.NamespaceOf(w.Object)) && selects(p.Spec.EndpointSelector, w, inv.NamespaceOf(w.Object)) {
				return o.Subject().String() + " requires authentication"
			}
		}
	}
	return ""
}

// selects reports whether a selector of Cilium matches a workload. Cilium puts
// the source of a label before its name.
func selects(s *metav1.LabelSelector, w *inventory.Workload, ns string) bool {
	set := labels.Set{"k8s:io.kubernetes.pod.namespace": ns, "io.kubernetes.pod.namespace": ns}
	for k, v := range w.Template.Labels {
		set[k] = v
	}
	plain := s.DeepCopy()
	for k, v := range s.MatchLabels {
		if name, ok := strings.CutPrefix(k, "k8s:"); ok {
			delete(plain.MatchLabels, k)
			plain.MatchLabels[name] = v
		}
	}
	selector, err := metav1.LabelSelectorAsSelector(plain)
	return err == nil && selector.Matches(set)
}
