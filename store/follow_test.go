package store

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
)

// changed returns which incidents have changed since they were told of, each as
// "told by this id: id now, state now".
func changed(t *testing.T, s *Store) (out []string) {
	t.Helper()
	list := must[map[string]*incident.Incident](t)(s.Changed(t.Context(), 10))
	for _, told := range slices.Sorted(maps.Keys(list)) {
		out = append(out, fmt.Sprintf("%s: %s %s", told, list[told].ID, list[told].State))
	}
	return out
}

// TestChanged follows what was told of through merges and splits, until it is told
// to be closed.
func TestChanged(t *testing.T) {
	s, ctx := open(t), t.Context()
	var all []*incident.Incident
	for _, id := range []string{"a", "b", "c"} {
		one := &incident.Incident{ID: id, State: incident.New, First: start, Last: start, Paged: start, Worst: alert.Critical}
		one.Signals = []incident.Signal{{Alert: id, Time: start}, {Alert: id + "2", Time: start}}
		all = append(all, one)
	}
	if err := s.SaveIncidents(ctx, all, nil, Joined{}, 9); err != nil {
		t.Fatal(err)
	}
	tell := func(p delivery.Progress) {
		t.Helper()
		if _, _, err := s.Enqueue(ctx, nil, p, start); err != nil {
			t.Fatal(err)
		}
	}
	change := func(id string, c incident.Change) {
		t.Helper()
		if _, found, err := s.ChangeIncident(ctx, id, c); err != nil || !found {
			t.Fatal(found, err)
		}
	}
	want := func(list ...string) {
		t.Helper()
		if got := changed(t, s); !slices.Equal(got, list) {
			t.Fatalf("changed are %q, want %q", got, list)
		}
	}
	tell(delivery.Progress{Incidents: []delivery.Told{{Incident: "a", As: "a", State: "new"}, {Incident: "b", As: "b", State: "new"}}})
	want()
	change("c", incident.Change{State: incident.Acknowledged}) // it was not told of
	change("a", incident.Change{State: incident.Acknowledged})
	want("a: a acknowledged")
	tell(delivery.Progress{Became: []delivery.Became{{Incident: "a", State: "acknowledged"}}})
	want()
	change("a", incident.Change{Merge: []string{"b"}})
	want("b: a acknowledged")
	tell(delivery.Progress{Became: []delivery.Became{{Incident: "b", State: "acknowledged"}}})
	change("a", incident.Change{Split: []string{"b", "b2"}}) // as it was
	change("b", incident.Change{State: incident.Closed, Reason: "a drill"})
	want("b: b closed")
	tell(delivery.Progress{Became: []delivery.Became{{Incident: "b", State: "closed"}}})
	want()
	removeOld(t, s, start.Add(time.Hour))
	change("a", incident.Change{State: incident.Closed, Reason: "another one"})
	want("a: a closed")
}

// TestFollow: what follows a message is claimed after it, whatever clocks say,
// and has its fate.
func TestFollow(t *testing.T) {
	s, ctx := open(t), t.Context()
	follower := func(of, n, due int) delivery.Message {
		m := message("a", due)
		m.Key, m.Title, m.Follows = fmt.Sprintf("key-%d-%d", of, n), fmt.Sprintf("after %d, %d", of, n), fmt.Sprint("key-", of)
		return m
	}
	enqueued(t, s, message("a", 10), message("a", 20))
	enqueued(t, s, follower(10, 1, 11), follower(20, 1, 30))
	if added, _ := enqueued(t, s, follower(10, 2, 5), follower(20, 1, 31), follower(99, 1, 5)); len(added) != 1 {
		t.Errorf("added are %q, want neither what is there nor what follows nothing", titles(added))
	}
	now := start.Add(time.Minute)
	batch, _, err := s.Claim(ctx, "a", 10, now)
	if want := []string{"message 10", "after 10, 1", "after 10, 2", "message 20", "after 20, 1"}; err != nil || !slices.Equal(titles(batch), want) {
		t.Fatalf("claimed are %q, %v, want %q", titles(batch), err, want)
	}
	if err := s.Finish(ctx, []delivery.Result{{Seq: batch[0].Seq, State: delivery.Dead, Reason: "refused", Next: now}, {Seq: batch[3].Seq, State: delivery.Delivered, Next: now}}, now); err != nil {
		t.Fatal(err)
	}
	dead, _, err := s.Deliveries(ctx, delivery.Query{Destination: "a", State: delivery.Dead})
	if err != nil || !slices.Equal(titles(dead), []string{"after 10, 2", "after 10, 1", "message 10"}) {
		t.Errorf("dead letters are %q, %v", titles(dead), err)
	}
	if enqueued(t, s, follower(10, 3, 40)); must[map[string]delivery.Standing](t)(s.Standings(ctx))["a"].Dead != 4 {
		t.Error("what follows a dead letter is not one")
	}
	if n, err := s.Revive(ctx, "a", batch[0].Seq, now); n != 4 || err != nil {
		t.Errorf("queued again: %d, %v", n, err)
	}
	m, found, err := s.Delivery(ctx, "a", "key-10-3")
	if err != nil || !found || m.State != delivery.Waiting || m.Follows != "key-10" {
		t.Errorf("%t %v: %+v", found, err, m)
	}
	if _, found, err := s.Delivery(ctx, "b", "key-10-3"); found || err != nil {
		t.Errorf("of another destination: %t, %v", found, err)
	}
}
