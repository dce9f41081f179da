package agents

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubeguardian/kubeguardian/bus/fleet"
	"github.com/kubeguardian/kubeguardian/bus/verdict"
)

// Collector exports what becomes of alerts of agents, and how these are.
func (a *Agents) Collector() prometheus.Collector { return collector{a} }

type collector struct{ *Agents }

// Describe is prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect is prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	emit := func(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
		var names []string
		if len(labels) > 0 {
			names = labels[:1]
		}
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("kubeguardian_"+name, help, names, nil), kind, value, labels[min(1, len(labels)):]...)
	}
	n := c.consumer.Stats()
	emit(prometheus.CounterValue, "bus_alerts_received_total", "Alerts of agents that were taken from the bus.", float64(n.Received))
	emit(prometheus.CounterValue, "bus_alerts_redelivered_total", "Of these, those that were taken again.", float64(n.Redelivered))
	emit(prometheus.CounterValue, "bus_batches_failed_total", "Batches of alerts that could not be stored and came again.", float64(n.Failed))
	emit(prometheus.GaugeValue, "bus_alerts_pending", "Alerts on the bus that nobody has taken.", float64(n.Pending))
	emit(prometheus.GaugeValue, "bus_alerts_unacknowledged", "Alerts that were taken from the bus and are not stored yet.", float64(n.Unacknowledged))
	emit(prometheus.GaugeValue, "bus_lag_seconds", "How long the alert that was taken last had been on the bus.", n.Lag.Seconds())
	for _, cause := range []string{"malformed", "foreign", "unstorable"} {
		emit(prometheus.CounterValue, "bus_alerts_rejected_total", "Alerts of agents that were given up, by cause.", float64(n.Rejected[cause]), "cause", cause)
	}
	counts := c.o.Judge.Counts()
	for _, outcome := range verdict.Outcomes() {
		emit(prometheus.CounterValue, "container_commands_total", "Commands that entered containers, by what the audit log says of them.", float64(counts[outcome]), "outcome", outcome)
	}
	if c.hub != nil {
		connected, refused := c.hub.Connections()
		emit(prometheus.GaugeValue, "bus_connections", "Agents that are connected to the embedded bus.", float64(connected))
		emit(prometheus.CounterValue, "bus_connections_refused_total", "Connections to the embedded bus that were refused.", float64(refused))
		emit(prometheus.CounterValue, "bus_connection_errors_total", "Times that a connection to the embedded bus went wrong: protocol, TLS, authentication.", float64(c.hub.ConnectionErrors()))
	}
	by := map[fleet.Status]int{}
	dropped := uint64(0)
	for _, a := range c.fleet.Agents(time.Now()) {
		by[a.Status]++
		dropped += a.Dropped
	}
	for _, status := range []fleet.Status{fleet.OK, fleet.Degraded, fleet.Stopped, fleet.Silent} {
		emit(prometheus.GaugeValue, "agents", "Agents, by status.", float64(by[status]), "status", string(status))
	}
	emit(prometheus.GaugeValue, "agents_dropped_events", "Events that agents have dropped since they started.", float64(dropped))
}
