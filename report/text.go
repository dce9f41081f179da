package report

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/exception"
	"github.com/kubeguardian/kubeguardian/finding"
)

// Text is the format for people: the score, what to fix next, and the findings,
// worst first, one on a line unless lines are wrapped.
type Text struct {
	Width int  // columns at which lines are wrapped; 0 for never, as in a log
	Color bool // with the colours of an ANSI terminal
	All   bool // list all findings; else those that failed
}

const (
	fixesShown    = 5
	failuresShown = 25 // of one control
	controlsShown = 12 // of one reason
	labelWidth    = 15 // of a level's name
	besideBar     = 47 // columns of a level's line without its bar
	defaultWidth  = 100
)

// Write writes the report as text.
func (t Text) Write(w io.Writer, r *Report) error {
	p := &page{Text: t, out: bufio.NewWriter(w)}
	p.score(r)
	for _, l := range r.Score.Levels {
		p.level(l)
	}
	p.legend()
	p.notes(r.Score.Notes, "  ")
	p.next(r.Fixes)
	p.failed(r)
	p.unknown(r)
	p.exceptions(r.Exceptions)
	if t.All {
		p.rest(r)
	}
	p.summary(r)
	return p.out.Flush()
}

// A page lays out one report. Errors of out are kept by it until Flush.
type page struct {
	Text
	out *bufio.Writer
}

func (p *page) columns() int { return max(60, cmp.Or(p.Width, defaultWidth)) }

func (p *page) line(format string, args ...any) { fmt.Fprintf(p.out, format+"\n", args...) }

func (p *page) heading(text string) { p.line("\n%s", p.paint(bold, text)) }

// wrapped writes text with a hanging indent. Only whole words move, so that a
// name or path can still be copied.
func (p *page) wrapped(first, rest, text string) { p.flow(first, rest, text, "") }

// flow is wrapped with the first word in a colour.
func (p *page) flow(first, rest, text, color string) {
	p.out.WriteString(first)
	column := utf8.RuneCountInString(first)
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0 && color != "":
			word = p.paint(color, word)
		case i > 0 && p.Width > 0 && column+1+n > p.Width:
			p.out.WriteString("\n" + rest)
			column = utf8.RuneCountInString(rest)
		case i > 0:
			p.out.WriteByte(' ')
			column++
		}
		p.out.WriteString(word)
		column += n
	}
	p.out.WriteByte('\n')
}

func (p *page) score(r *Report) {
	s := r.Score
	if s.Total == nil {
		p.line("%s (catalogue %s): no control applies to what was seen", p.paint(bold, "No score"), Plain(r.Catalogue))
	} else {
		p.line("%s%s (catalogue %s)", p.paint(bold, "Security score "+Points(*s.Total, 100)+" of 100"), scope(s), Plain(r.Catalogue))
	}
	if s.High-s.Low >= 0.05 {
		p.line("between %s and %s: not everything could be verified", Points(s.Low, 100), Points(s.High, 100))
	}
	p.line("")
}

// scope says how many levels a total is made of, unless it is all of them.
func scope(s control.Score) string {
	known := 0
	for _, l := range s.Levels {
		if l.Score != nil {
			known++
		}
	}
	if known == len(s.Levels) {
		return ""
	}
	return fmt.Sprintf(" over %d of %d levels", known, len(s.Levels))
}

func (p *page) level(l control.LevelScore) {
	if l.Score == nil {
		p.line("  %-*s      -         %s", labelWidth, l.Level, p.paint(faint, "no control applies to the input"))
	} else {
		p.line("  %-*s%7s of 20  %s  %s", labelWidth, l.Level, Points(*l.Score, 20), p.bar(l), coverage(l))
	}
	p.notes(l.Notes, strings.Repeat(" ", labelWidth+2))
}

// coverage never says 100% while anything is unknown, nor 0% while anything is
// known.
func coverage(l control.LevelScore) string {
	percent := math.Round(100 * l.Coverage)
	switch {
	case l.Unknown > 0 && percent == 100:
		percent = 99
	case l.Coverage > 0 && percent == 0:
		percent = 1
	}
	return fmt.Sprintf("%3.0f%% verified", percent)
}

