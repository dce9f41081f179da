package server

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// TestMetricNames holds what is exported to the conventions of Prometheus.
func TestMetricNames(t *testing.T) {
	r := start(t, options(t, t.TempDir(), ""))
	if code, _ := r.webhook("/audit", eventList(t)); code != 200 {
		t.Fatalf("audit events are answered with %d", code)
	}
	_, text := r.page("/metrics")
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, stage := range []string{"kubeguardian_audit_batch_duration_seconds_count 1", "kubeguardian_alert_delay_seconds_count", `kubeguardian_store_write_duration_seconds_count{what="alerts"} 1`, "kubeguardian_alerts_unjoined", "kubeguardian_admission_decisions_queued 0", "kubeguardian_store_failures_total 0"} {
		if !strings.Contains(text, stage) {
			t.Errorf("no %s", stage)
		}
	}
}
