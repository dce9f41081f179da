package server

import (
	"context"
	"slices"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus/fleet"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/fact"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/rule"
)

// maxOpenAlerts bounds the critical alerts that a scan looks at, and those about
// drift, newest first.
const maxOpenAlerts = 10_000

// evidence returns what the server has seen itself: whether audit events arrive, how
// the agents are, and the alerts that it keeps of critical events and of drift.
func (s *Server) evidence(ctx context.Context, inv *inventory.Inventory, now time.Time) (*evidence.Set, error) {
	origin := evidence.Origin{Kind: evidence.Runtime, Tool: "kubeguardian", Source: "audit webhook", SeenAt: now}
	s.state.mu.RLock()
	set := &evidence.Set{Heartbeats: []evidence.Heartbeat{
		{Origin: origin, Stream: evidence.AuditStream, Since: s.state.began, At: s.state.lastEvent},
	}}
	s.state.mu.RUnlock()
	set.Heartbeats = append(set.Heartbeats, s.sensors(inv, now)...)
	critical := alert.Critical
	queries := []alert.Query{{Priority: &critical}}
	for _, name := range tellDrift(s.rules.Load()) {
		queries = append(queries, alert.Query{Rule: name})
	}
	for _, q := range queries {
		err := s.eachAlert(ctx, q, func(a *alert.Alert) {
			one := evidence.Alert{
				Origin: origin, Rule: a.Rule, At: a.Time, Subject: a.Subject,
				Critical: a.Priority <= critical, Respond: s.cfg.Detection.RespondWithin, Drift: slices.Contains(a.Tags, alert.DriftTag),
			}
			if one.Drift || q.Rule == "" {
				set.Alerts = append(set.Alerts, one)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return set, nil
}

// tellDrift returns the rules whose alerts may be about a program that is not part of
// its image: those that are there for that, and those before them that may match the
// same event, of which only the first raises an alert.
func tellDrift(set *rule.Set) []string {
	needs := set.Needs().Rules
	starts := map[string]bool{}
	for _, name := range slices.Concat(needs["execve"], needs["execveat"]) {
		starts[name] = true
	}
	var before, out []string
	for _, r := range set.Rules() {
		if starts[r.Name] {
			before = append(before, r.Name)
		}
		if slices.Contains(r.Tags, alert.DriftTag) {
			out, before = append(out, before...), nil
		}
	}
	return out
}

// eachAlert calls f with stored alerts about this cluster.
func (s *Server) eachAlert(ctx context.Context, q alert.Query, f func(*alert.Alert)) error {
	q.Limit = 1000
	for range maxOpenAlerts / q.Limit {
		page, next, err := s.store.Alerts(ctx, q)
		if err != nil {
			return err
		}
		for i := range page {
			if a := &page[i].Alert; a.Cluster == "" || a.Cluster == s.cfg.Cluster {
				f(a)
			}
		}
		if next == (finding.Cursor{}) {
			return nil
		}
		q.Before = next
	}
	return nil
}

// sensors returns what agents say of themselves, and of each node without one since
// when it is waited for. Where alerts of Falco are taken, none is: Falco says
// nothing while nothing happens, so whether it is there is not known.
func (s *Server) sensors(inv *inventory.Inventory, now time.Time) []evidence.Heartbeat {
	if s.agents == nil {
		return nil
	}
	beat := evidence.Heartbeat{
		Origin: evidence.Origin{Kind: evidence.Runtime, Tool: "kubeguardian-agent", Source: "bus", SeenAt: now},
		Stream: evidence.SensorStream, Since: s.agents.WaitedSince(),
	}
	var out []evidence.Heartbeat
	reports := map[string]bool{}
	for _, a := range s.agents.List() {
		h := beat
		h.Node, h.At = a.Node, a.LastSeen
		// Alerts of rules that are the agent's own are not looked for.
		h.Drift = fact.Of(a.Drift && a.RulesHash != "")
		if a.Status == fleet.Degraded {
			h.Problems = a.Misses
		}
		reports[a.Node] = true
		out = append(out, h)
	}
	if s.cfg.Falco.Listen != "" {
		return out
	}
	for _, o := range inv.Kind("", "Node") {
		if reports[o.GetName()] {
			continue
		}
		h := beat
		h.Node = o.GetName()
		if made := o.GetCreationTimestamp().Time; made.After(h.Since) {
			h.Since = made
		}
		out = append(out, h)
	}
	return out
}
