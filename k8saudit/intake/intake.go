// Package intake joins what receives the audit log of one cluster: what all of it has
// taken and lost, as metrics and as sentences, and how far files have been read.
package intake

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubeguardian/kubeguardian/k8saudit"
)

// Sources are what receives the audit log of a cluster.
type Sources struct {
	Receiver *k8saudit.Receiver
	Tails    []*k8saudit.Tail
	Files    []string // of the tails
	// Unauthorized counts senders who may not send, whoever keeps them from the
	// receiver.
	Unauthorized *atomic.Uint64
}

// Events returns how many audit events have been handled, and what was not taken as
// it came.
func (s Sources) Events() (n uint64, faults k8saudit.Faults) {
	c := s.Receiver.Counters()
	n, faults = c.Events, c.Faults
	for _, t := range s.Tails {
		c := t.Counters()
		n, faults = n+c.Events, faults.Plus(c.Faults)
	}
	return n, faults
}

// Lost counts what is known to be missing from the log.
func (s Sources) Lost() uint64 {
	_, faults := s.Events()
	lost := faults.Malformed() + s.Receiver.Counters().Rejected.Incomplete
	for _, t := range s.Tails {
		lost += t.Counters().Gaps
	}
	return lost
}

// Collector exports the counters.
func (s Sources) Collector() prometheus.Collector { return collector{s} }

type collector struct{ Sources }

// Describe is prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect is prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	n := c.Receiver.Counters()
	emit := func(name, help string, value uint64) {
		desc := prometheus.NewDesc("kubeguardian_audit_"+name, help, nil, nil)
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value))
	}
	emit("batches_total", "Batches of audit events handled.", n.Batches)
	events, faults := c.Events()
	perFile := func(name, help string, kind prometheus.ValueType, value func(k8saudit.TailCounters) float64) {
		desc := prometheus.NewDesc("kubeguardian_audit_file_"+name, help, []string{"file"}, nil)
		for i, t := range c.Tails {
			ch <- prometheus.MustNewConstMetric(desc, kind, value(t.Counters()), c.Files[i])
		}
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
		"unauthorized": c.Unauthorized.Load(),
	} {
		ch <- prometheus.MustNewConstMetric(rejected, prometheus.CounterValue, float64(value), cause)
	}
}

// Problems returns what was lost, one sentence each.
func (s Sources) Problems() (out []string) {
	if _, faults := s.Events(); faults.Malformed() > 0 {
		out = append(out, fmt.Sprintf("Since the start %d audit events could not be read, or not with their bodies: %s.", faults.Malformed(), causes(faults)))
	}
	for i, t := range s.Tails {
		if c := t.Counters(); c.Gaps > 0 {
			out = append(out, fmt.Sprintf("The audit log in %s was lost in part: a file was gone before it was read, %d times since the start.", s.Files[i], c.Gaps))
		}
	}
	return out
}

// causes says of which kinds faults are.
func causes(faults k8saudit.Faults) string {
	var out []string
	for _, cause := range []struct {
		n    uint64
		text string
	}{
		{faults.JSON, "are no JSON"}, {faults.Event, "are no audit events"}, {faults.Depth, "are nested too deep"},
		{faults.Size, "are too large"}, {faults.Cut, "were cut by the log service"},
	} {
		if cause.n > 0 {
			out = append(out, fmt.Sprint(cause.n, " ", cause.text))
		}
	}
	return strings.Join(out, ", ")
}
