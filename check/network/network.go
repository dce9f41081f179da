// Package network says which workloads the internet may reach, which pods
// NetworkPolicies isolate, and what every pod can connect to by policy.
//
// It follows the semantics of NetworkPolicy, and of AdminNetworkPolicy,
// BaselineAdminNetworkPolicy and ClusterNetworkPolicy, and takes the network to
// enforce them unless it is known that it does not. Policies of Cilium and
// Calico are recognised but not understood: where they could change a verdict,
// the verdict is unknown.
//
// A live inventory is whole. A file inventory speaks for a namespace only if
// it holds the Namespace object or a NetworkPolicy of it: whoever writes either
// would write its default deny in the same place. For other namespaces, what
// is missing may exist elsewhere, and is unknown.
package network

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// A Network is the network view of one inventory, safe for concurrent use.
type Network struct {
	inv       *inventory.Inventory
	workloads map[string][]*inventory.Workload // by namespace
	labelled  map[label][]*inventory.Workload
	policies  map[string][]*policy // by namespace
	isolated  map[*inventory.Workload]direction
	exposed   map[*inventory.Workload]bool // to the internet
	services  map[service]*serviceObject
	doors     map[string]bool // namespaces with a Service or an entry point
	dns       []labels.Set    // of the namespaces that serve DNS
	plugin    plugin
	reach     *reach
}

// A label is one label of the pods of a workload.
type label struct{ namespace, key, value string }

// New reads the policies, Services and entry points of inv. It fails on an
// object that is not of its kind's shape.
func New(inv *inventory.Inventory) (*Network, error) {
	n := &Network{
		inv:       inv,
		workloads: map[string][]*inventory.Workload{},
		labelled:  map[label][]*inventory.Workload{},
		policies:  map[string][]*policy{},
		isolated:  map[*inventory.Workload]direction{},
		exposed:   map[*inventory.Workload]bool{},
		services:  map[service]*serviceObject{},
		doors:     map[string]bool{},
	}
	for _, w := range inv.Workloads() {
		ns := inv.NamespaceOf(w.Object)
		n.workloads[ns] = append(n.workloads[ns], w)
		for k, v := range w.Template.Labels {
			n.labelled[label{ns, k, v}] = append(n.labelled[label{ns, k, v}], w)
		}
	}
	if err := n.readPolicies(); err != nil {
		return nil, err
	}
	if err := n.readServices(); err != nil {
		return nil, err
	}
	n.plugin = findPlugin(inv)
	var err error
	n.reach, err = newReach(n)
	return n, err
}

func (n *Network) readPolicies() error {
	for _, o := range n.inv.Kind("networking.k8s.io", "NetworkPolicy") {
		var np networkingv1.NetworkPolicy
		if err := convert(o, &np); err != nil {
			return err
		}
		selector, err := metav1.LabelSelectorAsSelector(&np.Spec.PodSelector)
		if err != nil {
			return fmt.Errorf("read podSelector of %s: %w", o.Subject(), err)
		}
		ns := n.inv.NamespaceOf(o)
		p := &policy{Object: o, spec: np.Spec, direction: directions(np.Spec), all: selector.Empty()}
		n.policies[ns] = append(n.policies[ns], p)
		for _, w := range n.selected(ns, selector, np.Spec.PodSelector.MatchLabels) {
			n.isolated[w] |= p.direction
		}
	}
	return nil
}

// selected returns the workloads of a namespace whose pods a selector matches;
// some is a part of the selector that narrows the search.
func (n *Network) selected(ns string, selector labels.Selector, some map[string]string) []*inventory.Workload {
	candidates := n.workloads[ns]
	for k, v := range some {
		candidates = n.labelled[label{ns, k, v}]
		break
	}
	var out []*inventory.Workload
	for _, w := range candidates {
		if selector.Matches(labels.Set(w.Template.Labels)) {
			out = append(out, w)
		}
	}
	return out
}

// A service names a Service.
type service struct{ namespace, name string }

// A serviceObject is a Service with the workloads that it selects.
type serviceObject struct {
	*inventory.Object
	spec      corev1.ServiceSpec
	workloads []*inventory.Workload
}

func (n *Network) readServices() error {
	routed := n.entryPoints()
	for _, o := range n.inv.Kind("", "Service") {
		var s corev1.Service
		if err := convert(o, &s); err != nil {
			return err
		}
		ns := n.inv.NamespaceOf(o)
		n.doors[ns] = true
		n.noteDNS(ns, s.Spec.Ports)
		svc := &serviceObject{Object: o, spec: s.Spec}
		n.services[service{ns, s.Name}] = svc
		if len(s.Spec.Selector) > 0 {
			svc.workloads = n.selected(ns, labels.SelectorFromSet(s.Spec.Selector), s.Spec.Selector)
		}
		for _, w := range svc.workloads {
			n.exposed[w] = n.exposed[w] || routed[service{ns, s.Name}] || public(s.Spec)
		}
	}
	return nil
}

