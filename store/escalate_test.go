package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
)

// TestEscalated: what was told of and has come further is found, wherever it is a
// part of by now, unless it was told of again, is closed, or was told of just now.
func TestEscalated(t *testing.T) {
	s, ctx := open(t), t.Context()
	now := time.Now()
	var all []*incident.Incident
	for n := range 6 {
		all = append(all, &incident.Incident{
			ID: fmt.Sprint("i", n), State: incident.New, First: start, Last: start, Paged: start, Worst: alert.Error,
			Signals: []incident.Signal{{Alert: fmt.Sprint("i", n), Time: start, Priority: alert.Error}},
		})
	}
	save := func(merged []Merge, changed ...*incident.Incident) {
		t.Helper()
		_, was, err := s.Correlated(ctx, start)
		if err == nil {
			err = s.SaveIncidents(ctx, changed, merged, was, was.Alert+1)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tell := func(at time.Time, told ...delivery.Told) {
		t.Helper()
		if _, _, err := s.Enqueue(ctx, nil, delivery.Progress{Incidents: told}, at); err != nil {
			t.Fatal(err)
		}
	}
	told := func(i *incident.Incident, as string) delivery.Told {
		return delivery.Told{Incident: i.ID, As: as, State: string(i.State), Level: i.Level()}
	}
	want := func(what string, ids ...string) {
		t.Helper()
		var got []string
		for place := int64(0); ; {
			list, last, err := s.Escalated(ctx, now.Add(-10*time.Minute), place, 2)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range list {
				got = append(got, i.ID)
			}
			if place = last; len(list) < 2 {
				break
			}
		}
		if !slices.Equal(got, ids) {
			t.Errorf("%s: escalated are %q, want %q", what, got, ids)
		}
	}
	save(nil, all...)
	before := now.Add(-time.Hour)
	for n, i := range all[:5] { // nobody was told of the last one
		at := before
		if n == 4 {
			at = now
		}
		tell(at, told(i, i.ID))
	}
	want("as it was")
	for n, i := range all {
		if i.Worst = alert.Critical; n == 1 {
			i.State = incident.Closed
		}
	}
	save(nil, all...)
	want("all worse", "i0", "i2", "i3")
	tell(before, told(all[0], "i0#1"))
	want("one told of again", "i2", "i3")
	save([]Merge{{Part: "i2", Whole: "i5"}}, all[5])
	want("one a part of another one", "i3", "i5")
	for _, test := range []struct {
		ids   []string
		at    time.Time
		level int
	}{
		{[]string{"i0"}, before, all[0].Level()},
		{[]string{"i5", "none"}, before, all[0].Level() - 15},
		{[]string{"none"}, time.Time{}, 0},
		{nil, time.Time{}, 0},
	} {
		if at, level, err := s.LastTold(ctx, test.ids); !at.Equal(test.at) || level != test.level || err != nil {
			t.Errorf("%q was told of at %s with %d, %v; want %s and %d", test.ids, at, level, err, test.at, test.level)
		}
	}
	message := delivery.Message{Destination: "chat", Key: "k", State: delivery.Waiting, Created: now, Due: now, Next: now, Until: now, Count: 1, First: now, Last: now, Incident: "i2", Body: []byte("{}")}
	if _, _, err := s.Enqueue(ctx, []delivery.Message{message}, delivery.Progress{}, now); err != nil {
		t.Fatal(err)
	}
	for id, n := range map[string]int{"i5": 1, "i0": 0, "": 1} {
		if list, _, err := s.Deliveries(ctx, delivery.Query{Incident: id}); len(list) != n || err != nil {
			t.Errorf("%d messages about %q, %v; want %d", len(list), id, err, n)
		}
	}
}
