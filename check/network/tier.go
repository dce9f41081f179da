package network

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubeguardian/kubeguardian/inventory"
)

// A clause is one rule of a policy of any kind, in the terms of columns.
type clause struct {
	policy *inventory.Object
	action action
	peers  set
	ports  ports      // by number
	named  []portName // and by name
	byName set        // those of the peers that are some pods of some other namespaces
	vague  string     // a block that may hold pods, or not
}

// An action is what a clause does with the traffic that it matches. The zero
// value is for the rules of a NetworkPolicy, which can only allow.
type action uint8

const (
	allow action = iota
	deny
	pass // to the next tier
)

var actions = map[string]action{"Allow": allow, "Accept": allow, "Deny": deny, "Pass": pass}

// A clusterPolicy is an AdminNetworkPolicy, a BaselineAdminNetworkPolicy or a
// ClusterNetworkPolicy: the fields of the three, which share a group and do not
// contradict each other.
type clusterPolicy struct {
	Spec struct {
		Tier     string        `json:"tier"`
		Priority int32         `json:"priority"`
		Subject  clusterPeer   `json:"subject"`
		Ingress  []clusterRule `json:"ingress"`
		Egress   []clusterRule `json:"egress"`
	} `json:"spec"`
}

type clusterRule struct {
	Action    string            `json:"action"`
	From      []clusterPeer     `json:"from"`
	To        []clusterPeer     `json:"to"`
	Ports     *[]clusterPort    `json:"ports"`     // of the older form
	Protocols []clusterProtocol `json:"protocols"` // of the newer
}

type clusterPeer struct {
	Namespaces *metav1.LabelSelector `json:"namespaces"`
	Pods       *struct {
		NamespaceSelector metav1.LabelSelector `json:"namespaceSelector"`
		PodSelector       metav1.LabelSelector `json:"podSelector"`
	} `json:"pods"`
	Nodes       *metav1.LabelSelector `json:"nodes"`
	Networks    []string              `json:"networks"`
	DomainNames []string              `json:"domainNames"`
}

type clusterPort struct {
	PortNumber *struct {
		Protocol corev1.Protocol `json:"protocol"`
		Port     int32           `json:"port"`
	} `json:"portNumber"`
	PortRange *struct {
		Protocol corev1.Protocol `json:"protocol"`
		Start    int32           `json:"start"`
		End      int32           `json:"end"`
	} `json:"portRange"`
	NamedPort *string `json:"namedPort"`
}

type clusterProtocol struct {
	TCP       *destination `json:"tcp"`
	UDP       *destination `json:"udp"`
	SCTP      *destination `json:"sctp"`
	NamedPort string       `json:"destinationNamedPort"`
}

type destination struct {
	Port *struct {
		Number int32 `json:"number"`
		Range  *struct {
			Start int32 `json:"start"`
			End   int32 `json:"end"`
		} `json:"range"`
	} `json:"destinationPort"`
}

const policyGroup = "policy.networking.k8s.io"

// A ranked policy is one with its place among the others.
type ranked struct {
	*inventory.Object
	clusterPolicy
	baseline bool
}

// clusterPolicies returns the policies over the whole cluster in the order in
// which they decide.
func clusterPolicies(inv *inventory.Inventory) ([]ranked, error) {
	var out []ranked
	for _, kind := range []string{"AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy"} {
		for _, o := range inv.Kind(policyGroup, kind) {
			r := ranked{Object: o}
			if err := convert(o, &r.clusterPolicy); err != nil {
				return nil, err
			}
			r.baseline = kind == "BaselineAdminNetworkPolicy" || r.Spec.Tier == "Baseline"
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.Spec.Priority, b.Spec.Priority), cmp.Compare(a.GetName(), b.GetName()))
	})
	return out, nil
}

// subjects returns the classes that a cluster policy is for.
func (c *columns) subjects(p clusterPeer) set {
	switch {
	case p.Namespaces != nil:
		return c.pick(selection{namespaces: p.Namespaces})
	case p.Pods != nil:
		return c.pick(selection{namespaces: &p.Pods.NamespaceSelector, pods: &p.Pods.PodSelector})
	}
	return set{}
}

// clusterClauses returns the rules of a cluster policy in one direction.
func (r *reach) clusterClauses(p ranked, d direction) []*clause {
	rules := p.Spec.Ingress
	if d == egress {
		rules = p.Spec.Egress
	}
	var out []*clause
	for _, rule := range rules {
		act, known := actions[rule.Action]
		if !known {
			act = deny
		}
		cl := &clause{policy: p.Object, action: act}
		r.clusterPorts(cl, rule)
		for _, peer := range slices.Concat(rule.From, rule.To) {
			r.clusterPeer(cl, peer)
		}
		out = append(out, cl)
	}
	return out
}

