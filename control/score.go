package control

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/finding"
)

const (
	levelPoints = 20.0
	criticalCap = 0.5  // pass share of a control with an open critical failure
	levelCap    = 0.69 // of a level with an open critical failure within reach of the internet
	totalCap    = 84.0 // of the total, likewise
	enough      = 0.6  // coverage under which a level is not judged
)

// A Score says how much of the catalogue was seen to hold. Low to High is what
// the total can be once the unknown is settled; only a critical failure that
// comes to light then can bring it under Low, by the cap on its control.
type Score struct {
	Total  *float64     `json:"total"`           // 0..100; null when no level has data
	Low    float64      `json:"low"`             // the range in which the truth lies
	High   float64      `json:"high"`            // the total if all that is unknown passed
	Levels []LevelScore `json:"levels"`          // always five, in finding.Levels() order
	Notes  []string     `json:"notes,omitempty"` // caps that bit, levels left out
}

// A LevelScore is one level's part: its bar, split into what passed, failed,
// could not be verified and was accepted. Only what passed scores.
type LevelScore struct {
	Level    finding.Level `json:"level"`
	Score    *float64      `json:"score"`    // 0..20; null when no control of the level applies
	Pass     float64       `json:"pass"`     // shares, sum 1 (all 0 when Score is nil)
	Fail     float64       `json:"fail"`     // seen not to hold
	Unknown  float64       `json:"unknown"`  // not verified
	Accepted float64       `json:"accepted"` // failed, with an exception
	Coverage float64       `json:"coverage"` // 1 - unknown
	Controls int           `json:"controls"` // applicable controls; a family counts once
	Notes    []string      `json:"notes,omitempty"`
}

// Summarize returns the score of findings. It is a pure function, and the
// order of the findings does not matter. Findings of controls that the
// catalogue does not have do not score; a note counts them.
func Summarize(c *Catalogue, findings []finding.Finding) Score {
	return newLedger(c, findings).score()
}

func (l *ledger) score() Score {
	var (
		s            Score
		levels, high float64
		open, hiding row
		without      []string
	)
	for _, level := range finding.Levels() {
		ls := l.level(level)
		if ls.Score == nil {
			without = append(without, string(level))
		} else {
			failed, may := l.open(level)
			open, hiding = append(open, failed...), append(hiding, may...)
			high += capped(ls.Pass+ls.Unknown, len(failed)) * levelPoints
			levels++
		}
		s.Levels = append(s.Levels, ls)
	}
	if total, ok := l.total(-1, tally{}); ok {
		s.Total, s.Low = &total, total
		s.High = max(total, renormalised(high, levels, len(open)))
	}
	s.Notes = l.notes(s, without, append(open, hiding...))
	return s
}

// level returns the bar and the score of one level.
func (l *ledger) level(level finding.Level) LevelScore {
	s := LevelScore{Level: level}
	weight := 0
	for i, u := range l.catalogue.units {
		if u.level != level || l.tallies[i].subjects == 0 {
			continue
		}
		b, w := l.tallies[i].bar(u.weight), float64(u.weight)
		s.Pass += w * b.pass
		s.Fail += w * b.fail
		s.Unknown += w * b.unknown
		s.Accepted += w * b.accepted
		weight += u.weight
		s.Controls++
	}
	if weight == 0 {
		return s
	}
	for _, share := range []*float64{&s.Pass, &s.Fail, &s.Unknown, &s.Accepted} {
		*share /= float64(weight)
	}
	s.Coverage = 1 - s.Unknown
	open, hiding := l.open(level)
	open = append(open, hiding...)
	score := capped(s.Pass, len(open)) * levelPoints
	s.Score = &score
	if s.Pass > levelCap && len(open) > 0 {
		s.Notes = append(s.Notes, fmt.Sprintf("capped at %.1f of %.0f: %s", score, levelPoints, blame(open)))
	}
	if s.Coverage < enough {
		s.Notes = append(s.Notes, fmt.Sprintf("not enough evidence, %.0f%% covered: %s", 100*s.Coverage, l.missing(level)))
	}
	return s
}

// open returns the critical findings of a level that the internet reaches or may
// reach, each in a fixed order: those that did not pass, and those that an
// unreadable part may hide.
func (l *ledger) open(level finding.Level) (seen, may row) {
	for i := range l.catalogue.units {
		u := &l.catalogue.units[i]
		if u.level != level || l.tallies[i].reachable == 0 {
			continue
		}
		for r := range l.units[i].rows {
			for _, f := range r {
				switch {
				case u.severity[f.Control] != finding.Critical || !reachable(f.Exposure):
				case hidden(f):
					may = append(may, f)
				case f.Status == finding.Fail || f.Status == finding.Excepted:
					seen = append(seen, f)
				}
			}
		}
	}
	for _, r := range []row{seen, may} {
		slices.SortFunc(r, func(a, b *finding.Finding) int {
			return cmp.Or(cmp.Compare(a.Control, b.Control), cmp.Compare(a.Subject.String(), b.Subject.String()),
				cmp.Compare(a.Subject.Source, b.Subject.Source))
		})
	}
	return seen, may
}

// blame names the first of some open critical findings and counts the others.
func blame(open row) string {
	f := open[0]
	if hidden(f) {
		return fmt.Sprintf("%s may fail for what %s hides, which could not be read", f.Control, cmp.Or(f.Subject.Source, f.Subject.String()))
	}
	why := "which the internet reaches"
	if f.Exposure == finding.ExposureUnknown {
		why = "of which it is not known whether the internet reaches it"
	}
	text := fmt.Sprintf("%s fails for %s, %s", f.Control, f.Subject, why)
	if more := len(open) - 1; more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	return text
}

// missing lists the commonest reasons why controls of a level are unknown.
func (l *ledger) missing(level finding.Level) string {
	counts := map[string]int{}
	for i, u := range l.catalogue.units {
		for r := range l.units[i].rows {
			for _, f := range r {
				if u.level == level && f.Status == finding.Unknown {
					counts[strings.TrimPrefix(f.Reason, "no evidence: ")]++
				}
			}
		}
	}
	var reasons []string
	for reason := range counts {
		reasons = append(reasons, reason)
	}
	slices.SortFunc(reasons, func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	return strings.Join(reasons[:min(3, len(reasons))], "; ")
}

// notes says what a reader must know about the total.
func (l *ledger) notes(s Score, without []string, open row) []string {
	var notes []string
	uncapped, levels := 0.0, 0.0
	for _, ls := range s.Levels {
		if ls.Score != nil {
			uncapped += *ls.Score
			levels++
		}
	}
	if len(open) > 0 && renormalised(uncapped, levels, 0) > totalCap {
		notes = append(notes, fmt.Sprintf("capped at %.0f: %s", totalCap, blame(open)))
	}
	switch {
	case s.Total == nil:
		notes = append(notes, "no data: no control applies to what was given")
	case len(without) > 0:
		notes = append(notes, fmt.Sprintf("no control applies at level %s: the total is of the other levels",
			strings.Join(without, ", ")))
	}
	if parts := l.hiding(); parts > 0 {
		notes = append(notes, fmt.Sprintf("not all of the input could be read: what it may hold counts as not passed (%d unread)", parts))
	}
	if l.strangers > 0 {
		notes = append(notes, fmt.Sprintf("%d findings of controls outside catalogue %s are left out", l.strangers, l.catalogue.version))
	}
	return notes
}
