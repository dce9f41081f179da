// Package memory lets policies recall what they have decided.
//
// Most objects of a cluster are alike in what a policy looks at: a policy on
// capabilities sees the same few shapes of a container ten thousand times. A
// [Memory] learns from each evaluation which fields were read, in which order
// and what they held. Evaluation is a pure function of what it reads, so that
// another request with the same answers to the same questions has the same
// outcome, and following the questions takes a fiftieth of the time of
// evaluating them.
//
// A memory is a decision tree: an inner node asks one question, a branch is an
// answer, a leaf is an outcome. It holds nothing that evaluation did not say.
package memory

import (
	"math"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/google/cel-go/common/types"
)

// Bounds of a memory. What goes beyond them is evaluated, and not learned.
const (
	MaxQuestions = 400    // of one outcome
	maxAnswers   = 256    // to one question; an image or a name has too many
	MaxNodes     = 4096   // of one policy
	maxFailures  = 8      // to learn, one after the other
	Patience     = 10_000 // requests without an answer, until a memory that cannot learn starts over
)

// A Memory of outcomes. It is safe for concurrent use; the zero value knows
// nothing.
type Memory[T any] struct {
	roots [8]atomic.Pointer[node[T]] // by which of object, oldObject and namespace there are

	learn    sync.Mutex
	nodes    int // guarded by learn
	failures int // guarded by learn

	resting atomic.Bool  // it is full, or fails to learn
	missed  atomic.Int64 // while resting
}

// A node asks a question, or knows the outcome.
type node[T any] struct {
	question question
	branches atomic.Pointer[[]branch[T]] // replaced whole, under Memory.learn
	outcome  *T
}

type branch[T any] struct {
	answer answer
	to     *node[T]
}

func (n *node[T]) follow(a answer) *node[T] {
	if all := n.branches.Load(); all != nil {
		for i := range *all {
			if b := &(*all)[i]; b.answer == a {
				return b.to
			}
		}
	}
	return nil
}

func (n *node[T]) varied() bool {
	all := n.branches.Load()
	return all != nil && len(*all) >= maxAnswers
}

// The places of the first values, which all questions lead from.
const (
	Object = iota
	OldObject
	Request
	Namespace
	firstPlace // of what questions lead to
)

// A question is about a map or list that is known by its place: the request's
// values come first, then those that earlier questions have led to.
type question struct {
	ask   asking
	place int
	key   string // of askField
	index int    // of askItem; the other place of askEqual
}

type asking uint8

const (
	askField asking = iota + 1 // of a map
	askItem                    // of a list
	askSize                    // of either
	askKeys                    // of a map
	askEqual                   // whether two maps or lists are equal
)

// An answer is the value of a scalar; of a map or list it is only that it is
// one.
type answer struct {
	kind answerKind
	bits uint64
	text string
}

type answerKind uint8

const (
	unanswerable answerKind = iota // is never learned
	absent
	null
	boolean
	integer
	float
	text
	mapping
	list
)

// Values are what memories ask about one request. They belong to one goroutine.
type Values struct {
	first  [firstPlace]any // the first ones, which all questions lead from
	places []any
	equal  map[[2]uintptr]answer // of comparisons, which many policies ask for
}

// NewValues returns the values of a request: its object and old object, each
// nil if there is none, and what is to be asked of the rest of it. They hold
// what JSON has, with whole numbers as int64, and are not changed.
func NewValues(object, oldObject, request map[string]any) *Values {
	v := &Values{}
	for place, value := range [firstPlace]map[string]any{object, oldObject, request} {
		if value != nil {
			v.first[place] = value
		}
	}
	return v
}

// SetNamespace adds the namespace of the object, as far as expressions see it;
// nil says that there is none. All that asks about a request sees the same one.
func (v *Values) SetNamespace(namespace map[string]any) {
	if v.first[Namespace] = nil; namespace != nil {
		v.first[Namespace] = namespace
	}
}

// reset leaves the first values only.
func (v *Values) reset() { v.places = append(v.places[:0], v.first[:]...) }

// answer asks a question. value is what the answer stands for.
func (v *Values) answer(q question) (a answer, value any) {
	switch of := v.places[q.place].(type) {
	case map[string]any:
		switch q.ask {
		case askField:
			value, present := of[q.key]
			return answerOf(value, present), value
		case askSize:
			return sizeOf(len(of)), nil
		case askKeys:
			return keysOf(sortedKeys(of)), nil
		}
	case []any:
		switch {
		case q.ask == askItem && q.index >= len(of):
			return answer{kind: absent}, nil
		case q.ask == askItem:
			return answerOf(of[q.index], true), of[q.index]
		case q.ask == askSize:
			return sizeOf(len(of)), nil
		}
	}
	if q.ask == askEqual {
		return v.compare(v.places[q.place], v.places[q.index]), nil
	}
	return answer{}, nil
}

