package network

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// A span is a range of ports of one protocol, as protocol<<16 | port, both ends
// included. The spans of a set are sorted and have gaps between them, so that
// equal sets look equal; a span may run on into the next protocol.
type span struct{ from, to uint32 }

// protocols are numbered in this order.
var protocols = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}

const maxPort = 1<<16 - 1

// ports is the name of a set of ports in a portTable: equal sets have equal
// names.
type ports uint32

const (
	noPort ports = iota
	everyPort
)

// spanOf returns a range of ports of a protocol; ok is false if there is none.
func spanOf(protocol corev1.Protocol, from, to int32) (s span, ok bool) {
	at := slices.Index(protocols, protocol)
	if at < 0 || from < 0 || from > to || to > maxPort {
		return span{}, false
	}
	base := uint32(at) << 16
	return span{base | uint32(from), base | uint32(to)}, true
}

// tcp returns one TCP port.
func tcp(port int32) span { return span{uint32(port), uint32(port)} }

// canonical sorts spans and joins those that touch.
func canonical(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return int(a.from) - int(b.from) })
	var out []span
	for _, s := range spans {
		if last := len(out) - 1; last >= 0 && s.from <= out[last].to+1 {
			out[last].to = max(out[last].to, s.to)
			continue
		}
		out = append(out, s)
	}
	return out
}

// includes reports whether a canonical set holds a port.
func includes(spans []span, port uint32) bool {
	_, found := slices.BinarySearchFunc(spans, port, func(s span, port uint32) int {
		switch {
		case s.to < port:
			return -1
		case s.from > port:
			return 1
		}
		return 0
	})
	return found
}

// combine returns the ports that keep wants, told whether each set has them.
func combine(a, b []span, keep func(a, b bool) bool) []span {
	var edges []uint32
	for _, s := range slices.Concat(a, b) {
		edges = append(edges, s.from, s.to+1)
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)
	var out []span
	for i := 0; i+1 < len(edges); i++ {
		if keep(includes(a, edges[i]), includes(b, edges[i])) {
			out = append(out, span{edges[i], edges[i+1] - 1})
		}
	}
	return canonical(out)
}

func both(a, b bool) bool   { return a && b }
func either(a, b bool) bool { return a || b }
func first(a, b bool) bool  { return a && !b }

// format writes a set of ports for people, at most a few of them.
func format(spans []span) string {
	const most = 4
	var parts []string
	for _, s := range spans {
		for p := s.from >> 16; p <= s.to>>16; p++ {
			from, to := max(s.from, p<<16)&maxPort, min(s.to, p<<16|maxPort)&maxPort
			switch {
			case from == 0 && to == maxPort:
				parts = append(parts, fmt.Sprintf("every %s port", protocols[p]))
			case from == to:
				parts = append(parts, fmt.Sprintf("%d/%s", from, protocols[p]))
			default:
				parts = append(parts, fmt.Sprintf("%d-%d/%s", from, to, protocols[p]))
			}
		}
	}
	if more := len(parts) - most; more > 0 {
		parts = append(parts[:most], fmt.Sprintf("%d more", more))
	}
	return strings.Join(parts, ", ")
}

// A portTable gives sets of ports their names, and remembers what it has
// computed: a cluster has many rules and few sets. It is not for concurrent use
// until nothing more is named.
type portTable struct {
	sets  [][]span
	names map[string]ports
	memo  map[operation]ports
}

type operation struct {
	kind byte
	a, b ports
}

func newPortTable() *portTable {
	t := &portTable{names: map[string]ports{}, memo: map[operation]ports{}}
	t.name(nil)
	t.name([]span{{0, uint32(len(protocols))<<16 - 1}})
	return t
}

// name returns the name of a set; the spans may come in any order.
func (t *portTable) name(spans []span) ports {
	spans = canonical(spans)
	key := make([]byte, 0, 8*len(spans))
	for _, s := range spans {
		key = fmt.Appendf(key, "%d-%d,", s.from, s.to)
	}
	p, known := t.names[string(key)]
	if !known {
		p = ports(len(t.sets))
		t.names[string(key)] = p
		t.sets = append(t.sets, spans)
	}
	return p
}

func (t *portTable) do(kind byte, a, b ports, keep func(a, b bool) bool) ports {
	op := operation{kind, a, b}
	p, known := t.memo[op]
	if !known {
		p = t.name(combine(t.sets[a], t.sets[b], keep))
		t.memo[op] = p
	}
	return p
}

func (t *portTable) and(a, b ports) ports    { return t.do('&', a, b, both) }
func (t *portTable) or(a, b ports) ports     { return t.do('|', a, b, either) }
func (t *portTable) andNot(a, b ports) ports { return t.do('-', a, b, first) }

// A portName is how a rule may name a port; the pod at the receiving end says
// which one it is. Without a protocol it is of any.
type portName struct {
	name     string
	protocol corev1.Protocol
}

// namedPorts returns the ports of a pod that have a name.
func namedPorts(spec corev1.PodSpec) map[portName][]span {
	out := map[portName][]span{}
	for _, containers := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for _, c := range containers {
			for _, p := range c.Ports {
				s, ok := spanOf(protocolOf(p.Protocol), p.ContainerPort, p.ContainerPort)
				if p.Name == "" || !ok {
					continue
				}
				for _, key := range []portName{{p.Name, protocolOf(p.Protocol)}, {p.Name, ""}} {
					out[key] = append(out[key], s)
				}
			}
		}
	}
	return out
}

// protocolOf is TCP unless said otherwise.
func protocolOf(p corev1.Protocol) corev1.Protocol {
	if p == "" {
		return corev1.ProtocolTCP
	}
	return p
}
