package inventory

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"sync"
)

// The bounds of a pool.
const (
	maxPooled     = 4096 // parts of a generation
	maxPooledText = 1024 // bytes of a part, written down: what is longer seldom comes twice
)

// A pool lets equal parts of objects be one. A cluster repeats itself: replicas
// have the spec of their template, and teams copy each other's probes and
// security contexts. Only what came lately is remembered, so that the pool stays
// small where nothing repeats. It is safe for concurrent use.
type pool struct {
	mu    sync.Mutex
	parts recent[any]
	text  []byte   // of what is looked at now
	keys  []string // of the mappings that are open
}

// share replaces the parts of an object by equal ones that came before. The
// caller owns v, and nobody may write to a part of it from then on.
func (p *pool) share(v map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = p.text[:0]
	p.mapping(v)
}

// one returns the one copy of v, and whether it appended to the text what decides
// what v is: a part that is too long is like no other.
func (p *pool) one(v any) (_ any, short bool) {
	from := len(p.text)
	switch v := v.(type) {
	case map[string]any:
		short = p.mapping(v)
	case []any:
		p.text = binary.AppendUvarint(append(p.text, '['), uint64(len(v)))
		short = true
		for i, item := range v {
			var ok bool
			v[i], ok = p.one(item)
			short = p.fits(from, short && ok)
		}
	case string:
		if short = len(v) < maxPooledText; short {
			p.text = append(p.text, '"')
			p.word(v)
		}
	default:
		return v, p.scalar(v)
	}
	if short = p.fits(from, short); !short {
		return v, false
	}
	if known, ok := p.parts.get(p.text[from:]); ok {
		return known, true
	}
	p.parts.put(string(p.text[from:]), v)
	return v, true
}

func (p *pool) mapping(v map[string]any) (short bool) {
	from, first := len(p.text), len(p.keys)
	for key := range v {
		p.keys = append(p.keys, key)
	}
	slices.Sort(p.keys[first:])
	p.text = binary.AppendUvarint(append(p.text, '{'), uint64(len(v)))
	short = true
	for i := range len(v) {
		key := p.keys[first+i]
		if short = short && len(key) < maxPooledText; short {
			p.word(key)
		}
		var ok bool
		v[key], ok = p.one(v[key])
		short = p.fits(from, short && ok)
	}
	clear(p.keys[first:])
	p.keys = p.keys[:first]
	return short
}

// fits forgets the text since from if it is too long to tell anything.
func (p *pool) fits(from int, short bool) bool {
	if short && len(p.text)-from <= maxPooledText {
		return true
	}
	p.text = p.text[:from]
	return false
}

func (p *pool) word(s string) { p.text = append(binary.AppendUvarint(p.text, uint64(len(s))), s...) }

func (p *pool) scalar(v any) (known bool) {
	switch v := v.(type) {
	case nil:
		p.text = append(p.text, '0')
	case bool:
		word := byte('n')
		if v {
			word = 'y'
		}
		p.text = append(p.text, word)
	case int64:
		p.text = binary.AppendVarint(append(p.text, 'i'), v)
	case float64:
		p.text = binary.BigEndian.AppendUint64(append(p.text, 'f'), math.Float64bits(v))
	default:
		return false
	}
	return true
}

// recent remembers what was used lately: between one and two generations.
type recent[V any] struct {
	young, old map[string]V
	most       int // in a generation; 0: maxPooled
}

func (r *recent[V]) get(key []byte) (V, bool) {
	if v, ok := r.young[string(key)]; ok {
		return v, true
	}
	v, ok := r.old[string(key)]
	if ok {
		r.put(string(key), v)
	}
	return v, ok
}

func (r *recent[V]) put(key string, v V) {
	if r.young == nil || len(r.young) >= cmp.Or(r.most, maxPooled) {
		r.young, r.old = map[string]V{}, r.young
	}
	r.young[key] = v
}
