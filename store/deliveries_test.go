package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
	"github.com/kubeguardian/kubeguardian/store/retention"
)

// message returns message i to a destination, due i seconds after the start.
func message(to string, i int) delivery.Message {
	at := start.Add(time.Duration(i) * time.Second)
	return delivery.Message{
		Destination: to, Key: fmt.Sprint("key-", i), State: delivery.Waiting, Title: fmt.Sprint("message ", i),
		Created: at, Due: at, Next: at, Until: at, Count: 1, First: at, Last: at, Body: []byte(fmt.Sprintf(`{"n":%d}`, i)),
	}
}

func enqueued(t *testing.T, s *Store, messages ...delivery.Message) (added []delivery.Message, counted int) {
	t.Helper()
	added, counted, err := s.Enqueue(t.Context(), messages, delivery.Progress{Alert: 7}, start)
	if err != nil {
		t.Fatal(err)
	}
	return added, counted
}

func titles(list []delivery.Message) (out []string) {
	for _, m := range list {
		out = append(out, m.Title)
	}
	return out
}

func TestQueue(t *testing.T) {
	s := open(t)
	if seq, _, found, err := s.Notified(t.Context()); seq != 0 || !found || err != nil {
		t.Errorf("an empty store: %d, %t, %v", seq, found, err)
	}
	for range 2 { // the second time is after a crash
		enqueued(t, s, message("a", 2), message("a", 1), message("b", 0))
	}
	if seq, _, found, err := s.Notified(t.Context()); seq != 7 || !found || err != nil {
		t.Errorf("up to %d, %v", seq, err)
	}
	batch, next, err := s.Claim(t.Context(), "a", 10, start)
	if err != nil || len(batch) != 0 || !next.Equal(start.Add(time.Second)) {
		t.Errorf("before anything is due: %v, %s, %v", titles(batch), next, err)
	}
	now := start.Add(time.Minute)
	batch, _, err = s.Claim(t.Context(), "a", 10, now)
	if err != nil || !slices.Equal(titles(batch), []string{"message 1", "message 2"}) {
		t.Fatalf("got %v, %v", titles(batch), err)
	}
	if m := batch[0]; m.Attempts != 1 || string(m.Body) != `{"n":1}` || !m.Due.Equal(start.Add(time.Second)) || !m.Done.IsZero() {
		t.Errorf("got %+v", m)
	}
	later := now.Add(time.Minute)
	if err := s.Finish(t.Context(), []delivery.Result{{Seq: batch[0].Seq, State: delivery.Waiting, Reason: "down", Next: later}, {Seq: batch[1].Seq, State: delivery.Waiting, Next: later}}, now); err != nil {
		t.Fatal(err)
	}
	enqueued(t, s, message("a", 3))
	if batch, next, _ := s.Claim(t.Context(), "a", 10, now); len(batch) != 0 || !next.Equal(later) {
		t.Errorf("something overtakes the first: %v, %s", titles(batch), next)
	}
	standing := must[map[string]delivery.Standing](t)(s.Standings(t.Context()))
	if a := standing["a"]; a.Waiting != 3 || a.Reason != "down" || a.Attempts != 1 || !a.Oldest.Equal(start.Add(time.Second)) || standing["b"].Waiting != 1 {
		t.Errorf("standings: %+v", standing)
	}
	batch, _, _ = s.Claim(t.Context(), "a", 2, later)
	results := []delivery.Result{{Seq: batch[0].Seq, State: delivery.Delivered, Next: later}, {Seq: batch[1].Seq, State: delivery.Dead, Reason: "refused", Next: later}}
	if err := s.Finish(t.Context(), results, later); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(t.Context(), []delivery.Result{{Seq: batch[0].Seq, State: delivery.Dead, Next: later}}, later); err != nil {
		t.Fatal(err)
	}
	if page, _, err := s.Deliveries(t.Context(), delivery.Query{Destination: "a", State: delivery.Delivered}); err != nil || len(page) != 1 || !page[0].Done.Equal(later) {
		t.Errorf("what is delivered stays so: %+v, %v", page, err)
	}
	if n, err := s.Revive(t.Context(), "a", batch[0].Seq, later); n != 0 || err != nil {
		t.Errorf("a message that is no dead letter: %d, %v", n, err)
	}
	if n, err := s.Revive(t.Context(), "a", batch[1].Seq, later); n != 1 || err != nil {
		t.Errorf("a dead letter: %d, %v", n, err)
	}
}

func TestQueuePages(t *testing.T) {
	s := open(t)
	for i := range 7 {
		enqueued(t, s, message("a", i), message("b", i))
	}
	var got []string
	q := delivery.Query{Destination: "a", Limit: 3}
	for {
		page, next, err := s.Deliveries(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, titles(page)...)
		if q.Before = next; next == 0 {
			break
		}
	}
	if len(got) != 7 || got[0] != "message 6" || got[6] != "message 0" {
		t.Errorf("got %v", got)
	}
}

