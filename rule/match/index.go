package match

import (
	"math/bits"
	"slices"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule/condition"
	"github.com/kubeguardian/kubeguardian/rule/plain"
)

// discriminating are fields that are cheap to take from an event and tell
// conditions apart, most telling first.
var discriminating = []string{
	"evt.type", "syscall.type", "evt.is_open_write", "evt.is_open_read", "proc.name", "fd.name", "fd.directory", "container.id", "ka.target.resource", "ka.verb", "ka.target.subresource", "ka.stage", "jevt.value[/stage]",
	"json.value[/stage]", "jevt.value[/verb]", "ka.response.code", "ka.target.namespace", "ka.target.name", "ka.user.name", "ka.auth.decision",
}

// maxConstants is up to how many constants of a field are told apart.
const maxConstants = 4096

// A discriminator says which conditions can be true for each value of a field.
type discriminator struct {
	slot    int32
	values  map[string]bitset
	bools   [2]bitset // for false and true, of a bool
	other   bitset    // for a value that no condition names
	missing bitset
}

// few is how many candidates are evaluated rather than narrowed further.
const few = 3

// narrow leaves the candidates that can be true, and reports whether it is worth
// it to go on.
func (d *discriminator) narrow(r *Run) bool {
	v, can := r.value(d.slot), d.missing
	switch {
	case v.Type == event.TypeBool:
		can = d.bools[v.Number&1]
	case !v.Missing():
		if can = d.other; len(d.values) > 0 {
			if known, ok := d.values[v.Text]; ok {
				can = known
			}
		}
	}
	left := 0
	for i := range r.candidates {
		r.candidates[i] &= can[i]
		left += bits.OnesCount64(r.candidates[i])
	}
	return left > few
}

// discriminate makes the index of a set.
func (b *builder) discriminate() {
	for _, name := range discriminating {
		slot, ok := b.texts[name]
		if !ok || b.inputs[slot].input.Const != nil || !isOneOf(b.inputs[slot].input.Type, event.TypeString, event.TypeBool) {
			continue
		}
		u := b.universe(slot)
		if len(u.values) > maxConstants {
			continue
		}
		if d, ok := u.discriminator(); ok {
			b.index = append(b.index, d)
		}
	}
}

// A universe is the values of a field that conditions tell apart: the constants
// that they name, any other value, and none.
type universe struct {
	*builder
	slot   int32
	typ    event.Type
	values []string
	can    []verdict // by node
}

// The values of a bool by their numbers.
var bools = []string{"false", "true"}

func isOneOf(t event.Type, a, b event.Type) bool { return t == a || t == b }

// A verdict says for which values of a universe a node can be true and can be
// false; nil means for all.
type verdict struct{ yes, no bitset }

func (b *builder) universe(slot int32) *universe {
	u := &universe{builder: b, slot: slot, typ: b.inputs[slot].input.Type, can: make([]verdict, len(b.nodes))}
	if u.typ == event.TypeBool {
		u.values = bools
		return u
	}
	for i := range b.nodes {
		n := &b.nodes[i]
		if n.leaf == nil || n.slot != slot || structureOf(n.leaf) != equality {
			continue
		}
		for _, c := range n.leaf.Consts {
			u.values = append(u.values, c.S)
		}
	}
	slices.Sort(u.values)
	u.values = slices.Compact(u.values)
	return u
}

// other and missing are the last of a universe.
func (u *universe) other() int32   { return int32(len(u.values)) }
func (u *universe) missing() int32 { return int32(len(u.values)) + 1 }
func (u *universe) size() int      { return len(u.values) + 2 }

// discriminator returns what the field says about the conditions; ok is false
// if it says nothing.
func (u *universe) discriminator() (d discriminator, ok bool) {
	for i := range u.nodes { // kids first
		u.can[i] = u.judge(&u.nodes[i])
	}
	d = discriminator{slot: u.slot, values: make(map[string]bitset, len(u.values))}
	of := func(value int32) bitset {
		can := newBitset(len(u.roots))
		for i, root := range u.roots {
			if yes := u.can[root].yes; yes == nil || yes.has(value) {
				can.set(int32(i))
			} else {
				ok = true
			}
		}
		return can
	}
	for i, s := range u.values {
		if d.values[s] = of(int32(i)); u.typ == event.TypeBool {
			d.bools[i] = d.values[s]
		}
	}
	d.other, d.missing = of(u.other()), of(u.missing())
	return d, ok
}

func (u *universe) judge(n *node) verdict {
	switch n.kind {
	case not:
		kid := u.can[n.kids[0]]
		return verdict{kid.no, kid.yes}
	case and, or:
		return u.judgeJoined(n)
	}
	if n.slot != u.slot || n.leaf.Right != nil {
		return verdict{}
	}
	v := verdict{newBitset(u.size()), newBitset(u.size())}
	for i, s := range u.values {
		if plain.Check(n.leaf, u.fixed(i, s)) {
			v.yes.set(int32(i))
		} else {
			v.no.set(int32(i))
		}
	}
	v.no.set(u.missing())
	found, known := otherValue(n.leaf)
	if !known || found {
		v.yes.set(u.other())
	}
	if !known || !found {
		v.no.set(u.other())
	}
	return v
}

// otherValue says what a check is for a value that no condition names.
func otherValue(l *condition.Leaf) (result, known bool) {
	if l.Op == "exists" {
		return true, true
	}
	return l.Op == "!=", structureOf(l) == equality
}

// judgeJoined judges a node that joins others: one kid that cannot be true keeps
// an and from it, and one that can is enough for an or.
func (u *universe) judgeJoined(n *node) verdict {
	var out verdict
	for i, kid := range n.kids {
		if v := u.can[kid]; i == 0 {
			out = verdict{slices.Clone(v.yes), slices.Clone(v.no)}
		} else if n.kind == and {
			out = verdict{u.both(out.yes, v.yes), u.either(out.no, v.no)}
		} else {
			out = verdict{u.either(out.yes, v.yes), u.both(out.no, v.no)}
		}
	}
	return out
}

func (u *universe) both(a, b bitset) bitset {
	switch {
	case a == nil:
		return slices.Clone(b)
	case b != nil:
		for i := range a {
			a[i] &= b[i]
		}
	}
	return a
}

func (u *universe) either(a, b bitset) bitset {
	if a == nil || b == nil {
		return nil
	}
	for i := range a {
		a[i] |= b[i]
	}
	return a
}

// fixed returns an event in which each field has one of the values.
func (u *universe) fixed(i int, s string) fixed {
	if u.typ == event.TypeBool {
		return fixed(event.Bool(i == 1))
	}
	return fixed(event.Text(s))
}

// fixed is an event in which each field has one value.
type fixed event.Value

// Get implements [condition.Getter].
func (f fixed) Get(*condition.Input) event.Value { return event.Value(f) }
