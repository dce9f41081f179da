package control

import (
	"cmp"
	"iter"
	"slices"

	"github.com/kubeguardian/kubeguardian/finding"
)

// A tally counts the subjects of one unit. A subject that does not pass adds
// its exposure weight times the weight of its heaviest member that does not
// pass; whole numbers, so that the order of counting cannot change a score.
type tally struct {
	subjects                int
	fail, unknown, accepted int
	boundless               int // unreadable parts that may hold any number of subjects
	critical                int // open critical findings, accepted or not, or hidden
	reachable               int // those of them that the internet may reach
}

// A row is one subject of a unit: its findings, one for each member.
type row []*finding.Finding

// A ledger is findings, sorted into the units of a catalogue.
type ledger struct {
	catalogue *Catalogue
	units     []entry // by unit
	tallies   []tally // by unit
	passes    []float64
	strangers int // findings of controls that the catalogue does not have
}

// An entry is the findings of a unit, subject by subject.
type entry struct {
	findings row
	ends     []int // of each subject; nil if each has one finding
}

// rows yields the subjects one by one.
func (e entry) rows(yield func(row) bool) {
	if e.ends == nil {
		for i := range e.findings {
			if !yield(e.findings[i : i+1]) {
				return
			}
		}
	}
	start := 0
	for _, end := range e.ends {
		if !yield(e.findings[start:end]) {
			return
		}
		start = end
	}
}

func newLedger(c *Catalogue, findings []finding.Finding) *ledger {
	l := &ledger{
		catalogue: c, units: make([]entry, len(c.units)),
		tallies: make([]tally, len(c.units)), passes: make([]float64, len(c.units)),
	}
	sizes := make([]int, len(c.units))
	for at := range c.scoring(findings) {
		if at == stranger {
			l.strangers++
		} else {
			sizes[at]++
		}
	}
	for i, size := range sizes {
		l.units[i].findings = make(row, 0, size)
	}
	for at, f := range c.scoring(findings) {
		if at != stranger {
			l.units[at].findings = append(l.units[at].findings, f)
		}
	}
	for i := range c.units {
		if len(c.units[i].severity) > 1 {
			l.units[i].bySubject()
		}
		l.tallies[i] = l.count(i, "")
		l.passes[i] = l.tallies[i].bar(c.units[i].weight).pass
	}
	return l
}

// stranger stands for the unit of a control that the catalogue does not have.
const stranger = -1

// scoring yields the findings that count, each with the place of its unit. One
// control's mostly follow each other.
func (c *Catalogue) scoring(findings []finding.Finding) iter.Seq2[int, *finding.Finding] {
	return func(yield func(int, *finding.Finding) bool) {
		at, scores, known := 0, false, false
		for i := range findings {
			f := &findings[i]
			if i == 0 || f.Control != findings[i-1].Control {
				at, scores = c.unitOf[f.Control]
				known = c.byID[f.Control] != nil
			}
			if known && (!scores || f.Status == finding.NotApplicable) {
				continue
			}
			if !known {
				at = stranger
			}
			if !yield(at, f) {
				return
			}
		}
	}
}

// bySubject brings the findings that speak of the same object together.
func (e *entry) bySubject() {
	at := map[finding.Subject]int{}
	var joined []row
	for _, f := range e.findings {
		subject := *f.Subject
		subject.Container = ""
		i, known := at[subject]
		if !known {
			i = len(joined)
			at[subject] = i
			joined = append(joined, nil)
		}
		joined[i] = append(joined[i], f)
	}
	e.findings, e.ends = e.findings[:0], make([]int, 0, len(joined))
	for _, r := range joined {
		e.findings = append(e.findings, r...)
		e.ends = append(e.ends, len(e.findings))
	}
}

// count tallies a unit as if every failure of the control fixed were mended.
func (l *ledger) count(unit int, fixed string) tally {
	var t tally
	for r := range l.units[unit].rows {
		t.add(&l.catalogue.units[unit], r, fixed, 1)
	}
	return t
}

// add counts one subject, or with sign -1 takes it back. Failures of the
// control fixed count as passed. A part that could not be read is as many
// subjects as it may hold, and may hide a critical failure.
func (t *tally) add(u *unit, r row, fixed string, sign int) {
	count := sign * max(1, r[0].Hides)
	t.subjects += count
	if r[0].Hides == finding.AnyNumber {
		t.boundless += sign
	}
	var worst *finding.Finding
	for _, f := range r {
		if f.Status == finding.Pass || f.Status == finding.Fail && f.Control == fixed {
			continue
		}
		if worst == nil || heavier(u, f, worst) {
			worst = f
		}
		if (f.Status != finding.Unknown || hidden(f)) && u.severity[f.Control] == finding.Critical {
			t.critical += sign
			if reachable(f.Exposure) {
				t.reachable += sign
			}
		}
	}
	if worst == nil {
		return
	}
	lost := count * worst.Exposure.Weight() * u.severity[worst.Control].Weight()
	switch worst.Status {
	case finding.Fail:
		t.fail += lost
	case finding.Excepted:
		t.accepted += lost
	default:
		t.unknown += lost
	}
}

