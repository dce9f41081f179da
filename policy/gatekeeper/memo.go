package gatekeeper

import (
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Functions that read nothing but their arguments, such as one that reads a
// quantity, are called with the same few arguments for object after object. Their
// values are kept beyond the request.

// The bounds of a memo.
const (
	maxMemoized  = 4096 // values; then it starts anew
	maxMemoBytes = 250  // of the arguments of one
)

// A memo holds values of pure functions of one program, where arguments and
// value are scalars. It is safe for concurrent use.
type memo struct {
	mu     sync.RWMutex
	values map[string]*ast.Term
}

func (m *memo) get(key string) *ast.Term {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.values[key]
}

func (m *memo) put(key string, value *ast.Term) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.values == nil || len(m.values) >= maxMemoized {
		m.values = map[string]*ast.Term{}
	}
	m.values[key] = value
}

// memoKey returns what a call of a function is known by, or "" when it is not to
// be kept. The arguments follow each other in their kinds and lengths, so that
// no two calls have the same key.
func memoKey(place *ruleTree, args ast.Ref) string {
	var key strings.Builder
	key.WriteByte(byte(place.number))
	key.WriteByte(byte(place.number >> 8))
	for _, arg := range args {
		var text string
		kind := byte('s')
		switch value := arg.Value.(type) {
		case ast.String:
			text = string(value)
		case ast.Number: // as written: messages may show it
			kind, text = 'n', string(value)
		case ast.Boolean, ast.Null:
			kind, text = 'o', value.String()
		default:
			return ""
		}
		if key.Len()+len(text) > maxMemoBytes {
			return ""
		}
		key.WriteByte(kind)
		key.WriteByte(byte(len(text)))
		key.WriteString(text)
	}
	return key.String()
}

func scalar(term *ast.Term) bool {
	return term != nil && ast.IsScalar(term.Value)
}
