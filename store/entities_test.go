package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
)

func pod(name string) alert.Entity { return alert.Entity{Kind: alert.Pod, Name: "shop/" + name} }

// involving returns n alerts of one pod each second, by users in turn.
func involving(n int) []alert.Alert {
	out := testAlerts(0, n)
	for i := range out {
		out[i].Subject = finding.Subject{Kind: "Pod", Namespace: "shop", Name: "web-0"}
		out[i].Entities = []alert.Entity{{Kind: alert.User, Name: fmt.Sprintf("user-%d", i%3)}, {Kind: alert.Image, Name: `registry.example.com/100%_a\b`}}
		if i%4 == 0 {
			out[i].Tags = append(slices.Clone(out[i].Tags), alert.DriftTag)
		}
	}
	return out
}

func checkEntities(t *testing.T, s *Store, n int) {
	t.Helper()
	if all := readAll(t, s, alert.Query{Entity: pod("web-0"), Limit: 7}); len(all) != n || !slices.IsSortedFunc(all, func(a, b alert.Record) int { return b.Time.Compare(a.Time) }) {
		t.Errorf("%d alerts of the pod, want %d in order", len(all), n)
	}
	user := alert.Entity{Kind: alert.User, Name: "user-1"}
	have := readAll(t, s, alert.Query{Entity: user, Limit: 4})
	after, last, err := s.AlertsAfter(t.Context(), 0, alert.Query{Entity: user})
	if err != nil || len(have) != n/3 || len(after) != n/3 || last == 0 {
		t.Errorf("%d alerts of the user, %d in order, want %d: %v", len(have), len(after), n/3, err)
	}
	if none := readAll(t, s, alert.Query{Entity: pod("web-1"), Limit: 5}); len(none) != 0 {
		t.Errorf("%d alerts of a pod that nothing involves", len(none))
	}
	found := must[[]alert.Seen](t)(s.Entities(t.Context(), `100%_A\`, 10))
	if len(found) != 1 || found[0].Kind != alert.Image || found[0].Last.IsZero() {
		t.Errorf("found %+v", found)
	}
	if found := must[[]alert.Seen](t)(s.Entities(t.Context(), "user-", 2)); len(found) != 2 || found[0].Last.Before(found[1].Last) {
		t.Errorf("found %+v, want the two that were seen last", found)
	}
}

func TestEntities(t *testing.T) {
	s := open(t)
	alerts := involving(30)
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), alerts[:20]))
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), alerts)) // the first ones again
	checkEntities(t, s, 30)
	decisions := testDecisions(4)
	for i := range decisions {
		decisions[i].Subject = finding.Subject{Kind: "Pod", Namespace: "shop", Name: fmt.Sprintf("web-%d", i%2)}
	}
	for range 2 { // those that are known do not hide those that are new
		if err := s.AddDecisions(t.Context(), decisions); err != nil {
			t.Fatal(err)
		}
	}
	if have := must[[]finding.Decision](t)(s.DecisionsOf(t.Context(), pod("web-1"), finding.DecisionQuery{Limit: 10})); len(have) != 2 || have[0].Time.Before(have[1].Time) {
		t.Errorf("decisions %+v", have)
	}
	for _, outcome := range []finding.Outcome{finding.Denied, finding.Warned, finding.Allowed} {
		for _, at := range []int{0, 1, 3, 4} { // from this decision on
			var want []string
			for i := len(decisions) - 1; i >= at; i-- {
				if decisions[i].Outcome() == outcome && i%2 == 1 {
					want = append(want, decisions[i].ID)
				}
			}
			q := finding.DecisionQuery{Outcome: outcome, Since: decisions[min(at, 3)].Time.Add(time.Duration(at-min(at, 3)) * time.Second), Until: decisions[3].Time.Add(time.Second)}
			var have []string
			for _, d := range must[[]finding.Decision](t)(s.DecisionsOf(t.Context(), pod("web-1"), q)) {
				have = append(have, d.ID)
			}
			if !slices.Equal(have, want) {
				t.Errorf("%s from %d on: %q, want %q", outcome, at, have, want)
			}
		}
	}
	retain(t, s, unlimited, start)
	removeOld(t, s, start.Add(time.Hour))
	for _, table := range []string{"entities", "alert_entities", "decision_entities"} {
		var n int
		if err := s.readers.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil || n != 0 {
			t.Errorf("%s has %d rows when all is old: %v", table, n, err)
		}
	}
}

// TestEntitiesOfOldRecords: a database of a version without entities gets them.
func TestEntitiesOfOldRecords(t *testing.T) {
	path := address(t)
	s := must[*Store](t)(Open(t.Context(), path))
	n := fillBatch + 300 // more than one step
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), involving(n)))
	for _, q := range []string{"DELETE FROM entities", "DELETE FROM alert_entities", "DELETE FROM checkpoints"} {
		if _, err := s.writer.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = must[*Store](t)(Open(t.Context(), path))
	defer s.Close()
	if all := readAll(t, s, alert.Query{Entity: pod("web-0"), Limit: 1000}); len(all) != n {
		t.Errorf("%d alerts of the pod, want %d", len(all), n)
	}
}

func TestRuleCounts(t *testing.T) {
	s := open(t)
	alerts := testAlerts(0, 10)
	for i := range alerts {
		alerts[i].Rule = []string{"a", "b"}[i%2]
	}
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), alerts))
	have := must[map[string]alert.Matches](t)(s.RuleCounts(t.Context()))
	if len(have) != 2 || have["a"].Count != 5 || !have["b"].Last.Equal(alerts[9].Time) {
		t.Errorf("have %+v", have)
	}
}
