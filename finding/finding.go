// Package finding holds what KubeGuardian concludes about resources: the state
// of one control for one subject, and the admission decision on one request.
// It has types and pure functions only.
package finding

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Level is one of the five layers that make up the score.
type Level string

// The five levels, from the outside in.
const (
	Infrastructure Level = "infrastructure"
	Cluster        Level = "cluster"
	Container      Level = "container"
	Application    Level = "application"
	Code           Level = "code"
)

// Levels lists the five levels from the outside in.
func Levels() []Level {
	return []Level{Infrastructure, Cluster, Container, Application, Code}
}

// ParseLevel returns the level named s.
func ParseLevel(s string) (Level, error) {
	if l := Level(s); slices.Contains(Levels(), l) {
		return l, nil
	}
	return "", fmt.Errorf("unknown level %q: want infrastructure, cluster, container, application or code", s)
}

// A Severity says how much a failed control matters.
type Severity string

// The severities, worst first.
const (
	Critical Severity = "critical"
	High     Severity = "high"
	Medium   Severity = "medium"
	Low      Severity = "low"
)

// ParseSeverity returns the severity named s.
func ParseSeverity(s string) (Severity, error) {
	if v := Severity(s); v.Weight() > 0 {
		return v, nil
	}
	return "", fmt.Errorf("unknown severity %q: want critical, high, medium or low", s)
}

// Weight returns the weight of a control of this severity in its level: 10, 5,
// 2 or 1, and 0 for an unknown severity.
func (s Severity) Weight() int {
	switch s {
	case Critical:
		return 10
	case High:
		return 5
	case Medium:
		return 2
	case Low:
		return 1
	}
	return 0
}

// AtLeast reports whether s is as severe as floor or more.
func (s Severity) AtLeast(floor Severity) bool { return s.Weight() >= floor.Weight() }

// A Status is the state of one (control, subject) pair; there are five, and
// only Pass scores.
type Status string

// The five states.
const (
	Pass          Status = "pass"           // evidence seen, fresh, condition holds
	Fail          Status = "fail"           // evidence seen, condition does not hold
	Unknown       Status = "unknown"        // no usable evidence; Reason says why
	Excepted      Status = "excepted"       // failed, with a valid exception
	NotApplicable Status = "not-applicable" // the subject cannot have the property
)

// A Subject is what a finding or an alert speaks of: a Kubernetes object,
// optionally one container of it, and where it is written.
type Subject struct {
	APIVersion string `json:"apiVersion,omitempty"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name,omitempty"`
	Container  string `json:"container,omitempty"` // comma-separated when several
	Source     string `json:"source,omitempty"`    // "file:line"; empty for a live object
	// RenderedFrom is the chart or kustomization that made the object: two
	// variants of it may be written at the same place.
	RenderedFrom string `json:"renderedFrom,omitempty"`
}

// String returns "Kind/namespace/name", without the parts that are empty.
func (s Subject) String() string {
	parts := slices.DeleteFunc([]string{s.Kind, s.Namespace, s.Name}, func(p string) bool { return p == "" })
	return strings.Join(parts, "/")
}

// An Exposure says from where a subject can be reached; it weighs failures.
type Exposure string

// The exposures. The zero value means "not known" and weighs like Internet.
const (
	ExposureUnknown Exposure = ""
	Internet        Exposure = "internet"
	InCluster       Exposure = "cluster"
	System          Exposure = "system"
)

// Weight returns the weight of a failing subject with this exposure: 3 when it
// is reachable from the internet or that is not known, else 1.
func (e Exposure) Weight() int {
	if e == InCluster || e == System {
		return 1
	}
	return 3
}

// A Verdict is what a check concludes of one subject, for the control that asks.
// What it leaves empty is filled in when it becomes a [Finding].
type Verdict struct {
	Status       Status
	Reason       string // why unknown, excepted or not applicable
	Subject      Subject
	Message      string // what is wrong, one sentence
	Evidence     string // what was seen; never a secret
	EvidenceKind string
	Exposure     Exposure
	ObservedAt   time.Time
	Hides        int       // see [Detail]
	Grantees     []Grantee // see [Detail]
}

