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
	var err error
	set.Unread.Critical, err = s.eachAlert(ctx, alert.Query{Priority: &critical}, maxOpenAlerts, func(a *alert.Alert) {
		set.Alerts = append(set.Alerts, evidence.Alert{Origin: origin, Rule: a.Rule, At: a.Time, Subject: a.Subject, Critical: true, Respond: s.cfg.Detection.RespondWithin})
	})
	if err != nil {
		return nil, err
	}
	set.Unread.Drift, err = s.eachAlert(ctx, alert.Query{Drift: true}, maxOpenAlerts, func(a *alert.Alert) {
		if slices.Contains(a.Tags, alert.DriftTag) {
			set.Alerts = append(set.Alerts, evidence.Alert{Origin: origin, Rule: a.Rule, At: a.Time, Subject: a.Subject, Drift: true})
		}
	})
	return set, err
}

// eachAlert calls f with the newest stored alerts about this cluster, about as many as
// most, and returns up to when there are more, of which nobody knows what they are
// about; zero: none. So it is with those that were only counted, as a rule had too many.
func (s *Server) eachAlert(ctx context.Context, q alert.Query, most int, f func(*alert.Alert)) (unread time.Time, err error) {
	q.Cluster, q.Limit = s.cfg.Cluster, min(most, 1000)
	for n := 0; n < most; {
		page, next, err := s.store.Alerts(ctx, q)
		if err != nil {
			return unread, err
		}
		for i := range page {
			a := &page[i].Alert
			if a.OverLimit && a.Repeats != nil && a.Repeats.Last.After(unread) {
				unread = a.Repeats.Last
			}
			f(a)
		}
		if next == (finding.Cursor{}) {
			return unread, nil
		}
		n, q.Before = n+len(page), next
	}
	if q.Before.Time.After(unread) {
		unread = q.Before.Time
	}
	return unread, nil
}

// restart is how long an agent that was told to end may take to start again, as in an
// update, before its node counts as one without.
const restart = 2 * time.Minute

// byFalco is why nothing is known of a node without an agent where alerts of Falco are
// taken.
const byFalco = "no agent reports, and of Falco, which says nothing while nothing happens, a runtime document has to say whether it is there"

// sensors returns what agents say of themselves, and of each node without one since
// when it is waited for.
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
		reports[a.Node] = true
		out = append(out, heard(beat, &a, now))
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
		if s.cfg.Falco.Listen != "" {
			h.Unheard = byFalco
		}
		out = append(out, h)
	}
	return out
}

// heard returns what an agent says of itself.
func heard(h evidence.Heartbeat, a *fleet.Agent, now time.Time) evidence.Heartbeat {
	h.Node, h.At = a.Node, a.LastSeen
	// Alerts of rules that are the agent's own are not looked for.
	h.Drift = fact.Of(a.Drift && a.RulesHash != "" && a.Status != fleet.Stopped)
	switch {
	case a.Status == fleet.Stopped && now.Sub(a.LastSeen) <= restart:
		h.Unheard = "its agent was stopped less than " + restart.String() + " ago, and may be about to start again"
	case a.Status == fleet.Stopped:
		h.Problems = a.Reasons
	case a.Status == fleet.Degraded:
		h.Problems = a.Misses
	}
	return h
}
