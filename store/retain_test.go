package store

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
	"github.com/kubeguardian/kubeguardian/store/outbox"
	"github.com/kubeguardian/kubeguardian/store/retention"
)

// unlimited removes nothing.
var unlimited = retention.Limits{Alerts: 1e5 * time.Hour, Decisions: 1e5 * time.Hour, Records: 1e9}

// retain removes what is over the limits.
func retain(t testing.TB, s *Store, l retention.Limits, now time.Time) retention.Report {
	t.Helper()
	return must[retention.Report](t)(s.Retain(t.Context(), l, now))
}

// told lets all have been told of the alerts up to one.
func told(t testing.TB, s *Store, seq int64) {
	t.Helper()
	for name, body := range map[string]string{correlated: fmt.Sprint(seq, 0), outbox.Progress: fmt.Sprint(seq)} {
		if err := s.SaveCheckpoint(t.Context(), name, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
}

// removeOld removes what came before a time, of which all are told, where what has
// no time of coming yet came last.
func removeOld(t testing.TB, s *Store, before time.Time) retention.Report {
	t.Helper()
	told(t, s, must[int64](t)(s.LastAlert(t.Context())))
	l := unlimited
	l.Alerts, l.Decisions = 0, 0
	return retain(t, s, l, before)
}

func removed(kind, limit string, n int) map[retention.Cause]int {
	return map[retention.Cause]int{{Kind: kind, Limit: limit}: n}
}

func checkRemoved(t *testing.T, r retention.Report, want map[retention.Cause]int) {
	t.Helper()
	if fmt.Sprint(r.Removed) != fmt.Sprint(want) {
		t.Errorf("removed %v, want %v", r.Removed, want)
	}
}

// TestRetainByAge: the age of alerts counts from when they came, that of decisions
// from when they were made.
func TestRetainByAge(t *testing.T) {
	s, ctx := open(t), t.Context()
	const old = 4005 // more than two steps
	must[[]alert.Alert](t)(s.AddAlerts(ctx, testAlerts(10, 10+old)))
	retain(t, s, unlimited, start)
	must[[]alert.Alert](t)(s.AddAlerts(ctx, testAlerts(0, 10)))
	if err := s.AddDecisions(ctx, testDecisions(100)); err != nil {
		t.Fatal(err)
	}
	last := must[int64](t)(s.LastAlert(ctx))
	told(t, s, last)
	l := unlimited
	l.Alerts, l.Decisions = time.Hour, time.Hour-20*time.Second
	r := retain(t, s, l, start.Add(time.Hour+20*time.Second))
	want := removed(retention.Alerts, retention.Age, old)
	want[retention.Cause{Kind: retention.Decisions, Limit: retention.Age}] = 40
	checkRemoved(t, r, want)
	if c := must[Counts](t)(s.Counts(ctx)); c.Alerts != 10 || c.Decisions != 60 {
		t.Errorf("left: %+v", c)
	}
	if !r.Oldest.Equal(start.Add(time.Hour+20*time.Second)) || r.Held != 0 || r.Bytes <= 0 {
		t.Errorf("report: %+v", r)
	}
	count := 0
	for _, m := range must[map[string]alert.Matches](t)(s.RuleCounts(ctx)) {
		count += m.Count
	}
	if count != 10 {
		t.Errorf("rules have %d alerts", count)
	}
	checkRemoved(t, retain(t, s, l, start.Add(time.Hour+20*time.Second)), nil)
	// A number is never used twice, or a reader would miss an alert.
	checkRemoved(t, retain(t, s, l, start.Add(3*time.Hour)), map[retention.Cause]int{{Kind: retention.Alerts, Limit: retention.Age}: 10, {Kind: retention.Decisions, Limit: retention.Age}: 60})
	must[[]alert.Alert](t)(s.AddAlerts(ctx, testAlerts(0, 1)))
	if next := must[int64](t)(s.LastAlert(ctx)); next <= last {
		t.Errorf("the next alert has seq %d", next)
	}
}

// TestRetainUntilTold: an alert that is older than all that is kept when it comes
// stays until all have been told of it, and then as long as others.
func TestRetainUntilTold(t *testing.T) {
	s, ctx := open(t), t.Context()
	late := testAlert(0)
	late.Time = start.Add(-1e4 * time.Hour)
	must[[]alert.Alert](t)(s.AddAlerts(ctx, append(testAlerts(1, 4), late)))
	first := must[int64](t)(s.LastAlert(ctx)) - 3
	l := unlimited
	l.Alerts = 24 * time.Hour
	checkRemoved(t, retain(t, s, l, start), nil)

	day := start.Add(l.Alerts + time.Second)
	r := retain(t, s, l, day)
	if checkRemoved(t, r, nil); r.Held != 4 || r.For != "incidents" {
		t.Errorf("before anybody was told: %+v", r)
	}
	told(t, s, first+3)
	l.Told = map[string]int64{"hub": first + 1}
	r = retain(t, s, l, day)
	if checkRemoved(t, r, removed(retention.Alerts, retention.Age, 2)); r.Held != 2 || r.For != "hub" {
		t.Errorf("before the hub has all: %+v", r)
	}
	few := l
	few.Alerts, few.Records = unlimited.Alerts, 1
	if r := retain(t, s, few, day); r.Held != 1 || r.Sum() != 0 {
		t.Errorf("by number: %+v", r)
	}
	l.Told = nil
	r = retain(t, s, l, day)
	if checkRemoved(t, r, removed(retention.Alerts, retention.Age, 2)); r.Held != 0 || r.For != "" {
		t.Errorf("when all are told: %+v", r)
	}
}

// TestRetainClock: what a clock that was ahead has noted does not keep alerts.
func TestRetainClock(t *testing.T) {
	s := open(t)
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), testAlerts(0, 1)))
	retain(t, s, unlimited, start.Add(1e6*time.Hour))
	retain(t, s, unlimited, start)
	checkRemoved(t, removeOld(t, s, start.Add(time.Second)), removed(retention.Alerts, retention.Age, 1))
}

