// Package agents is the server's side of the bus: it runs the bus or joins one, takes
// the alerts that node agents send, gives them their rules, and tells what changes
// with them.
package agents

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus"
	"github.com/kubeguardian/kubeguardian/bus/fleet"
	"github.com/kubeguardian/kubeguardian/bus/hub"
	"github.com/kubeguardian/kubeguardian/bus/identity"
	"github.com/kubeguardian/kubeguardian/bus/verdict"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/server/listener"
)

// Options are what agents are looked after with. All are needed.
type Options struct {
	Config  config.Bus
	Cluster string
	Dir     string                                     // where an embedded bus keeps its streams
	Client  kubernetes.Interface                       // asked whose a token is
	TLS     func(hosts ...string) *tls.Config          // of an embedded bus
	Judge   *verdict.Judge                             // of commands in containers
	Keep    func(context.Context, []alert.Alert) error // stores alerts; they are on disk when it returns nil
	// Rules returns the rules for agents, nil if there are none.
	Rules func() (*bus.Rules, error)
	// Raise stores alerts of the server's own, of which each has what happened as its
	// id, and returns those that are new.
	Raise func(context.Context, []alert.Alert) []alert.Alert
	// Nodes returns the names of the cluster's nodes, nil if they are not known.
	Nodes func() map[string]bool
	Log   *slog.Logger
}

// Agents are the node agents, and the bus by which they report.
type Agents struct {
	o        Options
	hub      *hub.Hub // nil: the bus is elsewhere
	conn     *nats.Conn
	consumer *bus.Consumer
	fleet    *fleet.Fleet
	newRules chan struct{} // sent to when the rules for agents have changed
	began    time.Time

	mu  sync.Mutex
	err error // why agents cannot report
}

// How the server looks after its agents.
const (
	fleetInterval = 2 * time.Second
	busRetry      = 5 * time.Second
	stateAge      = 24 * time.Hour
	// nodesAfter is how long a node may be without an agent before that is a
	// problem: after a start, and while agents are rolled out.
	nodesAfter = 5 * time.Minute
)

// Open starts the bus that the configuration says, or connects to it. On an error
// nothing stays open.
func Open(o Options) (*Agents, error) {
	a := &Agents{o: o, fleet: fleet.New(time.Now()), newRules: make(chan struct{}, 1), began: time.Now()}
	if err := a.connect(); err != nil {
		a.Close()
		return nil, err
	}
	a.consumer = bus.NewConsumer(a.take, o.Log)
	return a, nil
}

func (a *Agents) connect() (err error) {
	c := a.o.Config
	if c.Listen != "" {
		if a.hub, err = a.startHub(); err != nil {
			return err
		}
		a.conn, err = a.hub.Connect()
		return err
	}
	e := bus.Endpoint{URL: c.External.URL, CredentialsFile: c.External.CredentialsFile, CAFile: c.External.CAFile, CertFile: c.External.CertFile, KeyFile: c.External.KeyFile}
	a.conn, err = e.Connect("kubeguardian "+a.o.Cluster, a.o.Log)
	return err
}

// Close leaves the bus, and ends an embedded one.
func (a *Agents) Close() {
	if a.conn != nil {
		a.conn.Close()
	}
	if a.hub != nil {
		a.hub.Stop()
	}
}

// startHub starts the embedded bus.
func (a *Agents) startHub() (*hub.Hub, error) {
	c := a.o.Config
	if c.HostTokens != "" {
		if err := identity.Check(c.HostTokens); err != nil {
			return nil, err
		}
	}
	tokens := identity.New(a.o.Client, c.ServiceAccounts, c.HostTokens)
	h, err := hub.Start(hub.Options{
		Listen: c.Listen, TLS: a.busTLS(), Dir: a.o.Dir, Bytes: int64(c.MaxMiB) << 20, Sync: c.Sync,
		Node: tokens.Node, Log: a.o.Log,
	})
	if err != nil {
		return nil, &listener.Error{Name: "bus", Err: err}
	}
	return h, nil
}

