package audit

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/finding"
)

// The bounds of a constraint's status: Gatekeeper's defaults.
const (
	StatusViolations = 20  // that are listed
	maxStatusMessage = 256 // bytes
)

// A ConstraintStatus is what an audit says of one constraint, with the keys that
// the status of Gatekeeper's constraints has.
type ConstraintStatus struct {
	AuditTimestamp  time.Time         `json:"auditTimestamp"`
	TotalViolations int               `json:"totalViolations"`
	Violations      []StatusViolation `json:"violations,omitempty"`
}

// A StatusViolation is one of the violations that a status lists.
type StatusViolation struct {
	EnforcementAction string `json:"enforcementAction"`
	Group             string `json:"group"`
	Version           string `json:"version"`
	Kind              string `json:"kind"`
	Namespace         string `json:"namespace,omitempty"`
	Name              string `json:"name"`
	Message           string `json:"message"`
}

// Statuses has the status of each constraint that has violations.
type Statuses struct {
	at time.Time
	of map[[2]string]*ConstraintStatus
}

// Statuses sums a result up by constraint, or by policy and binding. At most so
// many violations of each are listed: the strongest enforcement first, then in the
// order of the objects, so that a cluster that stays the same has the same status.
func (r *Result) Statuses(at time.Time, most int) Statuses {
	out := Statuses{at.UTC().Truncate(time.Second), map[[2]string]*ConstraintStatus{}}
	for _, v := range r.Violations() {
		key := [2]string{v.Policy, v.Binding}
		s := out.of[key]
		if s == nil {
			s = &ConstraintStatus{AuditTimestamp: out.at}
			out.of[key] = s
		}
		s.TotalViolations++
		s.list(v, most)
	}
	return out
}

// Of returns the status of a constraint, by its kind and name.
func (s Statuses) Of(kind, name string) ConstraintStatus {
	if status := s.of[[2]string{kind, name}]; status != nil {
		return *status
	}
	return ConstraintStatus{AuditTimestamp: s.at}
}

// list adds a violation, if it is among those to be listed.
func (s *ConstraintStatus) list(v Violation, most int) {
	at, _ := slices.BinarySearchFunc(s.Violations, v.Enforcement, func(have StatusViolation, enforcement string) int {
		return cmp.Or(cmp.Compare(finding.Strength(enforcement), finding.Strength(have.EnforcementAction)), -1) // behind its equals
	})
	if at >= most {
		return
	}
	gv, err := schema.ParseGroupVersion(v.Subject.APIVersion)
	if err != nil { // no API server has it
		gv.Version = v.Subject.APIVersion
	}
	message := v.Message
	if len(message) > maxStatusMessage {
		message = strings.ToValidUTF8(message[:maxStatusMessage], "")
	}
	s.Violations = slices.Insert(s.Violations, at, StatusViolation{
		EnforcementAction: v.Enforcement, Group: gv.Group, Version: gv.Version, Kind: v.Subject.Kind,
		Namespace: v.Subject.Namespace, Name: v.Subject.Name, Message: message,
	})
	s.Violations = s.Violations[:min(len(s.Violations), most)]
}
