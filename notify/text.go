package notify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/template"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
)

// Cut returns at most max characters of a text; where something is missing, the
// last is "…".
func Cut(s string, max int) string {
	if len(s) <= max || utf8.RuneCountInString(s) <= max {
		return s
	}
	n := 0
	for at := range s {
		if n++; n == max {
			return s[:at] + "…"
		}
	}
	return s
}

// Clean returns valid text without control characters, but for line breaks and
// tabs, and without what turns the direction of text: names come from attackers.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\r', unicode.IsControl(r), r >= '\u202a' && r <= '\u202e', r >= '\u2066' && r <= '\u2069', r == '\u200e', r == '\u200f':
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
}

// Heading says in one line what a notification is about, such as "Critical:
// Secret read by exec, 3 alerts".
func (n *Notification) Heading() string {
	text := fmt.Sprintf("%s: %s", n.Alert.Priority, Clean(n.Alert.Rule))
	switch {
	case n.Update != nil:
		text = fmt.Sprintf("Incident %s: %s", n.Update.State, Clean(n.Incident.Story))
	case n.Escalated > 0:
		text = fmt.Sprintf("Incident escalated, %s: %s", n.Alert.Priority, Clean(n.Incident.Story))
	case n.Incident != nil:
		text = fmt.Sprintf("Incident, %s: %s", n.Alert.Priority, Clean(n.Incident.Story))
	}
	text = strings.Join(strings.Fields(text), " ")
	if n.Count > 1 && n.Incident == nil {
		text += fmt.Sprintf(", %d alerts", n.Count)
	}
	return text
}

// TemplateData is what templates are given: {{.Rule}}, {{.Output}} and all else of
// an alert, {{.Field "k8s.ns.name"}} for a field as routes know it, {{.Count}},
// {{.First}}, {{.Last}}, {{.URL}} and {{.Key}}, and {{.Incident}}, which is nil
// for what is not about one, and {{.Update}}, which is nil for what tells of
// something and has State, Reason, By and Time of what has become of it. The functions json, upper and lower write a value.
type TemplateData struct {
	alert.Alert
	Key         string
	Count       int
	First, Last time.Time
	Incident    *incident.Incident
	Update      *Update
	URL         string
}

// NewTemplateData returns what templates are given of a notification.
func NewTemplateData(n *Notification) TemplateData {
	return TemplateData{Alert: n.Alert, Key: n.Key, Count: n.Count, First: n.First, Last: n.Last, Incident: n.Incident, Update: n.Update, URL: n.URL}
}

// Field returns the values of a field, with commas between them.
func (d TemplateData) Field(name string) string {
	n := Notification{Alert: d.Alert, Incident: d.Incident}
	return strings.Join(Field(&n, name), ", ")
}

// Bounds of templates.
const (
	maxTemplate   = 64 << 10
	maxTemplateOf = 1 << 20 // what one makes
	maxLoops      = 10_000  // writes of one
)

// ParseTemplate reads a Go template.
func ParseTemplate(name, text string) (*template.Template, error) {
	if len(text) > maxTemplate {
		return nil, fmt.Errorf("template %s: %d bytes, more than %d", name, len(text), maxTemplate)
	}
	return template.New(name).Option("missingkey=zero").Funcs(template.FuncMap{"json": toJSON, "upper": strings.ToUpper, "lower": strings.ToLower}).Parse(text)
}

func toJSON(v any) (string, error) {
	data, err := json.Marshal(v)
	return string(data), err
}

// Execute returns what a template makes of data: at most 1 MiB.
func Execute(t *template.Template, data TemplateData) (string, error) {
	out := &boundedBuffer{}
	if err := t.Execute(out, data); err != nil {
		return "", fmt.Errorf("template %s: %w", t.Name(), err)
	}
	return out.String(), nil
}

// A boundedBuffer ends a template that makes too much, or goes on for too long.
type boundedBuffer struct {
	bytes.Buffer
	writes int
}

var errTemplateTooLarge = errors.New("it makes more than 1 MiB")

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if b.writes++; b.Len()+len(p) > maxTemplateOf || b.writes > maxLoops {
		return 0, errTemplateTooLarge
	}
	return b.Buffer.Write(p)
}
