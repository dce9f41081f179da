package isolate

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubeguardian/kubeguardian/inventory"
)

// A world is the workloads and NetworkPolicies of an inventory.
type world struct {
	inv        *inventory.Inventory
	workloads  map[string][]*inventory.Workload // by namespace
	namespaces map[string]labels.Set
	policies   map[string][]*policy              // by namespace
	selecting  map[*inventory.Workload][]*policy // that select its pods
	isolated   map[*inventory.Workload]Direction
}

// A policy is one NetworkPolicy.
type policy struct {
	namespace       string
	pods            labels.Selector
	types           Direction
	ingress, egress []clause
}

// A clause is one rule of a policy, compiled.
type clause struct {
	peers []peer // none for anyone
	ports []networkingv1.NetworkPolicyPort
}

// A peer is pods. Addresses of pods are not known, so that a range of addresses
// is no pod.
type peer struct {
	own        bool            // of the namespace of the policy only
	namespaces labels.Selector // if not
	pods       labels.Selector
}

func newWorld(inv *inventory.Inventory) (*world, error) {
	w := &world{
		inv: inv, workloads: map[string][]*inventory.Workload{}, namespaces: map[string]labels.Set{}, policies: map[string][]*policy{},
		selecting: map[*inventory.Workload][]*policy{}, isolated: map[*inventory.Workload]Direction{},
	}
	for _, o := range inv.Workloads() {
		ns := inv.NamespaceOf(o.Object)
		w.workloads[ns] = append(w.workloads[ns], o)
	}
	for _, o := range inv.Kind("networking.k8s.io", "NetworkPolicy") {
		var np networkingv1.NetworkPolicy
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &np); err != nil {
			return nil, fmt.Errorf("read %s: %w", o.Subject(), err)
		}
		pods, err := metav1.LabelSelectorAsSelector(&np.Spec.PodSelector)
		if err != nil {
			return nil, fmt.Errorf("read podSelector of %s: %w", o.Subject(), err)
		}
		p := compile(np.Spec)
		p.namespace, p.pods = inv.NamespaceOf(o), pods
		w.policies[p.namespace] = append(w.policies[p.namespace], p)
		for _, o := range w.workloads[p.namespace] {
			if p.selects(o) {
				w.isolated[o] |= p.types
				w.selecting[o] = append(w.selecting[o], p)
			}
		}
	}
	return w, nil
}

func compile(spec networkingv1.NetworkPolicySpec) *policy {
	p := &policy{types: types(spec)}
	if p.types&Ingress != 0 {
		for _, r := range spec.Ingress {
			p.ingress = append(p.ingress, newClause(r.From, r.Ports))
		}
	}
	if p.types&Egress != 0 {
		for _, r := range spec.Egress {
			p.egress = append(p.egress, newClause(r.To, r.Ports))
		}
	}
	return p
}

// newClause compiles a rule. A selector that is none selects nothing.
func newClause(peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) clause {
	c := clause{ports: ports}
	for _, from := range peers {
		one := peer{own: from.NamespaceSelector == nil, pods: selectorFor(from.PodSelector), namespaces: selectorFor(from.NamespaceSelector)}
		if from.IPBlock != nil {
			one = peer{pods: labels.Nothing(), namespaces: labels.Nothing()}
		}
		c.peers = append(c.peers, one)
	}
	return c
}

func selectorFor(selector *metav1.LabelSelector) labels.Selector {
	if selector == nil {
		return labels.Everything()
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return labels.Nothing()
	}
	return s
}

func (p *policy) selects(w *inventory.Workload) bool {
	return !w.Template.Spec.HostNetwork && p.pods.Matches(labels.Set(w.Template.Labels))
}

// types returns the directions in which a policy isolates.
func types(spec networkingv1.NetworkPolicySpec) Direction {
	d := Direction(0)
	if len(spec.PolicyTypes) == 0 {
		d = Ingress
		if len(spec.Egress) > 0 {
			d |= Egress
		}
	}
	for _, t := range spec.PolicyTypes {
		switch t {
		case networkingv1.PolicyTypeIngress:
			d |= Ingress
		case networkingv1.PolicyTypeEgress:
			d |= Egress
		}
	}
	return d
}

// closed returns the directions in which some policy isolates every pod of a
// namespace.
func (w *world) closed(namespace string) (d Direction) {
	for _, p := range w.policies[namespace] {
		if p.pods.Empty() {
			d |= p.types
		}
	}
	return d
}

// allows reports whether one workload can connect to another on a port; on any
// port if it is nil.
func (w *world) allows(from, to *inventory.Workload, port *networkingv1.NetworkPolicyPort) bool {
	out := w.isolated[from]&Egress == 0
	in := w.isolated[to]&Ingress == 0
	for _, p := range w.selecting[from] {
		out = out || slices.ContainsFunc(p.egress, func(c clause) bool { return w.admits(p, c, to, to, port) })
	}
	for _, p := range w.selecting[to] {
		in = in || slices.ContainsFunc(p.ingress, func(c clause) bool { return w.admits(p, c, from, to, port) })
	}
	return in && out
}

