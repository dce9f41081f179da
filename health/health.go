// Package health says how the parts of a program are, and what to do about them.
package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Check is one thing that a program watches about itself.
type Check struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Detail string `json:"detail"`
	Do     string `json:"do,omitempty"` // what to do about it; empty if nothing is
}

// A State says how a check went.
type State string

// The states of checks, worst first.
const (
	Bad  State = "bad"
	Warn State = "warn"
	OK   State = "ok"
	Off  State = "off" // not wanted by the configuration
)

// Of returns a check that is in order, with a detail, unless there are problems.
func Of(name, detail, do string, problems ...string) Check {
	if len(problems) == 0 {
		return Check{Name: name, State: OK, Detail: detail}
	}
	return Check{Name: name, State: Bad, Detail: strings.Join(problems, " "), Do: do}
}

// If returns a problem where something is wrong, and none otherwise.
func If(wrong bool, format string, args ...any) []string {
	if !wrong {
		return nil
	}
	return []string{fmt.Sprintf(format, args...)}
}

// Moment returns a time for people, "never" for none.
func Moment(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}

// Sort puts checks in order, the worst first.
func Sort(checks []Check) {
	order := []State{Bad, Warn, OK, Off}
	slices.SortStableFunc(checks, func(a, b Check) int {
		return cmp.Compare(slices.Index(order, a.State), slices.Index(order, b.State))
	})
}

// Span returns a duration for people, in days, or as Go writes it without the
// units that are zero.
func Span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d == day:
		return "1 day"
	case d >= day && d%day == 0:
		return fmt.Sprintf("%d days", d/day)
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
