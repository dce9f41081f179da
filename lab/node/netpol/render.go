package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// A cluster is what decides who may talk to whom.
type cluster struct {
	pods       []*corev1.Pod
	namespaces []*corev1.Namespace
	policies   []*networkingv1.NetworkPolicy
}

// A direction is that of the traffic, seen from the pod that a policy selects.
type direction struct {
	policyType networkingv1.PolicyType
	chain      string // the prefix of its chains
	self, peer string // what nftables calls the pod's and the other's address
}

var (
	ingress = direction{networkingv1.PolicyTypeIngress, "ingress", "daddr", "saddr"}
	egress  = direction{networkingv1.PolicyTypeEgress, "egress", "saddr", "daddr"}
)

// A rule is an ingress or egress rule.
type rule struct {
	ports []networkingv1.NetworkPolicyPort
	peers []networkingv1.NetworkPolicyPeer
}

// render returns the table for the whole cluster. A connection passes when the
// policies of the one who opens it let it out and those of the other let it in:
// each chain returns to let pass, and its last rule drops.
func (c cluster) render() (string, error) {
	var chains strings.Builder
	isolated := map[string][]string{} // by chain prefix: elements of a verdict map
	for _, pod := range c.addressed() {
		for _, d := range []direction{egress, ingress} {
			lines, selected, err := c.lines(pod, d)
			if err != nil {
				return "", err
			}
			if !selected {
				continue
			}
			ip := pod.Status.PodIP
			isolated[d.chain] = append(isolated[d.chain], fmt.Sprintf("%s : jump %s-%s", ip, d.chain, ip))
			fmt.Fprintf(&chains, "\tchain %s-%s { # %s/%s\n\t\tip %s %s return\n", d.chain, ip, pod.Namespace, pod.Name, d.peer, ip)
			for _, line := range lines {
				fmt.Fprintf(&chains, "\t\t%s return\n", line)
			}
			chains.WriteString("\t\tcounter drop\n\t}\n")
		}
	}
	var b strings.Builder
	b.WriteString("table inet lab_netpol\ndelete table inet lab_netpol\ntable inet lab_netpol {\n")
	b.WriteString(chains.String())
	for _, hook := range []string{"forward", "input"} {
		fmt.Fprintf(&b, "\tchain %s {\n\t\ttype filter hook %s priority filter; policy accept;\n\t\tct state established,related accept\n", hook, hook)
		for _, d := range []direction{egress, ingress} {
			if elements := isolated[d.chain]; len(elements) > 0 && (hook == "forward" || d == egress) {
				fmt.Fprintf(&b, "\t\tip %s vmap { %s }\n", d.self, strings.Join(elements, ", "))
			}
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String(), nil
}

// addressed returns the pods with an IPv4 address of their own, in a fixed order.
// The address of a pod that has ended may be another's by now.
func (c cluster) addressed() []*corev1.Pod {
	pods := slices.DeleteFunc(slices.Clone(c.pods), func(p *corev1.Pod) bool {
		ip, err := netip.ParseAddr(p.Status.PodIP)
		return err != nil || !ip.Is4() || p.Spec.HostNetwork || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	})
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return pods
}

// lines returns a match for each kind of traffic that the policies of a pod
// allow in a direction; selected reports whether any policy is about that.
func (c cluster) lines(pod *corev1.Pod, d direction) (lines []string, selected bool, err error) {
	for _, p := range c.policies {
		if p.Namespace != pod.Namespace || !slices.Contains(p.Spec.PolicyTypes, d.policyType) {
			continue
		}
		of, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		if err != nil {
			return nil, false, fmt.Errorf("policy %s/%s: %w", p.Namespace, p.Name, err)
		}
		if !of.Matches(labels.Set(pod.Labels)) {
			continue
		}
		selected = true
		for _, r := range rulesOf(p, d) {
			more, err := c.allow(pod, p.Namespace, r, d)
			if err != nil {
				return nil, false, fmt.Errorf("policy %s/%s: %w", p.Namespace, p.Name, err)
			}
			lines = append(lines, more...)
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines), selected, nil
}

func rulesOf(p *networkingv1.NetworkPolicy, d direction) (rules []rule) {
	if d == ingress {
		for _, r := range p.Spec.Ingress {
			rules = append(rules, rule{r.Ports, r.From})
		}
		return rules
	}
	for _, r := range p.Spec.Egress {
		rules = append(rules, rule{r.Ports, r.To})
	}
	return rules
}

// allow returns the matches of one rule: one for each port and kind of peer.
func (c cluster) allow(pod *corev1.Pod, namespace string, r rule, d direction) ([]string, error) {
	peers, blocks, err := c.peers(namespace, r.peers)
	if err != nil {
		return nil, err
	}
	anyone := len(r.peers) == 0
	var lines []string
	add := func(ports string, to []*corev1.Pod, blocks []string) {
		switch {
		case anyone && to == nil:
			lines = append(lines, strings.TrimSpace("ip "+d.peer+" 0.0.0.0/0 "+ports))
		case len(to) > 0:
			lines = append(lines, strings.TrimSpace(fmt.Sprintf("ip %s { %s } %s", d.peer, strings.Join(addresses(to), ", "), ports)))
		}
		for _, b := range blocks {
			lines = append(lines, strings.TrimSpace(fmt.Sprintf(b, d.peer)+" "+ports))
		}
	}
	if len(r.ports) == 0 {
		add("", peers, blocks)
	}
	for _, port := range r.ports {
		switch {
		case port.Port == nil || port.Port.Type == intstr.Int:
			add(numbers(port), peers, blocks)
		case d == ingress: // the name is one of this pod's ports
			for _, n := range named(pod, port) {
				add(numbers(n), peers, blocks)
			}
		default: // the name is one of each peer's ports
			if anyone {
				peers = c.addressed()
			}
			for n, to := range byNumber(peers, port) {
				add(n, to, nil)
			}
		}
	}
	return lines, nil
}

// peers returns the pods that a rule names, and its blocks of addresses as
// matches to be completed by the name of the address.
func (c cluster) peers(namespace string, peers []networkingv1.NetworkPolicyPeer) (pods []*corev1.Pod, blocks []string, err error) {
	for _, peer := range peers {
		if peer.IPBlock != nil {
			if block := match(*peer.IPBlock); block != "" {
				blocks = append(blocks, block)
			}
			continue
		}
		in := map[string]bool{namespace: true}
		if peer.NamespaceSelector != nil {
			if in, err = c.selected(peer.NamespaceSelector); err != nil {
				return nil, nil, err
			}
		}
		of := labels.Everything()
		if peer.PodSelector != nil {
			if of, err = metav1.LabelSelectorAsSelector(peer.PodSelector); err != nil {
				return nil, nil, err
			}
		}
		for _, p := range c.addressed() {
			if in[p.Namespace] && of.Matches(labels.Set(p.Labels)) && !slices.Contains(pods, p) {
				pods = append(pods, p)
			}
		}
	}
	return pods, blocks, nil
}

// selected returns the names of the namespaces that a selector matches.
func (c cluster) selected(s *metav1.LabelSelector) (map[string]bool, error) {
	of, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, ns := range c.namespaces {
		if of.Matches(labels.Set(ns.Labels)) {
			names[ns.Name] = true
		}
	}
	return names, nil
}

// match returns a block of IPv4 addresses as a match, to be completed by the
// name of the address; nothing for another kind.
func match(b networkingv1.IPBlock) string {
	if prefix, err := netip.ParsePrefix(b.CIDR); err != nil || !prefix.Addr().Is4() {
		return ""
	}
	if len(b.Except) == 0 {
		return "ip %[1]s " + b.CIDR
	}
	return "ip %[1]s " + b.CIDR + " ip %[1]s != { " + strings.Join(b.Except, ", ") + " }"
}

func addresses(pods []*corev1.Pod) (ips []string) {
	for _, p := range pods {
		ips = append(ips, p.Status.PodIP)
	}
	slices.Sort(ips)
	return slices.Compact(ips)
}

// numbers returns a numeric port of a rule as a match.
func numbers(p networkingv1.NetworkPolicyPort) string {
	protocol := "tcp"
	if p.Protocol != nil {
		protocol = strings.ToLower(string(*p.Protocol))
	}
	switch {
	case p.Port == nil:
		return "meta l4proto " + protocol
	case p.EndPort != nil:
		return fmt.Sprintf("%s dport %d-%d", protocol, p.Port.IntVal, *p.EndPort)
	}
	return fmt.Sprintf("%s dport %d", protocol, p.Port.IntVal)
}

// named returns the numeric ports that bear a name in a pod.
func named(pod *corev1.Pod, p networkingv1.NetworkPolicyPort) (ports []networkingv1.NetworkPolicyPort) {
	protocol := corev1.ProtocolTCP
	if p.Protocol != nil {
		protocol = *p.Protocol
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, port := range c.Ports {
			if port.Name == p.Port.StrVal && cmp.Or(port.Protocol, corev1.ProtocolTCP) == protocol {
				number := intstr.FromInt32(port.ContainerPort)
				ports = append(ports, networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &number})
			}
		}
	}
	return ports
}

// byNumber groups pods by the match of the port that bears a name in them.
func byNumber(pods []*corev1.Pod, p networkingv1.NetworkPolicyPort) map[string][]*corev1.Pod {
	groups := map[string][]*corev1.Pod{}
	for _, pod := range pods {
		for _, n := range named(pod, p) {
			groups[numbers(n)] = append(groups[numbers(n)], pod)
		}
	}
	return groups
}
