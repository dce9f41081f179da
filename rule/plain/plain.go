// Package plain evaluates a condition as the language is defined, one check
// after the other. It is what the evaluator of whole sets, in package match, is
// held to, and what explains why a rule matches or does not.
package plain

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule/condition"
)

// Eval reports whether a resolved condition is true.
func Eval(e condition.Expr, values condition.Getter) bool {
	switch e := e.(type) {
	case *condition.Logical:
		for _, kid := range e.Kids {
			if Eval(kid, values) == e.Or {
				return e.Or
			}
		}
		return !e.Or
	case *condition.Not:
		return !Eval(e.Kid, values)
	case *condition.Leaf:
		return Check(e, values)
	}
	return false
}

// Values are the values of an event, taken anew each time.
type Values struct{ Event *event.Event }

// Get implements [condition.Getter].
func (v Values) Get(in *condition.Input) event.Value {
	switch {
	case in.Const != nil:
		return *in.Const
	case in.Fun != "":
		return in.Compute(v)
	}
	return Field(v.Event, in.Ref)
}

// Field returns the value of a field as conditions see it: a string ends at its
// first NUL byte.
func Field(e *event.Event, ref event.Ref) event.Value {
	value := e.Value(ref)
	if value.Type == event.TypeString {
		value.Text = condition.CString(value.Text)
	}
	return value
}

// Check reports whether a check is true. Without a value it is false, whatever
// the operator.
func Check(l *condition.Leaf, values condition.Getter) bool {
	left := values.Get(l.Left)
	if left.Missing() || l.Op == "exists" {
		return !left.Missing()
	}
	if l.Left.Ref.Ancestors() {
		return slices.ContainsFunc(left.List, func(s string) bool { return scalar(l, ancestor(l.Left.Type, s)) })
	}
	if l.Right != nil {
		right := values.Get(l.Right)
		return !right.Missing() && compareInputs(l.Op, left, right)
	}
	if left.Type == event.TypeList {
		return list(l, left.List)
	}
	return scalar(l, left)
}

// ancestor returns the value of one ancestor.
func ancestor(typ event.Type, s string) event.Value {
	if typ == event.TypeString {
		return event.Text(s)
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return event.Value{}
	}
	return event.Number(n)
}

func compareInputs(op string, left, right event.Value) bool {
	contains := func(s string) bool { return slices.Contains(right.List, s) }
	switch {
	case left.Type != event.TypeList && (op == "in" || op == "intersects"):
		return equal(left, right)
	case op == "in":
		return !slices.ContainsFunc(left.List, func(s string) bool { return !contains(s) })
	case op == "intersects":
		return slices.ContainsFunc(left.List, contains)
	}
	return compare(op, left, condition.Const{Value: right})
}

// list compares the elements of a list with the constants.
func list(l *condition.Leaf, items []string) bool {
	is := func(item string) bool {
		return slices.ContainsFunc(l.Consts, func(c condition.Const) bool { return c.S == item })
	}
	switch l.Op {
	case "in":
		return !slices.ContainsFunc(items, func(item string) bool { return !is(item) })
	case "intersects":
		return slices.ContainsFunc(items, is)
	}
	return slices.ContainsFunc(items, func(item string) bool { return scalar(l, event.Text(item)) })
}

// scalar compares a value that is no list with the constants.
func scalar(l *condition.Leaf, v event.Value) bool {
	if v.Missing() {
		return false
	}
	op, matches := l.Op, 0
	if op == "in" || op == "intersects" {
		op = "="
	}
	for _, c := range l.Consts {
		if compare(op, v, c) {
			matches++
		}
	}
	switch l.Modifier {
	case "oneof":
		return matches == 1
	case "allof":
		return matches == len(l.Consts) && matches > 0
	}
	return matches > 0
}

// compare compares a value with one constant.
func compare(op string, v event.Value, c condition.Const) bool {
	switch op {
	case "=", "!=":
		same := equal(v, c.Value)
		if v.Type == event.TypeNet || c.Prefix.IsValid() {
			same = c.Prefix.Contains(v.Addr())
		}
		return same == (op == "=")
	case "<", "<=", ">", ">=":
		return ordered(op, order(v, c.Value))
	case "contains", "bcontains":
		return strings.Contains(v.Text, c.Value.Text)
	case "icontains":
		return strings.Contains(condition.Lower(v.Text), condition.Lower(c.Value.Text))
	case "startswith", "bstartswith":
		return strings.HasPrefix(v.Text, c.Value.Text)
	case "endswith":
		return strings.HasSuffix(v.Text, c.Value.Text)
	case "glob":
		return condition.Glob(c.Value.Text, v.Text)
	case "iglob":
		return condition.Glob(condition.Lower(c.Value.Text), condition.Lower(v.Text))
	case "regex":
		return c.Regexp.MatchString(v.Text)
	case "pmatch":
		prefix, path := condition.Components(c.Value.Text), condition.Components(v.Text)
		return len(path) >= len(prefix) && slices.EqualFunc(prefix, path[:len(prefix)], condition.ComponentMatch)
	}
	return false
}

// equal compares two values of one type. Addresses of different families
// differ.
func equal(a, b event.Value) bool {
	switch a.Type {
	case event.TypeString, event.TypeBytes, event.TypeIP, event.TypeNet:
		return a.Text == b.Text
	case event.TypeDouble:
		return a.Double() == b.Double()
	}
	return a.Number == b.Number
}

func order(a, b event.Value) int {
	switch a.Type {
	case event.TypeString:
		return strings.Compare(a.Text, b.Text)
	case event.TypeNumber:
		return cmp.Compare(a.Number, b.Number)
	case event.TypeDouble:
		return cmp.Compare(a.Double(), b.Double())
	}
	return cmp.Compare(uint64(a.Number), uint64(b.Number))
}

func ordered(op string, order int) bool {
	switch op {
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	}
	return order >= 0
}
