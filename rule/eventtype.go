package rule

import (
	"slices"

	"github.com/kubeguardian/kubeguardian/rule/condition"
)

// A typeSet says for each event type whether a condition can be true.
type typeSet []bool

func (s typeSet) len() int {
	n := 0
	for _, can := range s {
		if can {
			n++
		}
	}
	return n
}

func (s typeSet) join(o typeSet, or bool) typeSet {
	out := slices.Clone(s)
	for i := range out {
		if or {
			out[i] = s[i] || o[i]
		} else {
			out[i] = s[i] && o[i]
		}
	}
	return out
}

// typesOf returns the event types for which a condition can be true. A check of
// anything but the type can be, and so can its negation; negations go down to
// the checks.
func typesOf(e condition.Expr, types []string) typeSet {
	return inferTypes(e, types, false, leafTypes)
}

// A leafRule says for which types a check, or its negation, can be true.
type leafRule func(l *condition.Leaf, types []string, negated bool) typeSet

func inferTypes(e condition.Expr, types []string, negated bool, leaf leafRule) typeSet {
	switch e := e.(type) {
	case *condition.Not:
		return inferTypes(e.Kid, types, !negated, leaf)
	case *condition.Logical:
		out := inferTypes(e.Kids[0], types, negated, leaf)
		for _, kid := range e.Kids[1:] {
			out = out.join(inferTypes(kid, types, negated, leaf), e.Or != negated)
		}
		return out
	case *condition.Leaf:
		return leaf(e, types, negated)
	}
	return all(types, true)
}

func all(types []string, can bool) typeSet { return slices.Repeat(typeSet{can}, len(types)) }

func leafTypes(l *condition.Leaf, types []string, negated bool) typeSet {
	switch l.Left.Text {
	case "evt.num":
		if never, known := numTypes(l); known {
			return all(types, never == negated)
		}
	case "evt.type", "syscall.type":
		out := all(types, false)
		for i, typ := range types {
			in := slices.ContainsFunc(l.Consts, func(c condition.Const) bool { return c.S == typ })
			switch l.Op {
			case "=", "in", "intersects":
				out[i] = in != negated
			case "!=":
				out[i] = in == negated
			case "exists":
				out[i] = !negated
			default:
				return all(types, true)
			}
		}
		return out
	}
	return all(types, true)
}

// numTypes knows that events are counted from 1: never means that no event has
// such a number, the opposite that every event has.
func numTypes(l *condition.Leaf) (never, known bool) {
	if len(l.Consts) != 1 || l.Modifier != "" {
		return false, false
	}
	n := uint64(l.Consts[0].Value.Number)
	switch l.Op {
	case "=", "in", "intersects":
		return true, n == 0
	case "!=":
		return false, n == 0
	case "<":
		return true, n <= 1
	case "<=":
		return true, n == 0
	case ">":
		return false, n == 0
	case ">=":
		return false, n <= 1
	}
	return false, false
}
