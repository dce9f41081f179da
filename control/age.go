package control

import (
	"fmt"
	"slices"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
)

// Aged returns findings as they stand at now. A pass whose evidence is older
// than its kind is good for becomes unknown; a failure stays one until it is
// seen fixed. Were it otherwise, losing evidence could raise a score. Findings
// about files do not age: a file is as old as its scan.
func (c *Catalogue) Aged(findings []finding.Finding, now time.Time) []finding.Finding {
	good := map[string]time.Duration{}
	for _, ctl := range c.controls {
		for _, kind := range ctl.Evidence {
			if good[ctl.ID] == 0 || lifetime[kind] < good[ctl.ID] {
				good[ctl.ID] = lifetime[kind]
			}
		}
	}
	aged := slices.Clone(findings)
	for i := range aged {
		f := &aged[i]
		limit, known := good[f.Control]
		age := now.Sub(f.ObservedAt)
		if !known || f.Status != finding.Pass || f.Subject.Source != "" || age <= limit {
			continue
		}
		f.Status = finding.Unknown
		f.Reason = fmt.Sprintf("evidence is %s old, good for %s", age.Round(time.Minute), limit)
		if f.ObservedAt.IsZero() {
			f.Reason = "evidence has no time"
		}
	}
	return aged
}
