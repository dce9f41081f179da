package match

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule/condition"
)

// New compiles resolved conditions.
func New(conditions []condition.Expr) *Set {
	b := &builder{
		Set:    &Set{slots: map[*condition.Input]int32{}},
		texts:  map[string]int32{},
		leaves: map[string]int32{},
		seen:   map[condition.Expr]int32{},
		joined: map[string]int32{},
	}
	var leaves []*condition.Leaf
	known := map[condition.Expr]bool{}
	for _, c := range conditions {
		leaves = b.collect(c, leaves, known)
	}
	b.place(leaves)
	for _, c := range conditions {
		b.roots = append(b.roots, b.build(c))
	}
	b.costs = make([]int, len(b.nodes))
	for i := range b.nodes { // kids stand before what joins them
		b.sort(int32(i))
	}
	b.all = newBitset(len(b.roots)).fill(len(b.roots))
	b.discriminate()
	return b.Set
}

type builder struct {
	*Set
	texts  map[string]int32 // slots by text of the input
	leaves map[string]int32 // nodes by text of the check
	seen   map[condition.Expr]int32
	joined map[string]int32 // nodes by what they join
	costs  []int
}

// collect adds the checks of a condition, each text once.
func (b *builder) collect(e condition.Expr, to []*condition.Leaf, known map[condition.Expr]bool) []*condition.Leaf {
	if known[e] {
		return to
	}
	known[e] = true
	switch e := e.(type) {
	case *condition.Logical:
		for _, kid := range e.Kids {
			to = b.collect(kid, to, known)
		}
	case *condition.Not:
		return b.collect(e.Kid, to, known)
	case *condition.Leaf:
		if _, ok := b.leaves[e.String()]; !ok {
			b.leaves[e.String()] = -1
			to = append(to, e)
		}
	}
	return to
}

// slot returns the slot of an input.
func (b *builder) slot(in *condition.Input) int32 {
	i, ok := b.texts[in.Text]
	if !ok {
		i = int32(len(b.inputs))
		b.texts[in.Text] = i
		b.inputs = append(b.inputs, slot{in})
	}
	b.slots[in] = i
	for _, arg := range in.Args {
		b.slot(arg)
	}
	return i
}

// place makes nodes of the checks, those of a group side by side.
func (b *builder) place(leaves []*condition.Leaf) {
	sorted := map[groupKey][]*condition.Leaf{}
	var keys []groupKey
	for _, l := range leaves {
		key := groupKey{b.slot(l.Left), structureOf(l)}
		if l.Right != nil {
			b.slot(l.Right)
		}
		if _, ok := sorted[key]; !ok {
			keys = append(keys, key)
		}
		sorted[key] = append(sorted[key], l)
	}
	for _, key := range keys {
		first := int32(len(b.nodes))
		g, ok := newGroup(key, sorted[key], first)
		for _, l := range sorted[key] {
			n := node{kind: leaf, slot: key.slot, leaf: l}
			if ok {
				n.kind, n.group = grouped, int32(len(b.groups))
			} else {
				n.test = single(l)
			}
			b.leaves[l.String()] = int32(len(b.nodes))
			b.nodes = append(b.nodes, n)
		}
		if ok {
			b.groups = append(b.groups, g)
		}
	}
}

// build returns the node of a condition.
func (b *builder) build(e condition.Expr) int32 {
	if i, ok := b.seen[e]; ok {
		return i
	}
	var i int32
	switch e := e.(type) {
	case *condition.Leaf:
		i = b.leaves[e.String()]
	case *condition.Not:
		i = b.negate(b.build(e.Kid))
	case *condition.Logical:
		i = b.join(e)
	}
	b.seen[e] = i
	return i
}

func (b *builder) negate(i int32) int32 {
	if b.nodes[i].kind == not {
		return b.nodes[i].kids[0]
	}
	return b.node(not, []int32{i})
}

// join makes one node of a condition and those of the same kind in it.
func (b *builder) join(e *condition.Logical) int32 {
	k := and
	if e.Or {
		k = or
	}
	var kids []int32
	for _, kid := range e.Kids {
		i := b.build(kid)
		if b.nodes[i].kind == k {
			kids = append(kids, b.nodes[i].kids...)
		} else {
			kids = append(kids, i)
		}
	}
	slices.Sort(kids)
	if kids = slices.Compact(kids); len(kids) == 1 {
		return kids[0]
	}
	return b.node(k, kids)
}

// node returns the node that joins kids.
func (b *builder) node(k kind, kids []int32) int32 {
	key := []byte{byte(k)}
	for _, kid := range kids {
		key = binary.LittleEndian.AppendUint32(key, uint32(kid))
	}
	if i, ok := b.joined[string(key)]; ok {
		return i
	}
	i := int32(len(b.nodes))
	b.joined[string(key)] = i
	b.nodes = append(b.nodes, node{kind: k, kids: kids})
	return i
}

// sort puts the kids of a node in the order of their costs.
func (b *builder) sort(i int32) {
	n := &b.nodes[i]
	if n.leaf != nil {
		b.costs[i] = cost(n)
		return
	}
	for _, kid := range n.kids {
		b.costs[i] = min(b.costs[i]+b.costs[kid], 1<<30)
	}
	slices.SortStableFunc(n.kids, func(x, y int32) int { return b.costs[x] - b.costs[y] })
}

// cost estimates what a check costs, in comparisons of short texts.
func cost(n *node) int {
	c := 1
	if n.kind == leaf && n.test == nil {
		c = 10
	}
	if structure := structureOf(n.leaf); structure == substrings || structure == substringsFold {
		c = 5
	}
	in := n.leaf.Left
	switch {
	case in.Fun != "":
		c += 30
	case strings.HasPrefix(in.Ref.Name, "kg.pod."), strings.HasPrefix(in.Ref.Name, "kg.role."):
		c += 60 // they need whole bodies
	case strings.HasPrefix(in.Ref.Name, "ka.req."), strings.HasPrefix(in.Ref.Name, "ka.resp."), in.Ref.Name == "ka.hostpaths":
		c += 20
	case in.Ref.Arg == event.PointerArg && len(in.Ref.Pointer) != 1:
		c += 20
	case in.Type == event.TypeList:
		c += 3
	}
	return c
}
