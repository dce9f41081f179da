package report

import (
	"cmp"
	_ "embed" // for the template and its style
	"fmt"
	"html/template"
	"io"
	"slices"
	"time"

	"github.com/kubeguardian/kubeguardian/chart"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/tool"
)

// HTML is the format to show and to print: one file that needs nothing else.
// What comes from manifests is text in it, never markup.
type HTML struct {
	Catalogue *control.Catalogue
	// History are earlier reports for the trend, in any order. Their scores are
	// computed anew from their states, by today's catalogue.
	History []*Report
}

//go:embed html.tmpl
var htmlText string

//go:embed html.css
var htmlStyle string

const subjectsShown = 50 // of one control

// An htmlPage is what the template shows.
type htmlPage struct {
	*Report
	Style    template.CSS
	Onion    template.HTML
	Levels   []htmlLevel
	Trend    template.HTML // empty without earlier reports
	Evidence []htmlEvidence
	Failed   int
}

type htmlLevel struct {
	control.LevelScore
	Parts    []chart.Part
	Controls []htmlControl
}

type htmlControl struct {
	control.Control
	Counts map[finding.Status]int
	Gain   float64
	Shown  []finding.Finding
	More   int
}

type htmlEvidence struct {
	Kind           string
	Findings       int
	Oldest, Newest time.Time
}

// Write writes the whole page.
func (h HTML) Write(w io.Writer, r *Report) error {
	page := htmlPage{
		Report: r, Style: template.CSS(htmlStyle), Onion: chart.Onion(r.Score), Trend: h.trend(r),
		Levels: h.levels(r), Evidence: evidenceOf(r.Findings), Failed: len(with(r, finding.Fail)),
	}
	t, err := template.New("report").Funcs(template.FuncMap{
		"points": func(v *float64, most float64) string { return chart.Points(*v, most) },
		"share":  chart.Share,
		"plain":  Plain,
		"place":  place,
		"day":    func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") },
		"clouds": tool.Clouds,
		"on": func(all []tool.Tool, cloud string) []tool.Tool {
			return slices.DeleteFunc(slices.Clone(all), func(t tool.Tool) bool { return t.On != cloud })
		},
		"max":   func(s []control.Fix) []control.Fix { return s[:min(len(s), fixesShown)] },
		"width": func(share float64) template.CSS { return template.CSS(fmt.Sprintf("width:%.3f%%", 100*share)) },
	}).Parse(htmlText)
	if err != nil {
		return fmt.Errorf("read template of report: %w", err)
	}
	if err := t.Execute(w, page); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// levels sorts the findings into levels and controls, failing controls first.
func (h HTML) levels(r *Report) []htmlLevel {
	byControl := map[string]*htmlControl{}
	for _, f := range r.Findings {
		c := byControl[f.Control]
		if c == nil {
			c = &htmlControl{Counts: map[finding.Status]int{}}
			byControl[f.Control] = c
		}
		c.Counts[f.Status]++
		if f.Status == finding.Pass || f.Status == finding.NotApplicable {
			continue
		}
		if len(c.Shown) < subjectsShown {
			c.Shown = append(c.Shown, f)
		} else {
			c.More++
		}
	}
	for _, fix := range r.Fixes {
		if c := byControl[fix.Control]; c != nil {
			c.Gain = fix.Gain
		}
	}
	out := make([]htmlLevel, len(r.Score.Levels))
	for i, score := range r.Score.Levels {
		out[i] = htmlLevel{LevelScore: score, Parts: chart.Parts(score)}
		for _, ctl := range h.Catalogue.Controls() {
			if c := byControl[ctl.ID]; c != nil && ctl.Level == score.Level {
				c.Control = ctl
				out[i].Controls = append(out[i].Controls, *c)
			}
		}
		slices.SortStableFunc(out[i].Controls, func(a, b htmlControl) int {
			return cmp.Or(
				cmp.Compare(b.worst(), a.worst()), cmp.Compare(b.Gain, a.Gain),
				cmp.Compare(b.Severity.Weight(), a.Severity.Weight()), cmp.Compare(a.ID, b.ID),
			)
		})
	}
	return out
}

// worst ranks a control by the worst state that a subject of it has.
func (c htmlControl) worst() int {
	for i, s := range statusOrder {
		if c.Counts[s] > 0 {
			return len(statusOrder) - i
		}
	}
	return 0
}

// State is the worst state that a subject of the control has.
func (c htmlControl) State() finding.Status { return statusOrder[len(statusOrder)-c.worst()] }

// trend draws the totals of the earlier reports and of this one.
func (h HTML) trend(r *Report) template.HTML {
	var points []chart.Point
	for _, earlier := range append(slices.Clone(h.History), r) {
		score := earlier.Score
		if earlier != r {
			score = control.Summarize(h.Catalogue, earlier.Findings)
		}
		if score.Total != nil {
			points = append(points, chart.Point{Time: earlier.Time, Value: *score.Total})
		}
	}
	if len(points) < 2 {
		return ""
	}
	return chart.Trend(points)
}

// evidenceOf says how old the evidence behind the findings is, by kind.
func evidenceOf(findings []finding.Finding) []htmlEvidence {
	byKind := map[string]*htmlEvidence{}
	var out []htmlEvidence
	for _, f := range findings {
		if f.Status == finding.Unknown || f.ObservedAt.IsZero() {
			continue
		}
		e := byKind[f.EvidenceKind]
		if e == nil {
			e = &htmlEvidence{Kind: cmp.Or(f.EvidenceKind, "api"), Oldest: f.ObservedAt, Newest: f.ObservedAt}
			byKind[f.EvidenceKind] = e
		}
		e.Findings++
		if f.ObservedAt.Before(e.Oldest) {
			e.Oldest = f.ObservedAt
		}
		if f.ObservedAt.After(e.Newest) {
			e.Newest = f.ObservedAt
		}
	}
	for _, e := range byKind {
		out = append(out, *e)
	}
	slices.SortFunc(out, func(a, b htmlEvidence) int { return cmp.Compare(a.Kind, b.Kind) })
	return out
}
