// Package verdict judges the commands that agents have seen enter containers, by
// the audit log: see package correlate. What no request explains becomes an alert,
// what cannot be known is stored as the agent has said it, and nothing becomes of
// the rest.
package verdict

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus"
	"github.com/kubeguardian/kubeguardian/correlate"
	"github.com/kubeguardian/kubeguardian/event"
)

// LateRule is the name of the alert for a command that is explained after it was
// said to be unexplained.
const LateRule = "Command in a container was requested"

// Options are what a [Judge] needs.
type Options struct {
	Cluster string // in alerts
	// Expected says why a command needs no request, such as a probe of its pod;
	// empty if it does. Known reports whether its pod, and so these, are known.
	Expected func(correlate.Exec) string
	Known    func(correlate.Exec) bool
	// Keep stores alerts. They are on disk when it returns nil.
	Keep func(context.Context, []alert.Alert) error
	// Ask makes a request that the audit log shows, so that it is known how far
	// the log has come; nil makes none.
	Ask func(context.Context)
	// Faults counts what the audit log lost so far, in any unit.
	Faults func() uint64
	Log    *slog.Logger
}

// A Judge has the commands that wait for the request that let them in. Their
// messages stay on the bus until they are judged, so that none is forgotten when
// the server ends. It is safe for concurrent use.
type Judge struct {
	o      Options
	reader *correlate.AuditReader

	mu     sync.Mutex
	execs  *correlate.Execs
	held   map[string][]*bus.Message // by process
	raised map[string]bool           // processes of alerts, while they can be explained still
	counts map[string]uint64         // by outcome
	faults uint64                    // of the audit log, that are known
	lag    time.Duration             // of the audit log, by our own requests
	newest time.Time                 // event of it
	queue  []settled                 // to be stored

	news chan struct{} // sent to when there is more in queue
}

// How commands are judged.
const (
	judgeInterval  = time.Second
	extendInterval = 3 * time.Second
	askInterval    = 3 * time.Second // for an event of the audit log while commands wait
	// API servers log apart from one another. An event of one says nothing of the
	// others until the time has passed that the log takes, by our own requests.
	leastLag = time.Second
	mostLag  = time.Minute
	// maxHeld bounds the commands that wait: more are stored, without a verdict.
	maxHeld = 1000
)

// New returns a judge that has heard of nothing yet. limits may be the zero value.
func New(o Options, limits correlate.Options) (*Judge, error) {
	reader, err := correlate.NewAuditReader()
	if err != nil {
		return nil, fmt.Errorf("read requests for commands: %w", err)
	}
	limits.Expected, limits.Limit = o.Expected, maxHeld
	return &Judge{
		o: o, reader: reader, execs: correlate.New(limits), news: make(chan struct{}, 1),
		held: map[string][]*bus.Message{}, raised: map[string]bool{}, counts: map[string]uint64{}, lag: leastLag,
	}, nil
}

// Outcomes lists what the keys of [Judge.Counts] are.
func Outcomes() []string {
	return []string{correlate.Explained.String(), correlate.Unexplained.String(), correlate.Unknown.String(), outside}
}

// outside is the outcome of a command in no pod: no request can explain it.
const outside = "outside_pods"

// Counts returns how many commands there were since the start, by outcome.
func (j *Judge) Counts() map[string]uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.counts)
}

// Audited takes in an event of the audit log, and how long it took to come, 0 if
// that is not known. The event is valid meanwhile.
func (j *Judge) Audited(e *event.Event, lag time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if lag > 0 {
		j.lag = min(max(lag, leastLag), mostLag)
	}
	if r, ok := j.reader.Request(e); ok {
		j.decide(j.execs.Request(r))
	}
	if e.Time.After(j.newest) && !e.Time.After(time.Now().Add(time.Minute)) {
		j.newest = e.Time
		j.execs.Heard("", e.Time.Add(-j.lag))
	}
}

