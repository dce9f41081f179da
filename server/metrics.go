package server

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/kubeguardian/kubeguardian/admission"
	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/audit"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/store/retention"
)

// metrics are the server's own Prometheus metrics. None has a label per
// object.
type metrics struct {
	registry *prometheus.Registry

	decisions  *prometheus.CounterVec
	admission  prometheus.Histogram
	alerts     *prometheus.CounterVec
	repeats    *prometheus.CounterVec
	incidents  *prometheus.CounterVec
	scans      *prometheus.CounterVec
	scanTime   prometheus.Gauge
	findings   *prometheus.GaugeVec
	score      *prometheus.GaugeVec
	coverage   *prometheus.GaugeVec
	registered prometheus.Gauge

	lostDecisions prometheus.Counter
	removed       *prometheus.CounterVec
	held          prometheus.Gauge
	databaseSize  prometheus.Gauge
	queued        prometheus.Gauge // decisions that wait to be stored

	batchTime     prometheus.Histogram
	alertDelay    prometheus.Histogram
	storeTime     *prometheus.HistogramVec
	storeFailures prometheus.Counter
	scanDuration  prometheus.Histogram
	tracesFailed  prometheus.Counter
	total         prometheus.Gauge

	unjudged *prometheus.CounterVec

	inForce      *prometheus.GaugeVec
	policyErrors *prometheus.GaugeVec

	violations    *prometheus.GaugeVec
	auditFailures prometheus.Gauge

	providerFailures *prometheus.CounterVec
}

func newMetrics(version string, authorityEnds func() time.Time, runaways func() int) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "kubeguardian", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "kubeguardian", Name: name, Help: help}, labels)
	}
	m := &metrics{
		registry:  prometheus.NewRegistry(),
		decisions: counter("admission_decisions_total", "Admission requests decided.", "operation", "decision", "dry_run"),
		unjudged:  counter("admission_unjudged_total", "Admission requests that got no verdict.", "cause"),
		admission: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "kubeguardian", Name: "admission_duration_seconds",
			Help:    "Time to decide an admission request.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 10),
		}),
		alerts:    counter("alerts_total", "Alerts stored.", "rule", "priority"),
		repeats:   counter("alerts_repeated_total", "Alerts counted in one that says the same, in place of being stored.", "rule", "priority"),
		incidents: counter("incidents_total", "Incidents opened, and those that paged.", "event"),
		scans:     counter("scans_total", "Posture scans of the cluster.", "result"),
		findings:  gauge("findings", "Findings of the last scan.", "level", "severity", "status"),
		score:     gauge("score_points", "Score of a level, 0 to 20; not exported when the level has no data.", "level"),
		coverage:  gauge("score_coverage_ratio", "Share of a level that could be verified.", "level"),
	}
	m.scanTime = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "kubeguardian", Name: "last_scan_timestamp_seconds", Help: "Time of the last complete scan."})
	m.registered = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "kubeguardian", Name: "admission_webhook_registered", Help: "1 when the webhook is registered as it should be."})
	m.stages()
	m.database(counter)
	m.lostDecisions = prometheus.NewCounter(prometheus.CounterOpts{Namespace: "kubeguardian", Name: "admission_decisions_lost_total", Help: "Decisions that were answered but not recorded."})
	for _, cause := range admission.Causes() {
		m.unjudged.WithLabelValues(string(cause))
	}
	expiry := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "kubeguardian", Name: "authority_expiry_timestamp_seconds",
		Help: "When the oldest certificate authority of the webhooks expires.",
	}, func() float64 { return float64(authorityEnds().Unix()) })
	stuck := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "kubeguardian", Name: "admission_runaway_evaluations",
		Help: "Evaluations that go on after their time, because a function of Rego or CEL cannot be stopped.",
	}, func() float64 { return float64(runaways()) })
	m.inForce = gauge("policies", "Policies and what belongs to them, in force or not.", "kind", "source", "in_force")
	m.policyErrors = gauge("policy_errors", "Policies with a mistake, by the code of the first one.", "kind", "code")
	m.violations = gauge("audit_violations", "Objects in the cluster that violate a policy in force.", "policy", "enforcement")
	m.auditFailures = gauge("audit_failures", "Objects in the cluster that some policy in force could not judge.").WithLabelValues()
	m.providerFailures = counter("external_data_failures_total", "Calls of external data providers that gave no answer.", "provider")
	build := gauge("build_info", "Always 1; the version is the label.", "version")
	build.WithLabelValues(version).Set(1)
	m.registry.MustRegister(m.decisions, m.admission, m.alerts, m.repeats, m.incidents, m.scans, m.scanTime, m.findings, m.score, m.coverage,
		m.registered, m.lostDecisions, m.unjudged, m.inForce, m.policyErrors, m.violations, m.auditFailures, m.providerFailures, expiry, stuck, build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// database is how large the database is, and what is removed from it.
func (m *metrics) database(counter func(name, help string, labels ...string) *prometheus.CounterVec) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "kubeguardian", Name: name, Help: help})
	}
	m.removed = counter("retention_removed_total", "Records that were removed, by the limit that they were over.", "record", "limit")
	for _, c := range retention.Causes() {
		m.removed.WithLabelValues(c.Kind, c.Limit)
	}
	m.held = gauge("retention_held_alerts", "Alerts that are over a limit and stay, because somebody has still to be told of them.")
	m.databaseSize = gauge("database_size_bytes", "What the database takes, without what later records use again; 0 where another replica measures it.")
	m.registry.MustRegister(m.removed, m.held, m.databaseSize)
}