// busTLS returns how agents reach the embedded bus; nil is without TLS.
func (a *Agents) busTLS() *tls.Config {
	c := a.o.Config
	hosts := c.Hosts
	host, _, err := net.SplitHostPort(c.Listen)
	ip := net.ParseIP(host)
	if err == nil && len(hosts) == 0 && (host == "localhost" || ip.IsLoopback()) {
		return nil
	}
	if !ip.IsUnspecified() {
		hosts = append(hosts[:len(hosts):len(hosts)], host)
	}
	return a.o.TLS(hosts...)
}

// Run takes what agents send, and gives them their rules, until ctx ends.
func (a *Agents) Run(ctx context.Context) error {
	js, err := jetstream.New(a.conn)
	if err != nil {
		return fmt.Errorf("use the bus: %w", err)
	}
	if !a.prepareBus(ctx, js) {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.consumer.Run(ctx, js) })
	group.Go(func() error { a.followAgents(ctx, js); return nil })
	group.Go(func() error { a.judgeAgents(ctx); return nil })
	group.Go(func() error { a.o.Judge.Run(ctx); return nil })
	group.Go(func() error { a.giveRules(ctx, js); return nil })
	return group.Wait()
}

// prepareBus makes the streams; it returns false when ctx ends before they are
// there.
func (a *Agents) prepareBus(ctx context.Context, js jetstream.JetStream) bool {
	replicas := a.o.Config.External.Replicas
	if a.hub != nil {
		replicas = 1
	}
	for {
		try, cancel := context.WithTimeout(ctx, 3*busRetry)
		err := bus.Prepare(try, js, bus.Bounds{AlertBytes: int64(a.o.Config.MaxMiB) << 20, Replicas: replicas, StateAge: stateAge})
		cancel()
		a.mu.Lock()
		a.err = err
		a.mu.Unlock()
		if err == nil {
			a.o.Log.Info("agents can report", "bus", a.URL())
			return true
		}
		a.fleet.Blind(time.Now())
		a.o.Log.Error("agents cannot report", "error", err)
		if !wait(ctx, busRetry) {
			return false
		}
	}
}

// wait returns false when ctx ends before the time.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// URL returns how agents reach the bus.
func (a *Agents) URL() string {
	switch {
	case a.hub == nil:
		return a.o.Config.External.URL
	case a.busTLS() == nil:
		return "nats://" + a.hub.Addr().String()
	}
	return "tls://" + a.hub.Addr().String()
}

// take stores alerts of agents, but for the commands that are to be judged first.
func (a *Agents) take(ctx context.Context, batch []*bus.Message) error {
	alerts := make([]alert.Alert, 0, len(batch))
	for _, m := range batch {
		if !a.o.Judge.Take(m) {
			alerts = append(alerts, m.Alert)
		}
	}
	return a.o.Keep(ctx, alerts)
}

// followAgents keeps what agents say of themselves.
func (a *Agents) followAgents(ctx context.Context, js jetstream.JetStream) {
	for ctx.Err() == nil {
		err := bus.FollowStates(ctx, js, func(st *fleet.State, at time.Time) { a.fleet.Seen(*st, at) }, func(subject string, err error) {
			a.o.Log.Warn("the state of an agent cannot be read", "subject", subject, "error", err)
		})
		if err != nil && ctx.Err() == nil {
			a.fleet.Blind(time.Now())
			a.o.Log.Error("agents are not heard until that works again", "error", err)
			wait(ctx, busRetry)
		}
	}
}

// urgency returns the priority of the alert for a change.
func urgency(k fleet.Kind) alert.Priority {
	switch k {
	case fleet.FellSilent, fleet.LosesAlerts:
		return alert.Critical
	case fleet.SpeaksAgain:
		return alert.Notice
	}
	return alert.Error
}