// TestRetainByNumber: of more records than are to be kept, those that came last
// are.
func TestRetainByNumber(t *testing.T) {
	s := open(t)
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), testAlerts(50, 100)))
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), testAlerts(0, 50)))
	if err := s.AddDecisions(t.Context(), testDecisions(20)); err != nil {
		t.Fatal(err)
	}
	told(t, s, 100)
	l := unlimited
	l.Records = 30
	checkRemoved(t, retain(t, s, l, start), removed(retention.Alerts, retention.Number, 70))
	if left := readAll(t, s, alert.Query{Limit: 100}); len(left) != 30 || left[29].ID != testAlert(20).ID {
		t.Errorf("%d alerts are left", len(left))
	}
	l.Records = 15
	r := retain(t, s, l, start)
	checkRemoved(t, r, map[retention.Cause]int{{Kind: retention.Alerts, Limit: retention.Number}: 15, {Kind: retention.Decisions, Limit: retention.Number}: 5})
	checkRemoved(t, retain(t, s, l, start), nil)
}

// TestRetainBySize: the database gets as small as it has to be, of what came first,
// and not much smaller; and a limit that cannot be kept leaves the newest alerts.
func TestRetainBySize(t *testing.T) {
	s, ctx := open(t), t.Context()
	const n, step = 14_000, 2000
	all := involving(n)
	for i := 0; i < n; i += step {
		must[[]alert.Alert](t)(s.AddAlerts(ctx, all[i:i+step]))
		retain(t, s, unlimited, start.Add(time.Duration(i)*time.Second))
	}
	indexAll(t, s)
	enqueued(t, s, message("a", 0), message("a", n-1))
	if _, err := s.Overdue(ctx, "a", start.Add(2*n*time.Second), 5, start.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	told(t, s, n)
	now := start.Add(n * time.Second)
	before := retain(t, s, unlimited, now)
	checkSize(t, s, before.Bytes)
	l := unlimited
	l.Bytes = before.Bytes * 6 / 10
	r := retain(t, s, l, now)
	left := must[Counts](t)(s.Counts(ctx)).Alerts
	if r.Bytes > l.Bytes || r.Over || left < n*4/10 || left > n*7/10 {
		t.Errorf("%d of %d bytes and %d of %d alerts are left: %+v", r.Bytes, before.Bytes, left, n, r)
	}
	checkRemoved(t, r, map[retention.Cause]int{{Kind: retention.Alerts, Limit: retention.Size}: n - left, {Kind: retention.Messages, Limit: retention.Size}: 2})
	checkSize(t, s, r.Bytes)
	if first := must[int64](t)(s.LastAlert(ctx)) - int64(left) + 1; first > 1 {
		if _, found, err := s.Alert(ctx, all[first-1].ID); !found || err != nil {
			t.Errorf("the oldest that should be left is gone: %v", err)
		}
	}
	checkRemoved(t, retain(t, s, l, now), nil)
	l.Bytes = 1
	if r := retain(t, s, l, now); !r.Over || r.Sum() == 0 {
		t.Errorf("a limit that cannot be kept: %+v", r)
	}
	if left := must[Counts](t)(s.Counts(ctx)).Alerts; left != 1000 {
		t.Errorf("%d alerts are left", left)
	}
	checkIntegrity(t, s)
}

// checkSize compares what a database is said to take with what it takes once it is
// written anew.
func checkSize(t *testing.T, s *Store, have int64) {
	t.Helper()
	var want int64
	if !s.postgres {
		if _, err := s.writer.Exec("VACUUM"); err != nil {
			t.Fatal(err)
		}
		want = must[int64](t)(retention.Bytes(t.Context(), s.readers, false))
	} else {
		if _, err := s.writer.Exec("VACUUM FULL"); err != nil {
			t.Fatal(err)
		}
		if err := s.readers.QueryRow("SELECT CAST(sum(pg_total_relation_size(oid)) AS BIGINT) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace").Scan(&want); err != nil {
			t.Fatal(err)
		}
	}
	// Pages are not full, and indices less so than when they are made at once.
	if ratio := float64(have) / float64(want); ratio < 0.85 || ratio > 1.7 {
		t.Errorf("it is said to take %d bytes and takes %d", have, want)
	} else {
		t.Logf("it is said to take %d bytes and takes %d", have, want)
	}
}

// TestRetainOpenIncidents: what somebody has to look at stays, with its alerts.
func TestRetainOpenIncidents(t *testing.T) {
	s, ctx := open(t), t.Context()
	must[[]alert.Alert](t)(s.AddAlerts(ctx, testAlerts(0, 60)))
	made := func(i int, state incident.State, paged bool, alerts ...int) *incident.Incident {
		one := &incident.Incident{ID: fmt.Sprint("i", i), State: state, First: start, Last: start}
		if paged {
			one.Paged = start
		}
		for _, a := range alerts {
			one.Signals = append(one.Signals, incident.Signal{Alert: testAlert(a).ID})
		}
		return one
	}
	closed := made(4, incident.Closed, true, 4)
	closed.Since = start.Add(time.Hour)
	all := []*incident.Incident{
		made(0, incident.New, true, 0, 17), made(1, incident.New, false, 1), made(2, incident.Acknowledged, false, 20, 21),
		made(3, incident.Closed, true, 3), closed, made(5, incident.Closed, true, 5),
	}
	if err := s.SaveIncidents(ctx, all, nil, Joined{}, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Enqueue(ctx, nil, delivery.Progress{Incidents: []delivery.Told{{Incident: "i5", As: "i5", State: "new"}}}, start); err != nil { // not of its end
		t.Fatal(err)
	}
	left := func() (ids []string) {
		for _, i := range must2(s.Incidents(ctx, incident.Query{}))(t) {
			ids = append(ids, i.ID)
		}
		slices.Sort(ids)
		return ids
	}
	retain(t, s, unlimited, start)
	checkRemoved(t, removeOld(t, s, start.Add(time.Minute)), map[retention.Cause]int{{Kind: retention.Alerts, Limit: retention.Age}: 56, {Kind: retention.Incidents, Limit: retention.Age}: 2})
	if have := fmt.Sprint(left()); have != "[i0 i2 i4 i5]" {
		t.Errorf("incidents %s are left", have)
	}
	for _, i := range []int{0, 17, 20, 21} {
		if _, found, err := s.Alert(ctx, testAlert(i).ID); !found || err != nil {
			t.Errorf("alert %d is gone: %v", i, err)
		}
	}
	for _, id := range []string{"i0", "i2"} {
		if _, _, err := s.ChangeIncident(ctx, id, incident.Change{State: incident.Closed, Reason: "a drill", At: start.Add(2 * time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.Enqueue(ctx, nil, delivery.Progress{Became: []delivery.Became{{Incident: "i5", State: "closed"}}}, start); err != nil {
		t.Fatal(err)
	}
	r := removeOld(t, s, start.Add(2*time.Hour))
	checkRemoved(t, r, map[retention.Cause]int{{Kind: retention.Alerts, Limit: retention.Age}: 4, {Kind: retention.Incidents, Limit: retention.Age}: 2})
	if have := fmt.Sprint(left()); have != "[i0 i2]" { // just closed
		t.Errorf("incidents %s are left", have)
	}
	var signals int
	if err := s.readers.QueryRowContext(ctx, "SELECT count(*) FROM incident_signals").Scan(&signals); err != nil || signals != 4 {
		t.Errorf("%d signals are left, %v; want those of the incidents", signals, err)
	}
}

// TestRetainWhatGrows: an incident that is removed while whoever joins alerts knows
// it is stored as a whole when the next alert joins it.
func TestRetainWhatGrows(t *testing.T) {
	s, ctx := open(t), t.Context()
	c := incident.NewCorrelator(nil)
	join := func(from, to int) {
		t.Helper()
		changed := map[string]*incident.Incident{}
		for i := from; i < to; i++ {
			a := testAlert(i)
			a.Priority, a.Entities = alert.Notice, []alert.Entity{pod("web-0")}
			must[[]alert.Alert](t)(s.AddAlerts(ctx, []alert.Alert{a}))
			one := c.Add("", incident.FromAlert(&a)).Incident
			changed[one.ID] = one
		}
		_, was, err := s.Correlated(ctx, start)
		if err == nil {
			err = s.SaveIncidents(ctx, slices.Collect(maps.Values(changed)), nil, was, int64(to))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	join(0, 11)
	retain(t, s, unlimited, start.Add(time.Minute))
	want := removed(retention.Alerts, retention.Age, 11)
	want[retention.Cause{Kind: retention.Incidents, Limit: retention.Age}] = 1
	checkRemoved(t, removeOld(t, s, start.Add(time.Hour)), want)
	join(11, 12)
	page := must2(s.Incidents(ctx, incident.Query{}))(t)
	if len(page) != 1 || len(page[0].Signals) != 12 || !strings.Contains(page[0].Story, "in 12 alerts") {
		t.Errorf("have %+v, want one incident of 12 alerts", page)
	}
}

// must2 is must for a page.
func must2[T, U any](v T, _ U, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