func (p *page) notes(notes []string, indent string) {
	for _, n := range notes {
		p.wrapped(indent, indent, Plain(n))
	}
}

// The parts of a bar, told apart by shape as well as by colour.
type part struct{ block, color, name string }

var parts = []part{{"█", green, "pass"}, {"░", red, "fail"}, {"·", faint, "not verified"}, {"▄", yellow, "accepted"}}

func (p *page) bar(l control.LevelScore) string {
	var b strings.Builder
	lengths := cells([]float64{l.Pass, l.Fail, l.Unknown, l.Accepted}, min(60, p.columns()-besideBar))
	for i, n := range lengths {
		if n > 0 {
			b.WriteString(p.paint(parts[i].color, strings.Repeat(parts[i].block, n)))
		}
	}
	return b.String()
}

func (p *page) legend() {
	var names []string
	for _, part := range parts {
		names = append(names, p.paint(part.color, part.block)+" "+part.name)
	}
	p.line("\n  %-*s               %s", labelWidth, "", strings.Join(names, "   "))
}

// cells shares out n cells so that every part that exists is seen: a part of
// more than nothing has at least one cell.
func cells(shares []float64, n int) []int {
	out := make([]int, len(shares))
	left := n
	for i, s := range shares {
		out[i] = int(math.Round(s * float64(n)))
		if s > 1e-9 {
			out[i] = max(1, out[i])
		}
		left -= out[i]
	}
	widest := slices.Index(out, slices.Max(out))
	out[widest] += left
	return out
}

// Points writes a part of a whole with one decimal. It is never written as the
// whole while anything is missing, nor as zero while there is anything.
func Points(x, whole float64) string {
	const exact = 1e-9
	switch {
	case x >= whole-exact:
		return fmt.Sprintf("%.0f", whole)
	case x <= exact:
		return "0"
	}
	return fmt.Sprintf("%.1f", min(max(x, 0.1), whole-0.1))
}

func (p *page) next(all []control.Fix) {
	if len(all) == 0 {
		return
	}
	p.heading("Fix next")
	for _, f := range all[:min(fixesShown, len(all))] {
		gain := "+" + Points(f.Gain, 100)
		if f.Gain > 0 && f.Gain < 0.1 {
			gain = "<0.1"
		}
		text := fmt.Sprintf("%s %s: %s (%s)", Plain(f.Control), f.Severity, Plain(f.Title), count(f.Count, "failure"))
		p.wrapped(fmt.Sprintf("  %6s  ", gain), strings.Repeat(" ", 10), text)
		p.wrapped(strings.Repeat(" ", 10), strings.Repeat(" ", 10), Plain(f.Fix))
	}
}

func (p *page) failed(r *Report) {
	failed := with(r, finding.Fail)
	if len(failed) == 0 {
		return
	}
	p.heading(fmt.Sprintf("Failed (%d)", len(failed)))
	listed := map[string]int{}
	for i, f := range failed {
		if listed[f.Control]++; p.All || listed[f.Control] <= failuresShown {
			p.finding(f, f.Message)
		}
		more := listed[f.Control] - failuresShown
		if end := i+1 == len(failed) || failed[i+1].Control != f.Control; end && more > 0 && !p.All {
			p.line("  … and %d more; --show all lists them", more)
		}
		if last := i+1 == len(failed) || failed[i+1].Control != f.Control || failed[i+1].Fix != f.Fix; last && f.Fix != "" {
			p.wrapped("  fix: ", "       ", Plain(f.Fix))
		}
	}
}

// finding writes one line that stands for itself, as people search logs by line.
func (p *page) finding(f finding.Finding, text string) {
	words := []string{f.Control, string(f.Severity), f.Subject.Source, f.Subject.String(), f.Subject.Container}
	words = slices.DeleteFunc(words, func(w string) bool { return w == "" })
	p.flow("", "  ", Plain(strings.Join(words, " ")+": "+cmp.Or(text, f.Title)), colors[f.Status])
}

