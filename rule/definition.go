package rule

import (
	"fmt"
	"strings"
)

// A Definition is a rule as its files say it, with what later files have added.
type Definition struct {
	Rule
	Live       bool   // it is enabled and urgent enough to raise alerts
	Condition  string // with the lists and exceptions put in, macros by their names
	Output     string
	Exceptions []string // one line for each
}

// Definitions lists the rules as [Set.Rules] does.
func (s *Set) Definitions() []Definition {
	out := make([]Definition, len(s.rules))
	for i, r := range s.rules {
		d := Definition{Rule: r.Rule, Live: r.live}
		if r.from != nil {
			d.Condition, d.Output = strings.TrimSpace(r.from.condition.S), strings.TrimSpace(r.from.output.S)
			for _, x := range r.from.exceptions {
				d.Exceptions = append(d.Exceptions, x.String())
			}
		}
		out[i] = d
	}
	return out
}

// String says what an exception leaves out, on one line.
func (x *exception) String() string {
	var tuples []string
	for _, tuple := range x.values {
		var parts []string
		for _, v := range tuple {
			part := strings.Join(v.items, ", ")
			if v.list {
				part = "[" + part + "]"
			}
			parts = append(parts, part)
		}
		tuples = append(tuples, "("+strings.Join(parts, "; ")+")")
	}
	text := fmt.Sprintf("%s: %s", x.name, strings.Join(x.fields, ", "))
	if len(x.comps) > 0 {
		text += " by " + strings.Join(x.comps, ", ")
	}
	if len(tuples) == 0 {
		return text + ": no values"
	}
	return text + ": " + strings.Join(tuples, " ")
}
