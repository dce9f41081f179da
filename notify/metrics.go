package notify

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubeguardian/kubeguardian/alert"
)

// metrics are what Prometheus is told of deliveries: by Falcosidekick's names
// what that has, too, and by our own the rest.
type metrics struct {
	queue Queue

	outputs    *prometheus.CounterVec
	events     *prometheus.CounterVec
	messages   *prometheus.CounterVec
	suppressed *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	delay      *prometheus.HistogramVec

	waiting *prometheus.Desc
	dead    *prometheus.Desc
	age     *prometheus.Desc
}

func newMetrics(q Queue) *metrics {
	counter := func(namespace, name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "kubeguardian", Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.005, 4, 10)}, []string{"destination"})
	}
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("kubeguardian_"+name, help, []string{"destination"}, nil)
	}
	m := &metrics{
		queue:      q,
		outputs:    counter("falcosecurity_falcosidekick", "outputs_total", "Attempts to deliver, by result, as Falcosidekick counts them.", "destination", "status"),
		events:     counter("falcosecurity_falcosidekick", "falco_events_total", "Alerts, as Falcosidekick counts them.", "rule", "priority", "priority_raw", "source", "k8s_ns_name"),
		messages:   counter("kubeguardian", "deliveries_total", "Messages delivered, retried, dead because they were refused, and dropped from the queue as too old or too many.", "destination", "outcome"),
		suppressed: counter("kubeguardian", "notifications_suppressed_total", "Alerts without a message of their own: counted in that of their group, part of an incident, or over a limit.", "cause"),
		duration:   histogram("delivery_attempt_duration_seconds", "Time of an attempt to deliver."),
		delay:      histogram("delivery_delay_seconds", "From when a message was due until it was delivered."),
		waiting:    desc("delivery_queue_messages", "Messages that wait to be delivered."),
		dead:       desc("delivery_dead_letters", "Messages that could not be delivered and are not tried any more."),
		age:        desc("delivery_queue_oldest_seconds", "How long the oldest message that waits is due; 0 if none waits."),
	}
	for _, cause := range []string{"group", "incident", "limit"} {
		m.suppressed.WithLabelValues(cause)
	}
	return m
}

// known has the counters of a destination start at 0.
func (m *metrics) known(name string) {
	for _, outcome := range []string{"delivered", "retried", "dead", "dropped"} {
		m.messages.WithLabelValues(name, outcome)
	}
	for _, status := range []string{"ok", "error"} {
		m.outputs.WithLabelValues(strings.ToLower(name), status)
	}
}

func (m *metrics) delivered(name, outcome string, n int) {
	m.messages.WithLabelValues(name, outcome).Add(float64(n))
	switch outcome {
	case "delivered":
		m.outputs.WithLabelValues(strings.ToLower(name), "ok").Add(float64(n))
	case "retried", "dead":
		m.outputs.WithLabelValues(strings.ToLower(name), "error").Add(float64(n))
	}
}

func (m *metrics) took(name string, d time.Duration) {
	m.duration.WithLabelValues(name).Observe(d.Seconds())
}

func (m *metrics) arrived(name string, late time.Duration) {
	m.delay.WithLabelValues(name).Observe(max(late, 0).Seconds())
}

func (m *metrics) observe(alerts []alert.Alert) {
	for _, a := range alerts {
		// Falcosidekick's numbers rise with urgency, from 1 for debug.
		number := strconv.Itoa(int(alert.Debug-a.Priority) + 1)
		m.events.WithLabelValues(a.Rule, number, strings.ToLower(a.Priority.String()), a.Source, a.Subject.Namespace).Inc()
	}
}

func (m *metrics) vectors() []prometheus.Collector {
	return []prometheus.Collector{m.outputs, m.events, m.messages, m.suppressed, m.duration, m.delay}
}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, v := range m.vectors() {
		v.Describe(out)
	}
	out <- m.waiting
	out <- m.dead
	out <- m.age
}

// scrapeTime bounds how long a scrape waits for the store.
const scrapeTime = 5 * time.Second

// Collect implements [prometheus.Collector]. When the store does not answer, what
// it would say is missing, and nothing else.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	for _, v := range m.vectors() {
		v.Collect(out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	standings, err := m.queue.Standings(ctx)
	if err != nil {
		return
	}
	for name, s := range standings {
		age := 0.0
		if !s.Oldest.IsZero() {
			age = max(time.Since(s.Oldest), 0).Seconds()
		}
		out <- prometheus.MustNewConstMetric(m.waiting, prometheus.GaugeValue, float64(s.Waiting), name)
		out <- prometheus.MustNewConstMetric(m.dead, prometheus.GaugeValue, float64(s.Dead), name)
		out <- prometheus.MustNewConstMetric(m.age, prometheus.GaugeValue, age, name)
	}
}
