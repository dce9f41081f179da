package match

import (
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule/condition"
)

// A structure is how the checks of one input are looked up together.
type structure uint8

const (
	alone structure = iota // each by itself
	equality
	elements // of a list
	prefixes
	suffixes
	substrings
	substringsFold
	paths
	networks
)

type groupKey struct {
	slot      int32
	structure structure
}

// structureOf returns the structure that answers a check.
func structureOf(l *condition.Leaf) structure {
	if l.Right != nil || l.Op == "exists" || l.Left.Ref.Ancestors() || l.Modifier == "oneof" || l.Modifier == "allof" {
		return alone
	}
	many := l.Modifier != "" // != anyof is true if one of several differs
	switch {
	case l.Left.Type == event.TypeNet && !(many && l.Op == "!="):
		return networks
	case l.Left.Type == event.TypeList && l.Op == "intersects":
		return elements
	case l.Op == "pmatch" && (l.Left.Type == event.TypeString || l.Left.Type == event.TypeList):
		return paths
	case l.Left.Type != event.TypeString:
		return alone
	}
	switch l.Op {
	case "=", "in", "intersects":
		return equality
	case "!=":
		if !many {
			return equality
		}
	case "startswith":
		return prefixes
	case "endswith":
		return suffixes
	case "contains":
		return substrings
	case "icontains":
		return substringsFold
	}
	return alone
}

// A group is the checks of one input that one structure answers.
type group struct {
	slot      int32
	low, high int32   // its nodes
	negated   []int32 // nodes that are true if nothing is found
	find      finder
}

// A finder marks the nodes whose constants fit a value.
type finder interface {
	find(v *event.Value, hit bitset)
}

// answer evaluates all checks of a group.
func (r *Run) answer(g *group) {
	r.done.setRange(g.low, g.high)
	v := r.value(g.slot)
	if v.Missing() {
		return
	}
	g.find.find(v, r.truth)
	for _, i := range g.negated {
		r.truth.flip(i)
	}
}

// least is how many constants a structure must have to be worth it.
var least = map[structure]int{equality: 3, elements: 1, prefixes: 4, suffixes: 4, substrings: 8, substringsFold: 1, paths: 1, networks: 1}

// newGroup makes a group of checks whose nodes begin at first, if it is worth
// one.
func newGroup(key groupKey, leaves []*condition.Leaf, first int32) (g group, ok bool) {
	g = group{slot: key.slot, low: first, high: first + int32(len(leaves))}
	var entries []entry
	for i, l := range leaves {
		node := first + int32(i)
		if l.Op == "!=" {
			g.negated = append(g.negated, node)
		}
		for j := range l.Consts {
			entries = append(entries, entry{&l.Consts[j], node})
		}
	}
	if key.structure == alone || len(entries) < least[key.structure] {
		return g, false
	}
	switch key.structure {
	case equality, elements:
		g.find = newWords(entries)
	case paths:
		g.find = newPaths(entries)
	case networks:
		g.find = newNetworks(entries)
	default:
		a := newAutomaton(key.structure, entries)
		if a == nil {
			return g, false
		}
		g.find = a
	}
	return g, true
}

// An entry is one constant of a check.
type entry struct {
	constant *condition.Const
	node     int32
}

// words finds texts that are equal to a constant.
type words map[string][]int32

func newWords(entries []entry) words {
	w := words{}
	for _, e := range entries {
		w[e.constant.S] = append(w[e.constant.S], e.node)
	}
	return w
}

func (w words) find(v *event.Value, hit bitset) {
	if v.Type != event.TypeList {
		for _, i := range w[v.Text] {
			hit.set(i)
		}
		return
	}
	for _, item := range v.List {
		for _, i := range w[item] {
			hit.set(i)
		}
	}
}

// A pathTrie finds paths by their components.
type pathTrie struct {
	kids  map[string]*pathTrie
	globs []pathGlob
	hits  []int32
}

type pathGlob struct {
	pattern string
	kid     *pathTrie
}

func newPaths(entries []entry) *pathTrie {
	root := &pathTrie{}
	for _, e := range entries {
		t := root
		for _, component := range condition.Components(e.constant.S) {
			t = t.kid(component)
		}
		t.hits = append(t.hits, e.node)
	}
	return root
}

