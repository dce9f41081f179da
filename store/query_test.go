package store

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
)

// readAll follows the pages of q to the end.
func readAll(t testing.TB, s *Store, q alert.Query) []alert.Record {
	t.Helper()
	var all []alert.Record
	for {
		page, next, err := s.Alerts(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page...)
		if next == (finding.Cursor{}) {
			return all
		}
		if len(page) != q.Limit {
			t.Fatalf("a page before the last has %d records, want %d", len(page), q.Limit)
		}
		if q.Before, err = finding.ParseCursor(next.String()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAlertRoundTrip(t *testing.T) {
	s := open(t)
	want := testAlert(1)
	want.OutputFields = map[string]any{
		"exact": json.Number("12345678901234567890"), "html": "<script>alert(1)</script>", "nothing": nil,
		"list": []any{"a", json.Number("1")}, "odd": "a\x00b\u2028\U0001f512",
	}
	want.Tactics = []string{"execution"}
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), []alert.Alert{want}))
	have, found, err := s.Alert(t.Context(), want.ID)
	if err != nil || !found || have.Seq != 1 || !reflect.DeepEqual(have.Alert, want) {
		t.Errorf("have %+v, %v, %v\nwant %+v", have, found, err, want)
	}
	if _, found, err := s.Alert(t.Context(), "none"); found || err != nil {
		t.Errorf("an alert that is not there: %v, %v", found, err)
	}
	bad := testAlert(2)
	bad.OutputFields["number"] = math.NaN()
	if _, err := s.AddAlerts(t.Context(), []alert.Alert{testAlert(3), bad}); err == nil || !strings.Contains(err.Error(), bad.ID) {
		t.Errorf("an alert that has no JSON: %v", err)
	}
	if c := must[Counts](t)(s.Counts(t.Context())); c.Alerts != 1 {
		t.Errorf("%d alerts are stored: the others of a refused batch", c.Alerts)
	}
}

