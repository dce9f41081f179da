package finding

import "time"

// A Span is the time for which one control failed for one subject, as far as
// evaluations have shown it.
type Span struct {
	Finding Finding   `json:"finding"` // as it was when it was found
	Found   time.Time `json:"found"`   // by the first evaluation that saw it
	// New reports whether an evaluation before that had not seen it. What failed
	// when KubeGuardian looked for the first time may have failed for long.
	New      bool      `json:"new"`
	Resolved time.Time `json:"resolved,omitzero"` // when it was no more; zero: it fails still
	// Became is the status that it has had since, empty where the subject is gone,
	// or no control asks any more.
	Became Status `json:"became,omitempty"`
}

// Concerns returns the names that the finding is looked up by: its subject as
// [Subject.String] has it, and who is granted something by it.
func (f *Finding) Concerns() []string {
	out := []string{f.Subject.String()}
	for _, g := range f.Grantees {
		out = append(out, g.String())
	}
	return out
}

// A SpanQuery selects the spans of some subjects that are, at least in part,
// within a time. The zero Until is the end of time.
type SpanQuery struct {
	Subjects     []string // as [Finding.Concerns] has them
	Since, Until time.Time
	Limit        int
}
