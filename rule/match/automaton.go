package match

import (
	"slices"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule/condition"
)

// An automaton finds the constants that a text begins or ends with, or contains
// (Aho and Corasick, 1975), in one walk over the text.
type automaton struct {
	class     [256]uint16 // of each byte; those in no constant share one
	width     int         // classes
	next      []int32     // by state and class; 0 is the begin
	steps     []uint32    // next, for the walk: twice the place of the state's row, and 1 if something ends there
	hits      [][]int32   // by state
	shorter   []int32     // by state: the next one that has hits, of the constants that end there too
	begins    [256]bool   // bytes that a constant begins with
	anywhere  bool
	backwards bool
}

const maxTransitions = 4 << 20

// newAutomaton returns nil if the automaton would be too large.
func newAutomaton(s structure, entries []entry) *automaton {
	a := &automaton{anywhere: s == substrings || s == substringsFold, backwards: s == suffixes, width: 1}
	total := 1
	for _, e := range entries {
		total += len(e.constant.S)
		for _, c := range []byte(e.constant.S) {
			a.classify(c, s == substringsFold)
		}
	}
	if total*a.width > maxTransitions {
		return nil
	}
	a.next, a.hits = make([]int32, a.width), make([][]int32, 1)
	for _, e := range entries {
		a.add(e)
	}
	a.shorter = make([]int32, len(a.hits))
	if a.anywhere {
		a.link()
	}
	a.steps = make([]uint32, len(a.next))
	for i, state := range a.next {
		a.steps[i] = uint32(int(state)*a.width) << 1
		if state != 0 && (len(a.hits[state]) > 0 || a.shorter[state] != 0) {
			a.steps[i] |= 1
		}
	}
	return a
}

// classify gives a byte a class of its own, or one that it shares with the
// other case.
func (a *automaton) classify(c byte, fold bool) {
	if a.class[c] != 0 {
		return
	}
	a.class[c] = uint16(a.width)
	if fold {
		s := string(c)
		a.class[condition.Lower(s)[0]], a.class[condition.Upper(s)[0]] = uint16(a.width), uint16(a.width)
	}
	a.width++
}

func (a *automaton) add(e entry) {
	s := []byte(e.constant.S)
	if a.backwards {
		slices.Reverse(s)
	}
	state := int32(0)
	for i, c := range s {
		if i == 0 {
			for b := range a.begins {
				a.begins[b] = a.begins[b] || a.class[b] == a.class[c]
			}
		}
		at := int(state)*a.width + int(a.class[c])
		if a.next[at] == 0 {
			a.next[at] = int32(len(a.hits))
			a.hits = append(a.hits, nil)
			a.next = append(a.next, make([]int32, a.width)...)
		}
		state = a.next[at]
	}
	a.hits[state] = append(a.hits[state], e.node)
}

// link adds the transitions of a text that does not go on as a constant does.
func (a *automaton) link() {
	fails := make([]int32, len(a.hits))
	var queue []int32
	for _, state := range a.next[:a.width] {
		if state != 0 {
			queue = append(queue, state)
		}
	}
	for len(queue) > 0 {
		state := queue[0]
		queue = queue[1:]
		fail := fails[state]
		if a.shorter[state] = a.shorter[fail]; len(a.hits[fail]) > 0 && fail != 0 {
			a.shorter[state] = fail
		}
		for class := range a.width {
			at, instead := int(state)*a.width+class, a.next[int(fail)*a.width+class]
			if kid := a.next[at]; kid != 0 {
				fails[kid] = instead
				queue = append(queue, kid)
			} else {
				a.next[at] = instead
			}
		}
	}
}

func (a *automaton) find(v *event.Value, hit bitset) {
	a.hit(0, hit)
	if a.anywhere {
		a.search(v.Text, hit)
		return
	}
	step := uint32(0)
	for i := range len(v.Text) {
		c := v.Text[i]
		if a.backwards {
			c = v.Text[len(v.Text)-1-i]
		}
		if step = a.steps[step>>1+uint32(a.class[c])]; step == 0 {
			return
		}
		if step&1 != 0 {
			a.hit(int32(int(step>>1)/a.width), hit)
		}
	}
}

// search finds constants anywhere. Between them it only looks for a byte that
// one begins with.
func (a *automaton) search(text string, hit bitset) {
	step := uint32(0)
	for i := 0; i < len(text); i++ {
		if step == 0 {
			for i < len(text) && !a.begins[text[i]] {
				i++
			}
			if i == len(text) {
				return
			}
		}
		step = a.steps[step>>1+uint32(a.class[text[i]])]
		if step&1 != 0 {
			a.hit(int32(int(step>>1)/a.width), hit)
		}
	}
}

// hit marks the constants that end at a state.
func (a *automaton) hit(state int32, hit bitset) {
	for {
		for _, i := range a.hits[state] {
			hit.set(i)
		}
		if state = a.shorter[state]; state == 0 {
			return
		}
	}
}