func TestQueueGroups(t *testing.T) {
	s := open(t)
	grouped := func(i int) delivery.Message {
		m := message("a", i)
		m.Group, m.Until = "g", m.Due.Add(10*time.Minute)
		return m
	}
	enqueued(t, s, grouped(0))
	if added, counted := enqueued(t, s, grouped(5)); len(added) != 0 || counted != 1 {
		t.Errorf("one that waits counts the next: %v, %d", titles(added), counted)
	}
	batch, _, err := s.Claim(t.Context(), "a", 1, start.Add(time.Minute))
	if err != nil || len(batch) != 1 || batch[0].Count != 2 || batch[0].Last.Sub(batch[0].First) != 5*time.Second {
		t.Fatalf("got %+v, %v", batch, err)
	}
	added, counted := enqueued(t, s, grouped(30))
	if len(added) != 1 || counted != 0 || !added[0].Due.Equal(start.Add(10*time.Minute)) || !added[0].Until.Equal(start.Add(20*time.Minute)) {
		t.Errorf("one that is tried does not change any more: %+v, %d", added, counted)
	}
}

// TestQueueFlood: what belongs together is one message also when it comes at once.
func TestQueueFlood(t *testing.T) {
	s := open(t)
	var flood []delivery.Message
	for i := range 10 {
		for _, to := range []string{"a", "b"} {
			m := message(to, 9-i)
			m.Group, m.Until = fmt.Sprint("g", i%2), m.Due.Add(time.Hour)
			flood = append(flood, m)
		}
	}
	added, counted := enqueued(t, s, append(flood, message("a", 20), message("a", 21))...)
	if len(added) != 6 || counted != 16 {
		t.Fatalf("%v, %d counted", titles(added), counted)
	}
	batch, _, err := s.Claim(t.Context(), "a", 10, start.Add(time.Minute))
	if err != nil || len(batch) != 4 || batch[0].Count != 5 || batch[0].Last.Sub(batch[0].First) != 8*time.Second || batch[3].Count != 1 {
		t.Errorf("got %+v, %v", batch, err)
	}
}

func TestQueueBounds(t *testing.T) {
	s := open(t)
	for i := range 10 {
		enqueued(t, s, message("a", i), message("b", i))
	}
	dead, err := s.Overdue(t.Context(), "a", start.Add(3*time.Second), 5, start.Add(time.Hour))
	if err != nil || !slices.Equal(titles(dead), []string{"message 0", "message 1", "message 2", "message 3", "message 4"}) {
		t.Errorf("got %v, %v", titles(dead), err)
	}
	if n, err := s.Orphans(t.Context(), []string{"a", "c"}, start); n != 10 || err != nil {
		t.Errorf("of b: %d, %v", n, err)
	}
	if n, err := s.Orphans(t.Context(), nil, start); n != 5 || err != nil {
		t.Errorf("of all others: %d, %v", n, err)
	}
	if n := removeOld(t, s, start.Add(time.Minute)).Removed[retention.Cause{Kind: retention.Messages, Limit: retention.Age}]; n != 15 {
		t.Errorf("%d were removed", n)
	}
	if page, _, err := s.Deliveries(t.Context(), delivery.Query{}); len(page) != 5 || err != nil {
		t.Errorf("%d are left, %v", len(page), err)
	}
}

func TestUnannounced(t *testing.T) {
	s := open(t)
	var all []*incident.Incident
	for i := range 6 {
		one := &incident.Incident{ID: fmt.Sprint("i", i), State: incident.New, First: start, Last: start, Paged: start, Worst: alert.Critical,
			Signals: []incident.Signal{{Alert: fmt.Sprint("alert-", i), Time: start}}}
		switch i {
		case 1:
			one.Paged = time.Time{}
		case 2:
			one.State = incident.Acknowledged
		}
		all = append(all, one)
	}
	if err := s.SaveIncidents(t.Context(), all, nil, Joined{}, 9); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Enqueue(t.Context(), nil, delivery.Progress{Alert: 3, Incidents: []delivery.Told{{Incident: "i0", As: "i0", State: "new"}, {Incident: "i4", As: "i4", State: "new"}, {Incident: "gone", As: "gone", State: "new"}}}, start); err != nil {
		t.Fatal(err)
	}
	if notified, joined, found, err := s.Notified(t.Context()); notified != 3 || joined != 9 || !found || err != nil {
		t.Errorf("up to %d of %d, %v", notified, joined, err)
	}
	var got []string
	for place := int64(0); ; {
		list, last, err := s.Unannounced(t.Context(), place, 1)
		if err != nil {
			t.Fatal(err)
		}
		if place = last; len(list) == 0 {
			break
		}
		got = append(got, list[0].ID)
	}
	if !slices.Equal(got, []string{"i3", "i5"}) {
		t.Errorf("got %v", got)
	}
	paged := must[map[string]bool](t)(s.PagedAlerts(t.Context(), start))
	if len(paged) != 5 || paged["alert-1"] {
		t.Errorf("paged: %v", paged)
	}
	if paged := must[map[string]bool](t)(s.PagedAlerts(t.Context(), start.Add(time.Second))); len(paged) != 0 {
		t.Errorf("of later: %v", paged)
	}
	removeOld(t, s, start.Add(time.Hour))
	if list, _, err := s.Unannounced(t.Context(), 0, 10); len(list) != 2 || err != nil {
		t.Errorf("after the others are forgotten: %d, %v", len(list), err)
	}
}