// compare says whether CEL calls two maps or lists equal.
func (v *Values) compare(a, b any) answer {
	key := [2]uintptr{identityOf(a), identityOf(b)}
	if known, ok := v.equal[key]; ok {
		return known
	}
	out := answer{}
	if equal, ok := types.DefaultTypeAdapter.NativeToValue(a).Equal(types.DefaultTypeAdapter.NativeToValue(b)).(types.Bool); ok {
		out = answerOf(bool(equal), true)
	}
	if key[0] != 0 && key[1] != 0 {
		if v.equal == nil {
			v.equal = map[[2]uintptr]answer{}
		}
		v.equal[key] = out
	}
	return out
}

// identityOf returns where a map or list is, or 0 if another may be there too.
func identityOf(value any) uintptr {
	if l, ok := value.([]any); ok && len(l) == 0 {
		return 0
	}
	return reflect.ValueOf(value).Pointer()
}

func keysOf(sorted []string) answer {
	var all []byte
	for _, key := range sorted {
		all = strconv.AppendQuote(all, key)
	}
	return answer{kind: text, text: string(all)}
}

func sizeOf(n int) answer { return answer{kind: integer, bits: uint64(n)} }

func answerOf(value any, present bool) answer {
	if !present {
		return answer{kind: absent}
	}
	switch v := value.(type) {
	case nil:
		return answer{kind: null}
	case bool:
		if v {
			return answer{kind: boolean, bits: 1}
		}
		return answer{kind: boolean}
	case int64:
		return answer{kind: integer, bits: uint64(v)}
	case float64:
		return answer{kind: float, bits: math.Float64bits(v)}
	case string:
		return answer{kind: text, text: v}
	case map[string]any:
		return answer{kind: mapping}
	case []any:
		return answer{kind: list}
	}
	return answer{}
}

func (a answer) container() bool { return a.kind == mapping || a.kind == list }

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Recall returns the outcome for the values of a request. Without one, worth
// says whether the outcome is worth learning.
func (m *Memory[T]) Recall(v *Values) (outcome *T, worth bool) {
	v.reset()
	n := m.root(v).Load()
	for n != nil && n.outcome == nil {
		a, value := v.answer(n.question)
		next := n.follow(a)
		if next == nil && n.varied() {
			return nil, false
		}
		if a.container() {
			v.places = append(v.places, value)
		}
		n = next
	}
	if n == nil {
		return nil, m.awake()
	}
	return n.outcome, false
}

func (m *Memory[T]) root(v *Values) *atomic.Pointer[node[T]] {
	i := 0
	if v.first[Object] != nil {
		i |= 1
	}
	if v.first[OldObject] != nil {
		i |= 2
	}
	if v.first[Namespace] != nil {
		i |= 4
	}
	return &m.roots[i]
}

// State is what can be seen of a memory.
type State struct {
	Nodes    int  // that it holds
	Failures int  // to learn, since it last did
	Resting  bool // it does not learn
}

// State returns the state of the memory.
func (m *Memory[T]) State() State {
	m.learn.Lock()
	defer m.learn.Unlock()
	return State{m.nodes, m.failures, m.resting.Load()}
}

// awake reports whether the memory learns. One that rests starts over when it
// has not known enough.
func (m *Memory[T]) awake() bool {
	if !m.resting.Load() {
		return true
	}
	if m.missed.Add(1) < Patience {
		return false
	}
	m.learn.Lock()
	defer m.learn.Unlock()
	for i := range m.roots {
		m.roots[i].Store(nil)
	}
	m.nodes, m.failures = 0, 0
	m.missed.Store(0)
	m.resting.Store(false)
	return true
}

// Learn keeps an outcome and the questions that it was found by.
func (m *Memory[T]) Learn(v *Values, t *Trace, outcome *T) {
	m.learn.Lock()
	defer m.learn.Unlock()
	if t.failed || !m.insert(v, t.asked, outcome) {
		m.failures++
	} else {
		m.failures = 0
	}
	if m.nodes >= MaxNodes || m.failures >= maxFailures {
		m.resting.Store(true)
	}
}

// insert reports whether the questions are those that the memory would ask.
func (m *Memory[T]) insert(v *Values, asked []asked, outcome *T) bool {
	root := m.root(v)
	n := root.Load()
	if n == nil {
		root.Store(m.chain(asked, outcome))
		return true
	}
	for i, a := range asked {
		if n.outcome != nil || n.question != a.question {
			return false // the evaluation is no function of what it reads
		}
		next := n.follow(a.answer)
		if next == nil {
			n.add(branch[T]{a.answer, m.chain(asked[i+1:], outcome)})
			return true
		}
		n = next
	}
	return n.outcome != nil
}

// add gives a node another branch, if it has not too many.
func (n *node[T]) add(b branch[T]) {
	if n.varied() {
		return
	}
	var all []branch[T]
	if old := n.branches.Load(); old != nil {
		all = *old
	}
	all = append(slices.Clip(all), b)
	n.branches.Store(&all)
}

// chain makes the nodes of questions that lead to one outcome.
func (m *Memory[T]) chain(asked []asked, outcome *T) *node[T] {
	n := &node[T]{outcome: outcome}
	for _, a := range slices.Backward(asked) {
		before := &node[T]{question: a.question}
		before.branches.Store(&[]branch[T]{{a.answer, n}})
		n = before
	}
	m.nodes += len(asked) + 1
	return n
}
