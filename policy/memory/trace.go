package memory

import (
	"fmt"
	"reflect"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

// A Trace is what one evaluation asks of the values of its request. Expressions
// see these values through [tracedMap] and [tracedList], which behave as the
// values that they stand for and note what is asked.
type Trace struct {
	asked  []asked
	place  map[question]int // of what a question has led to
	places int
	failed bool // something was asked that cannot be noted
	values *Values
}

// An asked question has been answered.
type asked struct {
	question
	answer answer
}

// NewTrace returns the trace of an evaluation of a request that is to be learned.
func NewTrace(v *Values) *Trace {
	return &Trace{place: map[question]int{}, places: firstPlace, values: v}
}

// ask notes a question about the map or list native, and returns the place of
// the value that it leads to.
func (t *Trace) ask(q question, a answer) (place int) {
	if place, known := t.place[q]; known {
		return place
	}
	if a.kind == unanswerable || len(t.asked) >= MaxQuestions {
		t.failed = true
	}
	if t.failed {
		return 0
	}
	t.asked = append(t.asked, asked{q, a})
	if a.container() {
		place = t.places
		t.places++
	}
	t.place[q] = place
	return place
}

// value returns what an expression sees of a value at a place: what value is,
// and noted what is asked of it. native is the same value in the form in which
// a memory asks it.
func (t *Trace) value(value ref.Val, native any, place int) ref.Val {
	switch n := native.(type) {
	case map[string]any:
		if m, ok := value.(traits.Mapper); ok {
			return &tracedMap{of: m, native: n, traced: traced{t, place}}
		}
	case []any:
		if l, ok := value.(traits.Lister); ok {
			return &tracedList{of: l, native: n, traced: traced{t, place}}
		}
	default: // a scalar: all that can be asked of it is in the answer
		if value.Equal(types.DefaultTypeAdapter.NativeToValue(n)) == types.True {
			return value
		}
	}
	t.failed = true
	return value
}

// See returns what expressions see of a first value, by its place.
func (t *Trace) See(place int, value ref.Val) ref.Val {
	if t.values.first[place] == nil {
		return value
	}
	return t.value(value, t.values.first[place], place)
}

// traced is what maps and lists have in common.
type traced struct {
	trace *Trace
	place int
}

// size notes that the size is asked.
func (t traced) size(n int) {
	t.trace.ask(question{ask: askSize, place: t.place}, sizeOf(n))
}

// equal notes a comparison. Of a value that is not from the request all is
// compared.
func (t traced) equal(native any, other ref.Val, all func(), equal func(ref.Val) ref.Val) ref.Val {
	var o traced
	var otherNative any
	switch v := other.(type) {
	case *tracedMap:
		o, otherNative, other = v.traced, v.native, v.of
	case *tracedList:
		o, otherNative, other = v.traced, v.native, v.of
	default:
		all()
		return equal(other)
	}
	t.trace.ask(question{ask: askEqual, place: t.place, index: o.place}, t.trace.values.compare(native, otherNative))
	return equal(other)
}

// A tracedMap is a map of the request.
type tracedMap struct {
	of     traits.Mapper
	native map[string]any
	traced
}

// Find implements [traits.Mapper].
func (m *tracedMap) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return m.of.Find(key) // whatever the map holds
	}
	native, present := m.native[string(name)]
	place := m.trace.ask(question{ask: askField, place: m.place, key: string(name)}, answerOf(native, present))
	value, found := m.of.Find(key)
	if found != present {
		m.trace.failed = true
	}
	if !found || m.trace.failed {
		return value, found
	}
	return m.trace.value(value, native, place), true
}

// Get implements [traits.Mapper].
func (m *tracedMap) Get(key ref.Val) ref.Val {
	if value, found := m.Find(key); found {
		return value
	}
	return m.of.Get(key) // an error
}

// Contains implements [traits.Mapper].
func (m *tracedMap) Contains(key ref.Val) ref.Val {
	m.Find(key)
	return m.of.Contains(key)
}

// Size implements [traits.Mapper].
func (m *tracedMap) Size() ref.Val {
	m.size(len(m.native))
	return m.of.Size()
}

// keys returns the keys in their order, so that an evaluation asks the same
// whenever it sees the same.
func (m *tracedMap) keys() []string {
	keys := sortedKeys(m.native)
	m.trace.ask(question{ask: askKeys, place: m.place}, keysOf(keys))
	return keys
}

// Iterator implements [traits.Mapper].
func (m *tracedMap) Iterator() traits.Iterator {
	return types.NewStringList(types.DefaultTypeAdapter, m.keys()).Iterator()
}

