// Package agent guards one node: it runs the sensor, knows the processes and
// containers of the node, matches events against detection rules, and sends the
// alerts to a server, or prints them.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/enforce"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor"
	"github.com/kubeguardian/kubeguardian/sensor/container"
	"github.com/kubeguardian/kubeguardian/sensor/process"
	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// Options are what an [Agent] is made of.
type Options struct {
	Config  *Config
	Out     io.Writer    // alerts, one line of JSON each; nil if they go to the server that Config names
	Log     *slog.Logger // what the operator should know
	Open    Opener       // the sensor
	Version string
	Record  io.Writer // events that rules are asked about, as package syscall records them; nil for none
}

// An Opener starts the sensor for types of events, those included that processes
// are known by, and for what rules need of them.
type Opener func(types []string, needs rule.Needs, c *Config) (Source, error)

// A Source yields what the kernel says of events.
type Source interface {
	// Run reads records until ctx ends. It calls worker for each goroutine that
	// reads, and then the function that worker returned for each record, all
	// records of a process by the same one.
	Run(ctx context.Context, worker func() func(*record.Record)) error
	// Status returns what the source can and has done.
	Status() SourceStatus
	Close() error
}

// A SourceStatus is what a [Source] can and has done.
type SourceStatus struct {
	Features []Feature
	Missing  map[string]error  // why the kernel does not show a type of events, by its name
	Counters map[string]uint64 // by name; dropped is among them
	Dropped  map[string]uint64 // events by type, of those that were
}

// A Feature is something that the sensor needs of the kernel.
type Feature struct {
	Name   string `json:"name"`
	Used   string `json:"used,omitempty"`   // how it is done; empty if it is not
	Reason string `json:"reason,omitempty"` // why it is not done in the best way
}

// An Agent is one node's guard.
type Agent struct {
	o        Options
	ruling   atomic.Pointer[ruling]
	enforcer *enforce.Enforcer // nil if nothing is ordered
	shedder  *shedder          // nil without a budget
	pipeline *pipeline
	heart    *heart
	table    *process.Table
	clock    *process.Clock
	runtime  *container.Runtime // nil on a host without
	source   Source
	status   *status
	reporter *reporter // nil if alerts are printed
	opened   []string  // types of events that the sensor was started for
	kept     *compiled // the rules of the server that the agent started with; nil: its own
	stops    []stop
}

// A stop undoes one step of [New].
type stop struct {
	name string
	do   func() error
}

// lifecycle are the events that what is known of processes is made of. They are
// seen whatever the rules are about.
var lifecycle = [...]string{"clone", "clone3", "fork", "vfork", "execve", "execveat", "procexit", "chdir", "fchdir", "capset"}

// New loads the rules and starts the sensor. The agent runs with [Agent.Run].
func New(o Options) (_ *Agent, err error) {
	a := &Agent{o: o, clock: process.NewClock()}
	a.heart = &heart{agent: a, types: map[string]*pulse{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	c, err := a.firstRules()
	if err != nil {
		return nil, err
	}
	rules := a.newRuling(c.set)
	if len(rules.needs.Rules) == 0 {
		return nil, errors.New("load rules: none of them is enabled and of source syscall")
	}
	a.ruling.Store(rules)
	if err := a.findRuntime(); err != nil {
		return nil, err
	}
	a.newTable()
	a.opened = append(rules.types(), c.entrance.types()...)
	if a.source, err = o.Open(a.opened, rules.needs, o.Config); err != nil {
		return nil, fmt.Errorf("start the sensor: %w", err)
	}
	a.onStop("sensor", a.source.Close)
	hostname, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("find the name of the host: %w", err)
	}
	a.pipeline = &pipeline{
		table: a.table, ruling: &a.ruling, heart: a.heart, self: uint32(os.Getpid()), hostname: hostname, boot: bootID(o.Config.Proc), pending: a.runtime != nil,
	}
	a.pipeline.entrance.Store(c.entrance)
	a.pipeline.mode.Store(uint32(c.mode))
	if err := a.newEnforcer(); err != nil {
		return nil, err
	}
	if o.Config.CPUBudget > 0 {
		a.shedder = newShedder(a)
	}
	a.status = newStatus(a)
	if o.Out == nil {
		if a.reporter, err = a.newReporter(); err != nil {
			return nil, err
		}
		a.pipeline.hostname = a.reporter.node
	}
	if o.Config.Status != "" {
		if err := a.status.listen(o.Config.Status); err != nil {
			return nil, err
		}
		a.onStop("status page", a.status.close)
	}
	return a, nil
}

func (a *Agent) onStop(name string, do func() error) { a.stops = append(a.stops, stop{name, do}) }

// close undoes what New did, the newest first.
func (a *Agent) close() error {
	var errs []error
	for _, s := range slices.Backward(a.stops) {
		if err := s.do(); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", s.name, err))
		}
	}
	a.stops = nil
	return errors.Join(errs...)
}

