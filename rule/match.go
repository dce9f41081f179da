package rule

import (
	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule/condition"
	"github.com/kubeguardian/kubeguardian/rule/match"
)

// A Rule is what a rule file says of a rule.
type Rule struct {
	Name     string
	Desc     string
	Source   string
	Priority alert.Priority
	Tags     []string // sorted, each once
	Enabled  bool
	File     string // where the rule is defined
	Line     int
}

// A Mode says which rules of a set raise an alert for an event.
type Mode uint8

// The modes.
const (
	First Mode = iota // the first one that matches, as Falco does by default
	All               // each one that matches
)

// A Set is a compiled set of rules. It is immutable and safe for concurrent
// use.
type Set struct {
	rules    []*compiledRule
	programs map[string]program // by source
	spec     *spec              // for the places of checks
	warnings Errors
}

type compiledRule struct {
	Rule
	condition condition.Expr
	output    []segment
	fields    []*condition.Input // output fields of an alert
	extras    []extra
	live      bool // enabled and urgent enough
	from      *ruleItem
}

type extra struct {
	name   string
	format []segment
}

// A program is the rules of one source that can match.
type program struct {
	conditions *match.Set
	rules      []*compiledRule
}

func (s *Set) build() {
	rules, conditions := map[string][]*compiledRule{}, map[string][]condition.Expr{}
	for _, r := range s.rules {
		if r.live {
			rules[r.Source] = append(rules[r.Source], r)
			conditions[r.Source] = append(conditions[r.Source], r.condition)
		}
	}
	s.programs = map[string]program{}
	for source, of := range rules {
		s.programs[source] = program{match.New(conditions[source]), of}
	}
}

// Rules lists the rules in the order of their first definition, disabled ones
// too.
func (s *Set) Rules() []Rule {
	rules := make([]Rule, len(s.rules))
	for i, r := range s.rules {
		rules[i] = r.Rule
	}
	return rules
}

// Warnings lists what is suspect in the rule files, in their order.
func (s *Set) Warnings() Errors { return s.warnings }

// Match returns the alerts that the rules raise for an event, in the order of
// the rules.
func (s *Set) Match(e *event.Event, mode Mode) []alert.Alert {
	p, ok := s.programs[e.Source]
	if !ok {
		return nil
	}
	var alerts []alert.Alert
	run := p.conditions.Begin(e)
	for i := run.Next(); i >= 0; i = run.Next() {
		alerts = append(alerts, p.rules[i].alert(e, run))
		if mode == First {
			break
		}
	}
	run.End()
	return alerts
}
