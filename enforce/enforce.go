// Package enforce acts on alerts of a node: it kills the process that raised one,
// or keeps its container from the network, as far as a configuration orders it.
// Without one it does nothing.
//
// Where the condition of a rule can be decided by what a [sensor.Guard] can say,
// the kernel kills, before the process runs any further. Otherwise the agent
// kills as soon as it has read of the event, by a descriptor of the process whose
// start was compared, so never a process that was given the same id later.
//
// What is protected is never acted upon, nor is a container of which it is not
// known whose it is. Each action, also a dry run and a refusal, is noted in the
// alert, in a record of its own, and counted.
package enforce

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor"
	"github.com/kubeguardian/kubeguardian/sensor/record"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// Options are what an [Enforcer] is made of.
type Options struct {
	Orders  []Order
	Drift   []Drift
	Protect Protect // besides [Protected]

	Kernel     Kernel                           // nil if the kernel cannot act: only the agent does
	Types      []string                         // of events that the sensor was loaded for
	Containers func(id string) *syscall.Details // what the runtime says of a container, nil if it is not known yet
	Proc, Root string                           // of the node
	Emit       func(alert.Alert)                // alerts that had to wait for what the container is
	Audit      io.Writer                        // actions, one line of JSON each; nil for none
	Log        *slog.Logger
}

// A Kernel is what the sensor can do, as [sensor.Sensor] does.
type Kernel interface {
	SetUrgent(types []string) error
	SetGuards([]sensor.Guard) error
	BlockEgress(dir string) (lift func() error, err error)
	CanDeny() error
	SetRoot(cgroup uint64, path string) error
}

// An Enforcer acts. It is safe for concurrent use.
type Enforcer struct {
	o         Options
	protect   Protect
	audit     *audit
	drift     *rule.Set // the rule that renders alerts of executables which did not come with the image
	hierarchy sensor.Hierarchy
	self      uint32

	mu      sync.Mutex
	own     string // container of the agent, once it was looked for
	rules   *rule.Set
	orders  map[string][]named  // by rule
	types   map[string][]string // of events, by rule
	groups  map[uint64]*group
	changed bool            // guards have to be made anew
	rooted  map[uint64]bool // control groups whose root the kernel was told of; for [Enforcer.Run] alone
	ways    map[string]string
	guards  int
	blocked map[string]*block
	waiting []*wait
	kills   uint64                        // by the kernel, of which a record was seen
	denials uint64                        // the same
	repeats map[string]map[string]*repeat // of denials, by container and path
	ended   bool                          // [Enforcer.Run] has
	idle    []string                      // entries that are about no rule
	looked  time.Time                     // when control groups were last listed
	failure error                         // why the kernel does not act
	lacks   []string                      // capabilities

	cannotDeny error // why [Deny] kills instead, if anything is to be denied
}

// A named order knows where it was written.
type named struct {
	Order
	entry string
}

const (
	maxWaiting  = 256
	waitTime    = 10 * time.Second
	tick        = 100 * time.Millisecond
	lookAgain   = 30 * time.Second // at the control groups of the node
	lookSoonest = time.Second
	maxGroups   = 16384
)

// New returns an enforcer, nil if nothing is ordered.
func New(o Options) (*Enforcer, error) {
	if len(o.Orders) == 0 && len(o.Drift) == 0 {
		return nil, nil
	}
	e := &Enforcer{
		o: o, audit: newAudit(o.Audit, o.Log), self: uint32(os.Getpid()), protect: Protected(),
		groups: map[uint64]*group{}, blocked: map[string]*block{}, ways: map[string]string{}, rooted: map[uint64]bool{}, repeats: map[string]map[string]*repeat{},
	}
	e.protect.Namespaces = append(e.protect.Namespaces, o.Protect.Namespaces...)
	e.protect.Processes = append(e.protect.Processes, o.Protect.Processes...)
	var err error
	if e.drift, err = loadDrift(); err != nil {
		return nil, err
	}
	if e.lacks, err = missingCapabilities(o.Proc, o.Orders); err != nil {
		return nil, err
	}
	if Denies(o.Drift) {
		e.cannotDeny = cannotDeny(o.Kernel)
	}
	if e.hierarchy, err = sensor.FindHierarchy(o.Proc); err != nil {
		return nil, fmt.Errorf("enforce: %w", err)
	}
	return e, leaveAll(e.path(e.hierarchy.Unified))
}

