package server

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/alert/cooldown"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
	"github.com/kubeguardian/kubeguardian/k8saudit/heartbeat"
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
		var lag time.Duration // of the log, if the event says
		if id := heartbeat.Of(e); id != "" {
			if delay, ours := s.beats.Saw(id, now); ours {
				s.metrics.auditDelay.Observe(delay.Seconds())
				lag = delay
			}
			s.tellSender(ctx, id)
		}
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
	if len(alerts) == 0 {
		return nil
	}
	for i := range alerts {
		alerts[i].Cluster = s.cfg.Cluster
	}
	began := time.Now()
	added, repeated, err := s.store.AddGrouped(ctx, alerts, s.cooldown.Group)
	s.metrics.wrote("alerts", began)
	if s.stored(err) != nil {
		return err
	}
	s.metrics.alerted(added)
	s.notifier.Observe(added)
	s.metrics.repeated(repeated)
	s.page.Publish(added)
	s.joiner.Alerted()
	return nil
}

// cooldownPolicy says which alerts are counted in place of being kept.
func cooldownPolicy(settings []config.Cooldown) cooldown.Policy {
	var p cooldown.Policy
	for _, c := range settings {
		p = append(p, cooldown.Setting(c))
	}
	return p
}

// auditCollector exports the counters of what receives the audit log.
type auditCollector struct {
	receiver *k8saudit.Receiver
	tails    []*k8saudit.Tail
	files    []string // of the tails
}

// Describe is prometheus.Collector.
func (c auditCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect is prometheus.Collector.
func (c auditCollector) Collect(ch chan<- prometheus.Metric) {
	n := c.receiver.Counters()
	emit := func(name, help string, value uint64) {
		desc := prometheus.NewDesc("kubeguardian_audit_"+name, help, nil, nil)
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value))
	}
	emit("batches_total", "Batches of audit events handled.", n.Batches)
	faults, events := n.Faults, n.Events
	perFile := func(name, help string, kind prometheus.ValueType, value func(k8saudit.TailCounters) float64) {
		desc := prometheus.NewDesc("kubeguardian_audit_file_"+name, help, []string{"file"}, nil)
		for i, t := range c.tails {
			ch <- prometheus.MustNewConstMetric(desc, kind, value(t.Counters()), c.files[i])
		}
	}
	for _, t := range c.tails {
		counters := t.Counters()
		faults, events = faults.Plus(counters.Faults), events+counters.Events
	}
	perFile("gaps_total", "Times that a file of the audit log was gone before it was read to its end.", prometheus.CounterValue, func(c k8saudit.TailCounters) float64 { return float64(c.Gaps) })
	perFile("failures_total", "Times that a file of the audit log could not be read, or its events not be handled, and were tried again.", prometheus.CounterValue, func(c k8saudit.TailCounters) float64 { return float64(c.Failed) })
	perFile("end_timestamp_seconds", "When the end of the live file was reached last.", prometheus.GaugeValue, func(c k8saudit.TailCounters) float64 {
		if c.Read.IsZero() {
			return 0
		}
		return float64(c.Read.UnixMilli()) / 1000
	})
	emit("events_total", "Audit events handled.", events)
	malformed := prometheus.NewDesc("kubeguardian_audit_events_malformed_total", "Items that are no audit event, or lost a body, by cause; foreign ones are of another log.", []string{"cause"}, nil)
	for cause, value := range faults.ByCause() {
		ch <- prometheus.MustNewConstMetric(malformed, prometheus.CounterValue, float64(value), cause)
	}
	rejected := prometheus.NewDesc("kubeguardian_audit_batches_rejected_total", "Batches of audit events refused, by cause.", []string{"cause"}, nil)
	for cause, value := range map[string]uint64{
		"method": n.Rejected.Method, "media_type": n.Rejected.MediaType, "too_large": n.Rejected.TooLarge,
		"invalid": n.Rejected.Invalid, "incomplete": n.Rejected.Incomplete, "busy": n.Rejected.Busy, "failed": n.Rejected.Failed,
	} {
		ch <- prometheus.MustNewConstMetric(rejected, prometheus.CounterValue, float64(value), cause)
	}
}