// Fold implements [traits.Foldable].
func (m *tracedMap) Fold(f traits.Folder) {
	for _, key := range m.keys() {
		if !f.FoldEntry(key, m.Get(types.String(key))) {
			return
		}
	}
}

// all notes that everything in the map is asked.
func (m *tracedMap) all() {
	for _, key := range m.keys() {
		allOf(m.Get(types.String(key)))
	}
}

func allOf(value ref.Val) {
	switch v := value.(type) {
	case *tracedMap:
		v.all()
	case *tracedList:
		v.all()
	}
}

// Equal implements [ref.Val].
func (m *tracedMap) Equal(other ref.Val) ref.Val {
	return m.equal(m.native, other, m.all, m.of.Equal)
}

// ConvertToNative implements [ref.Val].
func (m *tracedMap) ConvertToNative(t reflect.Type) (any, error) {
	m.all()
	return m.of.ConvertToNative(t)
}

// ConvertToType implements [ref.Val].
func (m *tracedMap) ConvertToType(t ref.Type) ref.Val {
	m.all()
	return m.of.ConvertToType(t)
}

// Type implements [ref.Val].
func (m *tracedMap) Type() ref.Type { return m.of.Type() }

// IsZeroValue implements [traits.Zeroer].
func (m *tracedMap) IsZeroValue() bool { return m.Size() == types.IntZero }

// Value implements [ref.Val].
func (m *tracedMap) Value() any {
	m.all()
	return m.of.Value()
}

// Format implements [fmt.Formatter], for messages.
func (m *tracedMap) Format(s fmt.State, verb rune) {
	m.all()
	fmt.Fprintf(s, fmt.FormatString(s, verb), m.of)
}

// A tracedList is a list of the request.
type tracedList struct {
	of     traits.Lister
	native []any
	traced
}

// Get implements [traits.Lister].
func (l *tracedList) Get(index ref.Val) ref.Val {
	i, err := types.IndexOrError(index)
	if err != nil || i < 0 || i >= len(l.native) {
		l.Size()
		return l.of.Get(index) // an error
	}
	return l.item(i)
}

func (l *tracedList) item(i int) ref.Val {
	place := l.trace.ask(question{ask: askItem, place: l.place, index: i}, answerOf(l.native[i], true))
	value := l.of.Get(types.Int(i))
	if l.trace.failed {
		return value
	}
	return l.trace.value(value, l.native[i], place)
}

// items returns all items.
func (l *tracedList) items() []ref.Val {
	l.Size()
	out := make([]ref.Val, len(l.native))
	for i := range out {
		out[i] = l.item(i)
	}
	return out
}

// Size implements [traits.Lister].
func (l *tracedList) Size() ref.Val {
	l.size(len(l.native))
	return l.of.Size()
}

// Contains implements [traits.Lister].
func (l *tracedList) Contains(value ref.Val) ref.Val {
	return types.NewRefValList(types.DefaultTypeAdapter, l.items()).Contains(value)
}

// Add implements [traits.Lister].
func (l *tracedList) Add(other ref.Val) ref.Val {
	return types.NewRefValList(types.DefaultTypeAdapter, l.items()).Add(other)
}

// Iterator implements [traits.Lister].
func (l *tracedList) Iterator() traits.Iterator {
	return types.NewRefValList(types.DefaultTypeAdapter, l.items()).Iterator()
}

// Fold implements [traits.Foldable].
func (l *tracedList) Fold(f traits.Folder) {
	l.Size()
	for i := range l.native {
		if !f.FoldEntry(i, l.item(i)) {
			return
		}
	}
}

// all notes that everything in the list is asked.
func (l *tracedList) all() {
	for _, item := range l.items() {
		allOf(item)
	}
}

// Equal implements [ref.Val].
func (l *tracedList) Equal(other ref.Val) ref.Val {
	return l.equal(l.native, other, l.all, l.of.Equal)
}

// ConvertToNative implements [ref.Val].
func (l *tracedList) ConvertToNative(t reflect.Type) (any, error) {
	l.all()
	return l.of.ConvertToNative(t)
}

// ConvertToType implements [ref.Val].
func (l *tracedList) ConvertToType(t ref.Type) ref.Val {
	l.all()
	return l.of.ConvertToType(t)
}

// Type implements [ref.Val].
func (l *tracedList) Type() ref.Type { return l.of.Type() }

// IsZeroValue implements [traits.Zeroer].
func (l *tracedList) IsZeroValue() bool { return l.Size() == types.IntZero }

// Value implements [ref.Val].
func (l *tracedList) Value() any {
	l.all()
	return l.of.Value()
}

// Format implements [fmt.Formatter], for messages.
func (l *tracedList) Format(s fmt.State, verb rune) {
	l.all()
	fmt.Fprintf(s, fmt.FormatString(s, verb), l.of)
}