// loadRules loads the rules of a configuration and tells what is suspect in
// them.
func loadRules(c *Config, log *slog.Logger) (*rule.Set, error) {
	files, err := content.Read[rule.File](content.Rules(), c.Rules...)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	minimum, err := alert.ParsePriority(c.Priority)
	if err != nil {
		return nil, err
	}
	set, results := rule.Options{Minimum: &minimum}.Load(files...)
	for _, r := range results {
		for _, w := range r.Warnings {
			log.Warn("suspect in a rule", "message", w.Error(), "code", w.Code)
		}
	}
	if set == nil {
		return nil, rule.Mistakes(results)
	}
	return set, nil
}

// notCovered tells of each rule that waits for events which the sensor does not
// show here. A rule about any event is not meant.
func (a *Agent) notCovered() map[string][]string {
	missing, needs := a.source.Status().Missing, a.ruling.Load().needs
	types := map[string]int{}
	for _, names := range needs.Rules {
		for _, name := range names {
			types[name]++
		}
	}
	out := map[string][]string{}
	for _, typ := range needs.Types() {
		if _, known := record.TypeOf(typ); known && missing[typ] == nil {
			continue
		}
		for _, name := range needs.Rules[typ] {
			if types[name] < anyType {
				out[name] = append(out[name], typ)
			}
		}
	}
	return out
}

// anyType is how many types a rule can match that does not name any.
const anyType = 100

func (a *Agent) findRuntime() error {
	socket := a.o.Config.CRI
	switch socket {
	case noRuntime:
		return nil
	case "":
		found, err := container.Find(strings.TrimSuffix(a.o.Config.Root, "/"))
		if errors.Is(err, container.ErrNoRuntime) {
			a.o.Log.Info("no container runtime found: containers have an id and no name")
			return nil
		}
		socket = found
	}
	runtime, err := container.Dial(socket)
	if err != nil {
		return err
	}
	a.runtime = runtime
	a.onStop("connection to the container runtime", runtime.Close)
	return nil
}

func (a *Agent) newTable() {
	c := a.o.Config
	o := process.Options{Proc: c.Proc, Users: container.NewUsers(c.Proc, c.Root), Clock: a.clock, Env: c.Environment}
	if a.runtime != nil {
		o.Containers, o.Announced = a.runtime.Lookup, a.runtime.Announced
	}
	a.table = process.New(o)
}

// bootID returns what tells this run of the node from all others.
func bootID(proc string) string {
	data, err := os.ReadFile(filepath.Join(proc, "sys/kernel/random/boot_id"))
	if err != nil {
		return time.Now().UTC().Format(time.RFC3339Nano)
	}
	return strings.TrimSpace(string(data))
}

// How often the agent sees to itself.
const (
	clockInterval = 10 * time.Second
	sweepInterval = 30 * time.Second
)

// A phase is what runs beside the sensor until it is ended, which may be later than
// the context that it began with.
type phase struct {
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
}

