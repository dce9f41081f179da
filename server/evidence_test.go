package server

import (
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// TestOwnEvidence: what the server has seen itself settles whether audit events
// arrive, and whether critical alerts are answered.
func TestOwnEvidence(t *testing.T) {
	s, err := New(t.Context(), options(t, t.TempDir(), "detection: {respondWithin: 1h}\n"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	pod := &inventory.Object{Unstructured: &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "web", "namespace": "shop"},
		"spec": map[string]any{"containers": []any{map[string]any{"name": "main", "image": "registry.example.com/web:1"}}},
	}}}
	inv, err := inventory.New(inventory.Cluster, []*inventory.Object{pod}, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	s.state.contact = now
	states := func() map[string]finding.Status {
		t.Helper()
		findings, _, err := s.findings(t.Context(), inv, now)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]finding.Status{}
		for _, f := range findings {
			if slices.Contains([]string{"CLU-LOG-01", "CON-RUN-02", "CON-RUN-03"}, f.Control) {
				out[f.Control] = f.Status
			}
		}
		return out
	}
	expect := func(what, audit, alerts string) {
		t.Helper()
		have := states()
		if have["CLU-LOG-01"] != finding.Status(audit) || have["CON-RUN-02"] != finding.Status(alerts) || have["CON-RUN-03"] != finding.Unknown {
			t.Errorf("%s: %v, want %s, %s and unknown", what, have, audit, alerts)
		}
	}
	expect("just started", "unknown", "unknown")
	s.state.began = now.Add(-time.Hour)
	expect("never an event", "fail", "unknown")
	s.state.lastEvent = now.Add(-time.Minute)
	expect("events arrive", "pass", "pass")
	add := func(id string, age time.Duration, priority alert.Priority) {
		t.Helper()
		a := alert.Alert{
			ID: id, Time: now.Add(-age), Rule: "r", Priority: priority,
			Subject: finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "web"},
		}
		if _, err := s.store.AddAlerts(t.Context(), []alert.Alert{a}); err != nil {
			t.Fatal(err)
		}
	}
	add("a", 3*time.Hour, alert.Warning)
	add("b", 30*time.Minute, alert.Critical)
	expect("a warning, and a new one", "pass", "pass")
	add("c", 2*time.Hour, alert.Critical)
	expect("an old one", "pass", "fail")
	s.state.lastEvent = now.Add(-time.Hour)
	expect("events stopped", "fail", "fail")
}
