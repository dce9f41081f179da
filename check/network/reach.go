package network

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/kubeguardian/kubeguardian/inventory"
)

// A reach is what the policies of a cluster let each class of pods reach. A
// connection needs the egress of one side and the ingress of the other. It is
// immutable once built.
//
// Pods on the host's network stand outside policies: what they send counts as
// let in, since a node always reaches its own pods. Two pods of one class are
// judged like others; that a pod reaches itself is not said.
type reach struct {
	*columns
	table     *portTable
	addresses []netip.Addr // of the nodes, if known
	stances   [][2]stance  // by class; ingress, egress
	rows      [][2]row     // likewise
}

// A stance is all that policies say of one class in one direction.
type stance struct {
	admin, rules, baseline []*clause
	isolated               bool // some NetworkPolicy selects it
}

// A row holds what one class may exchange with the columns, in one direction:
// each column is in one grant at most.
type row []grant

type grant struct {
	ports ports
	to    set
}

// index returns the place of a direction in a pair.
func (d direction) index() int {
	if d == egress {
		return 1
	}
	return 0
}

// newReach computes the rows. Where the network is known not to enforce
// policies they count as absent.
func newReach(n *Network) (*reach, error) {
	addresses, err := nodeAddresses(n.inv)
	if err != nil {
		return nil, err
	}
	r := &reach{columns: newColumns(n), table: newPortTable(), addresses: addresses}
	r.stances, r.rows = make([][2]stance, len(r.classes)), make([][2]row, len(r.classes))
	if n.plugin.enforces != no {
		if err := r.read(n); err != nil {
			return nil, err
		}
	}
	open := row{{everyPort, r.all}}
	for i := range r.classes {
		for _, d := range []direction{ingress, egress} {
			r.rows[i][d.index()] = open
			if s := r.stances[i][d.index()]; !r.classes[i].host && (s.isolated || len(s.admin)+len(s.baseline) > 0) {
				r.rows[i][d.index()] = r.decide(i, d, open)
			}
		}
	}
	return r, nil
}

// read hands the clauses of every policy to the classes that it selects.
func (r *reach) read(n *Network) error {
	cluster, err := clusterPolicies(n.inv)
	if err != nil {
		return err
	}
	for _, p := range cluster {
		subjects := r.subjects(p.Spec.Subject)
		for _, d := range []direction{ingress, egress} {
			clauses := r.clusterClauses(p, d)
			for i := range subjects.all {
				s := &r.stances[i][d.index()]
				if p.baseline {
					s.baseline = append(s.baseline, clauses...)
				} else {
					s.admin = append(s.admin, clauses...)
				}
			}
		}
	}
	for ns, policies := range n.policies {
		for _, p := range policies {
			r.readPolicy(ns, p)
		}
	}
	return nil
}

func (r *reach) readPolicy(ns string, p *policy) {
	selected := r.pick(selection{namespace: ns, pods: &p.spec.PodSelector})
	if selected.empty() {
		return
	}
	for _, d := range []direction{ingress, egress} {
		if p.direction&d == 0 {
			continue
		}
		clauses := r.clauses(ns, p, d)
		for i := range selected.all {
			s := &r.stances[i][d.index()]
			s.isolated = true
			s.rules = append(s.rules, clauses...)
		}
	}
}

// decide goes through the tiers: a rule of the first decides for good unless it
// passes, then the NetworkPolicies decide for whom they isolate, and the last
// tier for the others. What nobody denies is allowed.
func (r *reach) decide(i int, d direction, open row) row {
	s := r.stances[i][d.index()]
	var allowed row
	rest := r.tier(i, d, s.admin, open, &allowed)
	if s.isolated {
		for _, cl := range s.rules {
			for _, g := range r.grants(i, d, cl) {
				_, hit := r.split(rest, g)
				r.addAll(&allowed, hit)
			}
		}
		return allowed
	}
	r.addAll(&allowed, r.tier(i, d, s.baseline, rest, &allowed))
	return allowed
}

// tier returns what is left to the next tier.
func (r *reach) tier(i int, d direction, clauses []*clause, rest row, allowed *row) row {
	var passed row
	for _, cl := range clauses {
		for _, g := range r.grants(i, d, cl) {
			var hit row
			rest, hit = r.split(rest, g)
			switch cl.action {
			case allow:
				r.addAll(allowed, hit)
			case pass:
				r.addAll(&passed, hit)
			}
		}
	}
	r.addAll(&passed, rest)
	return passed
}

// grants returns what a clause matches for a class: a port by name is that of
// the pod at the receiving end.
func (r *reach) grants(i int, d direction, cl *clause) []grant {
	if len(cl.named) == 0 {
		return []grant{{cl.ports, cl.peers}}
	}
	if d == ingress {
		return []grant{{r.resolve(cl, i), cl.peers}}
	}
	groups := map[ports][]int{}
	for to := range cl.peers.all {
		p := cl.ports
		if to <= r.stranger {
			p = r.resolve(cl, to)
		}
		groups[p] = append(groups[p], to)
	}
	var out []grant
	for p, to := range groups {
		out = append(out, grant{p, setOf(to)})
	}
	return out
}

