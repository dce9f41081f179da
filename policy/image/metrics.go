package image

import "github.com/prometheus/client_golang/prometheus"

// Collector exports what the verifier counts.
func (v *Verifier) Collector() prometheus.Collector { return collector{v} }

type collector struct{ verifier *Verifier }

// descriptions are those of its metrics.
func (collector) descriptions() (verified, remembered, failed *prometheus.Desc) {
	name := func(part string) string { return prometheus.BuildFQName("kubeguardian", "image", part) }
	return prometheus.NewDesc(name("verifications_total"), "Images looked at in their registry for an image policy.", nil, nil),
		prometheus.NewDesc(name("verifications_remembered_total"), "Answers about images that were known already.", nil, nil),
		prometheus.NewDesc(name("verification_failures_total"), "Answers about images and tags that no registry gave.", nil, nil)
}

// Describe implements [prometheus.Collector].
func (c collector) Describe(out chan<- *prometheus.Desc) {
	verified, remembered, failed := c.descriptions()
	out <- verified
	out <- remembered
	out <- failed
}

// Collect implements [prometheus.Collector].
func (c collector) Collect(out chan<- prometheus.Metric) {
	verified, remembered, failed := c.descriptions()
	stats := c.verifier.Stats()
	out <- prometheus.MustNewConstMetric(verified, prometheus.CounterValue, float64(stats.Verified))
	out <- prometheus.MustNewConstMetric(remembered, prometheus.CounterValue, float64(stats.Remembered))
	out <- prometheus.MustNewConstMetric(failed, prometheus.CounterValue, float64(stats.Failed))
}
