package control

import (
	"cmp"

	"github.com/kubeguardian/kubeguardian/finding"
)

// A writer makes findings of verdicts. Findings are most of the memory of a
// large scan, so each subject is kept once, and so is a detail that is that of the
// last finding of the control in the same state: what differs, differs for each.
type writer struct {
	e        *evaluation
	subjects map[finding.Subject]*subject
	last     map[outcome]*finding.Detail
}

// An outcome is a state of a control.
type outcome struct {
	of     *Control
	status finding.Status
}

// A subject is what findings speak of, and from where it can be reached.
type subject struct {
	finding.Subject
	exposure finding.Exposure
}

func newWriter(e *evaluation) *writer {
	return &writer{e, map[finding.Subject]*subject{}, map[outcome]*finding.Detail{}}
}

// findings writes out the verdicts on the subjects of a control.
func (w *writer) findings(ctl *Control, verdicts []finding.Verdict) []finding.Finding {
	out := make([]finding.Finding, len(verdicts))
	for i := range verdicts {
		out[i] = w.finding(ctl, w.subject(verdicts[i].Subject), verdicts[i])
	}
	return out
}

// finding writes out a verdict on a subject, with what is the same for all
// verdicts of a control. A check that judges by evidence has given its kind and
// time, and may have given the exposure.
func (w *writer) finding(ctl *Control, s *subject, v finding.Verdict) finding.Finding {
	if v.Status == finding.Unknown {
		v = w.e.settle(ctl, v)
	}
	v = w.e.doubt(ctl, v)
	detail := finding.Detail{
		Reason: v.Reason, Message: v.Message, Evidence: v.Evidence, EvidenceKind: v.EvidenceKind, ObservedAt: v.ObservedAt,
		Hides: v.Hides, Grantees: v.Grantees,
	}
	if detail.EvidenceKind == "" {
		detail.EvidenceKind, detail.ObservedAt = string(ctl.Evidence[0]), w.e.now
	}
	if v.Status == finding.Fail {
		detail.Fix = ctl.Fix.Text
	}
	return finding.Finding{
		Definition: ctl.shared, Detail: w.detail(outcome{ctl, v.Status}, detail), Subject: &s.Subject,
		Status: v.Status, Exposure: cmp.Or(v.Exposure, s.exposure),
	}
}

func (w *writer) subject(s finding.Subject) *subject {
	have, ok := w.subjects[s]
	if !ok {
		have = &subject{s, w.e.exposure(s)}
		w.subjects[s] = have
	}
	return have
}

func (w *writer) detail(of outcome, d finding.Detail) *finding.Detail {
	have := w.last[of]
	if have == nil || !have.Equal(&d) {
		have = new(finding.Detail)
		*have = d
		w.last[of] = have
	}
	return have
}

// object writes out the n-th verdict of policies on an object.
func (w *writer) object(ctl *Control, s *subject, v policyVerdict, n int) finding.Finding {
	state := v.states[n]
	if state == nil {
		return w.finding(ctl, s, finding.Verdict{Status: finding.Pass, Subject: s.Subject})
	}
	if state.container != "" {
		of := s.Subject
		of.Container = state.container
		s = w.subject(of)
	}
	return w.finding(ctl, s, finding.Verdict{
		Status: state.status, Subject: s.Subject, Reason: state.reason, Message: state.message, Evidence: state.evidence,
	})
}

// all writes out the verdicts of policies, with the other findings of each
// control behind them.
func (w *writer) all(judged []policyVerdict, others [][]finding.Finding) []finding.Finding {
	next, total := make([]int, len(others)), 0 // place for a finding of each control
	for _, v := range judged {
		for _, i := range v.controls {
			next[i]++
		}
	}
	for i := range others {
		n := next[i]
		next[i] = total
		total += n + len(others[i])
	}
	out := make([]finding.Finding, total)
	for k, o := range w.e.inv.Objects() {
		if len(judged[k].controls) == 0 {
			continue
		}
		s := w.subject(o.Subject())
		for n, i := range judged[k].controls {
			out[next[i]] = w.object(&w.e.catalogue.controls[i], s, judged[k], n)
			next[i]++
		}
		judged[k] = policyVerdict{}
	}
	for i := range others {
		copy(out[next[i]:], others[i])
		others[i] = nil
	}
	return out
}
