package store

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/store/words"
)

// indexAll indexes what there is.
func indexAll(t testing.TB, s *Store) {
	t.Helper()
	for more := true; more; {
		more = must[bool](t)(s.Index(t.Context()))
	}
}

// addLate stores alerts of which every tenth is hours late, and indexes all but
// the last few.
func addLate(t testing.TB, s *Store, blocks int) []alert.Alert {
	t.Helper()
	all := testAlerts(0, blocks*blockSize)
	for i := range all {
		if i%10 == 0 {
			all[i].Time = all[i].Time.Add(-time.Duration(i%7) * 10 * time.Minute)
		}
	}
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), all))
	indexAll(t, s)
	tail := testAlerts(blocks*blockSize, blocks*blockSize+100)
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), tail))
	return append(all, tail...)
}

// TestSearchByBlocks: searches find the same as looking at each alert does, in the
// same order, page by page, with and without an index.
func TestSearchByBlocks(t *testing.T) {
	s := open(t)
	all := addLate(t, s, 3)
	slices.SortStableFunc(all, func(a, b alert.Alert) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(b.OutputFields["ka.user.name"].(string), ""))
	})
	warning, at := alert.Warning, start.Add(30*time.Minute)
	for _, q := range []alert.Query{
		{Text: "user-77"}, {Text: "USER-2500"}, {Text: "ser-2500"}, {Text: "2500"}, {Text: "by user-15"}, {Text: "secrets"}, {Text: "us"}, {Text: "-2500"},
		{Text: "user-3100"}, {Text: "nowhere to be found"}, {Text: all[1500].ID}, {Text: all[1500].ID[:9]}, {Text: "Pod/team-4/pod-19"},
		{Text: "pod-1", Rule: "Secrets listed"}, {Text: "pod-2", Namespace: "team-3"}, {Text: "create", Priority: &warning, Rule: "Exec into pod"},
		{Text: "pod", Since: at, Until: at.Add(10 * time.Minute)}, {Text: "create", Before: finding.Cursor{Time: at, Seq: 500}},
	} {
		text := words.Parse(q.Text)
		var want []string
		for _, a := range all {
			if !text.In(a.Texts()...) || q.Rule != "" && a.Rule != q.Rule || q.Namespace != "" && a.Subject.Namespace != q.Namespace ||
				q.Priority != nil && a.Priority > *q.Priority || !q.Since.IsZero() && a.Time.Before(q.Since) || !q.Until.IsZero() && !a.Time.Before(q.Until) ||
				q.Before != (finding.Cursor{}) && a.Time.After(q.Before.Time) {
				continue
			}
			want = append(want, a.ID)
		}
		var have []alert.Record
		for q, more := q, true; more; {
			page, next, err := s.Alerts(t.Context(), q)
			if err != nil {
				t.Fatalf("%+v: %v", q, err)
			}
			have, q.Before, more = append(have, page...), next, next != finding.Cursor{}
		}
		if !slices.IsSortedFunc(have, func(a, b alert.Record) int { return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(b.Seq, a.Seq)) }) {
			t.Errorf("%+v: not in order", q)
		}
		ids := idsOf(have)
		slices.Sort(ids)
		slices.Sort(want)
		if q.Before != (finding.Cursor{}) { // of those at the time of the cursor some are after it
			want = slices.DeleteFunc(want, func(id string) bool { return !slices.Contains(ids, id) })
		}
		if !slices.Equal(ids, want) {
			t.Errorf("%+v: %d found, want %d", q, len(ids), len(want))
		}
	}
}

// TestSearchReadsFewBlocks: of a word that stands in one block the others are not
// read, and what is read of alerts is read by their numbers.
func TestSearchReadsFewBlocks(t *testing.T) {
	s := open(t)
	addLate(t, s, 3)
	r := record(t, s)
	found, q := 0, alert.Query{Text: "user-2500", Rule: "Secrets listed"}
	for more := true; more; {
		page, next, err := s.Alerts(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		found, q.Before, more = found+len(page), next, next != finding.Cursor{}
	}
	if found != 1 {
		t.Errorf("%d found, want 1", found)
	}
	looks := map[any]bool{} // by the first number of what was read
	for _, q := range r.queries {
		if !strings.Contains(q.text, "body LIKE") {
			continue
		}
		looks[q.args[0]] = true
		want := regexp.MustCompile(`SEARCH alerts USING INTEGER PRIMARY KEY \(rowid>\? AND rowid<\?\)`)
		if s.postgres {
			want = regexp.MustCompile(`alerts_pkey`)
		}
		if plan := explained(t, s, q); !want.MatchString(plan) {
			t.Errorf("%s\n%s", q.text, plan)
		}
	}
	if len(looks) != 2 {
		t.Errorf("%d parts were read, want the block and what has no index yet", len(looks))
	}
}

// TestIndexOfOldAlerts: words of alerts that are removed are forgotten with them.
func TestIndexOfOldAlerts(t *testing.T) {
	s := open(t)
	all := testAlerts(0, 2*blockSize)
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), all[:blockSize+10]))
	retain(t, s, unlimited, start)
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), all[blockSize+10:]))
	indexAll(t, s)
	blocks := func() (n, words int) {
		t.Helper()
		row := s.readers.QueryRowContext(t.Context(), "SELECT (SELECT count(*) FROM blocks), (SELECT count(*) FROM block_words)")
		if err := row.Scan(&n, &words); err != nil {
			t.Fatal(err)
		}
		return n, words
	}
	if n, words := blocks(); n != 2 || words != 2 {
		t.Fatalf("%d blocks with words of %d, want 2", n, words)
	}
	removeOld(t, s, start.Add(time.Second))
	if n, words := blocks(); n != 1 || words != 1 {
		t.Errorf("%d blocks with words of %d, want 1", n, words)
	}
	for text, want := range map[string]int{"user-5": 0, fmt.Sprint("user-", blockSize+20): 1} {
		if page, _, err := s.Alerts(t.Context(), alert.Query{Text: text + " ", Limit: 1000}); err != nil || len(page) != want {
			t.Errorf("%q: %d found, %v, want %d", text, len(page), err, want)
		}
	}
}
