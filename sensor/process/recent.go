package process

import (
	"hash/maphash"
	"sync"
)

// recentSlots and recentMax bound what a recent keeps: values, and bytes of what
// each was made of.
const (
	recentSlots = 512
	recentMax   = 1024
)

// A recent makes values of bytes, and hands out one that it has made of the same
// bytes before if that is not long ago: most processes of a node have names,
// folders, programs and control groups that others have too. It is safe for
// concurrent use.
type recent[V any] struct {
	make func(text string) V

	mu    sync.Mutex
	seed  maphash.Seed
	slots [recentSlots]made[V]
}

type made[V any] struct {
	of    string
	value V
}

func newRecent[V any](of func(string) V) *recent[V] {
	return &recent[V]{make: of, seed: maphash.MakeSeed()}
}

// of returns the value of bytes, which others may have as well.
func (r *recent[V]) of(b []byte) V {
	if len(b) > recentMax {
		return r.make(string(b))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	slot := &r.slots[maphash.Bytes(r.seed, b)%recentSlots]
	if string(b) != slot.of {
		slot.of = string(b)
		slot.value = r.make(slot.of)
	}
	return slot.value
}