func (r *reach) clusterPeer(cl *clause, p clusterPeer) {
	switch {
	case p.Namespaces != nil, p.Pods != nil:
		cl.peers = cl.peers.or(r.subjects(p))
	case p.Nodes != nil:
		every := empty(p.Nodes)
		cl.peers = cl.peers.or(r.nodes(cover{true, every, true}, cl.action))
	case len(p.Networks) > 0:
		for _, cidr := range p.Networks {
			r.block(cl, cidr, nil)
		}
	case len(p.DomainNames) > 0: // their addresses are not known here
	case cl.action != allow:
		// A peer of a form to come: the standard wants such a rule to fail closed.
		cl.action, cl.peers, cl.ports = deny, r.all, everyPort
	}
}

func (r *reach) clusterPorts(cl *clause, rule clusterRule) {
	if (rule.Ports == nil || len(*rule.Ports) == 0) && len(rule.Protocols) == 0 {
		cl.ports = everyPort
		return
	}
	var spans []span
	add := func(protocol corev1.Protocol, from, to int32) {
		if s, ok := spanOf(protocolOf(protocol), from, to); ok {
			spans = append(spans, s)
		}
	}
	if rule.Ports != nil {
		for _, p := range *rule.Ports {
			switch {
			case p.PortNumber != nil:
				add(p.PortNumber.Protocol, p.PortNumber.Port, p.PortNumber.Port)
			case p.PortRange != nil:
				add(p.PortRange.Protocol, p.PortRange.Start, p.PortRange.End)
			case p.NamedPort != nil:
				cl.named = append(cl.named, portName{*p.NamedPort, ""})
			}
		}
	}
	for _, p := range rule.Protocols {
		if p.NamedPort != "" {
			cl.named = append(cl.named, portName{p.NamedPort, ""})
		}
		for at, to := range []*destination{p.TCP, p.UDP, p.SCTP} {
			switch {
			case to == nil:
			case to.Port == nil:
				add(protocols[at], 0, maxPort)
			case to.Port.Range != nil:
				add(protocols[at], to.Port.Range.Start, to.Port.Range.End)
			default:
				add(protocols[at], to.Port.Number, to.Port.Number)
			}
		}
	}
	cl.ports = r.table.name(spans)
}

// clauses returns the rules of a NetworkPolicy in one direction.
func (r *reach) clauses(ns string, p *policy, d direction) []*clause {
	var out []*clause
	for _, rule := range p.rules(d) {
		cl := &clause{policy: p.Object}
		r.rulePorts(cl, rule.ports)
		for _, peer := range rule.peers {
			r.rulePeer(cl, ns, peer)
		}
		if len(rule.peers) == 0 {
			cl.peers = r.all
		}
		out = append(out, cl)
	}
	return out
}

func (r *reach) rulePeer(cl *clause, ns string, p networkingv1.NetworkPolicyPeer) {
	if p.IPBlock != nil {
		r.block(cl, p.IPBlock.CIDR, p.IPBlock.Except)
		return
	}
	if p.NamespaceSelector == nil && p.PodSelector == nil {
		return
	}
	picked := r.pick(selection{p.NamespaceSelector, ns, p.PodSelector})
	cl.peers = cl.peers.or(picked)
	if p.NamespaceSelector != nil && p.PodSelector != nil && !empty(p.NamespaceSelector) && !empty(p.PodSelector) {
		cl.byName = cl.byName.or(picked)
	}
}

func (r *reach) rulePorts(cl *clause, of []networkingv1.NetworkPolicyPort) {
	if len(of) == 0 {
		cl.ports = everyPort
		return
	}
	var spans []span
	for _, p := range of {
		protocol := corev1.ProtocolTCP
		if p.Protocol != nil {
			protocol = protocolOf(*p.Protocol)
		}
		from, to := int32(0), int32(maxPort)
		switch {
		case p.Port == nil:
		case p.Port.Type == intstr.String:
			cl.named = append(cl.named, portName{p.Port.StrVal, protocol})
			continue
		default:
			from, to = p.Port.IntVal, p.Port.IntVal
			if p.EndPort != nil {
				to = *p.EndPort
			}
		}
		if s, ok := spanOf(protocol, from, to); ok {
			spans = append(spans, s)
		}
	}
	cl.ports = r.table.name(spans)
}

// block adds the addresses of a block to the peers of a clause. A block is for
// what is outside the cluster. Whether a smaller one holds pods too depends on
// the network; one for all addresses certainly does.
func (r *reach) block(cl *clause, cidr string, except []string) {
	b, ok := parseBlock(cidr, except)
	if !ok {
		return
	}
	if b.everything() {
		cl.peers = cl.peers.or(r.pods)
	} else if b.mayHold() {
		cl.vague = cidr
	}
	if b.contains(metadataAddress) {
		cl.peers = cl.peers.or(setOf([]int{r.metadata}))
	}
	cl.peers = cl.peers.or(r.nodes(b.nodes(r.addresses), cl.action))
}

// nodes returns the columns of nodes that a peer matches. One of the two may
// hold only what is certainly allowed, the other all that is possibly allowed,
// so that a rule that denies counts the other way round.
func (r *reach) nodes(c cover, a action) set {
	certain, possible := c.some, c.possible
	if a != allow {
		certain, possible = c.possible, c.all
	}
	var out set
	if certain {
		out = r.hosts.or(setOf([]int{r.node}))
	}
	if possible {
		out = out.or(setOf([]int{r.maybeNode}))
	}
	return out
}