// stages are how long each stage takes, and what waits before it.
func (m *metrics) stages() {
	histogram := func(name, help string, least, factor float64, n int) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Namespace: "kubeguardian", Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(least, factor, n)}
	}
	m.batchTime = prometheus.NewHistogram(histogram("audit_batch_duration_seconds", "Time to match a batch of audit events and to store its alerts.", 0.001, 3, 9))
	m.alertDelay = prometheus.NewHistogram(histogram("alert_delay_seconds", "From an event until its alert was stored.", 0.05, 2.5, 10))
	m.storeTime = prometheus.NewHistogramVec(histogram("store_write_duration_seconds", "Time to store what was concluded.", 0.0005, 3, 9), []string{"what"})
	for _, what := range []string{"alerts", "decisions", "findings"} {
		m.storeTime.WithLabelValues(what)
	}
	m.scanDuration = prometheus.NewHistogram(histogram("scan_duration_seconds", "Time of a posture scan of the cluster.", 0.05, 2.5, 10))
	m.storeFailures = prometheus.NewCounter(prometheus.CounterOpts{Namespace: "kubeguardian", Name: "store_failures_total", Help: "Uses of the store that failed."})
	m.queued = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "kubeguardian", Name: "admission_decisions_queued", Help: "Decisions that were answered and wait to be stored."})
	m.total = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "kubeguardian", Name: "score_total_points", Help: "Score of the cluster, 0 to 100."})
	m.tracesFailed = prometheus.NewCounter(prometheus.CounterOpts{Namespace: "kubeguardian", Name: "trace_exports_failed_total", Help: "Times that spans could not be sent to the collector."})
	m.registry.MustRegister(m.tracesFailed, m.batchTime, m.alertDelay, m.storeTime, m.storeFailures, m.scanDuration, m.queued, m.total)
	for _, event := range []string{"opened", "paged"} {
		m.incidents.WithLabelValues(event)
	}
	for _, result := range []string{"complete", "failed"} {
		m.scans.WithLabelValues(result)
	}
}

// wrote notes how long it took to store something, which began at a time.
func (m *metrics) wrote(what string, began time.Time) {
	m.storeTime.WithLabelValues(what).Observe(time.Since(began).Seconds())
}

// decided counts a decision. A denial of a dry run denied nothing: the label
// keeps it apart from those that did.
func (m *metrics) decided(d finding.Decision) {
	decision := "allowed"
	if !d.Allowed {
		decision = "denied"
	}
	m.decisions.WithLabelValues(d.Operation, decision, strconv.FormatBool(d.DryRun)).Inc()
	m.admission.Observe((time.Duration(d.Microseconds) * time.Microsecond).Seconds())
}

func (m *metrics) alerted(alerts []alert.Alert) {
	for _, a := range alerts {
		if delay := time.Since(a.Time); !a.Time.IsZero() && delay >= 0 {
			m.alertDelay.Observe(delay.Seconds())
		}
		m.alerts.WithLabelValues(a.Rule, a.Priority.String()).Inc()
	}
}

func (m *metrics) repeated(alerts []alert.Alert) {
	for _, a := range alerts {
		m.repeats.WithLabelValues(a.Rule, a.Priority.String()).Inc()
	}
}

// audited counts objects: one that violates a policy by two bindings, or in two
// ways, counts once.
func (m *metrics) audited(result audit.Result) {
	type violated struct{ policy, enforcement string }
	m.violations.Reset()
	for _, found := range result.Found {
		seen := map[violated]bool{}
		for _, v := range found.Violations {
			if key := (violated{v.Policy, v.Enforcement}); !seen[key] {
				seen[key] = true
				m.violations.WithLabelValues(v.Policy, v.Enforcement).Inc()
			}
		}
	}
	m.auditFailures.Set(float64(len(result.Failures)))
}

func (m *metrics) scanned(score control.Score, findings []finding.Finding, at time.Time) {
	m.findings.Reset()
	for _, f := range findings {
		m.findings.WithLabelValues(string(f.Level), string(f.Severity), string(f.Status)).Inc()
	}
	m.score.Reset()
	for _, level := range score.Levels {
		if level.Score != nil {
			m.score.WithLabelValues(string(level.Level)).Set(*level.Score)
			m.coverage.WithLabelValues(string(level.Level)).Set(level.Coverage)
		}
	}
	if score.Total != nil {
		m.total.Set(*score.Total)
	}
	m.scans.WithLabelValues("complete").Inc()
	m.scanTime.Set(float64(at.UnixMilli()) / 1000)
}
