package gatekeeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/externaldata"
)

// Evaluate judges a request by all constraints that match it. In a violation,
// Policy is the kind of the constraint, Binding its name, and Enforcement deny,
// warn or dryrun; there is one for each action of a constraint with scoped
// enforcement actions. They are ordered by policy, binding, enforcement and
// message.
//
// As in Gatekeeper, a constraint that cannot be matched, because the namespace
// of the object is not known, is violated; a template in Rego that fails, is
// violated by what it failed for, by all its constraints.
//
// What the object of the request will make, as ExpansionTemplates say, is changed
// by mutators and judged with it; the message of such a violation begins with
// [Implied by NAME]. An object that does not have what an ExpansionTemplate wants
// of it is an error. When a mutator refuses what it makes, that is all that is
// said of the request.
//
// When ctx ends first, Evaluate returns the violations of the constraints that
// were judged and a [*policy.IncompleteError] that wraps the error of ctx. The
// request must then not be changed any more: a built-in of Rego that cannot be
// stopped may read it for a while. While too many of these run, nothing is judged,
// and the error wraps [deadline.ErrRunaways].
func (s *Set) Evaluate(ctx context.Context, req policy.Request) ([]finding.Violation, error) {
	children, err := s.expand(ctx, &req)
	if denied := (*policy.DeniedError)(nil); errors.As(err, &denied) {
		return denied.Violations, nil
	}
	if err != nil {
		return nil, err
	}
	out, err := s.evaluate(ctx, &req, original)
	for i := range children {
		if err != nil {
			break
		}
		var implied []finding.Violation
		implied, err = s.evaluate(ctx, &children[i].request, generated)
		out = append(out, children[i].implied(implied)...)
	}
	if incomplete := (*policy.IncompleteError)(nil); len(children) > 0 && errors.As(err, &incomplete) {
		incomplete.Decided = denied(out) // what was not judged might have
	}
	sortViolations(out)
	return out, err
}

// implied returns the violations of an object that another one makes as those
// of the other one.
func (m *made) implied(list []finding.Violation) []finding.Violation {
	var out []finding.Violation
	for _, v := range list {
		v.Message = fmt.Sprintf("[Implied by %s] %s", m.name, v.Message)
		if m.action != "" {
			v.Enforcement = m.action
		}
		if !slices.ContainsFunc(out, func(o finding.Violation) bool { return reflect.DeepEqual(o, v) }) { // of two actions
			out = append(out, v)
		}
	}
	return out
}

func (s *Set) evaluate(ctx context.Context, req *policy.Request, from source) ([]finding.Violation, error) {
	if s.index.kindOnly(req.Object) && s.index.kindOnly(req.OldObject) && (req.Object != nil || req.OldObject != nil) {
		return nil, nil
	}
	r, err := newReview(ctx, req, from, s.inventory)
	if err != nil {
		return nil, err
	}
	if s.exempt(r) {
		return nil, nil
	}
	r.providers = s.providers
	e := evaluation{review: r, set: s}
	e.match()
	if len(e.groups) > 0 {
		err = e.run(ctx)
	}
	if err == nil {
		e.leaveOut()
	}
	return e.out, err
}

// exempt reports whether Config exempts the namespace of a request.
func (s *Set) exempt(r *review) bool {
	list := s.excluded[s.point]
	if len(list) == 0 {
		return false
	}
	subject := cmp.Or(r.object, r.old)
	return subject != nil && anyMatches(list, subject.namespaceName())
}

// ExemptsFromMutation reports whether Config exempts the namespace of a request
// from mutators. It does at the webhook alone.
func (s *Set) ExemptsFromMutation(req *policy.Request) bool {
	subject := newSubject(req.Object, req.Namespace)
	return s.point == Webhook && subject != nil && anyMatches(s.excluded[mutation], subject.namespaceName())
}

// An evaluation is the judging of one review.
type evaluation struct {
	*review
	set    *Set
	groups []group
	out    []finding.Violation
}

// A group is the matching constraints of one template.
type group struct {
	template    *template
	constraints []*constraint
	denies      bool // one of them does
}

