// Package exception holds accepted risks: failures that somebody answers for,
// with a reason, until a day. An exception never makes a failure a pass.
//
// Exceptions are objects that others than the authors of a workload control:
// files given by hand, or objects of the cluster under its RBAC. What a
// workload says of itself in an annotation is a request, and counts only where
// that was switched on.
package exception

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/finding"
)

// The kind of an exception as a Kubernetes object.
const (
	APIVersion = "kubeguardian.dev/v1alpha1"
	Kind       = "SecurityException"
)

// Bounds on how long a risk may be accepted, from the day it was accepted.
const (
	longest      = 365 * 24 * time.Hour
	longestBroad = 90 * 24 * time.Hour // for a critical control, or any subject of the cluster
)

// An Exception accepts the failures of some controls for some subjects.
type Exception struct {
	Namespace string // of the object; it then speaks for that namespace only
	Name      string
	Spec      Spec
	Source    string // "file:line"; empty for an object of the cluster
}

// A Spec says what is accepted, by whom, why, and until when.
type Spec struct {
	Controls   []string `yaml:"controls" json:"controls"` // ids, or names of families
	Scope      Scope    `yaml:"scope" json:"scope"`
	Owner      string   `yaml:"owner" json:"owner"` // who answers for it
	Reason     string   `yaml:"reason" json:"reason"`
	Created    Date     `yaml:"created" json:"created"`
	Expires    Date     `yaml:"expires" json:"expires"`       // the last day
	ApprovedBy []string `yaml:"approvedBy" json:"approvedBy"` // others than the owner
	Ticket     string   `yaml:"ticket" json:"ticket"`
}

// A Scope selects subjects: all that is given must match. Texts are patterns as
// of [path.Match], so that "*" stands for any characters but "/".
type Scope struct {
	Kind      string            `yaml:"kind" json:"kind"`
	Namespace string            `yaml:"namespace" json:"namespace"`
	Name      string            `yaml:"name" json:"name"`
	Container string            `yaml:"container" json:"container"`
	Labels    map[string]string `yaml:"labels" json:"labels"` // exact
	File      string            `yaml:"file" json:"file"`     // that the subject is written in
	Subject   Grantee           `yaml:"subject" json:"subject"`
}

// A Grantee selects subjects of a binding: a failure of the binding is accepted
// for them, and not for its other subjects.
type Grantee struct {
	Kind      string `yaml:"kind" json:"kind"` // User, Group or ServiceAccount
	Namespace string `yaml:"namespace" json:"namespace"`
	Name      string `yaml:"name" json:"name"`
}

// miss returns the first part that a subject of a binding does not match, with
// what it has instead, or "", and how many parts matched before it.
func (g Grantee) miss(have finding.Grantee) (part string, matched int) {
	for i, p := range []struct{ name, pattern, value string }{
		{"kind", g.Kind, have.Kind}, {"namespace", g.Namespace, have.Namespace}, {"name", g.Name, have.Name},
	} {
		if !matches(p.pattern, p.value) {
			return fmt.Sprintf("%s is %q, not %q", p.name, p.value, p.pattern), i
		}
	}
	return "", 3
}

// broad reports whether a scope names no subject in particular.
func (s Scope) broad() bool {
	return s.Namespace == "" && s.Name == "" && len(s.Labels) == 0 && s.File == "" && s.Subject.Name == ""
}

// String names the exception.
func (x *Exception) String() string {
	if x.Namespace != "" {
		return x.Namespace + "/" + x.Name
	}
	return x.Name
}

