package gatekeeper

import (
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/kubeguardian/kubeguardian/policy/plan"
)

// Functions that read nothing but their arguments, such as one that reads a
// quantity, are called with the same few arguments for object after object. Their
// values are kept beyond the request.

// The bound of a memo; [plan.CallKey] bounds each key.
const maxMemoized = 4096 // values; then it starts anew

// A memo holds values of pure functions of one program, where arguments and
// value are scalars. It is safe for concurrent use.
type memo struct {
	mu     sync.RWMutex
	values map[string]*ast.Term
}

// Get implements [plan.Memo].
func (m *memo) Get(key string) *ast.Term {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.values[key]
}

// Put implements [plan.Memo].
func (m *memo) Put(key string, value *ast.Term) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.values == nil || len(m.values) >= maxMemoized {
		m.values = map[string]*ast.Term{}
	}
	m.values[key] = value
}

// memoKey returns what a call of a function is known by, or "" when it is not to
// be kept.
func memoKey(place *ruleTree, args ast.Ref) string { return plan.CallKey(place.number, args) }

func scalar(term *ast.Term) bool {
	return term != nil && ast.IsScalar(term.Value)
}