// heavier orders the findings of one subject by weight; at the same weight a
// failure counts before an accepted one, and that before an unknown one.
func heavier(u *unit, a, b *finding.Finding) bool {
	rank := func(f *finding.Finding) int {
		return slices.Index([]finding.Status{finding.Excepted, finding.Fail}, f.Status)
	}
	return cmp.Or(
		cmp.Compare(u.severity[a.Control].Weight(), u.severity[b.Control].Weight()),
		cmp.Compare(rank(a), rank(b)),
	) > 0
}

// reachable reports whether the internet reaches a subject, or may: were "not
// known" milder than "internet", losing evidence could raise a score.
func reachable(e finding.Exposure) bool { return e.Weight() == finding.Internet.Weight() }

// A bar is how one is split among the states.
type bar struct{ pass, fail, unknown, accepted float64 }

// bar returns the shares of a unit of this weight.
func (t tally) bar(weight int) bar {
	lost := t.fail + t.unknown + t.accepted
	if lost == 0 {
		return bar{pass: 1}
	}
	pass := max(0, 1-float64(lost)/float64(t.subjects*weight))
	if t.critical > 0 {
		pass = min(pass, criticalCap)
	}
	if t.boundless > 0 {
		pass = 0
	}
	part := func(n int) float64 { return (1 - pass) * float64(n) / float64(lost) }
	return bar{pass, part(t.fail), part(t.unknown), part(t.accepted)}
}

// total returns the total with tally in place of that of one unit, and whether
// any level has data.
func (l *ledger) total(unit int, t tally) (float64, bool) {
	var points, levels float64
	reach := 0
	for _, level := range finding.Levels() {
		sum, weight, open := 0.0, 0, 0
		for i := range l.catalogue.units {
			u, have, pass := &l.catalogue.units[i], l.tallies[i], l.passes[i]
			if u.level != level || have.subjects == 0 {
				continue
			}
			if i == unit {
				have, pass = t, t.bar(u.weight).pass
			}
			sum += float64(u.weight) * pass
			weight += u.weight
			open += have.reachable
		}
		if weight == 0 {
			continue
		}
		reach += open
		points += capped(sum/float64(weight), open) * levelPoints
		levels++
	}
	if levels == 0 {
		return 0, false
	}
	return renormalised(points, levels, reach), true
}

// capped limits the pass share of a level that has open critical findings
// within reach of the internet.
func capped(pass float64, open int) float64 {
	if open > 0 {
		return min(pass, levelCap)
	}
	return pass
}

// renormalised spreads the points of the levels with data over 100 and limits
// them likewise.
func renormalised(points, levels float64, open int) float64 {
	total := 100 * points / (levelPoints * levels)
	if open > 0 {
		return min(total, totalCap)
	}
	return total
}

// gains fills in what fixing each failure alone would add to the total.
func (l *ledger) gains() {
	now, ok := l.total(-1, tally{})
	if !ok {
		return
	}
	for i := range l.catalogue.units {
		u := &l.catalogue.units[i]
		known := map[tally]float64{} // most failures of a unit change it alike
		for r := range l.units[i].rows {
			for _, f := range r {
				if f.Status != finding.Fail {
					continue
				}
				t := l.tallies[i]
				t.add(u, r, "", -1)
				t.add(u, r, f.Control, 1)
				then, ok := known[t]
				if !ok {
					then, _ = l.total(i, t)
					known[t] = then
				}
				f.Gain = then - now
			}
		}
	}
}

// A Fix is one control that fails, and what meeting it everywhere would give.
type Fix struct {
	Control  string           `json:"control"`
	Title    string           `json:"title"`
	Severity finding.Severity `json:"severity"`
	Count    int              `json:"count"` // failures
	Gain     float64          `json:"gain"`  // points of the total won by fixing them all
	Fix      string           `json:"fix"`
}

// Fixes returns one fix for each control with failures, best first: by gain,
// then by severity and by number of failures.
func Fixes(c *Catalogue, findings []finding.Finding) []Fix {
	return newLedger(c, findings).fixes(findings)
}

// Assess returns what Summarize and Fixes return, at the cost of one of them.
func Assess(c *Catalogue, findings []finding.Finding) (Score, []Fix) {
	l := newLedger(c, findings)
	return l.score(), l.fixes(findings)
}

func (l *ledger) fixes(findings []finding.Finding) []Fix {
	c, failures := l.catalogue, map[string]int{}
	for i := range findings {
		if findings[i].Status == finding.Fail {
			failures[findings[i].Control]++
		}
	}
	now, _ := l.total(-1, tally{})
	var fixes []Fix
	for _, ctl := range c.controls {
		if failures[ctl.ID] == 0 {
			continue
		}
		then := now
		if at, scores := c.unitOf[ctl.ID]; scores {
			then, _ = l.total(at, l.count(at, ctl.ID))
		}
		fixes = append(fixes, Fix{ctl.ID, ctl.Title, ctl.Severity, failures[ctl.ID], then - now, ctl.Fix.Text})
	}
	slices.SortStableFunc(fixes, func(a, b Fix) int {
		return cmp.Or(
			cmp.Compare(b.Gain, a.Gain),
			cmp.Compare(b.Severity.Weight(), a.Severity.Weight()),
			cmp.Compare(b.Count, a.Count),
		)
	})
	return fixes
}
