// Package isolate proposes network policies that close a namespace, or some of
// its workloads, to all that its manifests do not declare, and simulates them.
//
// Declared is what settings and arguments name, what entry points lead to, what
// the API server calls, and the API itself for accounts with rights. A proposal
// that would cut what is declared and was allowed is an error.
package isolate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubeguardian/kubeguardian/inventory"
)

// A Direction is a set of the directions of traffic.
type Direction uint8

// The directions.
const (
	Ingress Direction = 1 << iota
	Egress
)

// A Demand says what is to be closed in one namespace.
type Demand struct {
	Namespace string
	All       Direction                         // by default, for every pod
	DNS       bool                              // pods must be able to resolve names
	Workloads map[*inventory.Workload]Direction // beside All
}

// A Proposal is network policies for one namespace, and what they do.
type Proposal struct {
	Namespace     string
	Text          []byte              // the policies, as YAML documents
	Objects       []*inventory.Object // the same, as they were read; for the caller to fill in
	Flows         int                 // declared connections, all of which stay possible
	Before, After int                 // pairs of workloads that can connect; 0 for too many to count
	Notes         []string            // what the manifests do not show
}

// A Planner knows what the workloads of an inventory declare.
type Planner struct {
	inv      *inventory.Inventory
	world    *world
	services map[string]*service // by "namespace/name"
	flows    []flow
	notes    map[string][]string              // by namespace
	unclear  map[*inventory.Workload][]string // what it reaches anywhere, on a port that is not known
}

// An UnclearError says that a workload declares that it reaches something, but
// not enough for a rule. It stands in the way of closing a direction.
type UnclearError struct {
	Direction Direction
	What      string
}

// Error says what is declared, and what is not said of it.
func (e *UnclearError) Error() string {
	return e.What + ", but not on which port: say it in a URL, or in a setting beside it"
}

// New collects the declared references of an inventory.
func New(inv *inventory.Inventory) (*Planner, error) {
	w, err := newWorld(inv)
	if err != nil {
		return nil, err
	}
	p := &Planner{inv: inv, world: w, services: map[string]*service{}, notes: map[string][]string{}, unclear: map[*inventory.Workload][]string{}}
	if err := p.readServices(); err != nil {
		return nil, err
	}
	return p, p.collect()
}

// A flow is one declared connection. From and to are nil for what is no
// workload of the inventory.
type flow struct {
	from, to *inventory.Workload
	service  *service                        // that leads there
	peer     *networkingv1.NetworkPolicyPeer // what egress is to, if there is no service; nil for anything
	ports    []networkingv1.NetworkPolicyPort
	why      string
}

// Propose returns policies that meet a demand, or nil if there is nothing to
// add.
func (p *Planner) Propose(d Demand) (*Proposal, error) {
	drafts, err := p.drafts(d)
	if err != nil || len(drafts) == 0 {
		return nil, err
	}
	out := &Proposal{Namespace: d.Namespace, Text: write(drafts), Notes: slices.Compact(slices.Sorted(slices.Values(p.notes[d.Namespace])))}
	for _, f := range p.flows {
		if p.touches(f, d.Namespace) {
			out.Flows++
		}
	}
	return out, nil
}

func (p *Planner) touches(f flow, namespace string) bool {
	return f.from != nil && p.inv.NamespaceOf(f.from.Object) == namespace || f.to != nil && p.inv.NamespaceOf(f.to.Object) == namespace
}

func (p *Planner) drafts(d Demand) ([]draft, error) {
	taken := map[string]bool{}
	for _, o := range p.inv.Kind("networking.k8s.io", "NetworkPolicy") {
		if p.inv.NamespaceOf(o) == d.Namespace {
			taken[o.GetName()] = true
		}
	}
	deny := d.All &^ p.world.closed(d.Namespace)
	var out []draft
	if deny != 0 || d.DNS {
		out = append(out, p.defaults(deny, d))
	}
	for _, w := range p.world.workloads[d.Namespace] {
		one, err := p.draft(w, d, deny)
		if err != nil {
			return nil, err
		}
		if one != nil {
			out = append(out, *one)
		}
	}
	for i := range out {
		out[i].namespace = d.Namespace
		out[i].name = free(out[i].name, taken)
	}
	return out, nil
}

