// Package match evaluates many conditions at once. What conditions have in
// common is evaluated once for an event (build.go); checks of one field share
// one look-up (group.go); and what an event says in a few cheap fields leaves
// only the conditions that can be true (index.go). The result is that of package
// plain, which a test holds it to.
package match

import (
	"math/bits"
	"sync"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule/condition"
	"github.com/kubeguardian/kubeguardian/rule/plain"
)

// A Set is a compiled set of conditions on events of one source. It is immutable
// and safe for concurrent use.
type Set struct {
	inputs []slot
	slots  map[*condition.Input]int32
	nodes  []node // checks first, those of a group side by side
	groups []group
	roots  []int32 // by condition
	index  []discriminator
	all    bitset // of conditions
	pool   sync.Pool
}

// A slot holds the value of an input during one event.
type slot struct{ input *condition.Input }

type kind uint8

const (
	leaf    kind = iota
	grouped      // a check that its group answers
	and
	or
	not
)

// A node is a check or joins nodes. Each stands for all places of the set that
// say the same.
type node struct {
	kind  kind
	slot  int32   // of a check
	group int32   // of a check
	kids  []int32 // cheapest first
	leaf  *condition.Leaf
	test  func(*event.Value) bool // of a check on its own; nil leaves it to plain
}

// A Run is the evaluation of a set for one event. It is a
// [condition.Getter] that takes each value from the event once.
type Run struct {
	set        *Set
	event      *event.Event
	values     []event.Value
	known      []bool
	taken      []int32 // slots that are known
	done       bitset  // nodes that were evaluated
	truth      bitset  // and are true
	candidates bitset
}

// Begin starts the evaluation of an event. End must be called on the run.
func (s *Set) Begin(e *event.Event) *Run {
	r, ok := s.pool.Get().(*Run)
	if !ok {
		r = &Run{
			set: s, values: make([]event.Value, len(s.inputs)), known: make([]bool, len(s.inputs)),
			taken: make([]int32, 0, len(s.inputs)), done: newBitset(len(s.nodes)), truth: newBitset(len(s.nodes)),
			candidates: newBitset(len(s.roots)),
		}
	}
	r.event = e
	copy(r.candidates, s.all)
	for i := range s.index {
		if !s.index[i].narrow(r) {
			break
		}
	}
	return r
}

// End releases what the run holds.
func (r *Run) End() {
	for _, i := range r.taken {
		r.values[i], r.known[i] = event.Value{}, false
	}
	r.taken = r.taken[:0]
	clear(r.done)
	clear(r.truth)
	r.event = nil
	r.set.pool.Put(r)
}

// Next returns the next condition that is true, in their order, or -1.
func (r *Run) Next() int {
	for word := range r.candidates {
		for r.candidates[word] != 0 {
			bit := bits.TrailingZeros64(r.candidates[word])
			r.candidates[word] &^= 1 << bit
			if i := word<<6 + bit; r.eval(r.set.roots[i]) {
				return i
			}
		}
	}
	return -1
}

// Get implements [condition.Getter].
func (r *Run) Get(in *condition.Input) event.Value {
	if i, ok := r.set.slots[in]; ok {
		return *r.value(i)
	}
	return r.compute(in)
}

func (r *Run) compute(in *condition.Input) event.Value {
	switch {
	case in.Const != nil:
		return *in.Const
	case in.Fun != "":
		return in.Compute(r)
	}
	return plain.Field(r.event, in.Ref)
}

// value returns the value of a slot.
func (r *Run) value(i int32) *event.Value {
	if !r.known[i] {
		r.known[i] = true
		r.taken = append(r.taken, i)
		if in := r.set.inputs[i].input; in.Ref.Name != "" {
			r.values[i] = plain.Field(r.event, in.Ref)
		} else {
			r.values[i] = r.compute(in)
		}
	}
	return &r.values[i]
}

func (r *Run) eval(i int32) bool {
	if r.done.has(i) {
		return r.truth.has(i)
	}
	n := &r.set.nodes[i]
	result := false
	switch n.kind {
	case grouped:
		r.answer(&r.set.groups[n.group])
		return r.truth.has(i)
	case leaf:
		result = r.check(n)
	case not:
		result = !r.eval(n.kids[0])
	default:
		result = n.kind == and
		for _, kid := range n.kids {
			if r.eval(kid) != result {
				result = !result
				break
			}
		}
	}
	r.done.set(i)
	if result {
		r.truth.set(i)
	}
	return result
}

func (r *Run) check(n *node) bool {
	if n.test == nil {
		return plain.Check(n.leaf, r)
	}
	v := r.value(n.slot)
	return !v.Missing() && n.test(v)
}

// A bitset has one bit for each of a row of things.
type bitset []uint64

func newBitset(n int) bitset { return make(bitset, (n+63)/64) }

func (b bitset) has(i int32) bool { return b[i>>6]&(1<<(i&63)) != 0 }
func (b bitset) set(i int32)      { b[i>>6] |= 1 << (i & 63) }
func (b bitset) flip(i int32)     { b[i>>6] ^= 1 << (i & 63) }

// fill sets the first n bits.
func (b bitset) fill(n int) bitset {
	for i := range n {
		b.set(int32(i))
	}
	return b
}

// setRange sets the bits from low to before high.
func (b bitset) setRange(low, high int32) {
	first, last := low>>6, (high-1)>>6
	begin, end := ^uint64(0)<<(low&63), ^uint64(0)>>(63-(high-1)&63)
	if first == last {
		b[first] |= begin & end
		return
	}
	b[first] |= begin
	for i := first + 1; i < last; i++ {
		b[i] = ^uint64(0)
	}
	b[last] |= end
}
