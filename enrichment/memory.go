package enrichment

// A memory is a map that forgets: of what was not asked for lately it keeps no
// more than so many. It holds two generations, and when the younger one is full
// the older one goes.
type memory[K comparable, V any] struct {
	limit        int // of each generation
	young, older map[K]known[K, V]
}

// A known has its key too: one that is only asked with need not last.
type known[K comparable, V any] struct {
	key   K
	value V
}

func newMemory[K comparable, V any](limit int) *memory[K, V] {
	return &memory[K, V]{limit: limit, young: map[K]known[K, V]{}, older: map[K]known[K, V]{}}
}

// get returns what is known of a key, and keeps it from being forgotten.
func (m *memory[K, V]) get(key K) (V, bool) {
	if k, ok := m.young[key]; ok {
		return k.value, true
	}
	k, ok := m.older[key]
	if ok {
		m.set(k.key, k.value)
	}
	return k.value, ok
}

// set remembers a value; the key must last as long.
func (m *memory[K, V]) set(key K, v V) {
	if _, old := m.young[key]; !old && len(m.young) >= m.limit {
		m.young, m.older = map[K]known[K, V]{}, m.young
	}
	m.young[key] = known[K, V]{key, v}
}

func (m *memory[K, V]) len() int { return len(m.young) + len(m.older) }