// unknown sums up by reason what could not be verified; with All it lists it.
func (p *page) unknown(r *Report) {
	unknown := with(r, finding.Unknown)
	if len(unknown) == 0 {
		return
	}
	p.heading(fmt.Sprintf("Not verified (%d)", len(unknown)))
	if p.All {
		for _, f := range unknown {
			p.finding(f, f.Reason)
		}
		return
	}
	byReason := map[string][]string{}
	for _, f := range unknown {
		byReason[f.Reason] = append(byReason[f.Reason], f.Control)
	}
	reasons := make([]string, 0, len(byReason))
	for reason := range byReason {
		reasons = append(reasons, reason)
	}
	slices.SortFunc(reasons, func(a, b string) int {
		return cmp.Or(len(byReason[b])-len(byReason[a]), strings.Compare(a, b))
	})
	for _, reason := range reasons {
		controls := byReason[reason]
		n := len(controls)
		text := fmt.Sprintf("%s (%s)", cmp.Or(reason, "no reason given"), some(controls))
		p.wrapped(fmt.Sprintf("  %6d  ", n), strings.Repeat(" ", 10), Plain(text))
	}
}

// exceptions says what each exception accepts, or why it accepts nothing.
func (p *page) exceptions(all []exception.Outcome) {
	if len(all) == 0 {
		return
	}
	p.heading(fmt.Sprintf("Exceptions (%d)", len(all)))
	for _, x := range all {
		text := fmt.Sprintf("%s: accepts %s; %s answers for it until %s: %s", x.Name, count(x.Accepted, "failure"), x.Owner, x.Expires, x.Reason)
		if x.Problem != "" {
			text = fmt.Sprintf("%s: %s", x.Name, x.Problem)
		}
		p.wrapped("  ", "    ", Plain(text))
	}
}

// some names the first of some controls, and counts the others.
func some(controls []string) string {
	slices.Sort(controls)
	controls = slices.Compact(controls)
	more := len(controls) - controlsShown
	if more <= 1 { // "and 1 more" would be as long
		return strings.Join(controls, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(controls[:controlsShown], ", "), more)
}

// rest lists what neither failed nor is unknown.
func (p *page) rest(r *Report) {
	for _, section := range []struct {
		status finding.Status
		title  string
	}{{finding.Excepted, "Accepted"}, {finding.Pass, "Passed"}, {finding.NotApplicable, "Not applicable"}} {
		all := with(r, section.status)
		if len(all) > 0 {
			p.heading(fmt.Sprintf("%s (%d)", section.title, len(all)))
		}
		for _, f := range all {
			p.finding(f, cmp.Or(f.Reason, f.Message, "not found: "+f.Title))
		}
	}
}

func (p *page) summary(r *Report) {
	var parts []string
	for _, s := range []finding.Severity{finding.Critical, finding.High, finding.Medium, finding.Low} {
		n := 0
		for _, f := range r.Findings {
			if f.Status == finding.Fail && f.Severity == s {
				n++
			}
		}
		parts = append(parts, fmt.Sprintf("%d %s", n, s))
	}
	text := fmt.Sprintf("%d failed (%s), %d not verified, %d accepted, %d passed, %d not applicable",
		len(with(r, finding.Fail)), strings.Join(parts, ", "), len(with(r, finding.Unknown)),
		len(with(r, finding.Excepted)), len(with(r, finding.Pass)), len(with(r, finding.NotApplicable)))
	p.out.WriteByte('\n')
	p.wrapped("", "  ", text)
	if r.known != nil {
		p.line("%s not in the baseline", count(r.Failures(finding.Low), "failure"))
	}
}

// with returns the findings of a state, which stand together in a report.
func with(r *Report, status finding.Status) []finding.Finding {
	first := 0
	for first < len(r.Findings) && r.Findings[first].Status != status {
		first++
	}
	end := first
	for end < len(r.Findings) && r.Findings[end].Status == status {
		end++
	}
	return r.Findings[first:end]
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// ANSI colours.
const (
	bold   = "1"
	faint  = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// colors are those of a finding's first word.
var colors = map[finding.Status]string{
	finding.Fail: red, finding.Unknown: faint, finding.Excepted: yellow, finding.Pass: green, finding.NotApplicable: faint,
}

func (p *page) paint(color, text string) string {
	if !p.Color {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}
