package plan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
)

// maxSteps is how many steps one run may take. What takes more is left to the
// Open Policy Agent, whose time is bounded by its caller.
const maxSteps = 200_000

// The errors of a run, which say nothing of the request.
var (
	errConflict  = errors.New("a rule has several values")
	errSteps     = fmt.Errorf("the run takes more than %d steps", maxSteps)
	errCancelled = errors.New("the run is cancelled")
)

// A Run is a session of runs of a plan for one request. It belongs to one
// goroutine.
type Run struct {
	plan       *Plan
	review     *ast.Term
	parameters *ast.Term
	context    topdown.BuiltinContext

	parts   []known // of the review
	shared  []known // values of rules, by their set
	own     []known // the same, for these parameters
	slots   []*ast.Term
	sets    []ast.Set
	objects []ast.Object
	lists   [][]*ast.Term
	results []*ast.Term // of rules
	gave    []bool      // whether the rule that is evaluated has given a value

	calls    map[string]known // of functions, by their arguments
	ownCalls map[string]known
	captured *ast.Term
	capture  func(*ast.Term) error
	steps    int
	err      error
}

// known is a value, or that there is none, once it was looked for.
type known struct {
	done  bool
	value *ast.Term
}

// Session starts runs with a review, input.review. Cancel ends them.
func (p *Plan) Session(ctx context.Context, review *ast.Term, now time.Time, cancel topdown.Cancel) *Run {
	r := &Run{
		plan: p, review: review,
		parts:  make([]known, p.parts),
		shared: make([]known, p.sets), own: make([]known, p.sets),
		slots: make([]*ast.Term, p.slots), sets: make([]ast.Set, p.sets), objects: make([]ast.Object, p.objects), lists: make([][]*ast.Term, p.lists),
		results: make([]*ast.Term, p.sets), gave: make([]bool, p.sets),
	}
	r.context = topdown.BuiltinContext{
		Context: ctx, Cancel: cancel, Cache: builtins.Cache{}, Capabilities: p.capable,
		Time: ast.NumberTerm(json.Number(strconv.FormatInt(now.UnixNano(), 10))),
	}
	r.capture = func(t *ast.Term) error { r.captured = t; return nil }
	return r
}

// Values returns the values of the rule with parameters, input.parameters.
func (r *Run) Values(parameters *ast.Term) (ast.Set, error) {
	r.parameters, r.err, r.steps, r.ownCalls = parameters, nil, 0, nil
	clear(r.own)
	all := r.valueOf(r.plan.entry)
	if r.err != nil {
		return nil, r.err
	}
	return all.Value.(ast.Set), nil // as New wants it
}

// wholeInput is what a rule sees that takes the input for a value.
func (r *Run) wholeInput() *ast.Term {
	return ast.NewTerm(ast.NewObject(
		[2]*ast.Term{ast.InternedTerm("review"), r.review},
		[2]*ast.Term{ast.InternedTerm("parameters"), r.parameters},
	))
}

// part returns a part of the review.
func (r *Run) part(at int, path ast.Ref) *ast.Term {
	p := &r.parts[at]
	if p.done {
		return p.value
	}
	t := r.review
	for _, key := range path {
		if t = lookup(t, key); t == nil {
			break
		}
	}
	*p = known{true, t}
	return t
}

// valueOf returns the value of the rules of one name.
func (r *Run) valueOf(s *ruleSet) *ast.Term {
	k := &r.own[s.id]
	if s.share != Nobody {
		k = &r.shared[s.id]
	}
	if !k.done {
		v := r.evaluate(s, nil)
		if r.err != nil {
			return nil
		}
		*k = known{true, v}
	}
	return k.value
}

// evaluate evaluates the rules of one name, functions with their arguments.
func (r *Run) evaluate(s *ruleSet, args []*ast.Term) *ast.Term {
	if s.kind == set {
		r.sets[s.id] = ast.NewSet()
	}
	r.results[s.id] = nil
	for _, rule := range s.rules {
		for ; rule != nil; rule = rule.next {
			r.gave[s.id] = false
			if rule.matches(r, args) && rule.body.run(r) == failed {
				return nil
			}
			if r.gave[s.id] {
				break
			}
		}
	}
	switch {
	case s.kind == set:
		return ast.NewTerm(r.sets[s.id])
	case r.results[s.id] == nil && s.fallback != nil:
		return s.fallback(r)
	}
	return r.results[s.id]
}

func (c *rule) matches(r *Run, args []*ast.Term) bool {
	for i, arg := range c.args {
		if !arg.match(r, args[i]) {
			return false
		}
	}
	return true
}

// call returns the value of a function.
func (r *Run) call(s *ruleSet, args []*ast.Term) *ast.Term {
	key := CallKey(s.id, args)
	if key == "" {
		return r.evaluate(s, args)
	}
	if s.share == Everybody {
		if v := r.plan.memo.Get(key); v != nil {
			return v
		}
	}
	calls := &r.ownCalls
	if s.share != Nobody {
		calls = &r.calls
	}
	if k := (*calls)[key]; k.done {
		return k.value
	}
	v := r.evaluate(s, args)
	if r.err != nil {
		return nil
	}
	if *calls == nil {
		*calls = map[string]known{}
	}
	(*calls)[key] = known{true, v}
	if s.share == Everybody && v != nil && ast.IsScalar(v.Value) {
		r.plan.memo.Put(key, v)
	}
	return v
}

// maxKey bounds the arguments by which the value of a function is known.
const maxKey = 250

// CallKey returns what a call with scalar arguments is known by, or "". Each
// argument begins with its kind and its length, so that no two calls of functions
// with different numbers or arguments have the same.
func CallKey(function int, args []*ast.Term) string {
	key := make([]byte, 0, 64)
	key = append(key, byte(function), byte(function>>8))
	for _, arg := range args {
		kind, text := byte('o'), ""
		switch v := arg.Value.(type) {
		case ast.String:
			kind, text = 's', string(v)
		case ast.Number: // as written: messages may show it
			kind, text = 'n', string(v)
		case ast.Boolean, ast.Null:
			text = v.String()
		default:
			return ""
		}
		if len(key)+len(text) > maxKey {
			return ""
		}
		key = append(append(key, kind, byte(len(text))), text...)
	}
	return string(key)
}

// step counts a step, and reports whether the run may go on.
func (r *Run) step() bool {
	if r.steps++; r.steps&63 != 0 {
		return true
	}
	switch {
	case r.steps > maxSteps:
		r.err = errSteps
	case r.context.Cancel != nil && r.context.Cancel.Cancelled():
		r.err = errCancelled
	}
	return r.err == nil
}
