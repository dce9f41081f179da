package network

import "math/bits"

// A set is an immutable set of small numbers: a bitset without the empty words
// at its ends, since what lies in one namespace lies side by side.
type set struct {
	at    int // of the first word
	words []uint64
}

// between returns the numbers from one up to another, which is left out.
func between(from, to int) set {
	if from >= to {
		return set{}
	}
	s := set{at: from / 64, words: make([]uint64, (to-1)/64-from/64+1)}
	for i := range s.words {
		s.words[i] = ^uint64(0)
	}
	s.words[0] &= ^uint64(0) << (from % 64)
	s.words[len(s.words)-1] &= ^uint64(0) >> (63 - (to-1)%64)
	return s
}

// setOf returns the set of some numbers.
func setOf(members []int) set {
	if len(members) == 0 {
		return set{}
	}
	low, high := members[0], members[0]
	for _, m := range members {
		low, high = min(low, m), max(high, m)
	}
	s := set{at: low / 64, words: make([]uint64, high/64-low/64+1)}
	for _, m := range members {
		s.words[m/64-s.at] |= 1 << (m % 64)
	}
	return s
}

func (s set) empty() bool { return len(s.words) == 0 }

func (s set) has(n int) bool {
	i := n/64 - s.at
	return i >= 0 && i < len(s.words) && s.words[i]&(1<<(n%64)) != 0
}

func (s set) word(i int) uint64 {
	if i < s.at || i >= s.at+len(s.words) {
		return 0
	}
	return s.words[i-s.at]
}

func (s set) and(o set) set {
	return build(max(s.at, o.at), min(s.at+len(s.words), o.at+len(o.words)), func(i int) uint64 { return s.word(i) & o.word(i) })
}

func (s set) andNot(o set) set {
	return build(s.at, s.at+len(s.words), func(i int) uint64 { return s.word(i) &^ o.word(i) })
}

func (s set) or(o set) set {
	switch {
	case s.empty():
		return o
	case o.empty():
		return s
	}
	return build(min(s.at, o.at), max(s.at+len(s.words), o.at+len(o.words)), func(i int) uint64 { return s.word(i) | o.word(i) })
}

// build makes the set that has a word at each place from one up to another.
func build(from, to int, word func(int) uint64) set {
	for from < to && word(from) == 0 {
		from++
	}
	for from < to && word(to-1) == 0 {
		to--
	}
	if from >= to {
		return set{}
	}
	s := set{at: from, words: make([]uint64, to-from)}
	for i := range s.words {
		s.words[i] = word(from + i)
	}
	return s
}

// all yields the members in order.
func (s set) all(yield func(int) bool) {
	for i, w := range s.words {
		for ; w != 0; w &= w - 1 {
			if !yield((s.at+i)*64 + bits.TrailingZeros64(w)) {
				return
			}
		}
	}
}
