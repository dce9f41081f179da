package server

import (
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus/fleet"
	"github.com/kubeguardian/kubeguardian/correlate"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/rule"
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
		"spec": map[string]any{"nodeName": "n1", "containers": []any{map[string]any{"name": "main", "image": "registry.example.com/web:1"}}},
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
	add := func(id string, age time.Duration, priority alert.Priority, cluster string) {
		t.Helper()
		a := alert.Alert{
			ID: id, Time: now.Add(-age), Rule: "r", Priority: priority, Cluster: cluster,
			Subject: finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "web"},
		}
		if _, err := s.store.AddAlerts(t.Context(), []alert.Alert{a}); err != nil {
			t.Fatal(err)
		}
	}
	add("a", 3*time.Hour, alert.Warning, "")
	add("b", 30*time.Minute, alert.Critical, "")
	add("o", 3*time.Hour, alert.Critical, "another")
	expect("a warning, a new one, and one of another cluster", "pass", "pass")
	add("c", 2*time.Hour, alert.Critical, s.cfg.Cluster)
	expect("an old one", "pass", "fail")
	s.state.lastEvent = now.Add(-time.Hour)
	expect("events stopped", "fail", "fail")
}

// TestEvidenceOfAgents: whether a sensor is alive on a node, and whether programs ran
// that are not part of their image, follows from what agents say.
func TestEvidenceOfAgents(t *testing.T) {
	r := startWithAgents(t, correlate.Options{})
	expect := func(what string, later time.Duration, sensor, drift finding.Status, message string) {
		t.Helper()
		now := time.Now().Add(later)
		r.state.update(func(st *state) { st.contact = now })
		findings, _, err := r.findings(t.Context(), r.inventory(), now)
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]finding.Finding{}
		for _, f := range findings {
			have[f.Control+" "+f.Subject.Name] = f
		}
		if f := have["CON-RUN-01 n1"]; f.Status != sensor || !strings.Contains(f.Message+f.Reason, message) {
			t.Errorf("%s: sensor %+v, want %s and %q", what, f, sensor, message)
		}
		if f := have["CON-RUN-03 web"]; f.Status != drift {
			t.Errorf("%s: drift %+v, want %s", what, f, drift)
		}
		if f := have["CON-RUN-02 web"]; f.Status == finding.Fail {
			t.Errorf("%s: alerts %+v", what, f)
		}
	}
	expect("no agent yet", 0, finding.Unknown, finding.Unknown, "waited for")
	expect("no agent at all", time.Hour, finding.Fail, finding.Unknown, "no heartbeats of the sensor have arrived")
	n := startNode(t, r)
	say := func(change func(*fleet.State)) {
		t.Helper()
		s := fleet.State{Node: "n1", Version: "v1", Started: time.Now(), Time: time.Now(), Interval: time.Minute, Rules: 120, RulesHash: "h", Drift: true}
		change(&s)
		n.state(s)
		for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
			if a := r.listedAgents(); len(a) == 1 && a[0].Time.Equal(s.Time) {
				return
			}
			if time.Now().After(end) {
				t.Fatal("the server does not hear the agent")
			}
		}
	}
	say(func(*fleet.State) {})
	expect("a sound agent", 0, finding.Pass, finding.Pass, "")
	say(func(s *fleet.State) { s.Drift = false })
	expect("an agent without rules about drift", 0, finding.Pass, finding.Unknown, "")
	say(func(s *fleet.State) { s.RulesHash = "" })
	expect("an agent with its own rules", 0, finding.Pass, finding.Unknown, "")
	say(func(s *fleet.State) { s.Problems = []string{"3 alerts wait for the server."} })
	expect("an agent that is late", 0, finding.Pass, finding.Pass, "")
	say(func(s *fleet.State) {
		s.Dropped, s.Misses = 7, []string{"7 events were dropped."}
		s.Problems = append([]string{"3 alerts wait for the server."}, s.Misses...)
	})
	expect("an agent that drops events", 0, finding.Fail, finding.Pass, "7 events were dropped.")
	expect("an agent that fell silent", time.Hour, finding.Fail, finding.Unknown, "have arrived since")
	a := alert.Alert{
		ID: "d", Time: time.Now(), Rule: "Hidden program started", Priority: alert.Warning, Source: event.Syscall, Output: "x", Hostname: "n1", Tags: []string{"drift"},
		Subject: finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "web", Container: "app"},
	}
	if err := n.Publish(&a); err != nil {
		t.Fatal(err)
	}
	r.storedRules(2) // with that of the dropped events
	expect("drift", 0, finding.Fail, finding.Fail, "7 events were dropped.")
}

// TestTellDrift: alerts are looked for of rules about drift, and of those that come
// before them.
func TestTellDrift(t *testing.T) {
	set, err := rule.Load(rule.File{Name: "r.yaml", Data: []byte(`
- {rule: a, desc: x, condition: evt.type = execve and proc.name = nc, output: x, priority: ERROR}
- {rule: b, desc: x, condition: evt.type = connect, output: x, priority: ERROR}
- {rule: c, desc: x, condition: "evt.type in (execve, execveat) and proc.is_exe_upper_layer = true", output: x, priority: WARNING, tags: [drift]}
- {rule: d, desc: x, condition: evt.type = execve, output: x, priority: NOTICE}
`)})
	if err != nil {
		t.Fatal(err)
	}
	if got := tellDrift(set); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("%q", got)
	}
}