// match finds the constraints that match, by template, those that can deny
// first.
func (e *evaluation) match() {
	for _, c := range e.set.index.candidates(e.review) {
		if c.actions[e.set.point] == nil || !e.set.serves(c.template, string(e.req.Operation)) {
			continue
		}
		matches, err := c.match.matches(e.review)
		if missing := e.missing(c, matches, err); missing != nil && e.req.Unjudged != nil {
			e.req.Unjudged(c.template.kind+"/"+c.name, missing)
		} else if err != nil {
			e.violate(c, verdict{message: err.Error(), details: e.cause()})
		} else if matches {
			e.add(c)
		}
	}
	slices.SortStableFunc(e.groups, func(a, b group) int {
		switch {
		case a.denies && !b.denies:
			return -1
		case b.denies && !a.denies:
			return 1
		}
		return 0
	})
}

// missing returns what a constraint asks for and nobody has given, or nil.
func (e *evaluation) missing(c *constraint, matches bool, err error) error {
	if err != nil {
		return cmp.Or(e.lookup, err)
	}
	rego, ok := c.template.engine.(*regoEngine)
	switch {
	case !ok || !matches:
	case rego.inventory && e.set.inventory == nil:
		return errors.New("read data.inventory: no objects are given")
	case rego.external && e.set.providers == nil:
		return fmt.Errorf("call external_data: %w", externaldata.ErrNotAsked)
	}
	return nil
}

// cause says why the namespace is not known.
func (e *evaluation) cause() map[string]string {
	if e.lookup == nil {
		return nil
	}
	return map[string]string{"cause": e.lookup.Error()}
}

// add puts a constraint into the group of its template, which is the last one:
// they come in their order.
func (e *evaluation) add(c *constraint) {
	if n := len(e.groups); n == 0 || e.groups[n-1].template != c.template {
		e.groups = append(e.groups, group{template: c.template})
	}
	g := &e.groups[len(e.groups)-1]
	g.constraints = append(g.constraints, c)
	g.denies = g.denies || slices.Contains(c.actions[e.set.point], "deny")
}

// judge judges one group. An error is the end of the context.
func (e *evaluation) judge(g *group) ([]found, error) {
	var out []found
	same := map[*arguments][]verdict{}
	for _, c := range g.constraints {
		verdicts, known := same[c.parameters]
		var err error
		if !known {
			verdicts, err = g.template.engine.judge(e.review, c)
			same[c.parameters] = verdicts
		}
		switch {
		case e.Err() != nil:
			return nil, e.Err()
		case e.stop.resume():
			return failed(g, errMemory), nil
		case err != nil:
			return failed(g, err), nil
		}
		for _, v := range verdicts {
			out = append(out, found{c, v})
		}
	}
	return out, nil
}

// A found is a verdict of a constraint.
type found struct {
	*constraint
	verdict
}

// failed returns what it means that code of a template has failed.
func failed(g *group, err error) []found {
	var out []found
	for _, c := range g.constraints {
		out = append(out, found{c, verdict{message: err.Error()}})
	}
	return out
}

func (e *evaluation) violate(c *constraint, v verdict) {
	for _, action := range c.actions[e.set.point] {
		e.out = append(e.out, finding.Violation{
			Policy: c.template.kind, Binding: c.name, Enforcement: action, Message: v.message, Details: v.details,
		})
	}
}

// denied reports whether a violation denies the request.
func denied(list []finding.Violation) bool {
	return slices.ContainsFunc(list, func(v finding.Violation) bool { return v.Enforcement == "deny" })
}

// incomplete returns the error for the groups that were not judged.
func (e *evaluation) incomplete(rest []group, cause error) error {
	var names []string
	for _, g := range rest {
		for _, c := range g.constraints {
			names = append(names, c.template.kind+"/"+c.name)
		}
	}
	return policy.NewIncompleteError(names, denied(e.out) || !rest[0].denies, cause)
}

func sortViolations(list []finding.Violation) {
	slices.SortStableFunc(list, func(a, b finding.Violation) int {
		return cmp.Or(
			cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Binding, b.Binding),
			cmp.Compare(a.Enforcement, b.Enforcement), cmp.Compare(a.Message, b.Message),
		)
	})
}
