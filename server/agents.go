package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus"
	"github.com/kubeguardian/kubeguardian/bus/fleet"
	"github.com/kubeguardian/kubeguardian/bus/hub"
	"github.com/kubeguardian/kubeguardian/bus/identity"
	"github.com/kubeguardian/kubeguardian/bus/verdict"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/finding"
)

// agents are the node agents, and the bus by which they report.
type agents struct {
	hub      *hub.Hub // nil: the bus is elsewhere
	conn     *nats.Conn
	consumer *bus.Consumer
	fleet    *fleet.Fleet
	newRules chan struct{}  // sent to when the rules for agents have changed
	judge    *verdict.Judge // of commands in containers
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

// openBus starts the bus, or connects to one, if agents are to report.
func (s *Server) openBus(context.Context) (err error) {
	c := s.cfg.Bus
	if !c.On() {
		return nil
	}
	a := &agents{fleet: fleet.New(time.Now()), newRules: make(chan struct{}, 1)}
	if a.judge, err = s.newJudge(s.commands); err != nil {
		return err
	}
	if c.Listen != "" {
		if a.hub, err = s.startHub(); err != nil {
			return err
		}
		s.onStop(func() error { a.hub.Stop(); return nil })
		a.conn, err = a.hub.Connect()
	} else {
		e := bus.Endpoint{URL: c.External.URL, CredentialsFile: c.External.CredentialsFile, CAFile: c.External.CAFile, CertFile: c.External.CertFile, KeyFile: c.External.KeyFile}
		a.conn, err = e.Connect("kubeguardian "+s.cfg.Cluster, s.log)
	}
	if err != nil {
		return err
	}
	s.onStop(func() error { a.conn.Close(); return nil })
	a.consumer = bus.NewConsumer(s.takeAlerts, s.log)
	s.agents = a
	s.metrics.registry.MustRegister(busCollector{a})
	return nil
}

// startHub starts the embedded bus.
func (s *Server) startHub() (*hub.Hub, error) {
	c := s.cfg.Bus
	if c.HostTokens != "" {
		if err := identity.Check(c.HostTokens); err != nil {
			return nil, err
		}
	}
	tokens := identity.New(s.client, c.ServiceAccounts, c.HostTokens)
	h, err := hub.Start(hub.Options{
		Listen: c.Listen, TLS: s.busTLS(), Dir: filepath.Join(s.cfg.DataDir, "bus"), Bytes: int64(c.MaxMiB) << 20, Sync: c.Sync,
		Node: tokens.Node, Log: s.log,
	})
	if err != nil {
		return nil, &bindError{"bus", err}
	}
	return h, nil
}

// busTLS returns how agents reach the embedded bus; nil is without TLS.
func (s *Server) busTLS() *tls.Config {
	c := s.cfg.Bus
	hosts := c.Hosts
	host, _, err := net.SplitHostPort(c.Listen)
	ip := net.ParseIP(host)
	if err == nil && len(hosts) == 0 && (host == "localhost" || ip.IsLoopback()) {
		return nil
	}
	if !ip.IsUnspecified() {
		hosts = append(hosts[:len(hosts):len(hosts)], host)
	}
	return s.authority.ServerTLS(hosts...)
}

// serveBus takes what agents send, and gives them their rules, until ctx ends.
func (s *Server) serveBus(ctx context.Context) error {
	if s.agents == nil {
		return nil
	}
	js, err := jetstream.New(s.agents.conn)
	if err != nil {
		return fmt.Errorf("use the bus: %w", err)
	}
	if !s.prepareBus(ctx, js) {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.agents.consumer.Run(ctx, js) })
	group.Go(func() error { s.followAgents(ctx, js); return nil })
	group.Go(func() error { s.judgeAgents(ctx); return nil })
	group.Go(func() error { s.agents.judge.Run(ctx); return nil })
	group.Go(func() error { s.giveRules(ctx, js); return nil })
	return group.Wait()
}

