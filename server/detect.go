package server

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
	"github.com/kubeguardian/kubeguardian/rule"
)

// auditInFlight bounds the batches of audit events in memory: each may have 256
// MiB, and the API server sends a refused one again.
const auditInFlight = 4

// detect runs a batch of audit events through the rules. It returns nil only
// when the alerts are on disk: the API server sends the batch again otherwise,
// and the ids of the alerts keep a batch that comes twice from counting twice.
func (s *Server) detect(ctx context.Context, events []*event.Event) error {
	var alerts []alert.Alert
	newest := time.Time{}
	for _, e := range events {
		s.enrich.Enrich(e)
		alerts = append(alerts, s.enrich.Attribute(e, s.rules.Match(e, rule.First))...)
		if e.Time.After(newest) {
			newest = e.Time
		}
	}
	for i := range alerts {
		alerts[i].Cluster = s.cfg.Cluster
	}
	if len(alerts) > 0 {
		added, err := s.store.AddAlerts(ctx, alerts)
		if s.stored(err) != nil {
			s.log.Error("audit events are refused until alerts can be stored", "events", len(events), "error", err)
			return err
		}
		s.metrics.alerted(added)
		s.page.Publish(added)
	}
	s.state.update(func(st *state) {
		if newest.After(st.lastEvent) {
			st.lastEvent = newest
		}
	})
	return nil
}

// auditCollector exports the counters of the audit receiver.
type auditCollector struct{ receiver *k8saudit.Receiver }

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
	emit("events_total", "Audit events handled.", n.Events)
	emit("events_malformed_total", "Items in batches that are no audit event, or lost a body over the limits.", n.Malformed)
	rejected := prometheus.NewDesc("kubeguardian_audit_batches_rejected_total", "Batches of audit events refused, by cause.", []string{"cause"}, nil)
	for cause, value := range map[string]uint64{
		"method": n.Rejected.Method, "media_type": n.Rejected.MediaType, "too_large": n.Rejected.TooLarge,
		"invalid": n.Rejected.Invalid, "incomplete": n.Rejected.Incomplete, "busy": n.Rejected.Busy, "failed": n.Rejected.Failed,
	} {
		ch <- prometheus.MustNewConstMetric(rejected, prometheus.CounterValue, float64(value), cause)
	}
}
