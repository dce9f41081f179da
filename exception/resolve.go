package exception

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
)

// An Outcome is what became of one exception.
type Outcome struct {
	Name     string `json:"name"`
	Owner    string `json:"owner"`
	Reason   string `json:"reason"`
	Expires  string `json:"expires,omitempty"`
	Source   string `json:"source,omitempty"`
	Accepted int    `json:"accepted"` // failures that it accepts
	// Problem says why it accepts nothing: it is not valid, or for the nearest
	// miss which part of its scope did not match.
	Problem string `json:"problem,omitempty"`
}

// A Resolver knows what exceptions speak of: controls and subjects.
type Resolver struct {
	Covers   func(name, control string) bool                 // name is the control's, or its family's
	Critical func(name string) bool                          // the control, or any of the family
	Labels   func(subject finding.Subject) map[string]string // of the object
	Now      time.Time
}

// Check returns why an exception may not be relied upon, or nil.
func (r Resolver) Check(x *Exception) error {
	return x.Check(r.Now, slices.ContainsFunc(x.Spec.Controls, r.Critical))
}

// Resolve returns the findings with accepted failures marked as excepted, and
// what became of each exception, in their order. A failure of several
// containers, or of several subjects of a binding, is accepted if each of them
// is, be it by different exceptions. It is a pure function; what is excepted
// already counts as a failure.
func (r Resolver) Resolve(exceptions []Exception, findings []finding.Finding) ([]finding.Finding, []Outcome) {
	out := slices.Clone(findings)
	states := make([]state, len(exceptions))
	for i := range exceptions {
		states[i].invalid = r.Check(&exceptions[i])
	}
	for i := range out {
		if out[i].Status == finding.Fail || out[i].Status == finding.Excepted {
			r.accept(&out[i], exceptions, states)
		}
	}
	outcomes := make([]Outcome, len(exceptions))
	for i := range exceptions {
		outcomes[i] = states[i].outcome(&exceptions[i])
	}
	return out, outcomes
}

// A state is an exception while failures are held against it.
type state struct {
	invalid  error
	accepted int
	nearest  string // why the nearest failure did not match
	steps    int    // how far that one came
}

func (r Resolver) names(x *Exception, control string) bool {
	return slices.ContainsFunc(x.Spec.Controls, func(name string) bool { return r.Covers(name, control) })
}

// accept marks a failure that valid exceptions cover.
func (r Resolver) accept(f *finding.Finding, exceptions []Exception, states []state) {
	all := parts(f)
	open := all
	var by []int
	for i := range exceptions {
		x := &exceptions[i]
		if !r.names(x, f.Control) {
			states[i].note(0, fmt.Sprintf("no failure of %s", strings.Join(x.Spec.Controls, ", ")))
			continue
		}
		if miss := x.miss(*f.Subject, r.Labels); miss != "" {
			states[i].note(1, fmt.Sprintf("%s %s: %s", f.Control, f.Subject, miss))
			continue
		}
		left := slices.DeleteFunc(slices.Clone(open), x.Spec.Scope.covers)
		if len(left) == len(open) {
			states[i].note(2, fmt.Sprintf("%s %s: %s", f.Control, f.Subject, x.Spec.Scope.missPart(f, all)))
			continue
		}
		if states[i].invalid != nil {
			continue
		}
		states[i].note(3, fmt.Sprintf("%s %s: %s fail too", f.Control, f.Subject, list(left)))
		open, by = left, append(by, i)
	}
	if len(open) > 0 {
		return
	}
	x := &exceptions[by[len(by)-1]]
	f.Status = finding.Excepted
	f.Amend(func(d *finding.Detail) {
		d.Reason = fmt.Sprintf("accepted by %s until %s: %s (%s)", x.Spec.Owner, x.Spec.Expires, x.Spec.Reason, x)
	})
	for _, i := range by {
		states[i].accepted++
	}
}

// A part is what of a failure can be accepted by itself: a container, or a
// subject of a binding.
type part struct {
	container string
	grantee   finding.Grantee
}

// parts returns the parts that a failure speaks of; one that speaks of none has
// one without a name.
func parts(f *finding.Finding) []part {
	var out []part
	for _, g := range f.Grantees {
		out = append(out, part{grantee: g})
	}
	if len(out) > 0 {
		return out
	}
	for name := range strings.SplitSeq(f.Subject.Container, ",") {
		out = append(out, part{container: strings.TrimSpace(name)})
	}
	return out
}

// list names parts, of which there is one at least.
func list(parts []part) string {
	what, names := "containers ", []string{}
	for _, p := range parts {
		if p.grantee.Kind != "" {
			what, p.container = "subjects ", p.grantee.String()
		}
		names = append(names, p.container)
	}
	return what + strings.Join(names, ", ")
}

func (s Scope) covers(p part) bool {
	part, _ := s.Subject.miss(p.grantee)
	return matches(s.Container, p.container) && part == ""
}

// missPart says why a scope covers no part of a failure that is still open; of
// subjects it names the one that comes nearest.
func (s Scope) missPart(f *finding.Finding, all []part) string {
	switch {
	case slices.ContainsFunc(all, s.covers):
		return "another exception accepts it"
	case s.Subject == Grantee{}:
		return fmt.Sprintf("container is %q, not %q", f.Subject.Container, s.Container)
	case len(f.Grantees) == 0:
		return "it is about no subject of a binding"
	}
	nearest, steps := "", -1
	for _, g := range f.Grantees {
		if part, matched := s.Subject.miss(g); part != "" && matched > steps {
			nearest, steps = fmt.Sprintf("subject %s: %s", g, part), matched
		}
	}
	if nearest == "" {
		return fmt.Sprintf("it is about no container, not %q", s.Container)
	}
	return nearest
}

// note keeps the miss that came furthest.
func (s *state) note(steps int, why string) {
	if s.nearest == "" || steps > s.steps {
		s.nearest, s.steps = why, steps
	}
}

func (s *state) outcome(x *Exception) Outcome {
	o := Outcome{Name: x.String(), Owner: x.Spec.Owner, Reason: x.Spec.Reason, Source: x.Source, Accepted: s.accepted}
	if !x.Spec.Expires.IsZero() {
		o.Expires = x.Spec.Expires.String()
	}
	switch {
	case s.invalid != nil:
		o.Problem = s.invalid.Error()
	case s.accepted == 0 && s.nearest != "":
		o.Problem = "accepts nothing; nearest: " + s.nearest
	case s.accepted == 0:
		o.Problem = "accepts nothing: nothing fails"
	}
	return o
}
