// Package plan runs compiled Rego without interpreting it: what the Open Policy
// Agent decides for each request, which variables are bound, which rules a
// reference means, whether a term must be enumerated, is decided once, when
// policies are loaded.
//
// # How it works
//
// [New] turns each rule into a chain of steps. A step finds values, binds
// variables, which have fixed slots, and runs the step after it for each of
// them; the last step keeps the value of the rule. Rego has no recursion, so
// that one slot for each variable is enough. Functions of Rego itself, such as
// sprintf, are those of the Open Policy Agent.
//
// # What it does not do
//
// Rules that need more than this, such as "with", partial objects or
// data that no rule gives, have no plan: [New] says so. A plan may also fail
// while it runs, with an error that says nothing of the request: a rule has two
// values, or the steps are too many. In each of these cases, the caller asks the
// Open Policy Agent.
//
// A plan evaluates all that the Open Policy Agent does, and now and then a rule
// more, so that where the one fails the other does.
package plan

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
)

// A Plan is one query, for all values of a rule, made ready. It is immutable and
// safe for concurrent use.
type Plan struct {
	entry   *ruleSet
	memo    Memo
	sets    int // of rules
	slots   int
	parts   int // of the request, that rules name
	lists   int // comprehensions
	objects int
	capable *ast.Capabilities
}

// A Share says who may share the values of the rules with one name.
type Share int

// The values of rules that depend on parameters are kept for one run, others for
// all runs of a session; those of functions that depend on their arguments alone
// may be kept for good.
const (
	Nobody Share = iota
	Session
	Everybody
)

// A Memo keeps values beyond a session. It is safe for concurrent use, and bounded.
type Memo interface {
	Get(key string) *ast.Term // nil: not known
	Put(key string, value *ast.Term)
}

// A ruleSet is all rules of one name.
type ruleSet struct {
	id       int
	kind     kind
	rules    []*rule
	fallback value // of a default rule; nil: none
	share    Share
	same     bool // all rules have the same constant value, so that one is enough
}

type kind int

const (
	complete kind = iota
	set
	function
)

type rule struct {
	args []pattern
	body step
	next *rule // else
}

// New plans a rule that gives a set. Share says who may share the value of a
// rule; memo keeps those that everybody may. An error names what no plan can be
// made for.
func New(compiler *ast.Compiler, entry ast.Ref, share func(*ast.Rule) Share, memo Memo) (*Plan, error) {
	p := &planner{
		share: share, out: &Plan{memo: memo, capable: compiler.Capabilities()},
		rules: map[string][]*ast.Rule{}, planned: map[string]*ruleSet{}, parts: map[string]int{},
	}
	for _, module := range compiler.Modules {
		for _, r := range module.Rules {
			name := r.Ref().String()
			p.rules[name] = append(p.rules[name], r)
		}
	}
	found, rest, err := p.ruleSet(entry)
	if err != nil {
		return nil, err
	}
	if found.kind != set || len(rest) > 0 {
		return nil, fmt.Errorf("%s is no set", entry)
	}
	p.out.entry = found
	return p.out, nil
}

// A planner makes one plan.
type planner struct {
	share   func(*ast.Rule) Share
	out     *Plan
	rules   map[string][]*ast.Rule
	planned map[string]*ruleSet
	parts   map[string]int // of the request, by their reference
}

// ruleSet plans the rules that a reference begins with, and returns what follows
// their name.
func (p *planner) ruleSet(ref ast.Ref) (*ruleSet, ast.Ref, error) {
	for n := 2; n <= len(ref); n++ {
		name := ref[:n].String()
		if known := p.planned[name]; known != nil {
			return known, ref[n:], nil
		}
		if list := p.rules[name]; list != nil {
			planned, err := p.plan(list)
			p.planned[name] = planned
			return planned, ref[n:], err
		}
		if n < len(ref) && !isText(ref[n]) {
			break
		}
	}
	return nil, nil, fmt.Errorf("%s is no rule", ref)
}

func isText(t *ast.Term) bool {
	_, ok := t.Value.(ast.String)
	return ok
}

// plan plans all rules of one name.
func (p *planner) plan(list []*ast.Rule) (*ruleSet, error) {
	s := &ruleSet{id: p.out.sets, share: Everybody, same: sameConstant(list)}
	p.out.sets++
	switch first := list[0].Head; {
	case first.RuleKind() == ast.MultiValue:
		s.kind = set
	case len(first.Args) > 0:
		s.kind = function
	}
	for _, r := range list {
		s.share = min(s.share, p.share(r))
		if len(r.Head.Ref()) != 1 {
			return nil, fmt.Errorf("%s is a partial object or has a name of several parts", r.Ref())
		}
		if r.Default {
			if s.kind == function || !r.Head.Value.IsGround() {
				return nil, fmt.Errorf("%s has a default that is no constant", r.Ref())
			}
			fallback := r.Head.Value
			s.fallback = func(*Run) *ast.Term { return fallback }
			continue
		}
		planned, err := p.rule(s, r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Ref(), err)
		}
		s.rules = append(s.rules, planned)
	}
	return s, nil
}

// sameConstant reports whether all rules have one constant value.
func sameConstant(list []*ast.Rule) bool {
	var value *ast.Term
	for _, r := range list {
		for ; r != nil; r = r.Else {
			v := r.Head.Value
			if r.Default || v == nil || !ast.IsScalar(v.Value) || value != nil && !value.Equal(v) {
				return false
			}
			value = v
		}
	}
	return value != nil
}

// rule plans one rule and what it says else.
func (p *planner) rule(s *ruleSet, r *ast.Rule) (*rule, error) {
	c := &scope{planner: p, slots: map[ast.Var]int{}, bound: map[ast.Var]bool{}}
	out := &rule{}
	for _, arg := range r.Head.Args {
		matches, err := c.pattern(arg)
		if err != nil {
			return nil, err
		}
		out.args = append(out.args, matches)
	}
	head := r.Head.Value
	if s.kind == set {
		head = r.Head.Key
	}
	var err error
	out.body, err = c.body(r.Body, func() (step, error) {
		v, err := c.value(head)
		if s.kind == set {
			return &member{s.id, v}, err
		}
		return &result{s.id, s.same, v}, err
	})
	if err == nil && r.Else != nil {
		out.next, err = p.rule(s, r.Else)
	}
	return out, err
}