// public reports whether a Service opens a door by itself.
func public(s corev1.ServiceSpec) bool {
	return s.Type == corev1.ServiceTypeLoadBalancer || s.Type == corev1.ServiceTypeNodePort || len(s.ExternalIPs) > 0
}

// entryPoints returns the Services that an Ingress or a Gateway API route leads
// to.
func (n *Network) entryPoints() map[service]bool {
	routed := map[service]bool{}
	for _, o := range n.inv.Objects() {
		group, ns := o.GroupVersionKind().Group, n.inv.NamespaceOf(o)
		switch {
		case o.GetKind() == "Ingress" && (group == "networking.k8s.io" || group == "extensions"):
			n.doors[ns] = true
			backends(o.Object["spec"], ns, routed)
		case group == "gateway.networking.k8s.io":
			n.doors[ns] = true
			backends(o.Object["spec"], ns, routed)
		}
	}
	return routed
}

// backends finds what an entry point leads to: the "service" or "serviceName"
// of an Ingress, and the items of "backendRefs" of a route.
func backends(node any, ns string, routed map[service]bool) {
	switch v := node.(type) {
	case []any:
		for _, item := range v {
			backends(item, ns, routed)
		}
	case map[string]any:
		if name, ok := v["serviceName"].(string); ok {
			routed[service{ns, name}] = true
		}
		if s, ok := v["service"].(map[string]any); ok {
			name, _ := s["name"].(string)
			routed[service{ns, name}] = true
		}
		if refs, ok := v["backendRefs"].([]any); ok {
			for _, ref := range refs {
				ref, _ := ref.(map[string]any)
				name, _ := ref["name"].(string)
				other, _ := ref["namespace"].(string)
				routed[service{cmp.Or(other, ns), name}] = true
			}
		}
		for _, child := range v {
			backends(child, ns, routed)
		}
	}
}

// Exposure says from where the pods of w can be reached. An Ingress, a Gateway
// API route, a LoadBalancer, a NodePort, an external IP, a hostPort and the
// host's network all count as the internet. In files that hold neither a
// Service nor an entry point of the namespace, the exposure is not known.
func (n *Network) Exposure(w *inventory.Workload) finding.Exposure {
	ns := n.inv.NamespaceOf(w.Object)
	switch {
	case System(ns):
		return finding.System
	case n.exposed[w], onHost(w.Template.Spec):
		return finding.Internet
	case n.inv.Origin == inventory.Files && !n.doors[ns],
		n.inv.Gap("", "Service") != "", n.inv.Gap("networking.k8s.io", "Ingress") != "":
		return finding.ExposureUnknown
	}
	return finding.InCluster
}

// onHost reports whether pods listen on the address of their node.
func onHost(spec corev1.PodSpec) bool {
	hostPort := func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.HostPort > 0 })
	}
	return spec.HostNetwork || slices.ContainsFunc(spec.Containers, hostPort) || slices.ContainsFunc(spec.InitContainers, hostPort)
}

// System reports whether a namespace belongs to Kubernetes itself.
func System(namespace string) bool {
	return namespace == "kube-system" || namespace == "kube-public" || namespace == "kube-node-lease"
}

// foreign lists the kinds of network policy that are not understood.
var foreign = []schema.GroupKind{
	{Group: "cilium.io", Kind: "CiliumNetworkPolicy"},
	{Group: "cilium.io", Kind: "CiliumClusterwideNetworkPolicy"},
	{Group: "crd.projectcalico.org", Kind: "GlobalNetworkPolicy"},
	{Group: "crd.projectcalico.org", Kind: "NetworkPolicy"},
	{Group: "projectcalico.org", Kind: "GlobalNetworkPolicy"},
	{Group: "projectcalico.org", Kind: "NetworkPolicy"},
}

// doubt says why a policy that is missing in ns may exist all the same, or "".
func (n *Network) doubt(ns string) string {
	if reason := n.inv.Gap("networking.k8s.io", "NetworkPolicy"); reason != "" {
		return "NetworkPolicies could not be read: " + reason
	}
	for _, gk := range foreign {
		if len(n.inv.Kind(gk.Group, gk.Kind)) > 0 {
			return fmt.Sprintf("%s objects (%s) are present and not understood", gk.Kind, gk.Group)
		}
	}
	if n.inv.Origin == inventory.Files && n.inv.Get("", "Namespace", "", ns) == nil && len(n.policies[ns]) == 0 {
		return "neither the Namespace nor a NetworkPolicy of it is among the files; policies may exist elsewhere"
	}
	return ""
}

func convert(o *inventory.Object, into any) error {
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into); err != nil {
		return fmt.Errorf("read %s: %w", o.Subject(), err)
	}
	return nil
}