func (t *pathTrie) kid(component string) *pathTrie {
	if condition.IsGlob(component) {
		for _, g := range t.globs {
			if g.pattern == component {
				return g.kid
			}
		}
		t.globs = append(t.globs, pathGlob{component, &pathTrie{}})
		return t.globs[len(t.globs)-1].kid
	}
	if t.kids == nil {
		t.kids = map[string]*pathTrie{}
	}
	if t.kids[component] == nil {
		t.kids[component] = &pathTrie{}
	}
	return t.kids[component]
}

func (t *pathTrie) find(v *event.Value, hit bitset) {
	if v.Type != event.TypeList {
		t.walk(v.Text, hit)
		return
	}
	for _, item := range v.List {
		t.walk(item, hit)
	}
}

func (t *pathTrie) walk(path string, hit bitset) {
	for _, i := range t.hits {
		hit.set(i)
	}
	path = strings.TrimLeft(path, "/")
	if path == "" {
		return
	}
	component, rest, _ := strings.Cut(path, "/")
	if kid := t.kids[component]; kid != nil {
		kid.walk(rest, hit)
	}
	for _, g := range t.globs {
		if condition.ComponentMatch(g.pattern, component) {
			g.kid.walk(rest, hit)
		}
	}
}

// A netTrie finds addresses by their bits: those of IPv4 from its first node,
// those of IPv6 from its second.
type netTrie struct{ nodes []netNode }

type netNode struct {
	kids [2]int32
	hits []int32
}

func newNetworks(entries []entry) *netTrie {
	t := &netTrie{nodes: make([]netNode, 2)}
	for _, e := range entries {
		address, at := e.constant.Prefix.Addr().AsSlice(), int32(0)
		if len(address) == 16 {
			at = 1
		}
		for i := range e.constant.Prefix.Bits() {
			bit := address[i/8] >> (7 - i%8) & 1
			if t.nodes[at].kids[bit] == 0 {
				t.nodes = append(t.nodes, netNode{})
				t.nodes[at].kids[bit] = int32(len(t.nodes) - 1)
			}
			at = t.nodes[at].kids[bit]
		}
		t.nodes[at].hits = append(t.nodes[at].hits, e.node)
	}
	return t
}

func (t *netTrie) find(v *event.Value, hit bitset) {
	at := int32(0)
	if len(v.Text) == 16 {
		at = 1
	}
	for i := 0; ; i++ {
		for _, node := range t.nodes[at].hits {
			hit.set(node)
		}
		if i == 8*len(v.Text) {
			return
		}
		if at = t.nodes[at].kids[v.Text[i/8]>>(7-i%8)&1]; at == 0 {
			return
		}
	}
}

// single returns the test of a check that is on its own, nil if package plain
// is to answer it.
func single(l *condition.Leaf) func(*event.Value) bool {
	switch {
	case l.Op == "exists":
		return func(*event.Value) bool { return true }
	case l.Right != nil || l.Modifier != "" || l.Left.Ref.Ancestors():
		return nil
	case l.Left.Type == event.TypeList && l.Op == "in":
		return allAmong(l)
	case l.Left.Type == event.TypeNumber, l.Left.Type == event.TypeUint, l.Left.Type == event.TypePort:
		if l.Op == "in" || l.Op == "intersects" {
			return numberAmong(l)
		}
	}
	if l.Left.Type != event.TypeString || len(l.Consts) != 1 {
		return nil
	}
	s := l.Consts[0].Value.Text
	switch l.Op {
	case "=", "in", "intersects":
		return func(v *event.Value) bool { return v.Text == s }
	case "!=":
		return func(v *event.Value) bool { return v.Text != s }
	case "startswith":
		return func(v *event.Value) bool { return strings.HasPrefix(v.Text, s) }
	case "endswith":
		return func(v *event.Value) bool { return strings.HasSuffix(v.Text, s) }
	case "contains":
		return func(v *event.Value) bool { return strings.Contains(v.Text, s) }
	}
	return nil
}

func allAmong(l *condition.Leaf) func(*event.Value) bool {
	constants := make([]string, len(l.Consts))
	set := make(map[string]bool, len(l.Consts))
	for i, c := range l.Consts {
		constants[i], set[c.S] = c.S, true
	}
	return func(v *event.Value) bool {
		for _, item := range v.List {
			if len(constants) <= 4 && !slices.Contains(constants, item) || len(constants) > 4 && !set[item] {
				return false
			}
		}
		return true
	}
}

func numberAmong(l *condition.Leaf) func(*event.Value) bool {
	set := make(map[int64]bool, len(l.Consts))
	for _, c := range l.Consts {
		set[c.Value.Number] = true
	}
	return func(v *event.Value) bool { return set[v.Number] }
}
