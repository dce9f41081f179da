package server

import (
	"context"
	"fmt"
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
		keep := s.store.AddAlerts
		if cluster != "" && cluster != s.cfg.Cluster {
			keep = func(ctx context.Context, alerts []alert.Alert) ([]alert.Alert, error) {
				return s.store.AddReported(ctx, cluster, alerts)
			}
		}
		if _, err := keep(t.Context(), []alert.Alert{a}); err != nil {
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
	say(func(s *fleet.State) { s.Stopped = true })
	expect("an agent that is started anew", time.Minute, finding.Unknown, finding.Unknown, "was stopped")
	expect("an agent that was stopped", 5*time.Minute, finding.Fail, finding.Unknown, "It was stopped.")
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

// TestEvidenceBesideFalco: where alerts of Falco are taken, nobody knows whether a node
// without an agent is watched, also while another node has one.
func TestEvidenceBesideFalco(t *testing.T) {
	r := startWithAgents(t, correlate.Options{}, "falco: {listen: '127.0.0.1:0'}\n")
	n := startNode(t, r)
	n.state(fleet.State{Node: "n1", Version: "v1", Started: time.Now(), Time: time.Now(), Interval: time.Minute, Rules: 120})
	for end := time.Now().Add(2 * time.Minute); len(r.listedAgents()) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the server does not hear the agent")
		}
	}
	var nodes []*inventory.Object
	for _, name := range []string{"n1", "n2"} {
		nodes = append(nodes, &inventory.Object{Unstructured: &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": name},
		}}})
	}
	inv, err := inventory.New(inventory.Cluster, nodes, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	r.state.update(func(st *state) { st.contact = now })
	findings, _, err := r.findings(t.Context(), inv, now)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]string{}
	for _, f := range findings {
		if f.Control == "CON-RUN-01" {
			have[f.Subject.Name] = string(f.Status) + " " + f.Reason
		}
	}
	if have["n1"] != "pass " || !strings.HasPrefix(have["n2"], "unknown ") || !strings.Contains(have["n2"], "Falco") {
		t.Errorf("%q", have)
	}
}

// TestUnreadAlerts: it is known up to when alerts were not looked at, also those that
// were only counted, and others' alerts take no place.
func TestUnreadAlerts(t *testing.T) {
	s, err := New(t.Context(), options(t, t.TempDir(), ""))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	now := time.Now().UTC()
	at := func(id string, age time.Duration) alert.Alert {
		return alert.Alert{ID: id, Time: now.Add(-age), Rule: "r", Priority: alert.Critical, Tags: []string{alert.DriftTag}}
	}
	if _, err := s.store.AddAlerts(t.Context(), []alert.Alert{at("a", 4*time.Hour), at("b", 3*time.Hour), at("c", 2*time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.AddReported(t.Context(), "another", []alert.Alert{at("d", time.Hour)}); err != nil {
		t.Fatal(err)
	}
	critical := alert.Critical
	look := func(what string, most int, ids string, want time.Time) {
		t.Helper()
		for _, q := range []alert.Query{{Priority: &critical}, {Drift: true}} {
			var have []string
			unread, err := s.eachAlert(t.Context(), q, most, func(a *alert.Alert) { have = append(have, a.ID) })
			if err != nil || strings.Join(have, " ") != ids || !unread.Equal(want) {
				t.Errorf("%s, drift %t: %q, unread until %s, %v, want %s until %s", what, q.Drift, have, unread, err, ids, want)
			}
		}
	}
	look("all", 10, "c b a", time.Time{})
	look("as many as there are", 3, "c b a", time.Time{})
	look("more than are looked at", 2, "c b", now.Add(-3*time.Hour))
	counted := at("e", 10*time.Hour)
	counted.OverLimit, counted.Repeats = true, &alert.Repeats{Count: 7, First: now.Add(-10 * time.Hour), Last: now.Add(-9 * time.Hour)}
	if _, err := s.store.AddAlerts(t.Context(), []alert.Alert{counted}); err != nil {
		t.Fatal(err)
	}
	look("some were counted", 10, "c b a e", now.Add(-9*time.Hour))
}

// TestDriftOfAnyRule: a program that is not part of its image is told of by its tag,
// whichever rule raised the alert, and whether or not there is such a rule today.
func TestDriftOfAnyRule(t *testing.T) {
	s, err := New(t.Context(), options(t, t.TempDir(), ""))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	web := finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "web"}
	now := time.Now()
	_, err = s.store.AddAlerts(t.Context(), []alert.Alert{
		{ID: "a", Time: now, Rule: "Removed since", Priority: alert.Notice, Source: event.Syscall, Tags: []string{"mitre_execution", alert.DriftTag}, Subject: web},
		{ID: "b", Time: now, Rule: "Removed since", Priority: alert.Notice, Source: event.Syscall, Tags: []string{"mitre_execution"}, Subject: web},
		{ID: "c", Time: now, Rule: "Critical", Priority: alert.Critical, Source: event.Syscall, Subject: web},
	})
	if err != nil {
		t.Fatal(err)
	}
	inv, err := inventory.New(inventory.Cluster, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	set, err := s.evidence(t.Context(), inv, now)
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, a := range set.Alerts {
		have = append(have, fmt.Sprintf("%s critical=%t drift=%t", a.Rule, a.Critical, a.Drift))
	}
	slices.Sort(have)
	if want := []string{"Critical critical=true drift=false", "Removed since critical=false drift=true"}; !slices.Equal(have, want) {
		t.Errorf("%q", have)
	}
}
