// Package cooldown says which alerts need not be kept because one that says the
// same is: a rule that fires ten thousand times is one alert and a counter.
package cooldown

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/rule/condition"
)

// A Setting is for alerts of the rules whose name matches a pattern with *, or
// that have a tag; of all rules, when it names neither.
type Setting struct {
	Rule, Tag string

	// Within is for how long an alert stands for those that say the same. With 0
	// each alert is kept.
	Within time.Duration

	// By has the output fields in which alerts that say the same are equal. When
	// there are none, or an alert lacks one, it is all that the alert says but
	// its time and the id of its request: then nothing is lost but that.
	By []string

	// Limit is how many different alerts of a rule are kept within that time; 0
	// is any number.
	Limit int
}

func (s Setting) fits(a *alert.Alert) bool {
	switch {
	case s.Rule != "":
		return condition.Wildcard(s.Rule, a.Rule)
	case s.Tag != "":
		return slices.Contains(a.Tags, s.Tag)
	}
	return true
}

// A Policy has the settings of all rules: of those that fit an alert the first
// one counts. Where none fits, each alert is kept.
type Policy []Setting

// Group says of which alerts an alert is a repeat. It depends on nothing but the
// alert, so that one that comes again is in the same group.
func (p Policy) Group(a *alert.Alert) (alert.Group, error) {
	i := slices.IndexFunc(p, func(s Setting) bool { return s.fits(a) })
	if i < 0 || p[i].Within <= 0 {
		return alert.Group{}, nil
	}
	s := p[i]
	said, whole := s.said(a)
	if !whole {
		said = everything(a)
	}
	what := []any{a.Cluster, a.Source, a.Rule}
	if slices.Contains(a.Tags, alert.DriftTag) { // which others of the rule may not have
		what = append(what, alert.DriftTag)
	}
	key, err := digest(append(what, said)...)
	if err != nil {
		return alert.Group{}, fmt.Errorf("group alert %s of rule %q: %w", a.ID, a.Rule, err)
	}
	g := alert.Group{Key: key, Within: s.Within, Limit: s.Limit}
	if s.Limit > 0 {
		g.Rest, err = digest(append(what, "beyond the limit")...)
	}
	return g, err
}

// said returns the values of the fields in By, and whether the alert has them
// all. A field that the event lacks is there, with nil.
func (s Setting) said(a *alert.Alert) (values []any, whole bool) {
	for _, name := range s.By {
		v, ok := a.OutputFields[name]
		if !ok {
			return nil, false
		}
		values = append(values, name, v)
	}
	return values, len(values) > 0
}

// everything is what an alert says but for its time and the id of its request.
// The text of the output begins with the time.
func everything(a *alert.Alert) []any {
	_, text, _ := strings.Cut(a.Output, ": ")
	fields := map[string]any{}
	for name, v := range a.OutputFields {
		if name != "evt.time" && name != "ka.auditid" {
			fields[name] = v
		}
	}
	var behind any
	if at := a.Attribution; at != nil {
		behind = []any{at.Kind, at.Namespace, at.Name, at.Writer.User, at.Writer.Impersonating}
	}
	return []any{a.Priority, text, fields, a.Subject, behind, a.Entities}
}

func digest(parts ...any) ([]byte, error) {
	text, err := json.Marshal(parts)
	sum := sha256.Sum256(text)
	return sum[:16], err
}
