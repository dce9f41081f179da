package network

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// A direction is a set of the directions of traffic.
type direction uint8

const (
	ingress direction = 1 << iota
	egress
)

func (d direction) String() string {
	return [...]string{"", "ingress", "egress", "ingress and egress"}[d]
}

// A policy is one NetworkPolicy.
type policy struct {
	*inventory.Object
	spec      networkingv1.NetworkPolicySpec
	direction direction // in which it isolates pods
	all       bool      // selects every pod of its namespace
}

// directions returns the directions in which a policy isolates. Without
// policyTypes that is ingress, and egress if it has egress rules.
func directions(spec networkingv1.NetworkPolicySpec) direction {
	var d direction
	for _, t := range spec.PolicyTypes {
		switch t {
		case networkingv1.PolicyTypeIngress:
			d |= ingress
		case networkingv1.PolicyTypeEgress:
			d |= egress
		}
	}
	if len(spec.PolicyTypes) == 0 {
		d = ingress
		if len(spec.Egress) > 0 {
			d |= egress
		}
	}
	return d
}

// rules returns the peers and ports that a policy admits in one direction.
func (p *policy) rules(d direction) []rule {
	var out []rule
	if d == ingress {
		for _, r := range p.spec.Ingress {
			out = append(out, rule{r.From, r.Ports})
		}
		return out
	}
	for _, r := range p.spec.Egress {
		out = append(out, rule{r.To, r.Ports})
	}
	return out
}

// A rule admits traffic with any of its peers on any of its ports; without
// peers or ports, with anyone or on every port.
type rule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

// everything reports whether a rule undoes the isolation: any peer, any port.
func (r rule) everything() bool {
	return len(r.ports) == 0 && (len(r.peers) == 0 || slices.ContainsFunc(r.peers, anyone))
}

// anyone reports whether a peer is every pod of the cluster or every address;
// a few exceptions do not make that a denial.
func anyone(p networkingv1.NetworkPolicyPeer) bool {
	if p.IPBlock != nil {
		return p.IPBlock.CIDR == "0.0.0.0/0" || p.IPBlock.CIDR == "::/0"
	}
	return p.NamespaceSelector != nil && empty(p.NamespaceSelector) && (p.PodSelector == nil || empty(p.PodSelector))
}

func empty(s *metav1.LabelSelector) bool { return len(s.MatchLabels)+len(s.MatchExpressions) == 0 }

// dnsPort is where cluster DNS listens.
const dnsPort = 53

// noteDNS remembers a namespace that serves DNS to others.
func (n *Network) noteDNS(ns string, ports []corev1.ServicePort) {
	for _, p := range ports {
		if p.Port == dnsPort && p.Protocol == corev1.ProtocolUDP {
			n.dns = append(n.dns, n.labelsOf(ns))
		}
	}
}

// labelsOf returns the labels of a namespace. The API server gives every
// namespace its name as a label.
func (n *Network) labelsOf(ns string) labels.Set {
	set := labels.Set{}
	if o := n.inv.Get("", "Namespace", "", ns); o != nil {
		set = maps.Clone(o.GetLabels())
	}
	if set == nil {
		set = labels.Set{}
	}
	set[corev1.LabelMetadataName] = ns
	return set
}

// allowsDNS reports whether a rule lets pods ask a DNS server outside their own
// namespace over UDP.
func (n *Network) allowsDNS(r rule) bool {
	if len(r.ports) > 0 && !slices.ContainsFunc(r.ports, coversDNS) {
		return false
	}
	return len(r.peers) == 0 || slices.ContainsFunc(r.peers, n.reachesDNS)
}

// coversDNS reports whether a port of a rule includes 53/UDP. A named port is
// resolved on the pod at the other end; the DNS pods of Kubernetes name it dns.
func coversDNS(p networkingv1.NetworkPolicyPort) bool {
	if p.Protocol == nil || *p.Protocol != corev1.ProtocolUDP {
		return false // the protocol of a rule is TCP unless it says otherwise
	}
	switch {
	case p.Port == nil:
		return true
	case p.Port.Type == intstr.String:
		return p.Port.StrVal == "dns"
	case p.EndPort != nil:
		return p.Port.IntVal <= dnsPort && dnsPort <= *p.EndPort
	}
	return p.Port.IntVal == dnsPort
}

func (n *Network) reachesDNS(p networkingv1.NetworkPolicyPeer) bool {
	if p.IPBlock != nil {
		return true // the address of DNS is not known here
	}
	if p.NamespaceSelector == nil {
		return false // the own namespace
	}
	selector, err := metav1.LabelSelectorAsSelector(p.NamespaceSelector)
	if err != nil {
		return false // such a policy matches nothing
	}
	servers := n.dns
	if len(servers) == 0 {
		servers = []labels.Set{n.labelsOf(metav1.NamespaceSystem)}
	}
	return slices.ContainsFunc(servers, func(set labels.Set) bool { return selector.Matches(set) })
}