// Check returns why the exception may not be relied upon now, or nil. critical
// says whether one of its controls is.
func (x *Exception) Check(now time.Time, critical bool) error {
	if missing := x.missing(); len(missing) > 0 {
		return fmt.Errorf("has no %s", strings.Join(missing, ", "))
	}
	s := x.Spec
	approvers, limit := others(s.ApprovedBy, s.Owner), longest
	needed := 1
	if critical || x.Namespace == "" && s.Scope.broad() {
		needed, limit = 2, longestBroad
	}
	switch {
	case s.Created.begin().After(now):
		return fmt.Errorf("is dated %s, which is in the future", s.Created)
	case now.After(s.Expires.end()):
		return fmt.Errorf("expired on %s", s.Expires)
	case len(approvers) < needed:
		return fmt.Errorf("needs %d approvers other than its owner, has %d", needed, len(approvers))
	case s.Expires.Sub(s.Created.Time) > limit:
		return fmt.Errorf("runs for more than %.0f days", limit.Hours()/24)
	}
	return nil
}

// missing lists what an exception must have and does not.
func (x *Exception) missing() []string {
	var missing []string
	for _, part := range []struct {
		name   string
		absent bool
	}{
		{"controls", len(x.Spec.Controls) == 0}, {"owner", x.Spec.Owner == ""}, {"reason", strings.TrimSpace(x.Spec.Reason) == ""},
		{"created", x.Spec.Created.IsZero()}, {"expires", x.Spec.Expires.IsZero()},
	} {
		if part.absent {
			missing = append(missing, part.name)
		}
	}
	return missing
}

// others returns the different names of a list without one of them.
func others(names []string, one string) []string {
	out := slices.Compact(slices.Sorted(slices.Values(names)))
	return slices.DeleteFunc(out, func(n string) bool { return n == "" || n == one })
}

// patterns checks that the patterns of a scope are ones.
func (s Scope) patterns() error {
	for _, p := range []string{s.Kind, s.Namespace, s.Name, s.Container, s.File, s.Subject.Kind, s.Subject.Namespace, s.Subject.Name} {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("scope %q: %w", p, err)
		}
	}
	return nil
}

// miss returns the first part of the scope that a subject does not match, with
// what it has instead, or "". Container and subject are not looked at.
func (x *Exception) miss(s finding.Subject, labelsOf func(finding.Subject) map[string]string) string {
	file, _, _ := strings.Cut(s.Source, ":")
	scope := x.Spec.Scope
	namespace := scope.Namespace
	if x.Namespace != "" {
		namespace = x.Namespace
	}
	for _, part := range []struct{ name, pattern, value string }{
		{"kind", scope.Kind, s.Kind}, {"namespace", namespace, s.Namespace},
		{"name", scope.Name, s.Name}, {"file", scope.File, file},
	} {
		if !matches(part.pattern, part.value) {
			return fmt.Sprintf("%s is %q, not %q", part.name, part.value, part.pattern)
		}
	}
	if len(scope.Labels) == 0 {
		return ""
	}
	labels := labelsOf(s)
	for _, key := range slices.Sorted(maps.Keys(scope.Labels)) {
		if have, ok := labels[key]; !ok || have != scope.Labels[key] {
			return fmt.Sprintf("label %s is %q, not %q", key, have, scope.Labels[key])
		}
	}
	return ""
}

func matches(pattern, value string) bool {
	ok, err := path.Match(pattern, value)
	return pattern == "" || ok && err == nil
}

// A Date is a day, written as 2026-12-31.
type Date struct{ time.Time }

// begin returns the moment at which the day begins somewhere.
func (d Date) begin() time.Time { return d.Add(-14 * time.Hour) }

// end returns the moment at which the day is over everywhere.
func (d Date) end() time.Time { return d.Add(36 * time.Hour) }

// String writes the day.
func (d Date) String() string { return d.Format(time.DateOnly) }

// UnmarshalText reads a day, or a time as Kubernetes writes it.
func (d *Date) UnmarshalText(text []byte) error {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, string(text)); err == nil {
			d.Time = t
			return nil
		}
	}
	return errors.New("want a day as 2026-12-31")
}

// UnmarshalYAML reads a day; its error has the line.
func (d *Date) UnmarshalYAML(n *yaml.Node) error {
	if err := d.UnmarshalText([]byte(n.Value)); err != nil {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %v", n.Line, err)}}
	}
	return nil
}

// MarshalText writes the day.
func (d Date) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