func TestAlertFilters(t *testing.T) {
	s := open(t)
	const total = 240
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), testAlerts(0, total)))
	warning := alert.Warning
	at := func(i int) time.Time { return start.Add(time.Duration(i) * time.Second) }
	tests := []struct {
		name  string
		query alert.Query
		match func(i int) bool
	}{
		{"all", alert.Query{}, func(int) bool { return true }},
		{"rule", alert.Query{Rule: "Secrets listed"}, func(i int) bool { return i%3 == 1 }},
		{"priority or more urgent", alert.Query{Priority: &warning}, func(i int) bool { return i%8 <= 4 }},
		{"namespace", alert.Query{Namespace: "team-3"}, func(i int) bool { return i%5 == 3 }},
		{"since", alert.Query{Since: at(200)}, func(i int) bool { return i >= 200 }},
		{"until", alert.Query{Until: at(20)}, func(i int) bool { return i < 20 }},
		{"text in the output", alert.Query{Text: "ANONYMOUS"}, func(i int) bool { return i%3 == 2 }},
		{"text in a field", alert.Query{Text: "user-77"}, func(i int) bool { return i == 77 }},
		{"text in the subject", alert.Query{Text: "Pod/team-4/pod-9"}, func(i int) bool { return i == 9 || i/10 == 9 && i%5 == 4 }},
		{"percent is a character", alert.Query{Text: "100% OF_it"}, func(int) bool { return true }},
		{"percent is no wildcard", alert.Query{Text: "by%in"}, func(int) bool { return false }},
		{"underscore is no wildcard", alert.Query{Text: "user_7"}, func(int) bool { return false }},
		{"backslash", alert.Query{Text: `\`}, func(int) bool { return false }},
		{"quote", alert.Query{Text: `' OR 1=1 --`, Rule: `'`}, func(int) bool { return false }},
		{"several", alert.Query{Rule: "Exec into pod", Priority: &warning, Namespace: "team-0", Since: at(60)},
			func(i int) bool { return i%3 == 0 && i%8 <= 4 && i%5 == 0 && i >= 60 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var want []string
			for i := total - 1; i >= 0; i-- {
				if tt.match(i) {
					want = append(want, testAlert(i).ID)
				}
			}
			tt.query.Limit = 7
			if have := idsOf(readAll(t, s, tt.query)); !slices.Equal(have, want) {
				t.Errorf("have %d alerts, want %d", len(have), len(want))
			}
			// The stream selects the same, in the order of insertion.
			var streamed []string
			for last := int64(0); last < total; {
				records, end, err := s.AlertsAfter(t.Context(), last, tt.query)
				if err != nil || end <= last {
					t.Fatalf("after %d: %d, %v", last, end, err)
				}
				streamed, last = append(streamed, idsOf(records)...), end
			}
			slices.Reverse(streamed)
			if !slices.Equal(streamed, want) {
				t.Errorf("streamed %d alerts, want %d", len(streamed), len(want))
			}
		})
	}
}

func idsOf(records []alert.Record) []string {
	var ids []string
	for _, r := range records {
		ids = append(ids, r.ID)
	}
	return ids
}

// Many alerts share a time, some come late, and some arrive while pages are
// read: every one that was there at the start is seen once, in order.
func TestPaginationOverManyAlerts(t *testing.T) {
	s := open(t)
	const batch = 10_000
	total := 100_000
	if testing.Short() {
		total = batch
	}
	for from := 0; from < total; from += batch {
		alerts := testAlerts(from, from+batch)
		for i := range alerts {
			alerts[i].Time = start.Add(time.Duration((from+i)*7919%5000) * time.Second)
		}
		must[[]alert.Alert](t)(s.AddAlerts(t.Context(), alerts))
	}
	q := alert.Query{Limit: 997}
	seen := map[int64]bool{}
	var before *alert.Record
	for pages := 0; ; pages++ {
		page, next, err := s.Alerts(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range page {
			if seen[r.Seq] {
				t.Fatalf("alert %d is seen twice", r.Seq)
			}
			if before != nil && (r.Time.After(before.Time) || r.Time.Equal(before.Time) && r.Seq > before.Seq) {
				t.Fatalf("alert %d at %s follows %d at %s", r.Seq, r.Time, before.Seq, before.Time)
			}
			seen[r.Seq], before = true, &page[i]
		}
		if next == (finding.Cursor{}) {
			break
		}
		newer := testAlert(total + pages)
		must[[]alert.Alert](t)(s.AddAlerts(t.Context(), []alert.Alert{newer}))
		q.Before = next
	}
	if len(seen) != total {
		t.Errorf("%d alerts were seen, want %d", len(seen), total)
	}
}

func TestExtremeTimes(t *testing.T) {
	s := open(t)
	times := []time.Time{{}, time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC), time.Unix(0, 0).UTC(), start, time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)}
	var alerts []alert.Alert
	for i, at := range times {
		a := testAlert(i)
		a.Time = at
		alerts = append(alerts, a)
	}
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), alerts))
	have := readAll(t, s, alert.Query{Limit: 1})
	for i, r := range have {
		if want := times[len(times)-1-i]; !r.Time.Equal(want) {
			t.Errorf("alert %d has time %s, want %s", i, r.Time, want)
		}
	}
	if len(have) != len(times) {
		t.Errorf("have %d alerts", len(have))
	}
}

func TestCounts(t *testing.T) {
	s := open(t)
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), testAlerts(0, 16)))
	have := must[map[alert.Priority]int](t)(s.AlertCounts(t.Context(), start.Add(8*time.Second)))
	if len(have) != 8 || have[alert.Emergency] != 1 || have[alert.Debug] != 1 {
		t.Errorf("have %v", have)
	}
}

func testDecisions(n int) []finding.Decision {
	var out []finding.Decision
	for i := range n {
		d := finding.Decision{
			ID: fmt.Sprintf("uid-%d", i), Time: start.Add(time.Duration(i) * time.Second), Operation: "CREATE",
			User: fmt.Sprintf("user-%d", i), Subject: finding.Subject{Kind: "Pod", Namespace: "shop", Name: fmt.Sprint(i)},
			Allowed: i%3 != 0, Microseconds: int64(i),
		}
		if i%3 == 0 {
			d.Violations = []finding.Violation{{Policy: "privileged-containers", Enforcement: "deny", Message: "container web is privileged"}}
		}
		if i%3 == 1 {
			d.Violations = []finding.Violation{{Policy: "latest-tag", Enforcement: "warn", Message: "image nginx has no tag"}}
		}
		out = append(out, d)
	}
	return out
}

func TestDecisions(t *testing.T) {
	s := open(t)
	all := testDecisions(30)
	for range 2 { // the second time adds nothing
		if err := s.AddDecisions(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	slices.Reverse(all)
	only := func(match func(finding.Decision) bool) (out []finding.Decision) {
		for _, d := range all {
			if match(d) {
				out = append(out, d)
			}
		}
		return out
	}
	denied := func(d finding.Decision) bool { return !d.Allowed }
	tests := []struct {
		name  string
		query finding.DecisionQuery
		want  []finding.Decision
	}{
		{"all", finding.DecisionQuery{}, all},
		{"denied", finding.DecisionQuery{Outcome: finding.Denied}, only(denied)},
		{"warned", finding.DecisionQuery{Outcome: finding.Warned, Namespace: "shop"}, only(func(d finding.Decision) bool { return d.Outcome() == finding.Warned })},
		{"other namespace", finding.DecisionQuery{Namespace: "none"}, nil},
		{"policy as text", finding.DecisionQuery{Text: "PRIVILEGED-containers"}, only(denied)},
		{"window", finding.DecisionQuery{Since: start.Add(28 * time.Second), Until: start.Add(29 * time.Second)}, all[1:2]},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.query.Limit = 4
			var have []finding.Decision
			for more := true; more; more = tt.query.Before != (finding.Cursor{}) {
				page, next, err := s.Decisions(t.Context(), tt.query)
				if err != nil {
					t.Fatal(err)
				}
				have, tt.query.Before = append(have, page...), next
			}
			if !reflect.DeepEqual(have, tt.want) {
				t.Errorf("have %d decisions, want %d", len(have), len(tt.want))
			}
		})
	}
	rehearsed := finding.Decision{ID: "dry-run", Time: start.Add(time.Second), DryRun: true}
	if err := s.AddDecisions(t.Context(), []finding.Decision{rehearsed}); err != nil {
		t.Fatal(err)
	}
	if c := must[map[finding.Outcome]int](t)(s.DecisionCounts(t.Context(), start)); c[finding.Denied] != 10 || c[finding.Warned] != 10 || c[finding.Allowed] != 10 {
		t.Errorf("have %v", c)
	}
}

func BenchmarkAddAlerts(b *testing.B) {
	for _, size := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			s := open(b)
			n := 0
			for b.Loop() {
				if _, err := s.AddAlerts(b.Context(), testAlerts(n, n+size)); err != nil {
					b.Fatal(err)
				}
				n += size
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "alerts/s")
		})
	}
}

func BenchmarkNewestOf100k(b *testing.B) {
	s := open(b)
	for from := 0; from < 100_000; from += 10_000 {
		must[[]alert.Alert](b)(s.AddAlerts(b.Context(), testAlerts(from, from+10_000)))
	}
	warning := alert.Warning
	for name, q := range map[string]alert.Query{
		"all": {}, "priority": {Priority: &warning}, "rare-text": {Text: "user-99 "}, "rule": {Rule: "Exec into pod"},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, _, err := s.Alerts(b.Context(), q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
