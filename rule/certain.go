package rule

import (
	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule/condition"
	"github.com/kubeguardian/kubeguardian/rule/plain"
)

// Certain reports whether a rule matches every event that has the same values as
// e in the fields that known reports, whatever it has in the others. Of a rule
// that does not exist, is not enabled, or is of another source than e, it is not
// certain.
func (s *Set) Certain(name string, e *event.Event, known func(field string) bool) bool {
	for _, r := range s.programs[e.Source].rules {
		if r.Name == name {
			return certain(r.condition, false, &partial{plain.Values{Event: e}, known})
		}
	}
	return false
}

// A partial is an event of which some fields are known.
type partial struct {
	plain.Values
	known func(string) bool
}

// certain reports whether a condition, or its negation, is true whatever the
// fields that are not known are.
func certain(e condition.Expr, negated bool, p *partial) bool {
	switch e := e.(type) {
	case *condition.Not:
		return certain(e.Kid, !negated, p)
	case *condition.Logical:
		anyIsEnough := e.Or != negated
		for _, kid := range e.Kids {
			if certain(kid, negated, p) == anyIsEnough {
				return anyIsEnough
			}
		}
		return !anyIsEnough
	case *condition.Leaf:
		if never, known := numTypes(e); known && e.Left.Text == "evt.num" {
			return never == negated
		}
		return p.knows(e.Left) && (e.Right == nil || p.knows(e.Right)) && plain.Check(e, p) != negated
	}
	return false
}

func (p *partial) knows(in *condition.Input) bool {
	return in.Const != nil || in.Fun == "" && p.known(in.Ref.Name)
}

// Urgent returns the set without the rules that are less urgent than minimum,
// unless keep says of one, by its name, that it stays.
func (s *Set) Urgent(minimum alert.Priority, keep func(Rule) bool) *Set {
	out := *s
	out.rules = make([]*compiledRule, len(s.rules))
	for i, r := range s.rules {
		c := *r
		c.live = r.live && (r.Priority <= minimum || keep(r.Rule))
		out.rules[i] = &c
	}
	out.build()
	return &out
}

// Live lists the rules that can raise alerts: those that are enabled and urgent
// enough, in their order.
func (s *Set) Live() []Rule {
	var rules []Rule
	for _, r := range s.rules {
		if r.live {
			rules = append(rules, r.Rule)
		}
	}
	return rules
}
