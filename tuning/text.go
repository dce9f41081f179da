package tuning

import (
	"fmt"
	"strings"
)

// Limits of what a text lists.
const (
	shownAlerts = 3 // of an exception, unless all are wanted
	shownRests  = 5
)

// Lines says what is proposed for a rule, for people. What is in it of alerts may
// hold any character. All says that each silenced alert is listed.
func (p Proposal) Lines(all bool) []string {
	lines := []string{fmt.Sprintf("%s (%s): %d alerts, of which %d would be silenced", p.Rule, p.Priority, p.Alerts, p.Silenced)}
	for _, x := range p.Exceptions {
		lines = append(lines, x.lines(p.Alerts, all)...)
	}
	for i, r := range p.Left {
		if i == shownRests {
			lines = append(lines, fmt.Sprintf("  and alerts of %d others stay", len(p.Left)-i))
			break
		}
		lines = append(lines, fmt.Sprintf("  %d of %s stay: %s", r.Alerts, r.Actor, r.Reason))
	}
	return lines
}

func (x Exception) lines(of int, all bool) []string {
	lines := []string{fmt.Sprintf("  %s silences %d of %d, from %s to %s, in %d different hours", x.Name, x.Count, of, stamp(x.First), stamp(x.Last), x.Hours)}
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf("    "+format, args...)) }
	if len(x.Actors) > 1 {
		add("of %d actors: %s", len(x.Actors), strings.Join(x.Actors, ", "))
	}
	for _, f := range x.Fields {
		check := " = " + f.Values[0]
		if f.List {
			check = " in (" + strings.Join(f.Values, ", ") + ")"
		}
		if f.Trust != Established {
			check += " [" + f.Trust.String() + "]"
		}
		add("%s", f.Name+check)
	}
	for _, o := range x.Open {
		add("%s: any; %d seen", o.Name, o.Values)
	}
	if x.Repeats > 0 {
		add("of %d of them only the number is known", x.Repeats)
	}
	for i, a := range x.Alerts {
		if i == shownAlerts && !all {
			add("  and %d more", len(x.Alerts)-i)
			break
		}
		add("  %v %s", a.OutputFields["ka.auditid"], a.Output)
	}
	return lines
}