// cannotDeny returns why the kernel kills what it was to deny, nil if it denies.
func cannotDeny(k Kernel) error {
	if k == nil {
		return errors.New("the sensor cannot act")
	}
	return k.CanDeny()
}

// lacksDenial says what becomes of what is to be denied and cannot be.
func (e *Enforcer) lacksDenial() error {
	what := "would deny would be killed instead"
	if slices.ContainsFunc(e.o.Drift, func(d Drift) bool { return d.Mode == Deny && !d.DryRun }) {
		what = "is to deny is killed instead"
	}
	return fmt.Errorf("enforcement: this kernel denies no program: what zeroDrift %s, before it runs: %w", what, e.cannotDeny)
}

// path returns a path of the node as the agent reaches it.
func (e *Enforcer) path(name string) string {
	if name == "" {
		return ""
	}
	return filepath.Join(e.o.Root, name)
}

// SetRules says which rules raise alerts from now on.
func (e *Enforcer) SetRules(set *rule.Set) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rules, e.orders, e.changed, e.idle = set, map[string][]named{}, true, nil
	about := map[string]bool{}
	for _, r := range set.Live() {
		if r.Source != event.Syscall {
			continue
		}
		for i, o := range e.o.Orders {
			if o.About(r.Name, r.Tags) {
				entry := fmt.Sprintf("%s[%d]", orderOrigin, i)
				e.orders[r.Name], about[entry] = append(e.orders[r.Name], named{o, entry}), true
			}
		}
	}
	for i := range e.o.Orders {
		if entry := fmt.Sprintf("%s[%d]", orderOrigin, i); !about[entry] {
			e.idle = append(e.idle, entry)
		}
	}
	e.types, e.ways = typesOfRules(set), map[string]string{}
	for _, g := range e.groups {
		g.made = false
	}
	e.hurry()
	e.guardsOf(0, usual) // so that it is known from the begin which way a rule goes
	e.reguard()
}

// An Event is one that may be acted upon.
type Event struct {
	Record  *record.Record
	Seen    *syscall.Event
	Matched *event.Event
}

// Judge acts on an event and on the alerts that rules raised for it, and notes in
// them what was done. It returns which of them something is ordered about, and
// more alerts: of an executable that did not come with the image.
func (e *Enforcer) Judge(ev Event, alerts []alert.Alert) (ordered []bool, more []alert.Alert) {
	t := e.target(ev)
	e.see(ev.Record.Cgroup, t.container)
	ordered = make([]bool, len(alerts))
	for i := range alerts {
		e.mu.Lock()
		orders := e.orders[alerts[i].Rule]
		e.mu.Unlock()
		for _, o := range orders {
			covered, known := o.covers(t.container)
			switch {
			case t.onHost() && !o.Host, known && !covered:
				continue
			}
			ordered[i] = true
			e.act(o, t, &alerts[i])
		}
	}
	more = e.judgeDrift(ev, t)
	if t.marked && t.mark == record.Killed {
		e.accountFor(t, slices.Concat(alerts, more))
	}
	return ordered, more
}

// accountFor sees to it that each kill of the kernel is in the record, also when
// the rule of its guard is not in force any more.
func (e *Enforcer) accountFor(t target, alerts []alert.Alert) {
	e.mu.Lock()
	e.kills++
	e.mu.Unlock()
	if slices.ContainsFunc(alerts, func(a alert.Alert) bool {
		return a.OutputFields["enforce."+Kill] != nil || a.OutputFields["enforce."+Deny] != nil
	}) {
		return
	}
	act := e.action(named{Order: Order{Action: Kill}}, t, &alert.Alert{})
	act.Outcome, act.By, act.Reason = Killed, kernelsWay, "by a guard whose rule is not in force any more"
	e.finish(act, nil)
}

// A target is what an action would hit.
type target struct {
	key       record.Key
	mark      int64 // what a guard did
	marked    bool
	process   *syscall.Process
	container *syscall.Container
	node      bool // of the node, also if it is in the control group of a container
}

func (e *Enforcer) target(ev Event) target {
	t := target{key: ev.Record.Process, process: ev.Seen.Process, container: ev.Seen.Container, node: ev.Record.OfNode}
	if t.container == nil {
		t.container = syscall.Host()
	}
	t.mark, t.marked = ev.Record.Extra(record.Enforced).Int()
	return t
}