// A Finding is the state of one control for one subject, with its evidence. A
// large scan has hundreds of thousands, so they share what is the same for many:
// none of the pointers is nil, and nothing is written through them.
type Finding struct {
	*Definition
	*Detail
	Subject  *Subject `json:"subject"`
	Status   Status   `json:"status"`
	Exposure Exposure `json:"exposure,omitempty"`
	Gain     float64  `json:"gain,omitempty"` // points of the total won by fixing this alone
}

// A Definition is what all findings of a control have in common.
type Definition struct {
	Control    string              `json:"control"`
	Title      string              `json:"title"`
	Level      Level               `json:"level"`
	Severity   Severity            `json:"severity"`
	Frameworks map[string][]string `json:"frameworks,omitempty"`
}

// A Detail is what was seen, or why nothing was. All plain passes of a control
// have the same.
type Detail struct {
	Reason   string `json:"reason,omitempty"`   // why unknown, excepted or not applicable
	Message  string `json:"message,omitempty"`  // what is wrong, one sentence
	Evidence string `json:"evidence,omitempty"` // what was seen; never a secret
	// EvidenceKind says where that was seen, as package evidence names it, and so
	// for how long it is good.
	EvidenceKind string    `json:"evidenceKind,omitempty"`
	Fix          string    `json:"fix,omitempty"` // one action
	ObservedAt   time.Time `json:"observedAt"`
	// Hides is set where the subject is a part of the input that could not be
	// read: how many subjects it may hold at most, or [AnyNumber].
	Hides int `json:"hides,omitempty"`
	// Grantees are the subjects of a binding that its failure is about; others of
	// the same binding are no part of it.
	Grantees []Grantee `json:"grantees,omitempty"`
}

// A Grantee is a subject of a binding: a User, a Group or a ServiceAccount.
type Grantee struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"` // of a ServiceAccount
	Name      string `json:"name"`
}

// String returns "Kind/namespace/name", without the namespace if there is none.
func (g Grantee) String() string {
	return Subject{Kind: g.Kind, Namespace: g.Namespace, Name: g.Name}.String()
}

// Equal reports whether two details say the same.
func (d *Detail) Equal(o *Detail) bool {
	return d.Reason == o.Reason && d.Message == o.Message && d.Evidence == o.Evidence && d.EvidenceKind == o.EvidenceKind &&
		d.Fix == o.Fix && d.ObservedAt.Equal(o.ObservedAt) && d.Hides == o.Hides && slices.Equal(d.Grantees, o.Grantees)
}

// Amend changes the detail of this finding, and of no other that shares it.
func (f *Finding) Amend(change func(*Detail)) {
	detail := *f.Detail
	change(&detail)
	f.Detail = &detail
}

// AnyNumber is the number of subjects in what gives no telling of it.
const AnyNumber = -1

// A Decision is the outcome of one admission request.
type Decision struct {
	ID           string      `json:"id"` // the uid of the AdmissionReview request
	Time         time.Time   `json:"time"`
	Operation    string      `json:"operation"` // CREATE, UPDATE, DELETE or CONNECT
	User         string      `json:"user"`
	Subject      Subject     `json:"subject"`
	Allowed      bool        `json:"allowed"`
	DryRun       bool        `json:"dryRun,omitempty"`
	Violations   []Violation `json:"violations,omitempty"`
	Microseconds int64       `json:"microseconds"` // time spent on the decision
}

// A Violation is one admission policy that an object does not satisfy.
type Violation struct {
	Policy      string            `json:"policy"`
	Binding     string            `json:"binding,omitempty"`
	Enforcement string            `json:"enforcement"` // deny, warn or audit
	Message     string            `json:"message"`
	Details     map[string]string `json:"details,omitempty"` // the policy's audit annotations
}
