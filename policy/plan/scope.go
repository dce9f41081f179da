package plan

import (
	"fmt"
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// A scope plans the body of one rule, or a body within it. It knows which
// variables are bound where it stands.
type scope struct {
	*planner
	slots map[ast.Var]int // of the whole rule
	bound map[ast.Var]bool
}

// inner returns the scope of a body within this one: what it binds is bound
// nowhere else.
func (c *scope) inner() *scope {
	return &scope{planner: c.planner, slots: c.slots, bound: maps.Clone(c.bound)}
}

func (c *scope) slot(v ast.Var) int {
	slot, known := c.slots[v]
	if !known {
		slot = c.out.slots
		c.slots[v] = slot
		c.out.slots++
	}
	return slot
}

// ready reports whether all variables of a term are bound, so that it has one
// value. What is local to a comprehension does not count.
func (c *scope) ready(t *ast.Term) bool {
	switch v := t.Value.(type) {
	case ast.Var:
		return c.bound[v] || v.Equal(ast.InputRootDocument.Value) || v.Equal(ast.DefaultRootDocument.Value)
	case ast.Ref:
		return !slices.ContainsFunc(v, func(t *ast.Term) bool { return !c.ready(t) })
	case *ast.Array:
		return !v.Until(func(t *ast.Term) bool { return !c.ready(t) })
	case ast.Object:
		return !v.Until(func(key, value *ast.Term) bool { return !c.ready(key) || !c.ready(value) })
	case ast.Set:
		return !v.Until(func(t *ast.Term) bool { return !c.ready(t) })
	case ast.Call:
		return false
	}
	return true
}

// body plans expressions in their order, which is the one in which all variables
// are bound before they are needed, and then what ends them.
func (c *scope) body(body ast.Body, end func() (step, error)) (step, error) {
	if len(body) == 0 {
		return end()
	}
	var rest step
	first, err := c.expression(body[0], func() (next step, err error) {
		next, err = c.body(body[1:], end)
		rest = next
		return next, err
	})
	if first == nil { // an expression that is always true
		return rest, err
	}
	return first, err
}

// A tail plans what comes after an expression, once its variables are bound.
type tail func() (step, error)

func (c *scope) expression(e *ast.Expr, after tail) (step, error) {
	if len(e.With) > 0 {
		return nil, fmt.Errorf("%d: with has no plan", e.Location.Row)
	}
	if e.Negated {
		return c.not(e, after)
	}
	switch terms := e.Terms.(type) {
	case *ast.Term:
		return c.test(terms, after)
	case []*ast.Term:
		if e.IsEquality() {
			return c.equality(terms[1], terms[2], after)
		}
		return c.call(terms, after)
	case *ast.Every:
		return c.every(terms, after)
	}
	return nil, fmt.Errorf("%T has no plan", e.Terms)
}

// every plans that a body has a solution for all that a value holds.
func (c *scope) every(e *ast.Every, after tail) (step, error) {
	if e.Key == nil {
		return nil, fmt.Errorf("every without a key has no plan")
	}
	in := c.inner()
	each, err := in.walk(ast.Ref{e.Domain, e.Key}, func() (pattern, error) { return in.pattern(e.Value) }, func() (step, error) {
		body, err := in.body(e.Body, func() (step, error) { return found{}, nil })
		return &unless{body}, err
	})
	if err != nil {
		return nil, err
	}
	domain, err := c.value(e.Domain)
	if err != nil {
		return nil, err
	}
	next, err := after()
	return &match{domain, collection{}, &negation{each, next}}, err // none for which there is no solution
}

// not plans that an expression has no solution.
func (c *scope) not(e *ast.Expr, after tail) (step, error) {
	positive := e.Complement()
	body, err := c.inner().expression(positive, func() (step, error) { return found{}, nil })
	if err != nil {
		return nil, err
	}
	if body == nil { // of an expression that is always true
		body = found{}
	}
	next, err := after()
	return &negation{body, next}, err
}

// test plans that a term has a value, and that it is not false.
func (c *scope) test(t *ast.Term, after tail) (step, error) {
	if value, ok := t.Value.(ast.Boolean); ok && bool(value) {
		_, err := after()
		return nil, err
	}
	if ref, ok := t.Value.(ast.Ref); ok && !c.ready(t) {
		return c.walk(ref, notFalse, after)
	}
	v, err := c.value(t)
	if err != nil {
		return nil, err
	}
	next, err := after()
	return &match{v, notFalseValue{}, next}, err
}

// equality plans that two terms have the same value, whatever has to be bound
// for that.
func (c *scope) equality(a, b *ast.Term, after tail) (step, error) {
	if !c.ready(b) {
		a, b = b, a
	}
	if c.ready(b) {
		if ref, ok := a.Value.(ast.Ref); ok && !c.ready(a) {
			return c.walk(ref, func() (pattern, error) { return c.pattern(b) }, after)
		}
		v, err := c.value(b)
		if err != nil {
			return nil, err
		}
		matches, err := c.pattern(a)
		if err != nil {
			return nil, err
		}
		next, err := after()
		return &match{v, matches, next}, err
	}
	if _, ok := a.Value.(ast.Ref); !ok { // one of them has to be
		a, b = b, a
	}
	ref, ok := a.Value.(ast.Ref)
	if !ok {
		return nil, fmt.Errorf("%v = %v has no plan", a, b)
	}
	if other, ok := b.Value.(ast.Ref); ok { // find the value of the one, and then want it of the other
		value := ast.VarTerm(fmt.Sprintf("__value%d__", c.out.slots))
		matches := func() (pattern, error) { return c.pattern(value) }
		return c.walk(ref, matches, func() (step, error) { return c.walk(other, matches, after) })
	}
	return c.walk(ref, func() (pattern, error) { return c.pattern(b) }, after)
}

// notFalse plans that a reference has a value that is not false.
func notFalse() (pattern, error) { return notFalseValue{}, nil }

// call plans the call of a function of Rego or of a rule.
func (c *scope) call(terms []*ast.Term, after tail) (step, error) {
	ref, ok := terms[0].Value.(ast.Ref)
	if !ok {
		return nil, fmt.Errorf("call of %v has no plan", terms[0])
	}
	if ref[0].Equal(ast.DefaultRootDocument) {
		return c.callRule(ref, terms[1:], after)
	}
	name := ref.String()
	builtin, f := ast.BuiltinMap[name], topdown.GetBuiltin(name)
	if builtin == nil || f == nil || builtin.IsNondeterministic() || builtin.Decl.Result() == nil {
		return nil, fmt.Errorf("%s has no plan", name)
	}
	args, out, err := c.arguments(terms[1:], builtin.Decl.Arity())
	if err != nil {
		return nil, err
	}
	next, err := after()
	return &call{f, args, out, next}, err
}

// arguments plans those of a call, and what its value has to match.
func (c *scope) arguments(terms []*ast.Term, arity int) (args []value, out pattern, err error) {
	if len(terms) != arity && len(terms) != arity+1 {
		return nil, nil, fmt.Errorf("a call with %d arguments has no plan", len(terms))
	}
	for _, term := range terms[:arity] {
		v, err := c.value(term)
		if err != nil {
			return nil, nil, err
		}
		args = append(args, v)
	}
	if len(terms) == arity {
		return args, notFalseValue{}, nil
	}
	out, err = c.pattern(terms[arity])
	return args, out, err
}

func (c *scope) callRule(ref ast.Ref, terms []*ast.Term, after tail) (step, error) {
	called, rest, err := c.ruleSet(ref)
	if err != nil {
		return nil, err
	}
	if called.kind != function || len(rest) > 0 || len(called.rules) == 0 {
		return nil, fmt.Errorf("%s is no function", ref)
	}
	args, out, err := c.arguments(terms, len(called.rules[0].args))
	if err != nil {
		return nil, err
	}
	next, err := after()
	return &callRule{called, args, out, next}, err
}

// walk plans a reference some of whose operands have to be found, and what its
// value has to match.
func (c *scope) walk(ref ast.Ref, last func() (pattern, error), after tail) (step, error) {
	base, rest, err := c.head(ref)
	if err != nil {
		return nil, err
	}
	out := &walk{base: base}
	for _, operand := range rest {
		var o operandStep
		if c.ready(operand) {
			o.key, err = c.value(operand)
		} else {
			o.each, err = c.pattern(operand)
		}
		if err != nil {
			return nil, err
		}
		out.operands = append(out.operands, o)
	}
	if out.last, err = last(); err != nil {
		return nil, err
	}
	out.next, err = after()
	return out, err
}

// head plans where a reference begins, and returns the rest of it.
func (c *scope) head(ref ast.Ref) (value, ast.Ref, error) {
	first, ok := ref[0].Value.(ast.Var)
	switch {
	case !ok:
		v, err := c.value(ref[0])
		return v, ref[1:], err
	case first.Equal(ast.InputRootDocument.Value):
		return c.input(ref)
	case first.Equal(ast.DefaultRootDocument.Value):
		called, rest, err := c.ruleSet(ref)
		if err == nil && called.kind == function {
			err = fmt.Errorf("%s is a function", ref)
		}
		return func(r *Run) *ast.Term { return r.valueOf(called) }, rest, err
	case c.bound[first]:
		slot := c.slot(first)
		return func(r *Run) *ast.Term { return r.slots[slot] }, ref[1:], nil
	}
	return nil, nil, fmt.Errorf("%s is not bound", ref[0])
}

// input plans a reference to the input. The parts of the request that are named
// by constants are looked for once in a session.
func (c *scope) input(ref ast.Ref) (value, ast.Ref, error) {
	if len(ref) < 2 || !isText(ref[1]) {
		return (*Run).wholeInput, ref[1:], nil
	}
	if ref[1].Equal(ast.InternedTerm("parameters")) {
		return func(r *Run) *ast.Term { return r.parameters }, ref[2:], nil
	}
	if !ref[1].Equal(ast.InternedTerm("review")) {
		return func(*Run) *ast.Term { return nil }, ref[2:], nil
	}
	n := 2
	for n < len(ref) && isText(ref[n]) {
		n++
	}
	name := ref[:n].String()
	at, known := c.parts[name]
	if !known {
		at = c.out.parts
		c.parts[name] = at
		c.out.parts++
	}
	path := ref[2:n]
	return func(r *Run) *ast.Term { return r.part(at, path) }, ref[n:], nil
}