func newPhase(ctx context.Context) *phase {
	p := &phase{}
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return p
}

func (p *phase) start(do func(context.Context)) { p.running.Go(func() { do(p.ctx) }) }

func (p *phase) end() {
	p.cancel()
	p.running.Wait()
}

// Run raises alerts until ctx ends, and then stops the sensor. It is called
// once.
//
// When ctx ends, the sensor reads what was made until then. Who acts on that ends
// after it, and who tells of that last, so that nothing of it is lost.
func (a *Agent) Run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	acting, telling := newPhase(ctx), newPhase(ctx)
	defer func() {
		cancel()
		acting.end()
		telling.end()
		err = errors.Join(err, a.close())
	}()
	a.pipeline.out, a.pipeline.record = newOutput(a.o.Out, cancel), newOutput(a.o.Record, cancel)
	if a.reporter != nil {
		a.pipeline.out.deliver = a.reporter.deliver
		telling.start(a.reporter.run)
	}
	if a.runtime != nil {
		acting.start(a.runtime.Run)
	}
	if err := a.table.Snapshot(); err != nil {
		return err
	}
	a.report()
	debug.FreeOSMemory() // to load rules and programs takes twice what the agent needs afterwards
	acting.start(a.maintain)
	if source, ok := a.source.(beater); ok {
		acting.running.Go(func() { a.heart.run(ctx, source) })
	}
	if a.enforcer != nil {
		acting.start(a.enforcer.Run)
	}
	if a.shedder != nil {
		acting.running.Go(func() { a.shedder.run(ctx) })
	}
	if err := a.source.Run(ctx, a.pipeline.worker); err != nil && ctx.Err() == nil {
		return fmt.Errorf("read events: %w", err)
	}
	cancel() // a source may end by itself
	acting.end()
	a.o.Log.Info("stopped", "events", a.pipeline.records.Load(), "alerts", a.pipeline.alerts.Load(), "dropped", a.source.Status().Counters["dropped"])
	return errors.Join(a.pipeline.out.error(), a.pipeline.record.error())
}

// report tells once what the agent does and what it cannot.
func (a *Agent) report() {
	s := a.source.Status()
	for _, f := range s.Features {
		if f.Name == sensor.DenyFeature && a.enforcer != nil {
			continue // it says itself what that means
		}
		if f.Reason != "" {
			a.o.Log.Warn("a feature of the sensor is missing", "feature", f.Name, "used", f.Used, "reason", f.Reason)
		}
	}
	not := a.notCovered()
	for _, name := range slices.Sorted(maps.Keys(not)) {
		a.o.Log.Warn("a rule is not covered", "rule", name, "events", strings.Join(not[name], " "))
	}
	if a.enforcer != nil {
		state := a.enforcer.Status()
		for _, err := range state.Errors {
			a.o.Log.Warn("the configuration is not enforced as it is written", "error", err)
		}
		a.o.Log.Info("enforcing", "rules", state.String())
	}
	a.o.Log.Info("watching", "rules", a.ruling.Load().count, "processes", a.table.Stats().Known)
}

// maintain keeps the clock right and the table small, and tells of events that
// were dropped.
func (a *Agent) maintain(ctx context.Context) {
	clock, sweep := time.NewTicker(clockInterval), time.NewTicker(sweepInterval)
	defer clock.Stop()
	defer sweep.Stop()
	drops := drops{agent: a}
	for {
		select {
		case <-ctx.Done():
			drops.look(time.Now(), true)
			return
		case now := <-clock.C:
			a.clock.Set()
			drops.look(now, false)
		case <-sweep.C:
			if err := a.table.Sweep(); err != nil {
				a.o.Log.Warn("compare processes", "error", err)
			}
		}
	}
}

// StatusAddr returns where the status is served, nil if it is not.
func (a *Agent) StatusAddr() net.Addr { return a.status.addr() }
