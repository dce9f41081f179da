package joiner

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/store"
)

func openJoiner(t *testing.T, path string) *Joiner {
	t.Helper()
	db, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return New(db, Options{Log: slog.New(slog.DiscardHandler), Joined: func(int, int) {}})
}

// alertsOf returns alerts of some users, which come again and again.
func alertsOf(from, to int) (out []alert.Alert) {
	for i := from; i < to; i++ {
		out = append(out, alert.Alert{
			ID: fmt.Sprint("alert-", i), Time: time.Now().Add(time.Duration(i-1000) * time.Second).UTC(), Rule: fmt.Sprint("Rule ", i%3), Priority: alert.Warning,
			Cluster: "test", Tactics: []string{"execution"}, Entities: []alert.Entity{{Kind: alert.User, Name: fmt.Sprint("user-", i%7)}},
		})
	}
	return out
}

// joined returns the alerts of each incident.
func (j *Joiner) joined(t *testing.T) map[string][]string {
	t.Helper()
	page, _, err := j.Incidents(t.Context(), incident.Query{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, i := range page {
		for _, s := range i.Signals {
			out[i.ID] = append(out[i.ID], s.Alert)
		}
	}
	return out
}

// TestEachAlertIsInOneIncident expects the same of a joiner that is cut off after
// any batch as of one that never is.
func TestEachAlertIsInOneIncident(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kubeguardian.db")
	var seen map[string][]string
	for round := range 5 {
		j := openJoiner(t, path) // as after a restart
		if _, err := j.AddAlerts(t.Context(), alertsOf(0, 40*(round+1))); err != nil {
			t.Fatal(err)
		}
		cut, cancel := context.WithCancel(t.Context())
		if round%2 == 1 {
			cancel() // before it is done
		}
		if err := j.join(cut); (err != nil) != (round%2 == 1) {
			t.Fatalf("round %d: %v", round, err)
		}
		cancel()
		seen = j.joined(t)
	}
	total := 0
	for _, alerts := range seen {
		total += len(alerts)
		slices.Sort(alerts)
		if len(slices.Compact(alerts)) != len(alerts) {
			t.Errorf("an alert is in an incident twice: %v", alerts)
		}
	}
	if len(seen) != 7 || total != 200 {
		t.Errorf("%d incidents of %d alerts, want 7 of 200", len(seen), total)
	}
}

// TestChangeOutlastsNewAlerts expects what people say of an incident to stay when
// alerts join it.
func TestChangeOutlastsNewAlerts(t *testing.T) {
	j := openJoiner(t, filepath.Join(t.TempDir(), "kubeguardian.db"))
	add := func(from, to int) {
		if _, err := j.AddAlerts(t.Context(), alertsOf(from, to)); err != nil {
			t.Fatal(err)
		}
		if err := j.join(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	add(0, 1)
	who := "ada"
	if _, found, err := j.ChangeIncident(t.Context(), "alert-0", incident.Change{State: incident.Acknowledged, Assignee: &who}); err != nil || !found {
		t.Fatal(found, err)
	}
	add(1, 15)
	i, found, err := j.Incident(t.Context(), "alert-0")
	if err != nil || !found || i.State != incident.Acknowledged || i.Assignee != "ada" || len(i.Signals) != 3 {
		t.Errorf("%v %v %+v", found, err, i)
	}
	if _, found, err := j.ChangeIncident(t.Context(), "none", incident.Change{}); err != nil || found {
		t.Errorf("an incident that there is not: %v %v", found, err)
	}
}

// TestArranged expects what people merge and split to be so in the store at once,
// to stay so when alerts join, and what is refused to change nothing.
func TestArranged(t *testing.T) {
	j := openJoiner(t, filepath.Join(t.TempDir(), "kubeguardian.db"))
	add := func(from, to int) {
		if _, err := j.AddAlerts(t.Context(), alertsOf(from, to)); err != nil {
			t.Fatal(err)
		}
		if err := j.join(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	change := func(c incident.Change, want string) {
		t.Helper()
		if _, _, err := j.ChangeIncident(t.Context(), "alert-0", c); fmt.Sprint(err) != want {
			t.Fatalf("%+v: %v, want %s", c, err, want)
		}
	}
	state := func(want string) {
		t.Helper()
		if got := fmt.Sprint(j.joined(t)); got != want {
			t.Fatalf("incidents are\n%s\nwant\n%s", got, want)
		}
	}
	add(0, 9)
	const before = "map[alert-0:[alert-0 alert-7] alert-1:[alert-1 alert-8] alert-2:[alert-2] alert-3:[alert-3] alert-4:[alert-4] alert-5:[alert-5] alert-6:[alert-6]]"
	state(before)
	change(incident.Change{Merge: []string{"alert-1", "none"}}, `there is no incident "none"`)
	change(incident.Change{Merge: []string{"alert-1"}, Split: []string{"alert-2"}}, "alert alert-2 is not one of the incident's")
	state(before)
	change(incident.Change{Merge: []string{"alert-1", "alert-2", "alert-3", "alert-4", "alert-5"}, Split: []string{"alert-7"}}, "<nil>")
	state("map[alert-0:[alert-0 alert-1 alert-2 alert-3 alert-4 alert-5 alert-8] alert-6:[alert-6] alert-7:[alert-7]]")
	add(14, 16) // the users of the two that are apart, and of one that was taken in
	state("map[alert-0:[alert-0 alert-1 alert-2 alert-3 alert-4 alert-5 alert-8 alert-14 alert-15] alert-6:[alert-6] alert-7:[alert-7]]")
}

// randomAlerts returns alerts of pods, some of which tie two incidents or come late,
// and many of which are of one pod.
func randomAlerts(random *rand.Rand, from, to int) (out []alert.Alert) {
	for i := from; i < to; i++ {
		late := time.Duration(random.IntN(3)) * time.Minute
		a := alert.Alert{
			ID: fmt.Sprint("alert-", i), Time: time.Now().Add(time.Duration(i-2000)*time.Second - late).UTC(), Rule: fmt.Sprint("Rule ", i%3), Priority: alert.Notice,
			Cluster: "test", Tactics: []string{"execution"}, Entities: []alert.Entity{{Kind: alert.Pod, Name: fmt.Sprint("shop/", random.IntN(40))}},
		}
		switch random.IntN(20) {
		case 0:
			a.Entities = append(a.Entities, alert.Entity{Kind: alert.Pod, Name: fmt.Sprint("shop/", random.IntN(40))})
		case 1, 2, 3, 4, 5, 6, 7, 8, 9, 10:
			a.Entities[0].Name = "shop/busy"
		}
		out = append(out, a)
	}
	return out
}

// TestStoredAsKnown expects the store to have each incident as whoever joins knows
// it, though only what is new of one is written: when it grows, also beyond what is
// kept of it, takes in others, and is arranged by people, and after a restart.
func TestStoredAsKnown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kubeguardian.db")
	random := rand.New(rand.NewPCG(1, 2))
	j := openJoiner(t, path)
	dropped, arranged := 0, 0
	for round := range 60 {
		if random.IntN(10) == 0 {
			j = openJoiner(t, path)
		}
		if _, err := j.AddAlerts(t.Context(), randomAlerts(random, 30*round, 30*(round+1))); err != nil {
			t.Fatal(err)
		}
		if err := j.join(t.Context()); err != nil {
			t.Fatal(err)
		}
		stored, _, err := j.Correlated(t.Context(), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		signals := 0
		for _, i := range stored {
			known := j.correlator.Incident(i.ID)
			if have, want := asJSON(t, i), asJSON(t, known); have != want {
				t.Fatalf("round %d: stored is\n%s\nwant\n%s", round, have, want)
			}
			for _, one := range []*incident.Incident{i, known} {
				if signals, before := one.Unsaved(); len(signals) > 0 || before != len(i.Signals) {
					t.Fatalf("round %d: of incident %s %d signals were saved, %d not", round, i.ID, before, len(signals))
				}
			}
			signals, dropped = signals+len(i.Signals)+i.Dropped, dropped+i.Dropped
		}
		if signals != 30*(round+1) {
			t.Fatalf("round %d: %d alerts are in incidents, want %d", round, signals, 30*(round+1))
		}
		one, other := stored[random.IntN(len(stored))], stored[random.IntN(len(stored))]
		change := incident.Change{Merge: []string{other.ID}}
		if random.IntN(2) == 0 && len(one.Signals) > 1 {
			change = incident.Change{Split: []string{one.Signals[1].Alert}}
		}
		if _, _, err := j.ChangeIncident(t.Context(), one.ID, change); err == nil {
			arranged++
		}
	}
	if dropped == 0 || arranged < 20 {
		t.Errorf("%d alerts were beyond what is kept, people arranged %d times", dropped, arranged)
	}
}

func asJSON(t *testing.T, i *incident.Incident) string {
	t.Helper()
	out, err := json.Marshal(i)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestTwoJoiners expects of two that join at the same time what one does: each
// alert is in one incident, once, and what people say stays.
func TestTwoJoiners(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kubeguardian.db")
	joiners := []*Joiner{openJoiner(t, path), openJoiner(t, path)}
	who := "ada"
	var group sync.WaitGroup
	for n, j := range joiners {
		group.Go(func() {
			for round := range 10 {
				if _, err := j.AddAlerts(t.Context(), alertsOf(200*n+20*round, 200*n+20*(round+1))); err != nil {
					t.Error(err)
				}
				if err := j.join(t.Context()); err != nil {
					t.Error(err)
				}
				if _, _, err := j.ChangeIncident(t.Context(), "alert-0", incident.Change{Assignee: &who}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	total, seen := 0, map[string]bool{}
	for id, alerts := range joiners[0].joined(t) {
		for _, a := range alerts {
			if seen[a] {
				t.Errorf("alert %s is in an incident again, %s", a, id)
			}
			seen[a] = true
			total++
		}
	}
	if total != 400 {
		t.Errorf("%d alerts are in incidents, want 400", total)
	}
}
