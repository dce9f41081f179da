package history

import (
	"database/sql"
	"fmt"
	"maps"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the database that the tests use

	"github.com/kubeguardian/kubeguardian/finding"
)

func open(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1) // each connection is a database
	t.Cleanup(func() { db.Close() })
	if _, err := db.Exec(Schema); err != nil {
		t.Fatal(err)
	}
	return db
}

func evaluate(t *testing.T, db *sql.DB, at time.Time, states map[string]finding.Status) (changes int) {
	t.Helper()
	all := map[string]*finding.Finding{}
	for place, status := range states {
		all[place] = &finding.Finding{
			Definition: &finding.Definition{Control: "CON-SEC-01"}, Detail: &finding.Detail{}, Status: status,
			Subject: &finding.Subject{Kind: "Pod", Namespace: "shop", Name: place},
		}
	}
	d, err := Compare(t.Context(), db, maps.All(all))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // as after a connection that broke
		tx, err := db.Begin()
		if err == nil {
			err = d.Save(t.Context(), tx, at)
		}
		if err == nil {
			err = tx.Commit()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return d.Len()
}

// TestPrune: what has ended goes, the earliest first, and what fails stays.
func TestPrune(t *testing.T) {
	db, start := open(t), time.Now()
	for n := range 20 {
		at := start.Add(time.Duration(n) * time.Minute)
		evaluate(t, db, at, map[string]finding.Status{"open": finding.Fail, fmt.Sprint("pod-", n): finding.Fail})
	}
	count := func() (spans, subjects int) {
		t.Helper()
		if err := db.QueryRow("SELECT (SELECT count(*) FROM finding_spans), (SELECT count(*) FROM finding_span_subjects)").Scan(&spans, &subjects); err != nil {
			t.Fatal(err)
		}
		return spans, subjects
	}
	step := func(before time.Time, n, most int) int64 {
		t.Helper()
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		deleted, err := prune(t.Context(), tx, before, n, most)
		if err == nil {
			err = tx.Commit()
		}
		if err != nil {
			t.Fatal(err)
		}
		return deleted
	}
	if spans, subjects := count(); spans != 21 || subjects != 21 {
		t.Fatalf("%d spans of %d subjects, want 21", spans, subjects)
	}
	for _, s := range []struct {
		what          string
		before        time.Time
		n, most       int
		deleted, left int
	}{
		{"none is old", start, 100, 100, 0, 21},
		{"those before a time", start.Add(5*time.Minute + time.Second), 100, 100, 5, 16},
		{"a step", start.Add(time.Hour), 3, 100, 3, 13},
		{"beyond the number", start, 100, 4, 7, 6},
		{"all that ended", start.Add(time.Hour), 100, 100, 4, 2},
	} {
		deleted := step(s.before, s.n, s.most)
		if spans, subjects := count(); int(deleted) != s.deleted || spans != s.left || subjects != s.left {
			t.Errorf("%s: %d deleted, %d spans of %d subjects left, want %d and %d", s.what, deleted, spans, subjects, s.deleted, s.left)
		}
	}
}

// TestFirst: what failed at the first look is not new; what comes after is, also
// when nothing failed in between.
func TestFirst(t *testing.T) {
	db, start := open(t), time.Now()
	if n := evaluate(t, db, start, map[string]finding.Status{"a": finding.Fail, "b": finding.Pass}); n != 1 {
		t.Errorf("%d changes at first", n)
	}
	evaluate(t, db, start.Add(time.Minute), map[string]finding.Status{"a": finding.Pass})
	evaluate(t, db, start.Add(2*time.Minute), map[string]finding.Status{"a": finding.Fail})
	spans, err := Spans(t.Context(), db, finding.SpanQuery{Subjects: []string{"Pod/shop/a"}})
	if err != nil || len(spans) != 2 || !spans[0].New || spans[1].New || !spans[1].Resolved.Equal(start.Add(time.Minute)) || spans[1].Became != finding.Pass {
		t.Errorf("%+v %v", spans, err)
	}
	if n := evaluate(t, db, start.Add(3*time.Minute), map[string]finding.Status{"a": finding.Fail}); n != 0 {
		t.Errorf("%d changes where nothing changed", n)
	}
}