func (t target) onHost() bool { return t.node || t.container.OnHost() }

// act does what an order says about an alert, or notes why not.
func (e *Enforcer) act(o named, t target, a *alert.Alert) {
	act := e.action(o, t, a)
	switch reason := e.refuse(t); {
	case o.Action != BlockEgress && t.marked && (t.mark == record.Killed || t.mark == record.WouldKill && o.DryRun):
		act.Outcome, act.By = Killed, kernelsWay
		if o.DryRun {
			act.Outcome = e.rehearsal(o)
		}
	case reason != "":
		act.Outcome, act.Reason = Refused, reason
	case !t.onHost() && !t.container.Known:
		e.wait(o, t, &act)
	default:
		e.carryOut(o, t, &act)
	}
	e.finish(act, a)
}

func (e *Enforcer) action(o named, t target, a *alert.Alert) Action {
	act := Action{Time: time.Now(), Action: o.Action, Rule: a.Rule, Alert: a.ID, Entry: o.entry, PID: int32(t.key.TGID), Container: t.container.ID}
	if t.process != nil {
		act.Exe, act.Command = t.process.ExePath, t.process.CommandLine()
	}
	if pod := t.container.Pod; pod != nil {
		act.Pod, act.Namespace = pod.Name, pod.Namespace
	}
	return act
}

// rehearsal returns what the kernel would have done.
func (e *Enforcer) rehearsal(o named) string {
	if o.Action == Deny && e.cannotDeny == nil {
		return WouldDeny
	}
	return WouldKill
}

// finish notes an action in the alert and in the record.
func (e *Enforcer) finish(act Action, a *alert.Alert) {
	if act.Action == Deny && (act.Outcome == Killed || act.Outcome == WouldKill) {
		act.Reason = e.whyNotDenied()
	}
	if a != nil {
		if a.OutputFields == nil {
			a.OutputFields = map[string]any{}
		}
		name := "enforce." + act.Action
		a.OutputFields[name] = act.Outcome
		for key, value := range map[string]string{".by": act.By, ".reason": act.Reason} {
			if value != "" {
				a.OutputFields[name+key] = value
			}
		}
	}
	e.audit.note(act)
}

func (e *Enforcer) whyNotDenied() string {
	if e.cannotDeny != nil {
		return "this kernel denies no program"
	}
	return "it had started before it could be denied"
}

// refuse returns why a target is protected, empty if it is not.
func (e *Enforcer) refuse(t target) string {
	e.mu.Lock()
	own := e.own
	e.mu.Unlock()
	switch {
	case t.key.TGID == 1:
		return "the first process of the node"
	case t.key.TGID == e.self:
		return "the agent itself"
	case own != "" && t.container.ID == own:
		return "the agent's own container"
	case t.onHost():
		return e.refuseProcess(t.process)
	case !t.container.Known:
		return ""
	}
	return e.refuseContainer(t.container)
}

func (e *Enforcer) refuseProcess(p *syscall.Process) string {
	switch {
	case p == nil:
		return "nothing is known of the process"
	case e.protect.isProtected(p.ExePath, p.Name):
		return "a protected process"
	}
	return ""
}

func (e *Enforcer) refuseContainer(c *syscall.Container) string {
	if namespace := namespaceOf(c); namespace != "" && fits(namespace, e.protect.Namespaces) {
		return fmt.Sprintf("namespace %s is protected", namespace)
	}
	return ""
}

// carryOut does what an order says, of which everything is known.
func (e *Enforcer) carryOut(o named, t target, act *Action) {
	act.By = agentsWay
	if o.Action == BlockEgress {
		e.block(o, t, act)
		return
	}
	h, err := open(e.o.Proc, t.key)
	if err == nil {
		defer h.close()
		err = e.end(o, h, act)
	}
	settle(act, err)
}

// end kills, unless it is a dry run.
func (e *Enforcer) end(o named, h handle, act *Action) error {
	if o.DryRun {
		act.Outcome = WouldKill
		return nil
	}
	act.Outcome = Killed
	return h.kill()
}

// settle notes an error.
func settle(act *Action, err error) {
	switch {
	case err == nil:
		return
	case errors.Is(err, errGone):
		act.Outcome = Gone
	case errors.Is(err, errKernel):
		act.Outcome, act.Reason = Refused, err.Error()
	default:
		act.Outcome, act.Reason = Failed, err.Error()
	}
}