// free returns a name that is not taken, and takes it.
func free(name string, taken map[string]bool) string {
	candidate := name
	for n := 2; taken[candidate]; n++ {
		candidate = fmt.Sprintf("%s-%d", name, n)
	}
	taken[candidate] = true
	return candidate
}

// defaults closes every pod of a namespace, but for DNS.
func (p *Planner) defaults(deny Direction, d Demand) draft {
	out := draft{types: deny}
	switch deny {
	case Ingress | Egress:
		out.name, out.why = "default-deny", "What no other policy admits is denied, to and from every pod."
	case Ingress:
		out.name, out.why = "default-deny-ingress", "What no other policy admits may not reach any pod."
	case Egress:
		out.name, out.why = "default-deny-egress", "Pods may reach nothing that no other policy admits."
	default:
		out.name, out.why = "allow-dns", "Every pod may resolve names."
	}
	if deny&Egress != 0 || d.DNS {
		out.types |= Egress
		out.egress = []rule{p.dns()}
	}
	return out
}

// draft returns the policy of one workload, or nil if it needs none.
func (p *Planner) draft(w *inventory.Workload, d Demand, deny Direction) (*draft, error) {
	if w.Template.Spec.HostNetwork {
		return nil, nil
	}
	alone := d.Workloads[w] &^ deny &^ p.world.isolated[w] // closed by this policy only
	wanted := (deny | alone) &^ p.world.isolated[w]
	out := draft{name: w.GetName(), selector: selectorOf(w), types: alone}
	if wanted&Ingress != 0 {
		out.ingress = p.ingress(w)
	}
	if wanted&Egress != 0 {
		if unclear := p.unclear[w]; len(unclear) > 0 {
			return nil, &UnclearError{Egress, unclear[0]}
		}
		out.egress = p.egress(w)
		if alone&Egress != 0 {
			out.egress = append(out.egress, p.dns())
		}
	}
	if len(out.ingress) > 0 {
		out.types |= Ingress
	}
	if len(out.egress) > 0 {
		out.types |= Egress
	}
	switch {
	case out.types == 0:
		return nil, nil
	case len(out.selector) == 0:
		return nil, fmt.Errorf("%s has no labels, so that no policy could allow what it needs", w.Subject())
	}
	out.why = "What " + w.GetKind() + " " + w.GetName() + " needs."
	return &out, nil
}