// Take takes a message in if it is about a command in a container, and reports
// whether it is. Then it is not to be stored: the judge sees to that.
func (j *Judge) Take(m *bus.Message) bool {
	if m.Alert.Rule != correlate.EnteredRule {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	e, ok := correlate.FromAlert(m.Alert)
	if !ok {
		j.counts[outside]++
		return true
	}
	waits := len(j.held[e.Process]) > 0
	if !waits && j.execs.Knows(e.Process) { // judged already
		return true
	}
	m.Hold()
	j.held[e.Process] = append(j.held[e.Process], m)
	if !waits {
		j.decide(j.execs.Command(e, time.Now()))
	}
	return true
}

// A settled is a verdict with the messages that it settles.
type settled struct {
	verdict  correlate.Verdict
	messages []*bus.Message
}

// decide queues verdicts for who stores them. The judge is locked.
func (j *Judge) decide(verdicts []correlate.Verdict) {
	for _, v := range verdicts {
		if v.Outcome == correlate.Unexplained {
			v = j.secondLook(v)
		}
		process := v.Exec.Process
		if v.Late && !j.raised[process] {
			continue
		}
		j.counts[v.Outcome.String()]++
		j.queue = append(j.queue, settled{v, j.held[process]})
		delete(j.held, process)
		if len(j.raised) > maxHeld {
			clear(j.raised)
		}
		j.raised[process] = v.Outcome == correlate.Unexplained
	}
	if len(j.queue) > 0 {
		select {
		case j.news <- struct{}{}:
		default:
		}
	}
}

// secondLook looks at an unexplained command again before it becomes an alert: a
// pod is known a little after it runs.
func (j *Judge) secondLook(v correlate.Verdict) correlate.Verdict {
	if reason := j.o.Expected(v.Exec); reason != "" {
		v.Outcome, v.Reason = correlate.Explained, reason
	} else if !j.o.Known(v.Exec) {
		v.Outcome, v.Reason = correlate.Unknown, "the pod is not known, and so neither are its probes and hooks"
	}
	return v
}

// Run judges commands, stores what comes of it and acknowledges them, until ctx
// ends.
func (j *Judge) Run(ctx context.Context) {
	tick := time.NewTicker(judgeInterval)
	defer tick.Stop()
	var extended, asked time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-j.news:
		case <-tick.C:
			now := time.Now()
			waiting := j.judge(now)
			if now.Sub(extended) >= extendInterval {
				extended = now
				j.extend()
			}
			if waiting && j.o.Ask != nil && now.Sub(asked) >= askInterval {
				asked = now
				j.ask(ctx)
			}
		}
		j.store(ctx)
	}
}

func (j *Judge) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askInterval)
	defer cancel()
	j.o.Ask(ctx)
}

// judge judges the commands that can be, and reports whether others wait.
func (j *Judge) judge(now time.Time) bool {
	lost := j.o.Faults()
	j.mu.Lock()
	defer j.mu.Unlock()
	if lost > j.faults { // of what time is not known: since a while
		j.faults = lost
		j.execs.Lost(now.Add(-2*mostLag), now)
	}
	j.decide(j.execs.Judge(now))
	return j.execs.Waiting()
}

// extend keeps the bus from giving out again what waits here.
func (j *Judge) extend() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, messages := range j.held {
		for _, m := range messages {
			if err := m.Extend(); err != nil {
				j.o.Log.Debug("extend command", "error", err)
			}
		}
	}
}

// store stores what comes of verdicts. After an error all stays queued.
func (j *Judge) store(ctx context.Context) {
	j.mu.Lock()
	queued := j.queue
	j.mu.Unlock()
	if len(queued) == 0 {
		return
	}
	var alerts []alert.Alert
	for _, x := range queued {
		alerts = append(alerts, j.alerts(x)...)
	}
	if err := j.o.Keep(context.WithoutCancel(ctx), alerts); err != nil {
		j.o.Log.Error("verdicts on commands in containers wait until they can be stored", "commands", len(queued), "error", err)
		return
	}
	j.mu.Lock()
	j.queue = j.queue[len(queued):]
	j.mu.Unlock()
	for _, x := range queued {
		for _, m := range x.messages {
			if err := m.Done(); err != nil {
				j.o.Log.Debug("acknowledge command", "error", err)
			}
		}
	}
}

// alerts returns what is stored for a verdict: nothing for a command that is
// explained, and the agent's own alert, with the reason, for one that nothing can
// be said of.
func (j *Judge) alerts(x settled) []alert.Alert {
	v := x.verdict
	a := v.Alert(j.o.Cluster)
	var original *alert.Alert
	if len(x.messages) > 0 {
		original = &x.messages[0].Alert
		a.Entities = slices.Concat(original.Entities, a.Entities)
	}
	switch {
	case v.Outcome == correlate.Unexplained:
		return []alert.Alert{a}
	case v.Outcome == correlate.Unknown && original != nil:
		unknown := *original
		unknown.Output += " (request=unknown: " + v.Reason + ")"
		return []alert.Alert{unknown}
	case v.Late:
		a.ID, a.Rule, a.Priority = alert.NewID(event.Syscall, v.Exec.ID, LateRule), LateRule, alert.Notice
		a.Output = fmt.Sprintf("%s: Notice A command that was said to be unexplained was requested: %s (command=%s pod=%s namespace=%s node=%s)",
			v.Exec.Time.Local().Format("15:04:05.000000000"), v.Reason, v.Exec.Command, v.Exec.Pod, v.Exec.Namespace, v.Exec.Node)
		return []alert.Alert{a}
	}
	return nil
}