// A wait is an action that waits until it is known whose container it would hit.
type wait struct {
	o      named
	t      target
	act    Action
	handle handle // of a process to be killed
	opened bool
	alert  *alert.Alert // that waits with it; nil if it went ahead
	until  time.Time
}

func (w *wait) close() {
	if w.opened {
		w.handle.close()
	}
}

// wait puts an action off. The process is held on to meanwhile.
func (e *Enforcer) wait(o named, t target, act *Action) {
	w := &wait{o: o, t: t, act: *act, until: time.Now().Add(waitTime)}
	if o.Action != BlockEgress { // to deny is too late by then, so it is killed, too
		h, err := open(e.o.Proc, t.key)
		if err != nil {
			settle(act, err)
			return
		}
		w.handle, w.opened = h, true
	}
	if !e.addWait(w) {
		w.close()
		act.Outcome, act.Reason = Failed, "too many actions wait for what their container is"
		return
	}
	act.Outcome = Waiting
}

func (e *Enforcer) addWait(w *wait) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting) >= maxWaiting {
		return false
	}
	e.waiting = append(e.waiting, w)
	return true
}

// Run does what has to wait, and lifts what is over, until ctx ends, which is to be
// after the last [Enforcer.Judge]. Then nothing waits any longer, and everything is
// lifted.
func (e *Enforcer) Run(ctx context.Context) {
	e.look(time.Now())
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			e.stop(time.Now())
			return
		case <-ticker.C:
			e.tick(time.Now())
		}
	}
}

// stop gives back what is held.
func (e *Enforcer) stop(now time.Time) {
	e.settleWaits(now)
	e.mu.Lock()
	waiting := e.waiting
	e.waiting, e.ended = nil, true
	e.mu.Unlock()
	for _, w := range waiting {
		e.giveUp(w, "the agent ended")
	}
	e.tellDenials(now.Add(maxFor))
	e.lift(now.Add(2 * maxFor))
}

func (e *Enforcer) tick(now time.Time) {
	e.settleWaits(now)
	e.tellDenials(now)
	e.lift(now)
	e.mu.Lock()
	look := now.Sub(e.looked) > lookAgain || e.changed && now.Sub(e.looked) > lookSoonest
	e.mu.Unlock()
	if look {
		e.look(now)
	}
}

// settleWaits does what has waited long enough, or for what is known by now.
func (e *Enforcer) settleWaits(now time.Time) {
	e.mu.Lock()
	var ready []*wait
	e.waiting = slices.DeleteFunc(e.waiting, func(w *wait) bool {
		details := e.o.Containers(w.t.container.ID)
		if details != nil {
			known := *w.t.container
			known.Known, known.Details = true, *details
			w.t.container = &known
		}
		if details != nil || now.After(w.until) {
			ready = append(ready, w)
			return true
		}
		return false
	})
	e.mu.Unlock()
	for _, w := range ready {
		switch {
		case !w.t.container.Known:
			e.giveUp(w, "the runtime does not tell whose container it is")
		case w.alert != nil:
			e.settleDrift(w)
		default:
			e.settleOrder(w)
		}
	}
}

func (e *Enforcer) giveUp(w *wait, reason string) {
	defer w.close()
	if w.alert == nil || w.act.Action != "" {
		w.act.Time, w.act.Outcome, w.act.Reason = time.Now(), Refused, reason
		e.finish(w.act, w.alert)
	}
	if w.alert != nil {
		w.alert.OutputFields["container.pending"] = true
		e.o.Emit(*w.alert)
	}
}

func (e *Enforcer) settleOrder(w *wait) {
	defer w.close()
	if covered, _ := w.o.covers(w.t.container); !covered {
		return
	}
	if pod := w.t.container.Pod; pod != nil {
		w.act.Pod, w.act.Namespace = pod.Name, pod.Namespace
	}
	w.act.Time = time.Now()
	if reason := e.refuse(w.t); reason != "" {
		w.act.Outcome, w.act.Reason = Refused, reason
	} else {
		e.late(w)
	}
	e.finish(w.act, w.alert)
}

// late carries out what has waited.
func (e *Enforcer) late(w *wait) {
	if w.o.Action == BlockEgress {
		e.carryOut(w.o, w.t, &w.act)
		return
	}
	w.act.By = agentsWay
	settle(&w.act, e.end(w.o, w.handle, &w.act))
}
