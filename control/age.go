package control

import (
	"fmt"
	"slices"
	"time"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
)

// maxSkew is how far in the future evidence may be dated: clocks differ, and
// some tools write a local time without its zone.
const maxSkew = 24 * time.Hour

// Aged returns findings as they stand at now. A pass whose evidence is older
// than its kind is good for becomes unknown; a failure stays one until it is
// seen fixed. Were it otherwise, losing evidence could raise a score. What is
// read from a manifest does not age: a file is as old as its scan.
func (c *Catalogue) Aged(findings []finding.Finding, now time.Time) []finding.Finding {
	aged := slices.Clone(findings)
	c.age(aged, now)
	return aged
}

// age is Aged in place.
func (c *Catalogue) age(findings []finding.Finding, now time.Time) {
	for i := range findings {
		f := &findings[i]
		limit := c.lifetime(f)
		age := now.Sub(f.ObservedAt)
		manifest := f.Subject.Source != "" && (f.EvidenceKind == "" || f.EvidenceKind == string(evidence.API))
		if limit == 0 || f.Status != finding.Pass || manifest || age <= limit && age >= -maxSkew {
			continue
		}
		f.Status = finding.Unknown
		reason := fmt.Sprintf("evidence is %s old, good for %s", age.Round(time.Minute), limit)
		if age < 0 {
			reason = "evidence is dated " + f.ObservedAt.Format(time.DateOnly) + ", which is in the future"
		}
		if f.ObservedAt.IsZero() {
			reason = "evidence has no time"
		}
		f.Amend(func(d *finding.Detail) { d.Reason = reason })
	}
}

// lifetime returns how long the evidence of a finding is good for: by its kind,
// or if it has none by the control's shortest. It is 0 for a control that the
// catalogue does not have.
func (c *Catalogue) lifetime(f *finding.Finding) time.Duration {
	if kind := evidence.Kind(f.EvidenceKind); kind != "" {
		return kind.Lifetime()
	}
	shortest := time.Duration(0)
	if ctl := c.byID[f.Control]; ctl != nil {
		for _, kind := range ctl.Evidence {
			if shortest == 0 || kind.Lifetime() < shortest {
				shortest = kind.Lifetime()
			}
		}
	}
	return shortest
}
