package store

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
)

// byUser groups alerts by their user within a minute.
func byUser(limit int) func(*alert.Alert) (alert.Group, error) {
	return func(a *alert.Alert) (alert.Group, error) {
		return alert.Group{
			Key: fmt.Append(nil, a.Rule, a.OutputFields["ka.user.name"]), Within: time.Minute,
			Limit: limit, Rest: fmt.Append(nil, a.Rule, "\x00rest"),
		}, nil
	}
}

// of returns the alert that a user's request raises at a second.
func of(user string, second int) alert.Alert {
	a := testAlert(0)
	a.ID, a.Time = alert.NewID("k8s_audit", fmt.Sprint(user, second), a.Rule), start.Add(time.Duration(second)*time.Second)
	a.OutputFields = map[string]any{"ka.user.name": user}
	return a
}

func addGrouped(t *testing.T, s *Store, limit int, alerts ...alert.Alert) (added, repeated int) {
	t.Helper()
	a, r, err := s.AddGrouped(t.Context(), alerts, byUser(limit))
	if err != nil {
		t.Fatal(err)
	}
	return len(a), len(r)
}

func stored(t *testing.T, s *Store, a alert.Alert) alert.Record {
	t.Helper()
	r, found, err := s.Alert(t.Context(), a.ID)
	if err != nil || !found {
		t.Fatalf("alert %s: %v, %v", a.ID, found, err)
	}
	return r
}

func TestRepeats(t *testing.T) {
	s := open(t)
	first, next := of("eve", 100), of("eve", 160)
	for _, step := range []struct {
		alert           alert.Alert
		added, repeated int
	}{
		{first, 1, 0},
		{of("eve", 101), 0, 1},
		{of("eve", 101), 0, 0}, // comes again
		{first, 0, 0},
		{of("bob", 102), 1, 0},
		{of("eve", 90), 0, 1}, // late
		{of("eve", 159), 0, 1},
		{next, 1, 0},
		{of("eve", 161), 0, 1},
		{of("eve", 30), 1, 0}, // much too late
	} {
		if added, repeated := addGrouped(t, s, 0, step.alert); added != step.added || repeated != step.repeated {
			t.Errorf("%v at %v: %d added and %d repeated, want %d and %d", step.alert.OutputFields, step.alert.Time, added, repeated, step.added, step.repeated)
		}
	}
	at := func(second int) time.Time { return start.Add(time.Duration(second) * time.Second) }
	if r := stored(t, s, first); r.Repeats == nil || *r.Repeats != (alert.Repeats{Count: 3, First: at(90), Last: at(159)}) || r.Previous != nil || r.OverLimit {
		t.Errorf("first: %+v, %+v", r.Repeats, r.Previous)
	}
	if r := stored(t, s, next); *r.Repeats != (alert.Repeats{Count: 1, First: at(161), Last: at(161)}) || *r.Previous != (alert.Repeats{Count: 3, First: at(90), Last: at(159)}) {
		t.Errorf("next: %+v, %+v", r.Repeats, r.Previous)
	}
	// In one batch, the alert that follows knows what is not written yet.
	addGrouped(t, s, 0, of("joe", 0), of("joe", 1), of("joe", 2), of("joe", 60))
	if r := stored(t, s, of("joe", 60)); r.Previous == nil || r.Previous.Count != 2 {
		t.Errorf("in one batch: %+v", r.Previous)
	}
	// Without a cooldown, what was counted is not stored after all.
	if added, err := s.AddAlerts(t.Context(), []alert.Alert{of("eve", 101)}); err != nil || len(added) != 0 {
		t.Errorf("what was counted is stored: %v, %v", added, err)
	}
}

func TestLimit(t *testing.T) {
	s := open(t)
	var flood []alert.Alert
	for i := range 50 {
		flood = append(flood, of(fmt.Sprint("user-", i), i))
	}
	if added, repeated := addGrouped(t, s, 10, flood...); added != 11 || repeated != 39 {
		t.Errorf("%d added, %d repeated", added, repeated)
	}
	if r := stored(t, s, flood[10]); !r.OverLimit || r.Repeats.Count != 39 {
		t.Errorf("over the limit: %v, %+v", r.OverLimit, r.Repeats)
	}
	if r := stored(t, s, flood[9]); r.OverLimit || r.Repeats != nil {
		t.Errorf("at the limit: %+v", r)
	}
	other := of("eve", 50)
	other.Rule = "Exec into pod, too"
	if added, _ := addGrouped(t, s, 10, other, of("user-3", 51), of("eve", 200)); added != 2 {
		t.Errorf("of another rule, of a known user and later: %d added, want 2", added)
	}
	if r := stored(t, s, flood[3]); r.Repeats == nil || r.Repeats.Count != 1 {
		t.Errorf("a repeat of what is within the limit counts there: %+v", r.Repeats)
	}
}

// Whatever the order and however often batches come, each alert is stored or
// counted, once.
func TestEachOnce(t *testing.T) {
	for seed := range uint64(20) {
		s, random := open(t), rand.New(rand.NewPCG(seed, 0))
		var all []alert.Alert
		for i := range 300 {
			all = append(all, of(fmt.Sprint("user-", random.IntN(6)), i*7))
		}
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		added, repeated := 0, 0
		for i := 0; i < len(all); i += 20 {
			for range 1 + random.IntN(2) {
				a, r := addGrouped(t, s, int(seed%3)*2, all[max(i-10, 0):i+20]...)
				added, repeated = added+a, repeated+r
			}
		}
		kept, counted := countedIn(t, s)
		if kept != added || counted != repeated || kept+counted != len(all) {
			t.Fatalf("seed %d: %d kept and %d counted, %d and %d reported, want %d together", seed, kept, counted, added, repeated, len(all))
		}
	}
}

// countedIn returns how many alerts a store has kept, and counted in those.
func countedIn(t *testing.T, s *Store) (kept, counted int) {
	t.Helper()
	for _, r := range readAll(t, s, alert.Query{Limit: maxLimit}) {
		kept++
		if r.Repeats != nil {
			counted += r.Repeats.Count
		}
	}
	return kept, counted
}

func TestPruneRepeats(t *testing.T) {
	s := open(t)
	addGrouped(t, s, 0, of("eve", 0), of("eve", 1), of("eve", 59))
	removeOld(t, s, start.Add(30*time.Second))
	var left int
	if err := s.readers.QueryRowContext(t.Context(), "SELECT count(*) FROM repeats").Scan(&left); err != nil || left != 1 {
		t.Errorf("%d ids are left, %v", left, err)
	}
}
