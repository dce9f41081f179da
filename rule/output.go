package rule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule/condition"
)

// A segment is a part of an output: plain text, or an input.
type segment struct {
	text  string
	input *condition.Input
	width int // pad or cut to this many characters; 0 leaves the text as it is
}

const maxWidth = 1024

// An Append adds to the outputs of rules.
type Append struct {
	Source, Rule string   // of the rules; empty means any
	Tags         []string // that the rules have, all of them
	Output       string   // added to the output after a blank
	Fields       []Extra  // added to the output fields only
	Suggested    bool     // adds what a source suggests, see Suggested
}

// An Extra is a field that is added to an alert: a field of the event as it is,
// or a format under a name of its own.
type Extra struct{ Name, Format string }

// suggested is what Falco adds to the outputs of system calls.
const suggested = "container_id=%container.id container_name=%container.name " +
	"container_image_repository=%container.image.repository container_image_tag=%container.image.tag " +
	"k8s_pod_name=%k8s.pod.name k8s_ns_name=%k8s.ns.name"

func (a Append) fits(r *ruleItem) bool {
	return (a.Source == "" || a.Source == r.Source) && (a.Rule == "" || a.Rule == r.Name) &&
		!slices.ContainsFunc(a.Tags, func(tag string) bool { return !slices.Contains(r.Tags, tag) })
}

// compileOutput compiles the output of a rule and what is added to it.
func (c *compiler) compileOutput(out *compiledRule, r *ruleItem) {
	text := &condition.Text{}
	text = text.Join("", r.output)
	trimmed := strings.TrimRight(text.S, " \t\r\n")
	end := r.output.Origin(len(r.output.S))
	rest := ""
	for _, a := range c.Append {
		if !a.fits(r) {
			continue
		}
		if a.Output != "" {
			rest += " " + a.Output
		}
		if a.Suggested && r.Source == event.Syscall {
			rest += " " + suggested
		}
		for _, f := range a.Fields {
			c.extra(out, f, end)
		}
	}
	if rest != "" {
		text = text.Truncate(len(trimmed))
		text.Add(rest, end)
	}
	out.output = c.output(text)
	for _, ref := range event.AlertFields(r.Source) {
		out.addField(&condition.Input{Ref: ref, Text: ref.Text})
	}
	for _, seg := range out.output {
		if seg.input != nil && seg.input.Fun == "" {
			out.addField(seg.input)
		}
	}
}

func (r *compiledRule) addField(in *condition.Input) {
	if !slices.ContainsFunc(r.fields, func(o *condition.Input) bool { return o.Text == in.Text }) {
		r.fields = append(r.fields, in)
	}
}

func (c *compiler) extra(out *compiledRule, f Extra, at condition.Origin) {
	text := &condition.Text{}
	if f.Format == "" {
		text.Add("%"+f.Name, at)
		if segments := c.output(text); len(segments) == 1 && segments[0].input != nil {
			out.addField(segments[0].input)
		}
		return
	}
	text.Add(f.Format, at)
	out.extras = append(out.extras, extra{f.Name, c.output(text)})
}

// output compiles a format, or returns nil after a mistake.
//
// A missing field never keeps an alert from being raised: it is printed as
// <NA>. In Falco a * before the whole format asks for that.
func (c *compiler) output(t *condition.Text) []segment {
	s := strings.TrimRight(t.S, " \t\r\n")
	i := len(s) - len(strings.TrimLeft(s, " \t\r\n"))
	if strings.HasPrefix(s[i:], "*") {
		i++
	}
	var out []segment
	for i < len(s) {
		plain, _, field := strings.Cut(s[i:], "%")
		i += len(plain)
		if plain != "" {
			out = append(out, segment{text: plain})
		}
		if !field {
			break
		}
		seg, end := c.outputField(t, i, len(s))
		if end == 0 {
			return nil
		}
		if i = end; seg.input != nil {
			out = append(out, seg)
		}
	}
	return out
}

