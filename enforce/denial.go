package enforce

import (
	"fmt"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// Who is denied a program can try it again as often as the machine can. So the first
// denial is told of at once, and those after it by their number.
const (
	denialsEach = time.Minute
	maxDenied   = 16 // programs of a container that are told apart
)

// A repeat is a program that was denied to a container, and may be again.
type repeat struct {
	told  time.Time // when an alert said so
	more  uint64    // denials since
	alert *alert.Alert
	act   Action // of the first of these
}

// judgeDenial returns the alert about a program that the kernel denied to the process
// that called it, unless that was told of lately.
func (e *Enforcer) judgeDenial(ev Event, t target) []alert.Alert {
	path := deniedPath(ev.Record)
	r, first, kept := e.countDenial(t.container.ID, path)
	if kept {
		return nil
	}
	alerts := e.drift.Match(ev.Matched, rule.First)
	if len(alerts) == 0 {
		return nil
	}
	o := named{Order: Order{Action: Deny}}
	if i := e.mode(t.container); i >= 0 {
		o.entry = e.driftOrder(i).entry
	}
	act := e.action(o, t, &alerts[0])
	act.Outcome, act.By, act.Exe = Denied, kernelsWay, path
	if first {
		e.finish(act, &alerts[0])
		return alerts
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	r.alert, r.act = &alerts[0], act
	return nil
}

// deniedPath returns the path of a program as the kernel knows it, else as it was
// called.
func deniedPath(r *record.Record) string {
	path, ok := r.Named("trusted_exepath").Text()
	if !ok {
		path, _ = r.Named("filename").Text()
	}
	return string(path)
}

// countDenial reports whether a denial is the first of its program, and else whether
// there is an alert that stands for it. Programs beyond some of a container are
// counted as one. Once nobody tells of repeats, each counts as a first one.
func (e *Enforcer) countDenial(container, path string) (r *repeat, first, kept bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.denials++
	if e.ended {
		return nil, true, false
	}
	of := e.repeats[container]
	if of == nil {
		of = map[string]*repeat{}
		e.repeats[container] = of
	}
	if of[path] == nil && len(of) >= maxDenied {
		path = ""
	}
	if of[path] == nil {
		of[path] = &repeat{told: time.Now()}
		return of[path], true, false
	}
	of[path].more++
	return of[path], false, of[path].alert != nil
}

// tellDenials tells of programs that were denied again since they were told of, and
// forgets those that were not.
func (e *Enforcer) tellDenials(now time.Time) {
	for _, r := range e.dueDenials(now) {
		r.act.Times = r.more
		e.finish(r.act, r.alert)
		r.alert.OutputFields["enforce."+Deny+".times"] = r.more
		r.alert.Output += fmt.Sprintf(" (%d times since the alert before)", r.more)
		e.o.Emit(*r.alert)
	}
}

func (e *Enforcer) dueDenials(now time.Time) (due []repeat) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for container, of := range e.repeats {
		for path, r := range of {
			switch {
			case now.Sub(r.told) < denialsEach:
			case r.more == 0:
				delete(of, path)
			case r.alert != nil:
				due = append(due, *r)
				*r = repeat{told: now}
			}
		}
		if len(of) == 0 {
			delete(e.repeats, container)
		}
	}
	return due
}
