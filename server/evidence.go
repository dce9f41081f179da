package server

import (
	"context"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
)

// maxOpenAlerts bounds the critical alerts that a scan looks at, newest first.
const maxOpenAlerts = 10_000

// evidence returns what the server has seen itself: whether audit events
// arrive, and the critical alerts that it keeps.
func (s *Server) evidence(ctx context.Context, now time.Time) (*evidence.Set, error) {
	origin := evidence.Origin{Kind: evidence.Runtime, Tool: "kubeguardian", Source: "audit webhook", SeenAt: now}
	s.state.mu.RLock()
	set := &evidence.Set{Heartbeats: []evidence.Heartbeat{
		{Origin: origin, Stream: evidence.AuditStream, Since: s.state.began, At: s.state.lastEvent},
	}}
	s.state.mu.RUnlock()
	critical := alert.Critical
	q := alert.Query{Priority: &critical, Limit: 1000}
	for len(set.Alerts) < maxOpenAlerts {
		page, next, err := s.store.Alerts(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, a := range page {
			set.Alerts = append(set.Alerts, evidence.Alert{
				Origin: origin, Rule: a.Rule, At: a.Time, Subject: a.Subject, Respond: s.cfg.Detection.RespondWithin,
			})
		}
		if next == (finding.Cursor{}) {
			break
		}
		q.Before = next
	}
	return set, nil
}