// outputField compiles %field, %field[arg], %10field or %transformer(…) and
// returns where it ends, 0 after a mistake.
func (c *compiler) outputField(t *condition.Text, begin, last int) (seg segment, end int) {
	at := condition.Place{Text: t, Offset: begin}
	fail := func(format string, args ...any) (segment, int) {
		c.fail("LOAD_ERR_COMPILE_OUTPUT", at, fmt.Sprintf(format, args...))
		return segment{}, 0
	}
	i := begin + 1
	digits := i
	for i < last && t.S[i] >= '0' && t.S[i] <= '9' {
		i++
	}
	if i > digits {
		n, err := strconv.Atoi(t.S[digits:i])
		if err != nil || n > maxWidth {
			return fail("width %.20s is over the limit of %d", t.S[digits:i], maxWidth)
		}
		seg.width = n
	}
	if i == last {
		return fail("invalid formatting token: the output ends in %s", t.S[begin:last])
	}
	if rest := t.S[i:]; strings.HasPrefix(rest, "container.info") && c.source == event.Syscall {
		c.suspect(at, "LOAD_DEPRECATED_ITEM", "usage of deprecated field 'container.info' has been detected")
		return segment{}, i + len("container.info")
	}
	term, end, err := condition.ParseTerm(t, i, c.knows)
	switch {
	case err != nil:
		return fail("invalid formatting token: %s", err.Message)
	case end == 0:
		return fail("unknown filter: %.40s", firstWord(t.S[i:]))
	}
	r := c.resolver()
	r.Fail = func(_ condition.Place, message string) {
		message = strings.Replace(message, "filter_check called with nonexistent field", "unknown filter:", 1)
		c.fail("LOAD_ERR_COMPILE_OUTPUT", condition.Place{Text: t, Offset: i}, message)
	}
	if seg.input = r.Term(&term); seg.input == nil {
		return segment{}, 0
	}
	return seg, end
}

func firstWord(s string) string {
	if i := strings.IndexAny(s, " \t\r\n"); i >= 0 {
		return s[:i]
	}
	return s
}

// knows reports whether a name is a field.
func (c *compiler) knows(name string) bool {
	if key, ok := strings.CutPrefix(name, "static."); ok {
		_, ok = c.Static[key]
		return ok
	}
	_, ok := event.Lookup(c.source, name)
	return ok
}

// An involving record says by itself whom and what its event involves, of a node
// with a name.
type involving interface {
	Entities(node string) []alert.Entity
}

// alert returns the alert of a rule that has matched.
func (r *compiledRule) alert(e *event.Event, values condition.Getter) alert.Alert {
	a := alert.Alert{
		ID: alert.NewID(e.Source, e.ID, r.Name), Time: e.Time, Rule: r.Name, Priority: r.Priority,
		Source: e.Source, Hostname: strings.Clone(e.Hostname), Tags: r.Tags, Tactics: alert.Tactics(r.Tags),
		Output:       e.Clock() + ": " + r.Priority.String() + " " + message(r.output, values),
		OutputFields: map[string]any{"evt.time": e.Time.UnixNano()},
	}
	for _, in := range r.fields {
		a.OutputFields[in.Text] = values.Get(in).JSON()
	}
	for _, x := range r.extras {
		a.OutputFields[x.name] = message(x.format, values)
	}
	if r, ok := e.Record.(involving); ok {
		a.Entities = r.Entities(a.Hostname)
	}
	subject := e.Record.Subject()
	a.Subject.APIVersion, a.Subject.Kind = subject.APIVersion, subject.Kind
	a.Subject.Namespace, a.Subject.Name, a.Subject.Container = subject.Namespace, subject.Name, subject.Container
	return a
}

func message(format []segment, values condition.Getter) string {
	var b strings.Builder
	for _, part := range format {
		if part.input == nil {
			b.WriteString(part.text)
			continue
		}
		b.WriteString(fit(values.Get(part.input).String(), part.width))
	}
	return printable(b.String())
}

// fit pads or cuts s to a width in characters.
func fit(s string, width int) string {
	if width == 0 {
		return s
	}
	runes := []rune(s)
	if len(runes) > width {
		return string(runes[:width])
	}
	return s + strings.Repeat(" ", width-len(runes))
}

// printable escapes control characters, so that nothing in an event can forge a
// line of output or steer a terminal. Invalid UTF-8 becomes U+FFFD.
func printable(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsControl(r) {
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}