// judgeAgents tells what changes with agents.
func (a *Agents) judgeAgents(ctx context.Context) {
	for wait(ctx, fleetInterval) {
		now := time.Now()
		if !a.conn.IsConnected() {
			a.fleet.Blind(now)
		}
		var list []alert.Alert
		for _, c := range a.fleet.Judge(now, a.o.Nodes()) {
			list = append(list, alert.Alert{
				ID: c.Node + "\x00" + c.Event, Rule: c.Kind.Rule(), Priority: urgency(c.Kind), Output: c.Text,
				Subject: finding.Subject{APIVersion: "v1", Kind: "Node", Name: c.Node},
			})
		}
		for _, raised := range a.o.Raise(ctx, list) {
			a.o.Log.Warn("an agent needs attention", "node", raised.Subject.Name, "what", raised.Output)
		}
	}
}

// Problems returns what is wrong with agents, one sentence each. nodes are those of
// the cluster, nil if they are not known.
func (a *Agents) Problems(nodes map[string]bool) []string {
	var out []string
	a.mu.Lock()
	err := a.err
	a.mu.Unlock()
	if err != nil {
		out = append(out, fmt.Sprintf("Agents cannot report: %v.", err))
	}
	stats := a.consumer.Stats()
	if stats.Err != nil {
		out = append(out, fmt.Sprintf("Alerts of agents are not taken from the bus: %v.", stats.Err))
	}
	for _, cause := range []string{"malformed", "foreign", "unstorable"} {
		if n := stats.Rejected[cause]; n > 0 {
			out = append(out, fmt.Sprintf("Since the start %d alerts of agents were rejected as %s.", n, cause))
		}
	}
	now := time.Now()
	if now.Sub(a.began) <= nodesAfter {
		nodes = nil
	}
	return append(out, a.fleet.Problems(now, nodes)...)
}

// List returns all agents, those first that need somebody.
func (a *Agents) List() []fleet.Agent {
	return a.fleet.Agents(time.Now())
}

// WaitedSince returns since when nothing has kept agents from being heard.
func (a *Agents) WaitedSince() time.Time { return a.fleet.WaitedSince() }

// giveRules sends the rules for system calls to agents, now and when they change.
func (a *Agents) giveRules(ctx context.Context, js jetstream.JetStream) {
	for {
		r, err := a.o.Rules()
		if err == nil && r != nil {
			err = bus.SendRules(ctx, js, r)
		}
		var again <-chan time.Time
		if err != nil && ctx.Err() == nil {
			a.o.Log.Error("agents have not got their rules", "error", err)
			again = time.After(busRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-a.newRules:
		}
	}
}

// Rules returns the rules for agents: those of files, as the configuration changes
// them. It is nil if none of the compiled set is about system calls.
func Rules(set *rule.Set, files []rule.File, cfg config.Detection) *bus.Rules {
	if !slices.ContainsFunc(set.Rules(), func(r rule.Rule) bool { return r.Source == event.Syscall && r.Enabled }) {
		return nil
	}
	r := &bus.Rules{Match: cfg.Match, Priority: cfg.Priority, Static: map[string]string{}}
	for _, f := range files {
		r.Files = append(r.Files, bus.RuleFile{Name: f.Name, Data: f.Data})
	}
	for _, x := range cfg.Select {
		r.Select = append(r.Select, bus.RuleSelection{Rule: x.Rule, Tag: x.Tag, On: x.Enabled})
	}
	for _, x := range cfg.Append {
		add := bus.RuleAppend{Source: x.Source, Rule: x.Rule, Tags: x.Tags, Output: x.Output}
		for _, f := range x.Fields {
			add.Fields = append(add.Fields, bus.RuleField{Name: f.Name, Format: f.Format})
		}
		r.Append = append(r.Append, add)
	}
	for _, x := range cfg.Static {
		r.Static[x.Name] = x.Value
	}
	return r
}

// RulesChanged says that the rules for agents may have changed. It never waits.
func (a *Agents) RulesChanged() {
	select {
	case a.newRules <- struct{}{}:
	default:
	}
}

// Alerts counts what became of alerts of agents.
func (a *Agents) Alerts() bus.ConsumeStats { return a.consumer.Stats() }
