package agent

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/enforce"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor/record"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// newEnforcer makes what acts on alerts, if anything is ordered.
func (a *Agent) newEnforcer() error {
	c := a.o.Config
	if !c.enforces() {
		return nil
	}
	rules := a.ruling.Load()
	o := enforce.Options{
		Orders: c.Enforce, Drift: c.ZeroDrift, Protect: c.Protect, Types: a.covered(rules), Proc: c.Proc, Root: c.Root, Log: a.o.Log,
		Containers: func(string) *syscall.Details { return nil }, Emit: func(one alert.Alert) { a.pipeline.emit(one) },
	}
	if a.runtime != nil {
		o.Containers = a.runtime.Lookup
	}
	if k, ok := a.source.(enforce.Kernel); ok {
		o.Kernel = k
	}
	audit, err := a.openActions()
	if err != nil {
		return err
	}
	o.Audit = audit
	if a.enforcer, err = enforce.New(o); err != nil {
		return err
	}
	a.pipeline.enforcer = a.enforcer
	a.enforcer.SetRules(rules.set)
	return nil
}

// noteEnforcement says what is not enforced as it should be, and what the record of
// actions lacks.
func (s *status) noteEnforcement(source SourceStatus, h *health) {
	state, now := s.agent.enforcer.Status(), time.Now()
	h.Enforced = state.Ways
	if n, lately := s.kills.recent(source.Counters["killed"], state.Kills, now); lately {
		h.Problems = append(h.Problems, fmt.Sprintf("the kernel killed %d processes whose records did not come: the record of actions lacks them", n))
	}
	if n, lately := s.denials.recent(source.Counters["denied"], state.Denials, now); lately {
		h.Problems = append(h.Problems, fmt.Sprintf("the kernel denied %d programs to processes whose records did not come, or that are 32-bit programs: the record of actions lacks them", n))
	}
	for _, err := range state.Errors {
		h.Problems = append(h.Problems, err.Error())
	}
}

// A gap is between what the kernel has counted and what its records tell of. A record
// takes a moment, so what counts is that of a look before.
type gap struct {
	mu      sync.Mutex
	looked  time.Time
	counted uint64 // by then
	missing uint64 // of what was counted by the look before that
	lost    losses
}

// recordTime is longer than a record takes.
const recordTime = 5 * time.Second

// recent takes both numbers as of now. It returns how many have no record, and whether
// there are some that have none since lately.
func (g *gap) recent(counted, told uint64, now time.Time) (missing uint64, lately bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.looked) >= recordTime {
		g.missing = max(g.counted, told) - told
		g.looked, g.counted = now, counted
	}
	lately = g.lost.recent(g.missing, now)
	return g.missing, lately && g.missing > 0
}

// openActions opens the file that actions are added to, nil if there is none.
func (a *Agent) openActions() (io.Writer, error) {
	if a.o.Config.Actions == "" {
		return nil, nil
	}
	f, err := os.OpenFile(a.o.Config.Actions, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the record of actions: %w", err)
	}
	a.onStop("record of actions", f.Close)
	return f, nil
}

// enforce acts on what rules matched, and returns the alerts that are to be
// printed: as many as the mode says, and those that something is ordered about.
func (p *pipeline) enforce(rules *ruling, r *record.Record, s *syscall.Event, e *event.Event) []alert.Alert {
	alerts := rules.set.Match(e, rule.All)
	ordered, more := p.enforcer.Judge(enforce.Event{Record: r, Seen: s, Matched: e}, alerts)
	var out []alert.Alert
	for i, a := range alerts {
		if i == 0 || p.ruleMode() == rule.All || ordered[i] {
			out = append(out, a)
		}
	}
	return append(out, more...)
}
