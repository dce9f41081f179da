package rule

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
)

// A segment is a part of an output: plain text, or a field if slot is not -1.
type segment struct {
	text  string
	slot  int
	width int // pad or cut to this many characters; 0 leaves the text as it is
}

const maxWidth = 1024

// output compiles the output of a rule, or returns nil after a mistake.
//
// A missing field never keeps an alert from being raised: it is printed as
// <NA>. In Falco a * before the whole format asks for that; it may stand before
// a field too, and is not printed.
func (c *compiler) output(t *text) []segment {
	p := parser{lexer: lexer{text: t, s: strings.TrimRight(t.s, " \t\r\n")}}
	p.blank()
	p.literal("*")
	var out []segment
	for p.i < len(p.s) {
		plain, _, field := strings.Cut(p.rest(), "%")
		p.i += len(plain)
		if field {
			plain = strings.TrimSuffix(plain, "*")
		}
		if plain != "" {
			out = append(out, segment{text: plain, slot: -1})
		}
		if field {
			seg, ok := c.outputField(&p)
			if !ok {
				return nil
			}
			out = append(out, seg)
		}
	}
	return out
}

// outputField consumes %field, %field[arg] or %10field.
func (c *compiler) outputField(p *parser) (seg segment, ok bool) {
	begin := place{p.text, p.i}
	p.literal("%")
	if digits := p.token(digitsToken); digits != "" {
		n, err := strconv.Atoi(digits)
		if err != nil || n > maxWidth {
			c.fail(begin, "width %.20s is over the limit of %d", digits, maxWidth)
			return seg, false
		}
		seg.width = n
	}
	p.known = func(name string) bool { _, ok := event.Lookup(c.source, name); return ok }
	f, ok, err := p.field()
	switch {
	case err != nil:
		c.report(err)
		return seg, false
	case !ok:
		c.fail(begin, "%% must be followed by a field")
		return seg, false
	}
	seg.slot, _, ok = c.field(f)
	return seg, ok
}

// alert returns the alert of a rule that has matched.
func (r *compiledRule) alert(s *slots) alert.Alert {
	e := s.event
	a := alert.Alert{
		ID: alert.NewID(e.Source, e.ID, r.Name), Time: e.Time, Rule: r.Name, Priority: r.Priority,
		Source: e.Source, Hostname: e.Hostname, Tags: r.Tags, Tactics: alert.Tactics(r.Tags),
		Output:       e.Clock() + ": " + r.Priority.String() + " " + r.message(s),
		OutputFields: map[string]any{"evt.time": e.Time.UnixNano()},
	}
	for _, slot := range r.fields {
		a.OutputFields[s.refs[slot].Text] = s.get(slot).JSON()
	}
	subject := e.Record.Subject()
	a.Subject.APIVersion, a.Subject.Kind = subject.APIVersion, subject.Kind
	a.Subject.Namespace, a.Subject.Name, a.Subject.Container = subject.Namespace, subject.Name, subject.Container
	return a
}

func (r *compiledRule) message(s *slots) string {
	var b strings.Builder
	for _, part := range r.output {
		if part.slot < 0 {
			b.WriteString(part.text)
			continue
		}
		b.WriteString(fit(s.get(part.slot).String(), part.width))
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