// DefaultDenyIngress says for each namespace whether every pod in it is closed
// to traffic that no rule admits.
func (n *Network) DefaultDenyIngress() []finding.Verdict {
	return n.eachNamespace(func(ns string) finding.Verdict { return n.defaultDeny(ns, ingress) })
}

// DefaultDenyEgress says for each namespace whether no pod in it can send
// traffic that no rule admits, and that DNS is not forgotten.
func (n *Network) DefaultDenyEgress() []finding.Verdict {
	return n.eachNamespace(func(ns string) finding.Verdict {
		f := n.defaultDeny(ns, egress)
		if f.Status == finding.Pass && !n.dnsAllowed(ns) {
			f.Status = finding.Fail
			f.Message = "egress is denied by default, but no policy allows DNS (port 53/UDP to the DNS namespace)"
		}
		return f
	})
}

func (n *Network) dnsAllowed(ns string) bool {
	return slices.ContainsFunc(n.policies[ns], func(p *policy) bool {
		return slices.ContainsFunc(p.rules(egress), n.allowsDNS)
	})
}

// eachNamespace judges the namespaces that have an object, a workload or a
// policy, in the order of their names.
func (n *Network) eachNamespace(judge func(string) finding.Verdict) []finding.Verdict {
	source := map[string]string{}
	for ns, ws := range n.workloads {
		source[ns] = ws[0].Source
	}
	for ns, ps := range n.policies {
		source[ns] = ps[0].Source
	}
	for _, o := range n.inv.Kind("", "Namespace") {
		source[o.GetName()] = o.Source
	}
	var out []finding.Verdict
	for _, ns := range slices.Sorted(maps.Keys(source)) {
		f := judge(ns)
		f.Subject = finding.Subject{APIVersion: "v1", Kind: "Namespace", Name: ns, Source: source[ns]}
		out = append(out, f)
	}
	return out
}

func (n *Network) defaultDeny(ns string, d direction) finding.Verdict {
	if System(ns) && len(n.workloads[ns]) == 0 {
		return finding.Verdict{Status: finding.NotApplicable, Reason: "system namespace without pods"}
	}
	f := finding.Verdict{
		Status:   finding.Fail,
		Message:  fmt.Sprintf("no NetworkPolicy that selects every pod denies %s by default", d),
		Evidence: fmt.Sprintf("%d NetworkPolicies in the namespace", len(n.policies[ns])),
	}
	for _, p := range n.policies[ns] {
		if !p.all || p.direction&d == 0 {
			continue
		}
		if slices.ContainsFunc(p.rules(d), rule.everything) {
			f.Status, f.Evidence = finding.Fail, evidence(p.Object)
			f.Message = fmt.Sprintf("NetworkPolicy %s selects every pod and allows all %s", p.GetName(), d)
			break
		}
		f = finding.Verdict{Status: finding.Pass, Evidence: evidence(p.Object)}
	}
	if f.Status != finding.Fail {
		return f
	}
	if o := n.closedNamespace(ns, d); o != nil {
		return finding.Verdict{Status: finding.Pass, Evidence: evidence(o)}
	}
	if reason := n.doubt(ns); reason != "" {
		return finding.Verdict{Status: finding.Unknown, Reason: reason}
	}
	return f
}

// closedNamespace returns a policy over the whole cluster that denies one
// direction to every pod of a namespace unless something allows it, or nil.
func (n *Network) closedNamespace(ns string, d direction) *inventory.Object {
	var by *inventory.Object
	for _, w := range n.workloads[ns] {
		if w.Template.Spec.HostNetwork {
			continue
		}
		if by = n.reach.closed(n.reach.of[w], d); by == nil {
			return nil
		}
	}
	return by
}

// Coverage says for each workload whether policies select its pods in both
// directions: NetworkPolicies, or one over the whole cluster that denies.
func (n *Network) Coverage() []finding.Verdict {
	var out []finding.Verdict
	for _, w := range n.inv.Workloads() {
		f := n.coverage(w)
		f.Subject = w.Subject()
		out = append(out, f)
	}
	return out
}

func (n *Network) coverage(w *inventory.Workload) finding.Verdict {
	open := (ingress | egress) &^ n.isolated[w]
	for _, d := range []direction{ingress, egress} {
		if n.reach.closed(n.reach.of[w], d) != nil {
			open &^= d
		}
	}
	switch {
	case w.Template.Spec.HostNetwork:
		return finding.Verdict{Status: finding.NotApplicable, Reason: "pods on the host's network stand outside NetworkPolicies"}
	case open == 0:
		return finding.Verdict{Status: finding.Pass}
	}
	if reason := n.doubt(n.inv.NamespaceOf(w.Object)); reason != "" {
		return finding.Verdict{Status: finding.Unknown, Reason: reason}
	}
	return finding.Verdict{Status: finding.Fail, Message: fmt.Sprintf("no NetworkPolicy selects its pods for %s", open)}
}
