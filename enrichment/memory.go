package enrichment

// A memory is a map that forgets: of what was not asked for lately it keeps no
// more than so many. It holds two generations, and when the younger one is full
// the older one goes.
type memory[K comparable, V any] struct {
	limit        int // of each generation
	young, older map[K]V
}

func newMemory[K comparable, V any](limit int) *memory[K, V] {
	return &memory[K, V]{limit: limit, young: map[K]V{}, older: map[K]V{}}
}

// get returns what is known of a key, and keeps it from being forgotten.
func (m *memory[K, V]) get(key K) (V, bool) {
	if v, ok := m.young[key]; ok {
		return v, true
	}
	v, ok := m.older[key]
	if ok {
		m.set(key, v)
	}
	return v, ok
}

func (m *memory[K, V]) set(key K, v V) {
	if _, known := m.young[key]; !known && len(m.young) >= m.limit {
		m.young, m.older = map[K]V{}, m.young
	}
	m.young[key] = v
}

func (m *memory[K, V]) len() int { return len(m.young) + len(m.older) }
