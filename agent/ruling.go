package agent

import (
	"slices"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/enforce"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// A ruling is the rules that events are asked about, and what follows from them.
// It is immutable.
type ruling struct {
	set    *rule.Set
	needs  rule.Needs
	count  int       // rules that can raise an alert
	wanted [256]bool // by record type, those that rules or zero drift are about
}

func (a *Agent) newRuling(set *rule.Set) *ruling {
	r := &ruling{set: set, needs: set.Needs()}
	for _, live := range set.Live() {
		if live.Source == event.Syscall {
			r.count++
		}
	}
	types := r.needs.Types()
	if len(a.o.Config.ZeroDrift) > 0 {
		types = append(types, enforce.DriftTypes()...)
	}
	for _, name := range types {
		if t, ok := record.TypeOf(name); ok {
			r.wanted[t] = true
		}
	}
	return r
}

// tellsDrift reports whether programs that are not part of their image are told of:
// there are rules about them, all are in force, and none of them is uncovered.
func (r *ruling) tellsDrift(uncovered map[string][]string) bool {
	live := map[string]bool{}
	for _, x := range r.set.Live() {
		live[x.Name] = uncovered[x.Name] == nil
	}
	tells := false
	for _, x := range r.set.Rules() {
		if x.Source == event.Syscall && slices.Contains(x.Tags, alert.DriftTag) {
			if tells = live[x.Name]; !tells {
				return false
			}
		}
	}
	return tells
}

// types lists the events that are needed.
func (r *ruling) types() []string { return append(r.needs.Types(), lifecycle[:]...) }

// A narrower is a [Source] that can show less than what it was opened for, and
// all of it again.
type narrower interface {
	Narrow(types []string, needs rule.Needs) error
}

// use replaces the rules while events come. The sensor shows no more types of
// events than those that it was opened for.
func (a *Agent) use(rules *ruling) error {
	a.ruling.Store(rules)
	if a.enforcer != nil {
		a.enforcer.SetRules(rules.set)
	}
	if n, ok := a.source.(narrower); ok {
		return n.Narrow(append(rules.types(), a.pipeline.entrance.Load().types()...), rules.needs)
	}
	return nil
}

// covered lists the types of events that the sensor shows.
func (a *Agent) covered(r *ruling) []string {
	missing := a.source.Status().Missing
	return slices.DeleteFunc(r.types(), func(t string) bool { return missing[t] != nil })
}
