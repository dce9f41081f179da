package plan

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
)

// A value finds the value of a term whose variables are bound; nil: it has none.
type value func(r *Run) *ast.Term

// value plans the value of a term.
func (c *scope) value(t *ast.Term) (value, error) {
	if !c.ready(t) {
		return nil, fmt.Errorf("%v is not bound", t)
	}
	switch v := t.Value.(type) {
	case ast.Null, ast.Boolean, ast.Number, ast.String:
		return func(*Run) *ast.Term { return t }, nil
	case ast.Var:
		of, _, err := c.head(ast.Ref{t})
		return of, err
	case ast.Ref:
		return c.reference(v)
	case *ast.Array, ast.Object, ast.Set:
		return c.composite(t)
	case *ast.ArrayComprehension:
		return c.arrayComprehension(v)
	case *ast.SetComprehension:
		return c.setComprehension(v)
	case *ast.ObjectComprehension:
		return c.objectComprehension(v)
	}
	return nil, fmt.Errorf("%T has no plan", t.Value)
}

func (c *scope) reference(ref ast.Ref) (value, error) {
	base, rest, err := c.head(ref)
	if err != nil || len(rest) == 0 {
		return base, err
	}
	keys, err := c.values(rest)
	return func(r *Run) *ast.Term {
		t := base(r)
		for _, key := range keys {
			k := key(r)
			if t == nil || k == nil {
				return nil
			}
			t = lookup(t, k)
		}
		return t
	}, err
}

