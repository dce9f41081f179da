// Package tuning proposes exceptions for detection rules that alert on what is
// normal: of the alerts of some time it finds those that are alike and come often,
// and writes the narrowest exceptions that silence them.
//
// What an exception silences is not guessed: each is compiled and evaluated as a
// rule file is.
package tuning

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
)

// Options say what is proposed.
type Options struct {
	Rules  []rule.File // the rules that raised the alerts
	Min    int         // how many alerts an exception silences at least; 2 or more
	Across bool        // exceptions may silence alerts of several actors
}

// A Proposal is what is proposed for one rule.
type Proposal struct {
	Rule       string
	Priority   alert.Priority
	Alerts     int // of the rule, repeats included
	Silenced   int // by all exceptions together
	Exceptions []Exception
	Left       []Rest // who raised the others, the most alerts first
}

// An Exception is a case in which a rule would not alert any more.
type Exception struct {
	Name    string
	Fields  []Field
	Open    []Open         // fields that may have any value
	Alerts  []*alert.Alert // that it silences
	Count   int            // of these, repeats included
	Actors  []string       // who raised them
	First   time.Time
	Last    time.Time
	Hours   int // in how many hours they were raised
	Repeats int // of Count, alerts of which only the number is known
}

// A Field is a condition of an exception: that a field has a value, or that all
// elements of a list are among some.
type Field struct {
	Name   string
	Values []string
	List   bool
	Trust  Trust
}

// An Open is a field that an exception leaves open, and how many values it has
// in the alerts that are silenced.
type Open struct {
	Name   string
	Values int
}

// A Rest is alerts of an actor that stay, and why there is no exception for them.
type Rest struct {
	Actor  string
	Alerts int
	Reason string
}

// A sample is an alert that is looked at.
type sample struct {
	*alert.Alert
	actor  actor
	values map[string]Field // usable fields that have a value
}

// count is how many alerts it stands for.
func (s *sample) count() int {
	if s.Repeats == nil || s.OverLimit {
		return 1
	}
	return 1 + s.Repeats.Count
}

func count(samples []*sample) (n int) {
	for _, s := range samples {
		n += s.count()
	}
	return n
}

// Propose looks at alerts of rules over the audit log. Those of other sources
// are left out, and so is what the rules do not have; skipped has how many alerts
// that are, by rule.
func Propose(alerts []alert.Alert, opts Options) (proposals []Proposal, skipped map[string]int, err error) {
	names, err := auditRules(opts.Rules)
	if err != nil {
		return nil, nil, err
	}
	samples, seen := map[string][]*sample{}, map[string]bool{}
	skipped = map[string]int{}
	for i := range alerts {
		a := &alerts[i]
		switch {
		case seen[a.ID] && a.ID != "":
		case a.Source != event.K8sAudit || !names[a.Rule]:
			skipped[a.Rule]++
		default:
			samples[a.Rule] = append(samples[a.Rule], newSample(a))
		}
		seen[a.ID] = true
	}
	for name, of := range samples {
		p, err := opts.propose(name, of)
		if err != nil {
			return nil, nil, fmt.Errorf("propose exceptions of rule %q: %w", name, err)
		}
		proposals = append(proposals, p)
	}
	slices.SortFunc(proposals, func(a, b Proposal) int {
		return cmp.Or(cmp.Compare(b.Silenced, a.Silenced), cmp.Compare(b.Alerts, a.Alerts), strings.Compare(a.Rule, b.Rule))
	})
	return proposals, skipped, nil
}

func auditRules(files []rule.File) (map[string]bool, error) {
	set, err := rule.Load(files...)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, r := range set.Rules() {
		if r.Source == event.K8sAudit {
			names[r.Name] = true
		}
	}
	return names, nil
}

// propose proposes exceptions of one rule.
func (o Options) propose(name string, samples []*sample) (Proposal, error) {
	p := Proposal{Rule: name, Priority: samples[0].Priority, Alerts: count(samples)}
	byActor, reasons := map[actor][]*sample{}, map[string]string{}
	for _, s := range samples {
		byActor[s.actor] = append(byActor[s.actor], s)
	}
	var candidates []Exception
	for who, of := range byActor {
		if reason := who.refused(); reason != "" && !o.Across {
			reasons[who.String()] = reason
			continue
		}
		candidates = append(candidates, o.mine(name, of)...)
	}
	if o.Across {
		candidates = append(candidates, o.mine(name, samples)...)
	}
	exceptions, err := o.verify(name, candidates, samples, reasons)
	if err != nil {
		return p, err
	}
	p.Exceptions = exceptions
	silenced := map[*alert.Alert]bool{}
	for _, x := range exceptions {
		for _, a := range x.Alerts {
			silenced[a] = true
		}
	}
	left := map[string]int{}
	for _, s := range samples {
		if silenced[s.Alert] {
			p.Silenced += s.count()
			continue
		}
		left[s.actor.String()] += s.count()
	}
	for who, n := range left {
		reason := cmp.Or(reasons[who], fmt.Sprintf("fewer than %d are alike", o.Min))
		p.Left = append(p.Left, Rest{who, n, reason})
	}
	slices.SortFunc(p.Left, func(a, b Rest) int {
		return cmp.Or(cmp.Compare(b.Alerts, a.Alerts), strings.Compare(a.Actor, b.Actor))
	})
	return p, nil
}
