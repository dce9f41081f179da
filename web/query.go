package web

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
)

// maxValue bounds a parameter; a longer one is no name and no search.
const maxValue = 512

// params reads the parameters of a URL: each at most once, none unknown. An
// empty one, as forms send, is one that is not given.
type params struct {
	values url.Values
	err    error
}

func parseParams(u *url.URL, known ...string) *params {
	values, err := url.ParseQuery(u.RawQuery)
	p := &params{values: values}
	if err != nil {
		p.fail(fmt.Errorf("read the query of the URL: %w", err))
	}
	for name, list := range values {
		switch {
		case !slices.Contains(known, name):
			p.fail(fmt.Errorf("unknown parameter %q: want one of %s", name, strings.Join(known, ", ")))
		case len(list) > 1:
			p.fail(fmt.Errorf("parameter %s is given %d times", name, len(list)))
		case len(list[0]) > maxValue:
			p.fail(fmt.Errorf("parameter %s is longer than %d bytes", name, maxValue))
		}
	}
	return p
}

func (p *params) fail(err error) {
	if p.err == nil && err != nil {
		p.err = badRequest(err)
	}
}

func (p *params) text(name string) string { return p.values.Get(name) }

// parsed reads a parameter by a Parse function; the zero value when it is not
// given.
func parsed[T any](p *params, name string, parse func(string) (T, error)) (v T) {
	s := p.text(name)
	if s == "" {
		return v
	}
	v, err := parse(s)
	if err != nil {
		p.fail(fmt.Errorf("parameter %s: %w", name, err))
	}
	return v
}

// parseTime reads a time, or a duration before now.
func parseTime(s string) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return time.Now().Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return t, fmt.Errorf("want a time such as 2026-03-01T12:00:00Z or an age such as 24h, have %q", s)
	}
	return t, nil
}

func parseNatural(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("want a number, have %q", s)
	}
	return int64(n), nil
}

func parseSeq(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("want the id of a stream event, have %q", s)
	}
	return int64(n), nil
}

var alertParams = []string{"rule", "priority", "namespace", "entity", "text", "since", "until", "before", "limit"}

var streamParams = []string{"rule", "priority", "namespace", "entity", "text", "after"}

func alertQuery(p *params) alert.Query {
	q := alert.Query{
		Rule: p.text("rule"), Namespace: p.text("namespace"), Text: p.text("text"), Entity: parsed(p, "entity", alert.ParseEntity),
		Since: parsed(p, "since", parseTime), Until: parsed(p, "until", parseTime),
		Before: parsed(p, "before", finding.ParseCursor), Limit: int(parsed(p, "limit", parseNatural)),
	}
	if p.text("priority") != "" {
		priority := parsed(p, "priority", alert.ParsePriority)
		q.Priority = &priority
	}
	return q
}

var decisionParams = []string{"outcome", "namespace", "text", "since", "until", "before", "limit"}

func decisionQuery(p *params) finding.DecisionQuery {
	return finding.DecisionQuery{
		Outcome: parsed(p, "outcome", finding.ParseOutcome), Namespace: p.text("namespace"), Text: p.text("text"),
		Since: parsed(p, "since", parseTime), Until: parsed(p, "until", parseTime),
		Before: parsed(p, "before", finding.ParseCursor), Limit: int(parsed(p, "limit", parseNatural)),
	}
}

var findingParams = []string{"control", "level", "severity", "status", "namespace", "text", "after", "limit"}

func findingQuery(p *params) finding.Query {
	return finding.Query{
		Control: p.text("control"), Level: parsed(p, "level", finding.ParseLevel),
		Severity: parsed(p, "severity", finding.ParseSeverity), Status: parsed(p, "status", finding.ParseStatus),
		Namespace: p.text("namespace"), Text: p.text("text"), After: p.text("after"),
		Limit: int(parsed(p, "limit", parseNatural)),
	}
}

// with returns the link to a page with some parameters changed; pairs are names
// and values, and an empty value removes the name.
func with(path string, values url.Values, pairs ...string) string {
	out := url.Values{}
	for name, list := range values {
		if len(list) > 0 && list[0] != "" {
			out.Set(name, list[0])
		}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		out.Del(pairs[i])
		if pairs[i+1] != "" {
			out.Set(pairs[i], pairs[i+1])
		}
	}
	if len(out) == 0 {
		return path
	}
	return path + "?" + out.Encode()
}
