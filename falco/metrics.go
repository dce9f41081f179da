package falco

import "github.com/prometheus/client_golang/prometheus"

// Collector exports the counters, by the name that they have in Falcosidekick, and
// why requests were refused.
func (r *Receiver) Collector() prometheus.Collector { return collector{r} }

type collector struct{ receiver *Receiver }

// Describe is prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect is prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	desc := prometheus.NewDesc("falcosecurity_falcosidekick_inputs_total",
		"Requests with alerts of Falco, by what became of them; failed ones could not be stored.", []string{"source", "status"}, nil)
	n := c.receiver.Counters()
	for status, value := range map[string]uint64{"accepted": n.Accepted, "rejected": n.Rejected, "failed": n.Failed} {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value), "requests", status)
	}
	refused := prometheus.NewDesc("kubeguardian_falco_requests_refused_total", "Requests with alerts of Falco that were not taken, by cause.", []string{"cause"}, nil)
	for why := range causes {
		ch <- prometheus.MustNewConstMetric(refused, prometheus.CounterValue, float64(c.receiver.refused[why].Load()), why.String())
	}
}
