package plan

import (
	"errors"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// A step runs what it stands for and the steps after it.
type step interface {
	run(r *Run) signal
}

// A signal says to the steps before whether more solutions are wanted.
type signal uint8

const (
	more signal = iota
	enough
	failed // with Run.err
)

// none is the signal of a step that finds no value.
func (r *Run) none() signal {
	if r.err != nil {
		return failed
	}
	return more
}

// A match wants a value to match a pattern.
type match struct {
	of      value
	matches pattern
	next    step
}

func (s *match) run(r *Run) signal {
	t := s.of(r)
	if t == nil || !s.matches.match(r, t) {
		return r.none()
	}
	return s.next.run(r)
}

// A negation wants another step to find nothing.
type negation struct{ body, next step }

func (s *negation) run(r *Run) signal {
	switch s.body.run(r) {
	case failed:
		return failed
	case enough:
		return more
	}
	return s.next.run(r)
}

// found ends what is negated.
type found struct{}

func (found) run(*Run) signal { return enough }

// An unless ends what is negated when a body has no solution.
type unless struct{ body step }

func (s *unless) run(r *Run) signal {
	switch s.body.run(r) {
	case failed:
		return failed
	case enough:
		return more
	}
	return enough
}

// A walk follows a reference, with all that its operands may be.
type walk struct {
	base     value
	operands []operandStep
	last     pattern
	next     step
}

// An operandStep is a key, or a pattern that all keys are matched with.
type operandStep struct {
	key  value
	each pattern
}

func (s *walk) run(r *Run) signal {
	t := s.base(r)
	if t == nil {
		return r.none()
	}
	return s.from(r, t, 0)
}

func (s *walk) from(r *Run, t *ast.Term, at int) signal {
	for ; at < len(s.operands); at++ {
		operand := s.operands[at]
		if operand.key == nil {
			return s.each(r, t, at)
		}
		key := operand.key(r)
		if key == nil {
			return r.none()
		}
		if t = lookup(t, key); t == nil {
			return more
		}
	}
	if !s.last.match(r, t) {
		return r.none()
	}
	return s.next.run(r)
}

// each goes on with all that a value holds.
func (s *walk) each(r *Run, t *ast.Term, at int) signal {
	matches := s.operands[at].each
	try := func(key, value *ast.Term) signal {
		if !r.step() {
			return failed
		}
		if !matches.match(r, key) {
			return r.none()
		}
		return s.from(r, value, at+1)
	}
	switch v := t.Value.(type) {
	case *ast.Array:
		for i := range v.Len() {
			if done := try(ast.InternedTerm(i), v.Elem(i)); done != more {
				return done
			}
		}
	case ast.Object:
		keys := v.KeysIterator()
		for key, ok := keys.Next(); ok; key, ok = keys.Next() {
			if done := try(key, v.Get(key)); done != more {
				return done
			}
		}
	case ast.Set:
		for _, key := range v.Slice() {
			if done := try(key, key); done != more {
				return done
			}
		}
	}
	return more
}

// A call is one of a function of Rego.
type call struct {
	f    topdown.BuiltinFunc
	args []value
	out  pattern
	next step
}

// errDone ends a function of Rego whose values are not wanted any more.
var errDone = errors.New("done")

func (s *call) run(r *Run) signal {
	if !r.step() {
		return failed
	}
	args := r.all(s.args)
	if args == nil {
		return r.none()
	}
	done := more
	err := s.f(r.context, args, func(t *ast.Term) error {
		if s.out.match(r, t) {
			done = s.next.run(r)
		}
		if r.err != nil {
			done = failed
		}
		if done != more {
			return topdown.Halt{Err: errDone}
		}
		return nil
	})
	if halt := (topdown.Halt{}); errors.As(err, &halt) && done == more {
		r.err = halt.Err
		return failed
	}
	return done
}

// A callRule is one of a function that rules give.
type callRule struct {
	rules *ruleSet
	args  []value
	out   pattern
	next  step
}

func (s *callRule) run(r *Run) signal {
	if !r.step() {
		return failed
	}
	args := r.all(s.args)
	if args == nil {
		return r.none()
	}
	t := r.call(s.rules, args)
	if t == nil || !s.out.match(r, t) {
		return r.none()
	}
	return s.next.run(r)
}

// A member is one of a set.
type member struct {
	at int
	of value
}

func (s *member) run(r *Run) signal {
	t := s.of(r)
	if t == nil {
		return r.none()
	}
	r.sets[s.at].Add(t)
	return more
}

// A result is the value of a rule.
type result struct {
	at   int
	same bool
	of   value
}

func (s *result) run(r *Run) signal {
	t := s.of(r)
	if t == nil {
		return r.none()
	}
	if before := r.results[s.at]; before != nil && !before.Equal(t) {
		r.err = errConflict
		return failed
	}
	r.results[s.at], r.gave[s.at] = t, true
	if s.same {
		return enough
	}
	return more
}

// An item is one of an array.
type item struct {
	at int
	of value
}

func (s *item) run(r *Run) signal {
	t := s.of(r)
	if t == nil {
		return r.none()
	}
	r.lists[s.at] = append(r.lists[s.at], t)
	return more
}

// A field is one of an object.
type field struct {
	at      int
	key, of value
}

func (s *field) run(r *Run) signal {
	key := s.key(r)
	if key == nil {
		return r.none()
	}
	t := s.of(r)
	if t == nil {
		return r.none()
	}
	if before := r.objects[s.at].Get(key); before != nil && !before.Equal(t) {
		r.err = errConflict
		return failed
	}
	r.objects[s.at].Insert(key, t)
	return more
}
