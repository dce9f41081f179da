package server

import (
	"context"
	"errors"
	"path/filepath"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus"
	"github.com/kubeguardian/kubeguardian/bus/fleet"
	"github.com/kubeguardian/kubeguardian/bus/verdict"
	"github.com/kubeguardian/kubeguardian/correlate"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/server/agents"
)

// openBus starts the bus, or connects to one, if agents are to report.
func (s *Server) openBus(context.Context) (err error) {
	if !s.cfg.Bus.On() {
		return nil
	}
	if s.judge, err = s.newJudge(s.commands); err != nil {
		return err
	}
	s.agents, err = agents.Open(agents.Options{
		Config: s.cfg.Bus, Cluster: s.cfg.Cluster, Dir: filepath.Join(s.cfg.DataDir, "bus"), Client: s.client, TLS: s.authority.ServerTLS,
		Judge: s.judge, Keep: s.keepOfAgents, Rules: s.agentsRules, Raise: s.raiseAll, Nodes: s.nodes, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.onStop(func() error { s.agents.Close(); return nil })
	s.metrics.registry.MustRegister(s.agents.Collector())
	return nil
}

// serveBus looks after agents, if there can be any, until ctx ends.
func (s *Server) serveBus(ctx context.Context) error {
	if s.agents == nil {
		return nil
	}
	return s.agents.Run(ctx)
}

// BusURL returns how agents reach the bus, "" if there is none.
func (s *Server) BusURL() string {
	if s.agents == nil {
		return ""
	}
	return s.agents.URL()
}

// keepOfAgents stores alerts of agents, with what the audit log has said of their
// pods.
func (s *Server) keepOfAgents(ctx context.Context, alerts []alert.Alert) error {
	for i := range alerts {
		s.enrich.Involve(&alerts[i])
	}
	fresh, err := s.add(ctx, alerts)
	s.deeds.Note(ctx, fresh)
	return err
}

// nodes returns the names of the cluster's nodes, nil if they are not known.
func (s *Server) nodes() map[string]bool {
	return nodesOf(s.inventory())
}

// inventory returns what the cluster is, nil as long as that is not known.
func (s *Server) inventory() *inventory.Inventory {
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	return s.state.inventory
}

func nodesOf(inv *inventory.Inventory) map[string]bool {
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
	return s.agents.Problems(nodesOf(st.inventory))
}

// listedAgents returns all agents, nil if none can report.
func (s *Server) listedAgents() []fleet.Agent {
	if s.agents == nil {
		return nil
	}
	return s.agents.List()
}

// agentsRules returns the rules for agents: those that are in force here, or nil
// if none of them is about system calls.
func (s *Server) agentsRules() (*bus.Rules, error) {
	files := s.ruleTexts.Load()
	if files == nil {
		return nil, errors.New("the rule files in force are not known")
	}
	return agents.Rules(s.rules.Load(), *files, s.cfg.Detection), nil
}

// newJudge returns what judges commands in containers by the audit log.
func (s *Server) newJudge(limits correlate.Options) (*verdict.Judge, error) {
	o := verdict.Options{
		Cluster:  s.cfg.Cluster,
		Expected: func(e correlate.Exec) string { return verdict.StartedBy(s.pod(e), e) },
		Known:    func(e correlate.Exec) bool { return s.pod(e) != nil },
		Keep:     s.keep, Faults: s.auditLog.Lost, Log: s.log,
	}
	if s.cfg.Detection.Heartbeat > 0 {
		o.Ask = s.auditWatch.Send
	}
	return verdict.New(o, limits)
}

// pod returns the pod of a command, nil if it is not known.
func (s *Server) pod(e correlate.Exec) *unstructured.Unstructured {
	s.state.mu.RLock()
	inv := s.state.inventory
	s.state.mu.RUnlock()
	if inv == nil {
		return nil
	}
	if o := inv.Get("", "Pod", e.Namespace, e.Pod); o != nil {
		return o.Unstructured
	}
	return nil
}
