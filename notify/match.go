package notify

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
)

// A Matcher is one condition on alerts and incidents. It is written as
//
//	FIELD="value"    FIELD!="value"    FIELD=~"regular expression"    FIELD!~"…"
//
// where quotes may be left out of what has neither blanks nor quotes, and an
// expression has to match the whole value. What has several values, such as tags,
// is equal if one of them is, and not equal if none is. A field that is not there
// is "". See [Fields] for their names.
type Matcher struct {
	field  string
	negate bool
	value  string
	expr   *regexp.Regexp // nil: equal
}

// maxMatcher bounds the text of a matcher.
const maxMatcher = 4096

var matcherForm = regexp.MustCompile(`(?s)^\s*([a-zA-Z_][-a-zA-Z0-9_.\[\]/]*)\s*(=~|!~|!=|=)\s*(.*?)\s*$`)

// ParseMatcher reads a matcher.
func ParseMatcher(text string) (Matcher, error) {
	if len(text) > maxMatcher {
		return Matcher{}, fmt.Errorf("a condition has %d bytes, more than %d", len(text), maxMatcher)
	}
	parts := matcherForm.FindStringSubmatch(text)
	if parts == nil {
		return Matcher{}, fmt.Errorf("condition %q: want a field, one of = != =~ !~ and a value, such as k8s.ns.name=\"shop\"", text)
	}
	m := Matcher{field: parts[1], negate: parts[2][0] == '!', value: parts[3]}
	value, err := unquote(m.value)
	if err != nil {
		return Matcher{}, fmt.Errorf("condition %q: %w", text, err)
	}
	m.value = value
	if strings.HasSuffix(parts[2], "~") {
		if m.expr, err = regexp.Compile(`^(?s:` + m.value + `)$`); err != nil {
			return Matcher{}, fmt.Errorf("condition %q: %w", text, err)
		}
	}
	return m, nil
}

// unquote reads a value in double quotes, in which \ stands before a quote or
// itself, or one without any.
func unquote(s string) (string, error) {
	if !strings.HasPrefix(s, `"`) {
		if strings.ContainsAny(s, "\" \t\r\n") {
			return "", errors.New("a value with blanks or quotes is written in quotes")
		}
		return s, nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"' && i == len(s)-1:
			return b.String(), nil
		case s[i] == '"':
			return "", errors.New("something follows the closing quote")
		case s[i] == '\\' && i+1 < len(s) && (s[i+1] == '"' || s[i+1] == '\\'):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", errors.New("the closing quote is missing")
}

// Matches reports whether values, those of the matcher's field, fit.
func (m Matcher) matches(values []string) bool {
	if len(values) == 0 {
		values = []string{""}
	}
	return slices.ContainsFunc(values, func(v string) bool {
		if m.expr != nil {
			return m.expr.MatchString(v)
		}
		return v == m.value
	}) != m.negate
}

// Match reports whether a notification fits.
func (m Matcher) Match(n *Notification) bool { return m.matches(Field(n, m.field)) }

// Field returns the values of a field of a notification; none if it has no such
// field. The names are
//
//	rule priority source output hostname cluster tags tactics
//	namespace kind name subject workload owner
//	user token pod node image container address object
//	state story assignee score                          of incidents
//
// and any output field, such as k8s.ns.name. In the last but one line are the
// names of those who are involved. Of an incident, what signals say is that of
// all of them.
func Field(n *Notification, name string) []string {
	if n.Incident != nil {
		if values, known := incidentField(n.Incident, name); known {
			return values
		}
	}
	a := &n.Alert
	switch name {
	case "rule":
		return []string{a.Rule}
	case "priority":
		return []string{strings.ToLower(a.Priority.String())}
	case "source":
		return []string{a.Source}
	case "output":
		return []string{a.Output}
	case "hostname":
		return []string{a.Hostname}
	case "cluster":
		return []string{a.Cluster}
	case "tags":
		return a.Tags
	case "tactics":
		return a.Tactics
	case "owner":
		return []string{a.Owner}
	case "namespace":
		return []string{a.Subject.Namespace}
	case "kind":
		return []string{a.Subject.Kind}
	case "name":
		return []string{a.Subject.Name}
	case "subject":
		return []string{a.Subject.Kind + "/" + a.Subject.Namespace + "/" + a.Subject.Name}
	}
	if entities := entitiesOf(a.Entities, name); len(entities) > 0 {
		return entities
	}
	switch value := a.OutputFields[name].(type) {
	case nil:
		return nil
	case []any:
		var out []string
		for _, one := range value {
			out = append(out, fmt.Sprint(one))
		}
		return out
	default:
		return []string{fmt.Sprint(value)}
	}
}

func entitiesOf(entities []alert.Entity, kind string) (names []string) {
	for _, e := range entities {
		if string(e.Kind) == kind {
			names = append(names, e.Name)
		}
	}
	return names
}

// incidentField returns what an incident as a whole says; known is false for what
// only alerts have.
func incidentField(i *incident.Incident, name string) (values []string, known bool) {
	each := func(of func(s *incident.Signal) string) []string {
		for n := range i.Signals {
			if v := of(&i.Signals[n]); !slices.Contains(values, v) {
				values = append(values, v)
			}
		}
		return values
	}
	switch name {
	case "rule":
		return each(func(s *incident.Signal) string { return s.Rule }), true
	case "source":
		return each(func(s *incident.Signal) string { return s.Source }), true
	case "output":
		return each(func(s *incident.Signal) string { return s.Output }), true
	case "namespace":
		return each(func(s *incident.Signal) string { return s.Subject.Namespace }), true
	case "kind":
		return each(func(s *incident.Signal) string { return s.Subject.Kind }), true
	case "name":
		return each(func(s *incident.Signal) string { return s.Subject.Name }), true
	case "priority":
		return []string{strings.ToLower(i.Worst.String())}, true
	case "tactics":
		return i.Tactics, true
	case "owner":
		return i.Owners, true
	case "cluster":
		return []string{i.Cluster}, true
	case "state":
		return []string{string(i.State)}, true
	case "story":
		return []string{i.Story}, true
	case "assignee":
		return []string{i.Assignee}, true
	case "score":
		return []string{fmt.Sprint(i.Score)}, true
	}
	names := entitiesOf(i.Entities, name)
	return names, len(names) > 0
}