// selectorOf returns labels that select the pods of a workload: those that it
// selects them by itself, if it does.
func selectorOf(w *inventory.Workload) map[string]string {
	if spec, ok := w.Object.Object["spec"].(map[string]any); ok {
		selector, _ := spec["selector"].(map[string]any)
		matchLabels, _ := selector["matchLabels"].(map[string]any)
		out := map[string]string{}
		for k, v := range matchLabels {
			if s, ok := v.(string); ok && w.Template.Labels[k] == s {
				out[k] = s
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	return w.Template.Labels
}

// ingress returns the rules for what is declared to reach a workload.
func (p *Planner) ingress(w *inventory.Workload) []rule {
	var rules []rule
	for _, f := range p.flows {
		if f.to != w {
			continue
		}
		r := rule{ports: f.ports, why: []string{f.why}}
		if f.from != nil && !f.from.Template.Spec.HostNetwork && len(selectorOf(f.from)) > 0 {
			r.peers = []networkingv1.NetworkPolicyPeer{p.peer(p.inv.NamespaceOf(f.from.Object), selectorOf(f.from), p.inv.NamespaceOf(w.Object))}
		}
		rules = merge(rules, r)
	}
	return join(rules)
}

// egress returns the rules for what a workload is declared to reach.
func (p *Planner) egress(w *inventory.Workload) []rule {
	var rules []rule
	own := p.inv.NamespaceOf(w.Object)
	for _, f := range p.flows {
		if f.from != w {
			continue
		}
		r := rule{ports: f.ports, why: []string{f.why}}
		switch {
		case f.service != nil:
			r.peers = []networkingv1.NetworkPolicyPeer{p.peer(f.service.namespace, f.service.selector, own)}
		case f.peer != nil:
			r.peers = []networkingv1.NetworkPolicyPeer{*f.peer}
		}
		rules = merge(rules, r)
	}
	return join(rules)
}

// peer selects pods, by their namespace as well if it is not the own one.
func (p *Planner) peer(namespace string, labels map[string]string, own string) networkingv1.NetworkPolicyPeer {
	peer := networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: labels}}
	if namespace != own {
		peer.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": namespace}}
	}
	return peer
}

// merge adds a rule: its ports to the rule with the same peers, if there is
// one.
func merge(rules []rule, r rule) []rule {
	for i := range rules {
		have := &rules[i]
		if !samePeers(have.peers, r.peers) {
			continue
		}
		if len(have.ports) == 0 || len(r.ports) == 0 {
			have.ports = nil // every port
		}
		for _, port := range r.ports {
			if len(have.ports) > 0 && !slices.ContainsFunc(have.ports, func(p networkingv1.NetworkPolicyPort) bool { return portText(p) == portText(port) }) {
				have.ports = append(slices.Clone(have.ports), port)
			}
		}
		if !slices.Contains(have.why, r.why[0]) {
			have.why = append(have.why, r.why[0])
		}
		return rules
	}
	return append(rules, r)
}

// join makes one rule of those for the same ports. Rules for anyone stay alone.
func join(rules []rule) []rule {
	var out []rule
	for _, r := range rules {
		i := slices.IndexFunc(out, func(have rule) bool {
			return len(have.peers) > 0 && len(r.peers) > 0 && slices.EqualFunc(have.ports, r.ports, func(a, b networkingv1.NetworkPolicyPort) bool { return portText(a) == portText(b) })
		})
		if i < 0 {
			out = append(out, r)
			continue
		}
		out[i].peers = append(out[i].peers, r.peers...)
		out[i].why = append(out[i].why, r.why...)
	}
	return out
}

func samePeers(a, b []networkingv1.NetworkPolicyPeer) bool {
	return slices.EqualFunc(a, b, func(x, y networkingv1.NetworkPolicyPeer) bool { return peerText(x) == peerText(y) })
}

// note remembers what a reader of a proposal must know.
func (p *Planner) note(namespace, format string, args ...any) {
	p.notes[namespace] = append(p.notes[namespace], fmt.Sprintf(format, args...))
}

// dns lets pods resolve names: by the DNS servers of the inventory, else by
// those of an ordinary cluster, and by the cache on the node.
func (p *Planner) dns() rule {
	out := rule{ports: []networkingv1.NetworkPolicyPort{port("UDP", 53), port("TCP", 53)}, why: []string{"Names are resolved by the DNS of the cluster, or its cache on the node."}}
	for _, key := range slices.Sorted(maps.Keys(p.services)) {
		s := p.services[key]
		if len(s.selector) > 0 && s.dns {
			out.peers = append(out.peers, p.peer(s.namespace, s.selector, ""))
		}
	}
	if len(out.peers) == 0 {
		out.peers = append(out.peers, p.peer("kube-system", map[string]string{"k8s-app": "kube-dns"}, ""))
	}
	out.peers = append(out.peers, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: nodeCache}})
	return out
}

// nodeCache is where the DNS cache of a node listens, by convention.
const nodeCache = "169.254.20.10/32"

// Metadata is the address at which clouds hand out credentials of the node.
const Metadata = "169.254.169.254/32"

// compareFlows orders flows, so that a proposal is the same each time.
func compareFlows(a, b flow) int {
	name := func(w *inventory.Workload) string {
		if w == nil {
			return ""
		}
		return w.Subject().String()
	}
	return cmp.Or(strings.Compare(name(a.to), name(b.to)), strings.Compare(name(a.from), name(b.from)), strings.Compare(a.why, b.why))
}
