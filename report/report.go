// Package report writes what a scan found, one file per format.
package report

import (
	"cmp"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/exception"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/tool"
)

// Schema names the shape of a [Report] in JSON. It changes with every change
// that a reader could stumble over.
const Schema = "kubeguardian.dev/report/v1"

// A Report is the outcome of one scan.
type Report struct {
	Schema     string              `json:"schema"`
	Catalogue  string              `json:"catalogue"` // version of the catalogue
	Time       time.Time           `json:"time"`      // of the scan
	Scanned    []string            `json:"scanned"`   // paths, or the address of the cluster
	Score      control.Score       `json:"score"`     // of everything, whatever Findings holds
	Fixes      []control.Fix       `json:"fixes"`     // best first
	Exceptions []exception.Outcome `json:"exceptions,omitempty"`
	Tools      []tool.Need         `json:"tools,omitempty"` // what serves each need, and what was seen of it
	Findings   []finding.Finding   `json:"findings"`        // worst first; every state, not only failures

	known map[string]bool // failures of the baseline; nil without one
}

// A Format writes a report. It does not change it.
type Format interface {
	Write(w io.Writer, r *Report) error
}

// New makes the report of all findings that a catalogue gave. It takes the
// findings over and puts them in order: a large scan has no memory for two of
// each.
func New(catalogue *control.Catalogue, findings []finding.Finding) *Report {
	sortWorstFirst(findings)
	score, fixes := control.Assess(catalogue, findings)
	return &Report{
		Schema:    Schema,
		Catalogue: catalogue.Version(),
		Score:     score,
		Findings:  findings,
		Fixes:     fixes,
	}
}

// Only leaves the findings and fixes of one level. The score stays that of
// everything: a part of it under the same name would mislead.
func (r *Report) Only(level finding.Level) *Report {
	view := *r
	view.Findings = []finding.Finding{}
	controls := map[string]bool{}
	for _, f := range r.Findings {
		if f.Level == level {
			view.Findings = append(view.Findings, f)
			controls[f.Control] = true
		}
	}
	view.Fixes = slices.DeleteFunc(slices.Clone(r.Fixes), func(f control.Fix) bool { return !controls[f.Control] })
	return &view
}

// Failures counts the failed findings of at least this severity that are new.
func (r *Report) Failures(floor finding.Severity) int {
	n := 0
	for _, f := range r.Findings {
		if r.IsNew(f) && f.Severity.AtLeast(floor) {
			n++
		}
	}
	return n
}

// statusOrder says which states come first.
var statusOrder = []finding.Status{finding.Fail, finding.Unknown, finding.Excepted, finding.Pass, finding.NotApplicable}

// A group is what findings are sorted by first.
type group struct {
	status   finding.Status
	severity finding.Severity
	control  string
}

func (g group) compare(h group) int {
	return cmp.Or(
		cmp.Compare(slices.Index(statusOrder, g.status), slices.Index(statusOrder, h.status)),
		cmp.Compare(h.severity.Weight(), g.severity.Weight()),
		cmp.Compare(g.control, h.control),
	)
}

// sortWorstFirst keeps the order of what is equally bad. Within a group the
// findings are mostly in order already, as the objects of an inventory are.
func sortWorstFirst(findings []finding.Finding) {
	places := map[group][]int{}
	for i := range findings {
		g := group{findings[i].Status, findings[i].Severity, findings[i].Control}
		places[g] = append(places[g], i)
	}
	order := make([]int, 0, len(findings)) // where what is to stand at i comes from
	for _, g := range slices.SortedFunc(maps.Keys(places), group.compare) {
		slices.SortFunc(places[g], func(a, b int) int {
			if c := worstFirst(&findings[a], &findings[b]); c != 0 {
				return c
			}
			return a - b
		})
		order = append(order, places[g]...)
	}
	permute(findings, order)
}

// permute moves each finding once, and within the slice: a large scan has no
// memory for a second.
func permute(findings []finding.Finding, order []int) {
	for start := range order {
		if order[start] < 0 {
			continue
		}
		first, i := findings[start], start
		for order[i] != start {
			from := order[i]
			findings[i] = findings[from]
			order[i], i = -1, from
		}
		findings[i], order[i] = first, -1
	}
}

// worstFirst compares two findings of a group, step by step, as it is called
// often.
func worstFirst(a, b *finding.Finding) int {
	if a.Gain != b.Gain {
		return cmp.Compare(b.Gain, a.Gain)
	}
	if a.Subject == b.Subject {
		return 0
	}
	for _, pair := range [...][2]string{
		{a.Subject.Kind, b.Subject.Kind}, {a.Subject.Namespace, b.Subject.Namespace}, {a.Subject.Name, b.Subject.Name},
		{a.Subject.Source, b.Subject.Source}, {a.Subject.RenderedFrom, b.Subject.RenderedFrom},
	} {
		if c := strings.Compare(pair[0], pair[1]); c != 0 {
			return c
		}
	}
	return 0
}

// Plain makes text from manifests harmless on a terminal and in a log: what is
// not printed, such as escape sequences, line breaks and characters that change
// the direction of text, becomes U+FFFD.
func Plain(s string) string {
	return strings.Map(func(r rune) rune {
		if hidden(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// hidden reports whether r acts on a terminal instead of being seen.
func hidden(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}
