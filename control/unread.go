package control

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// What could not be read never makes a score higher than it would be if it
// could. A part of the input that is hidden therefore counts as if all that it
// may hold failed, and as if it made a difference to the rest:
//
//   - It is as many unknown subjects as it may hold objects, of every control
//     that may judge one, see [finding.Finding.Hides].
//   - What is judged by more than one object is not seen to pass.
//   - Nothing is known to be out of reach of the internet.
//   - It may hold a critical failure, so the caps of one apply.
//
// All of it is unknown, not failed: the upper end of the range of the score
// stays where it would be if it passed.

// partial reports whether a part of the input could not be read.
func (e *evaluation) partial() bool { return len(e.inv.Unreadable) > 0 }

// unread returns an unknown state for each part of the input that could not be
// read and may hold a subject of the control.
func (e *evaluation) unread(ctl *Control) []finding.Verdict {
	var out []finding.Verdict
	for _, u := range e.inv.Unreadable {
		if ctl.mayJudge(u) {
			out = append(out, finding.Verdict{
				Status: finding.Unknown, Reason: u.Reason, Subject: u.Subject, Hides: cmp.Or(u.AtMost, finding.AnyNumber),
			})
		}
	}
	return out
}

// mayJudge reports whether a part of the input may hold a subject of the
// control.
func (ctl *Control) mayJudge(u inventory.Unreadable) bool {
	return slices.ContainsFunc(ctl.Subjects, func(s string) bool {
		if s == workloads {
			return slices.ContainsFunc(inventory.WorkloadKinds(), u.MayHold)
		}
		return !outside[s] && u.MayHold(schema.ParseGroupKind(s))
	})
}

// doubt takes back a pass for which more than one object was looked at, while
// not all of them could be read.
func (e *evaluation) doubt(ctl *Control, v finding.Verdict) finding.Verdict {
	if v.Status != finding.Pass || !e.partial() || !ctl.relates() {
		return v
	}
	v.Status, v.Evidence = finding.Unknown, ""
	v.Reason = "holds for what could be read, which is not all: " + e.inv.Unreadable[0].Reason
	if more := len(e.inv.Unreadable) - 1; more > 0 {
		v.Reason += fmt.Sprintf(", and %d more", more)
	}
	return v
}

// relates reports whether a verdict of the control may hang on other objects
// than its subject: it is one of our checks, and looks at objects.
func (ctl *Control) relates() bool {
	_, ok := checks[ctl.Evaluator]
	return ok && (slices.Contains(ctl.Evidence, evidence.API) ||
		slices.ContainsFunc(ctl.Subjects, func(s string) bool { return !outside[s] }))
}

// hidden reports whether a finding is of a part that could not be read.
func hidden(f *finding.Finding) bool { return f.Hides != 0 }

// hiding counts the parts of the input that could not be read.
func (l *ledger) hiding() int {
	parts := map[finding.Subject]bool{}
	for _, u := range l.units {
		for _, f := range u.findings {
			if hidden(f) {
				parts[*f.Subject] = true
			}
		}
	}
	return len(parts)
}