func (c *scope) values(terms []*ast.Term) ([]value, error) {
	out := make([]value, len(terms))
	for i, t := range terms {
		var err error
		if out[i], err = c.value(t); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// lookup returns what a value holds under a key.
func lookup(t, key *ast.Term) *ast.Term {
	switch v := t.Value.(type) {
	case ast.Object:
		return v.Get(key)
	case *ast.Array:
		return v.Get(key)
	case ast.Set:
		if v.Contains(key) {
			return key
		}
	}
	return nil
}

// constant reports whether a term holds nothing but constants.
func constant(t *ast.Term) bool {
	only := true
	ast.WalkTerms(t, func(t *ast.Term) bool {
		switch t.Value.(type) {
		case ast.Var, ast.Ref, ast.Call, *ast.ArrayComprehension, *ast.SetComprehension, *ast.ObjectComprehension:
			only = false
		}
		return !only
	})
	return only
}

// composite plans an array, an object or a set.
func (c *scope) composite(t *ast.Term) (value, error) {
	if constant(t) {
		return func(*Run) *ast.Term { return t }, nil
	}
	var terms []*ast.Term // of an object: key, value, key and so on
	var make func([]*ast.Term) ast.Value
	switch v := t.Value.(type) {
	case *ast.Array:
		v.Foreach(func(t *ast.Term) { terms = append(terms, t) })
		make = func(terms []*ast.Term) ast.Value { return ast.NewArray(terms...) }
	case ast.Set:
		v.Foreach(func(t *ast.Term) { terms = append(terms, t) })
		make = func(terms []*ast.Term) ast.Value { return ast.NewSet(terms...) }
	case ast.Object:
		v.Foreach(func(key, value *ast.Term) { terms = append(terms, key, value) })
		make = newObject
	}
	values, err := c.values(terms)
	return func(r *Run) *ast.Term {
		found := r.all(values)
		if found == nil {
			return nil
		}
		return ast.NewTerm(make(found))
	}, err
}

func newObject(terms []*ast.Term) ast.Value {
	pairs := make([][2]*ast.Term, len(terms)/2)
	for i := range pairs {
		pairs[i] = [2]*ast.Term{terms[2*i], terms[2*i+1]}
	}
	return ast.NewObject(pairs...)
}

// all returns all values, or nil when one of them has none.
func (r *Run) all(values []value) []*ast.Term {
	out := make([]*ast.Term, len(values))
	for i, v := range values {
		if out[i] = v(r); out[i] == nil {
			return nil
		}
	}
	return out
}

func (c *scope) arrayComprehension(x *ast.ArrayComprehension) (value, error) {
	at := c.out.lists
	c.out.lists++
	in := c.inner()
	body, err := in.body(x.Body, func() (step, error) {
		v, err := in.value(x.Term)
		return &item{at, v}, err
	})
	return func(r *Run) *ast.Term {
		r.lists[at] = nil
		if body.run(r) == failed {
			return nil
		}
		return ast.NewTerm(ast.NewArray(r.lists[at]...))
	}, err
}

func (c *scope) setComprehension(x *ast.SetComprehension) (value, error) {
	at := c.out.sets
	c.out.sets++
	in := c.inner()
	body, err := in.body(x.Body, func() (step, error) {
		v, err := in.value(x.Term)
		return &member{at, v}, err
	})
	return func(r *Run) *ast.Term {
		r.sets[at] = ast.NewSet()
		if body.run(r) == failed {
			return nil
		}
		return ast.NewTerm(r.sets[at])
	}, err
}

func (c *scope) objectComprehension(x *ast.ObjectComprehension) (value, error) {
	at := c.out.objects
	c.out.objects++
	in := c.inner()
	body, err := in.body(x.Body, func() (step, error) {
		key, err := in.value(x.Key)
		if err != nil {
			return nil, err
		}
		v, err := in.value(x.Value)
		return &field{at, key, v}, err
	})
	return func(r *Run) *ast.Term {
		r.objects[at] = ast.NewObject()
		if body.run(r) == failed {
			return nil
		}
		return ast.NewTerm(r.objects[at])
	}, err
}

// A pattern matches a value, and binds the variables it has.
type pattern interface {
	match(r *Run, t *ast.Term) bool
}

// The patterns.
type (
	notFalseValue struct{}
	collection    struct{}
	bind          struct{ slot int }
	equal         struct{ to value }
	array         struct{ items []pattern }
	object        struct {
		keys   []*ast.Term
		values []pattern
	}
)

// pattern plans the match of a term, whose variables are bound from then on.
func (c *scope) pattern(t *ast.Term) (pattern, error) {
	if v, ok := t.Value.(ast.Var); ok && !c.ready(t) {
		c.bound[v] = true
		return bind{c.slot(v)}, nil
	}
	if c.ready(t) {
		v, err := c.value(t)
		return equal{v}, err
	}
	switch v := t.Value.(type) {
	case *ast.Array:
		out := array{make([]pattern, v.Len())}
		for i := range out.items {
			var err error
			if out.items[i], err = c.pattern(v.Elem(i)); err != nil {
				return nil, err
			}
		}
		return out, nil
	case ast.Object:
		return c.objectPattern(v)
	}
	return nil, fmt.Errorf("%v has no plan to be matched", t)
}

func (c *scope) objectPattern(o ast.Object) (pattern, error) {
	var out object
	for _, key := range o.Keys() {
		if !constant(key) {
			return nil, fmt.Errorf("the key %v has no plan", key)
		}
		matches, err := c.pattern(o.Get(key))
		if err != nil {
			return nil, err
		}
		out.keys, out.values = append(out.keys, key), append(out.values, matches)
	}
	return out, nil
}

func (notFalseValue) match(_ *Run, t *ast.Term) bool {
	b, ok := t.Value.(ast.Boolean)
	return !ok || bool(b)
}

func (collection) match(_ *Run, t *ast.Term) bool {
	switch t.Value.(type) {
	case *ast.Array, ast.Object, ast.Set:
		return true
	}
	return false
}

func (b bind) match(r *Run, t *ast.Term) bool {
	r.slots[b.slot] = t
	return true
}

func (e equal) match(r *Run, t *ast.Term) bool {
	to := e.to(r)
	return to != nil && to.Equal(t)
}

func (a array) match(r *Run, t *ast.Term) bool {
	v, ok := t.Value.(*ast.Array)
	if !ok || v.Len() != len(a.items) {
		return false
	}
	for i, item := range a.items {
		if !item.match(r, v.Elem(i)) {
			return false
		}
	}
	return true
}

func (o object) match(r *Run, t *ast.Term) bool {
	v, ok := t.Value.(ast.Object)
	if !ok || v.Len() != len(o.keys) {
		return false
	}
	for i, key := range o.keys {
		found := v.Get(key)
		if found == nil || !o.values[i].match(r, found) {
			return false
		}
	}
	return true
}