// prepareBus makes the streams; it returns false when ctx ends before they are
// there.
func (s *Server) prepareBus(ctx context.Context, js jetstream.JetStream) bool {
	replicas := s.cfg.Bus.External.Replicas
	if s.agents.hub != nil {
		replicas = 1
	}
	for {
		try, cancel := context.WithTimeout(ctx, 3*busRetry)
		err := bus.Prepare(try, js, bus.Bounds{AlertBytes: int64(s.cfg.Bus.MaxMiB) << 20, Replicas: replicas, StateAge: stateAge})
		cancel()
		s.state.update(func(st *state) { st.bus = err })
		if err == nil {
			s.log.Info("agents can report", "bus", s.BusURL())
			return true
		}
		s.agents.fleet.Blind(time.Now())
		s.log.Error("agents cannot report", "error", err)
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

// BusURL returns how agents reach the bus, "" if there is none.
func (s *Server) BusURL() string {
	switch {
	case s.agents == nil:
		return ""
	case s.agents.hub == nil:
		return s.cfg.Bus.External.URL
	case s.busTLS() == nil:
		return "nats://" + s.agents.hub.Addr().String()
	}
	return "tls://" + s.agents.hub.Addr().String()
}

// takeAlerts stores alerts of agents, with what the audit log has said of their
// pods.
func (s *Server) takeAlerts(ctx context.Context, batch []*bus.Message) error {
	alerts := make([]alert.Alert, 0, len(batch))
	for _, m := range batch {
		if !s.agents.judge.Take(m) {
			s.enrich.Involve(&m.Alert)
			alerts = append(alerts, m.Alert)
		}
	}
	return s.keep(ctx, alerts)
}

// followAgents keeps what agents say of themselves.
func (s *Server) followAgents(ctx context.Context, js jetstream.JetStream) {
	for ctx.Err() == nil {
		err := bus.FollowStates(ctx, js, func(st *fleet.State, at time.Time) { s.agents.fleet.Seen(*st, at) }, func(subject string, err error) {
			s.log.Warn("the state of an agent cannot be read", "subject", subject, "error", err)
		})
		if err != nil && ctx.Err() == nil {
			s.agents.fleet.Blind(time.Now())
			s.log.Error("agents are not heard until that works again", "error", err)
			wait(ctx, busRetry)
		}
	}
}

// aboutAgent returns the rule and the priority of the alert for a change.
func aboutAgent(k fleet.Kind) (rule string, p alert.Priority) {
	switch k {
	case fleet.FellSilent:
		return "Agent is silent", alert.Critical
	case fleet.SpeaksAgain:
		return "Agent is no longer silent", alert.Notice
	case fleet.LosesAlerts:
		return "Agent loses alerts", alert.Critical
	case fleet.DropsEvents:
		return "Agent drops events", alert.Error
	}
	return "Agent refuses rules", alert.Error
}

// judgeAgents tells what changes with agents.
func (s *Server) judgeAgents(ctx context.Context) {
	for wait(ctx, fleetInterval) {
		now := time.Now()
		if !s.agents.conn.IsConnected() {
			s.agents.fleet.Blind(now)
		}
		for _, c := range s.agents.fleet.Judge(now, s.nodes()) {
			rule, priority := aboutAgent(c.Kind)
			s.log.Warn("an agent needs attention", "node", c.Node, "what", c.Text)
			s.raiseAbout(ctx, finding.Subject{APIVersion: "v1", Kind: "Node", Name: c.Node}, priority, rule, c.Node+"\x00"+c.Event, c.Text)
		}
	}
}

// nodes returns the names of the cluster's nodes, nil if they are not known.
func (s *Server) nodes() map[string]bool {
	s.state.mu.RLock()
	inv := s.state.inventory
	s.state.mu.RUnlock()
	if inv == nil || inv.Gap("", "Node") != "" {
		return nil
	}
	nodes := map[string]bool{}
	for _, o := range inv.Kind("", "Node") {
		nodes[o.GetName()] = true
	}
	return nodes
}

// agentProblems returns what is wrong with agents, one sentence each. The state
// is locked.
func (s *Server) agentProblems(st *state) []string {
	if s.agents == nil {
		return nil
	}
	var out []string
	if st.bus != nil {
		out = append(out, fmt.Sprintf("Agents cannot report: %v.", st.bus))
	}
	stats := s.agents.consumer.Stats()
	if stats.Err != nil {
		out = append(out, fmt.Sprintf("Alerts of agents are not taken from the bus: %v.", stats.Err))
	}
	for _, cause := range []string{"malformed", "foreign", "unstorable"} {
		if n := stats.Rejected[cause]; n > 0 {
			out = append(out, fmt.Sprintf("Since the start %d alerts of agents were rejected as %s.", n, cause))
		}
	}
	now := time.Now()
	nodes := map[string]bool{}
	if st.inventory != nil && now.Sub(st.began) > nodesAfter {
		for _, o := range st.inventory.Kind("", "Node") {
			nodes[o.GetName()] = true
		}
	}
	return append(out, s.agents.fleet.Problems(now, nodes)...)
}

// listedAgents returns all agents, nil if none can report.
func (s *Server) listedAgents() []fleet.Agent {
	if s.agents == nil {
		return nil
	}
	return s.agents.fleet.Agents(time.Now())
}

// giveRules sends the rules for system calls to agents, now and when they change.
func (s *Server) giveRules(ctx context.Context, js jetstream.JetStream) {
	for {
		r, err := s.agentsRules()
		if err == nil && r != nil {
			err = bus.SendRules(ctx, js, r)
		}
		var again <-chan time.Time
		if err != nil && ctx.Err() == nil {
			s.log.Error("agents have not got their rules", "error", err)
			again = time.After(busRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-s.agents.newRules:
		}
	}
}

// agentsRules returns the rules for agents: those that are in force here, or nil
// if none of them is about system calls.
func (s *Server) agentsRules() (*bus.Rules, error) {
	set := s.rules.Load()
	has := false
	for _, r := range set.Rules() {
		has = has || r.Source == event.Syscall && r.Enabled
	}
	if !has {
		return nil, nil
	}
	files := s.ruleTexts.Load()
	if files == nil {
		return nil, errors.New("the rule files in force are not known")
	}
	cfg := s.cfg.Detection
	r := &bus.Rules{Match: cfg.Match, Priority: cfg.Priority, Static: map[string]string{}}
	for _, f := range *files {
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
	return r, nil
}

// changedRules says that the rules for agents may have changed. It never waits.
func (s *Server) changedRules() {
	if s.agents == nil {
		return
	}
	select {
	case s.agents.newRules <- struct{}{}:
	default:
	}
}