// resolve returns the ports of a clause where a class is at the receiving end.
func (r *reach) resolve(cl *clause, i int) ports {
	var spans []span
	for _, name := range cl.named {
		spans = append(spans, r.classes[i].named[name]...)
	}
	return r.table.or(cl.ports, r.table.name(spans))
}

// split divides a row into what g does not match and what it does.
func (r *reach) split(from row, g grant) (rest, hit row) {
	for _, e := range from {
		to, cut := e.to.and(g.to), r.table.and(e.ports, g.ports)
		if to.empty() || cut == noPort {
			rest = append(rest, e)
			continue
		}
		hit = append(hit, grant{cut, to})
		if left := r.table.andNot(e.ports, cut); left != noPort {
			rest = append(rest, grant{left, to})
		}
		if others := e.to.andNot(to); !others.empty() {
			rest = append(rest, grant{e.ports, others})
		}
	}
	return rest, hit
}

func (r *reach) addAll(to *row, grants row) {
	for _, g := range grants {
		*to = r.add(*to, g)
	}
}

// add joins a grant to a row, whose grants stay disjoint and of different
// ports.
func (r *reach) add(to row, g grant) row {
	sums := row{}
	put := func(p ports, s set) {
		if s.empty() || p == noPort {
			return
		}
		for i := range sums {
			if sums[i].ports == p {
				sums[i].to = sums[i].to.or(s)
				return
			}
		}
		sums = append(sums, grant{p, s})
	}
	for _, e := range to {
		shared := e.to.and(g.to)
		put(r.table.or(e.ports, g.ports), shared)
		put(e.ports, e.to.andNot(shared))
		g.to = g.to.andNot(shared)
	}
	put(g.ports, g.to)
	return sums
}

// admits returns the ports that a row has for a column.
func (r *reach) admits(of row, column int) []span {
	for _, g := range of {
		if g.to.has(column) {
			return r.table.sets[g.ports]
		}
	}
	return nil
}

// between returns the ports on which one class reaches another.
func (r *reach) between(from, to int) []span {
	if r.classes[from].host {
		return r.table.sets[everyPort]
	}
	return combine(r.admits(r.rows[from][1], to), r.admits(r.rows[to][0], from), both)
}

// closed returns a policy over the whole cluster with a rule that denies a class
// everything that no earlier rule or NetworkPolicy allows, or nil.
func (r *reach) closed(class int, d direction) *inventory.Object {
	s := r.stances[class][d.index()]
	everyone := r.pods
	if d == egress {
		everyone = r.all.andNot(r.hosts)
	}
	for _, cl := range slices.Concat(s.admin, s.baseline) {
		if cl.action == deny && cl.ports == everyPort && everyone.andNot(cl.peers).empty() {
			return cl.policy
		}
	}
	return nil
}

// sources yields the classes that policies select and that reach a class on any
// of some ports, with those ports.
func (r *reach) sources(to int, on []span) func(yield func(int, []span) bool) {
	return func(yield func(int, []span) bool) {
		for _, g := range r.rows[to][0] {
			open := combine(r.table.sets[g.ports], on, both)
			if len(open) == 0 {
				continue
			}
			for from := range g.to.and(r.pods).all {
				if got := combine(open, r.admits(r.rows[from][1], to), both); len(got) > 0 && !yield(from, got) {
					return
				}
			}
		}
	}
}

// explain says which policy lets a class reach a column on a port.
func (r *reach) explain(i int, d direction, column int, port uint32) string {
	s := r.stances[i][d.index()]
	for _, cl := range slices.Concat(s.admin, s.rules, s.baseline) {
		if cl.action == allow && cl.peers.has(column) && r.covers(cl, i, d, column, port) {
			return evidence(cl.policy) + " allows it"
		}
	}
	return fmt.Sprintf("no policy isolates its pods for %s", d)
}

// covers reports whether a clause has a port between a class and a column.
func (r *reach) covers(cl *clause, i int, d direction, column int, port uint32) bool {
	receiver := i
	if d == egress {
		receiver = column
	}
	return includes(r.table.sets[cl.ports], port) || receiver <= r.stranger && slices.ContainsFunc(cl.named, func(name portName) bool {
		return includes(canonical(slices.Clone(r.classes[receiver].named[name])), port)
	})
}

// evidence names a policy and where it stands.
func evidence(o *inventory.Object) string {
	text := o.GetKind() + " " + o.GetName()
	if o.Source != "" {
		text += " at " + o.Source
	}
	return text
}
