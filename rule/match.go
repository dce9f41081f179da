package rule

import (
	"sync"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
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
	rules []*compiledRule
	refs  []event.Ref // by slot
	pool  sync.Pool   // of *slots
}

type compiledRule struct {
	Rule
	condition matcher
	output    []segment
	fields    []int // slots of the output fields of an alert
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

// Match returns the alerts that the rules raise for an event, in the order of
// the rules.
func (s *Set) Match(e *event.Event, mode Mode) []alert.Alert {
	sl, ok := s.pool.Get().(*slots)
	if !ok {
		sl = &slots{refs: s.refs, values: make([]event.Value, len(s.refs)), known: make([]bool, len(s.refs))}
	}
	sl.event = e
	var alerts []alert.Alert
	for _, r := range s.rules {
		if !r.Enabled || r.Source != e.Source || !r.condition.match(sl) {
			continue
		}
		alerts = append(alerts, r.alert(sl))
		if mode == First {
			break
		}
	}
	sl.reset()
	s.pool.Put(sl)
	return alerts
}

// slots holds the values of one event that have been asked for.
type slots struct {
	event  *event.Event
	refs   []event.Ref
	values []event.Value
	known  []bool
}

func (s *slots) get(i int) event.Value {
	if !s.known[i] {
		s.values[i], s.known[i] = s.event.Value(s.refs[i]), true
	}
	return s.values[i]
}

func (s *slots) reset() {
	s.event = nil
	clear(s.values)
	clear(s.known)
}

// A matcher is a compiled condition.
type matcher interface{ match(*slots) bool }

type (
	allOf []matcher
	anyOf []matcher
	not   struct{ kid matcher }
)

func (kids allOf) match(s *slots) bool {
	for _, kid := range kids {
		if !kid.match(s) {
			return false
		}
	}
	return true
}

func (kids anyOf) match(s *slots) bool {
	for _, kid := range kids {
		if kid.match(s) {
			return true
		}
	}
	return false
}

func (n not) match(s *slots) bool { return !n.kid.match(s) }

// A constCheck tests a field. A missing field fails every test, != too.
type constCheck struct {
	slot int
	test func(event.Value) bool
}

func (c *constCheck) match(s *slots) bool {
	v := s.get(c.slot)
	return !v.Missing() && c.test(v)
}

// A fieldCheck compares two fields. It is false if either is missing.
type fieldCheck struct {
	left, right int
	compare     func(left, right event.Value) bool
}

func (c *fieldCheck) match(s *slots) bool {
	left := s.get(c.left)
	if left.Missing() {
		return false
	}
	right := s.get(c.right)
	return !right.Missing() && c.compare(left, right)
}
