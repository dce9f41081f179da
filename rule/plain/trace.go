package plain

import (
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule/condition"
)

// A Trace is how a condition came out, part by part.
type Trace struct {
	Expr    condition.Expr
	Result  bool
	Decided bool // the result of the whole is due to it
	Kids    []*Trace
	Left    event.Value // of a check
	Right   event.Value // of a check with a right side
}

// Explain evaluates all parts of a condition, also those that could not change
// the result any more.
func Explain(e condition.Expr, values condition.Getter) *Trace {
	t := explain(e, values)
	t.decide()
	return t
}

func explain(e condition.Expr, values condition.Getter) *Trace {
	t := &Trace{Expr: e, Result: Eval(e, values)}
	switch e := e.(type) {
	case *condition.Logical:
		for _, kid := range e.Kids {
			t.Kids = append(t.Kids, explain(kid, values))
		}
	case *condition.Not:
		t.Kids = []*Trace{explain(e.Kid, values)}
	case *condition.Leaf:
		if t.Left = values.Get(e.Left); e.Right != nil {
			t.Right = values.Get(e.Right)
		}
	}
	return t
}

// decide marks the parts that made the result what it is: of an "and" that is
// false the first false part, of an "or" that is true the first true one, and
// all parts otherwise.
func (t *Trace) decide() {
	t.Decided = true
	e, ok := t.Expr.(*condition.Logical)
	for _, kid := range t.Kids {
		if !ok || e.Or != t.Result {
			kid.decide()
		} else if kid.Result == t.Result {
			kid.decide()
			return
		}
	}
}
