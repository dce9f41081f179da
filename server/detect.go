package server

import (
	"context"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/alert/cooldown"
	"github.com/kubeguardian/kubeguardian/alert/team"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
)

// Bounds on the batches of audit events in memory. The API server sends a
// refused one again.
const (
	auditBatches = 8
	auditBytes   = 64 << 20
)

// detect runs a batch of audit events through the rules. It returns nil only
// when the alerts, and the counts of those that repeat others, are on disk: the
// API server sends the batch again otherwise, and the ids of the alerts keep a
// batch that comes twice from counting twice.
func (s *Server) detect(ctx context.Context, events []*event.Event) error {
	var alerts []alert.Alert
	newest, now := time.Time{}, time.Now()
	defer func() { s.metrics.batchTime.Observe(time.Since(now).Seconds()) }()
	ctx, span := s.tracer.Start(ctx, "audit batch")
	defer span.End()
	_, matching := s.tracer.Start(ctx, "match rules")
	rules, mode := s.rules.Load(), rule.First // a batch sees one set
	if s.cfg.Detection.Match == "all" {
		mode = rule.All
	}
	for _, e := range events {
		e.Num = s.audited.Add(1)
		lag := s.auditWatch.Saw(ctx, e, now)
		if s.judge != nil {
			s.judge.Audited(e, lag)
		}
		s.enrich.Enrich(e)
		alerts = append(alerts, s.enrich.Attribute(e, rules.Match(e, mode))...)
		s.enrich.Release(e)
		if e.Time.After(newest) {
			newest = e.Time
		}
	}
	matching.End()
	if span.IsRecording() {
		span.SetAttributes(attribute.Int("kubeguardian.events", len(events)), attribute.Int("kubeguardian.alerts", len(alerts)))
	}
	if err := s.tracer.Step(ctx, "store alerts", func(ctx context.Context) error { return s.keep(ctx, alerts) }); err != nil {
		span.SetStatus(codes.Error, "alerts are not stored")
		s.log.Error("audit events are refused until alerts can be stored", "events", len(events), "error", err)
		return err
	}
	s.state.update(func(st *state) {
		if newest.After(st.lastEvent) {
			st.lastEvent = newest
		}
	})
	return nil
}

// keep stores alerts that were raised in this cluster and tells who waits for
// them. They are on disk when it returns nil.
func (s *Server) keep(ctx context.Context, alerts []alert.Alert) error {
	_, err := s.add(ctx, alerts)
	return err
}

// add does the same, and returns those that did not come before, repeats included.
func (s *Server) add(ctx context.Context, alerts []alert.Alert) ([]alert.Alert, error) {
	if len(alerts) == 0 {
		return nil, nil
	}
	for i := range alerts {
		alerts[i].Cluster = s.cfg.Cluster
	}
	inv := s.inventory()
	team.Involve(inv, alerts)
	team.Keys(s.cfg.Detection.OwnerKeys).Own(inv, alerts)
	began := time.Now()
	added, repeated, err := s.store.AddGrouped(ctx, alerts, s.cooldown.Group)
	s.metrics.wrote("alerts", began)
	if s.stored(err) != nil {
		return nil, err
	}
	s.metrics.repeated(repeated)
	s.announce(added)
	return slices.Concat(added, repeated), nil
}

// cooldownPolicy says which alerts are counted in place of being kept.
func cooldownPolicy(settings []config.Cooldown) cooldown.Policy {
	var p cooldown.Policy
	for _, c := range settings {
		p = append(p, cooldown.Setting(c))
	}
	return p
}