// admits reports whether a rule of a policy speaks of a workload and a port of
// the workload at the receiving end.
func (w *world) admits(p *policy, c clause, other, receiver *inventory.Workload, port *networkingv1.NetworkPolicyPort) bool {
	if len(c.ports) > 0 && port != nil && !slices.ContainsFunc(c.ports, func(have networkingv1.NetworkPolicyPort) bool { return covers(have, *port, receiver) }) {
		return false
	}
	return len(c.peers) == 0 || slices.ContainsFunc(c.peers, func(one peer) bool { return w.matches(p.namespace, one, other) })
}

// matches reports whether a peer in a policy is a workload.
func (w *world) matches(own string, one peer, other *inventory.Workload) bool {
	ns := w.inv.NamespaceOf(other.Object)
	return !other.Template.Spec.HostNetwork && (ns == own || !one.own) &&
		one.namespaces.Matches(w.labelsOf(ns)) && one.pods.Matches(labels.Set(other.Template.Labels))
}

func (w *world) labelsOf(namespace string) labels.Set {
	if set := w.namespaces[namespace]; set != nil {
		return set
	}
	set := labels.Set{}
	if o := w.inv.Get("", "Namespace", "", namespace); o != nil {
		maps.Copy(set, o.GetLabels())
	}
	set[corev1.LabelMetadataName] = namespace
	w.namespaces[namespace] = set
	return set
}

// covers reports whether a port of a rule includes another, both as the pods of
// the receiving workload resolve them.
func covers(have, want networkingv1.NetworkPolicyPort, receiver *inventory.Workload) bool {
	protocol := corev1.ProtocolTCP
	if have.Protocol != nil {
		protocol = *have.Protocol
	}
	if want.Protocol != nil && protocol != *want.Protocol {
		return false
	}
	if have.Port == nil || want.Port == nil {
		return have.Port == nil
	}
	low, high := number(*have.Port, receiver), number(*have.Port, receiver)
	if have.EndPort != nil {
		high = *have.EndPort
	}
	n := number(*want.Port, receiver)
	return n >= low && n <= high && n > 0 || have.EndPort == nil && *have.Port == *want.Port
}

// number resolves a port by the names that the containers of a workload give; 0
// for an unknown name.
func number(port intstr.IntOrString, w *inventory.Workload) int32 {
	if port.Type == intstr.Int {
		return port.IntVal
	}
	for _, c := range slices.Concat(w.Template.Spec.InitContainers, w.Template.Spec.Containers) {
		for _, p := range c.Ports {
			if p.Name == port.StrVal {
				return p.ContainerPort
			}
		}
	}
	return 0
}

// maxPairs bounds the pairs that are counted.
const maxPairs = 250_000

// Simulate compares what was possible before with an inventory that holds the
// proposals, and counts for each the pairs of workloads that can connect. It
// returns, by namespace, a declared connection that was possible and would be
// cut.
func (p *Planner) Simulate(after *inventory.Inventory, proposals ...*Proposal) (cut map[string]error, err error) {
	then, err := newWorld(after)
	if err != nil {
		return nil, err
	}
	later := map[string]*inventory.Workload{}
	for _, w := range after.Workloads() {
		later[key(w)] = w
	}
	cut = map[string]error{}
	for _, f := range p.flows {
		if f.from == nil || f.to == nil || later[key(f.from)] == nil || later[key(f.to)] == nil {
			continue
		}
		for _, port := range f.ports {
			if p.world.allows(f.from, f.to, &port) && !then.allows(later[key(f.from)], later[key(f.to)], &port) {
				err := fmt.Errorf("%s would be cut: %s to %s on %s", f.why, f.from.Subject(), f.to.Subject(), portText(port))
				cut[p.inv.NamespaceOf(f.from.Object)], cut[p.inv.NamespaceOf(f.to.Object)] = err, err
			}
		}
	}
	for _, proposal := range proposals {
		proposal.Before, proposal.After = p.world.pairs(proposal.Namespace), then.pairs(proposal.Namespace)
	}
	return cut, nil
}

func key(w *inventory.Workload) string { return w.Subject().String() + " " + w.Source }

// pairs counts the pairs of different workloads, one of them of a namespace,
// that can connect.
func (w *world) pairs(namespace string) (n int) {
	all := w.inv.Workloads()
	if len(all)*len(w.workloads[namespace])*2 > maxPairs {
		return 0
	}
	for _, own := range w.workloads[namespace] {
		for _, other := range all {
			if own == other {
				continue
			}
			if w.allows(own, other, nil) {
				n++
			}
			if w.inv.NamespaceOf(other.Object) != namespace && w.allows(other, own, nil) {
				n++
			}
		}
	}
	return n
}
