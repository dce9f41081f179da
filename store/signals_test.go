package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/store/retention"
)

// beforeSignals is the version of the schema in which incidents have their signals in them.
func beforeSignals() int { return slices.Index(migrations[:], recordWords) + 1 }

// manyIncidents returns the database of a version before with incidents of 50 signals.
func manyIncidents(t testing.TB, n int) string {
	t.Helper()
	address := address(t)
	db := oldSchema(t, address, beforeSignals())
	defer db.Close()
	const some = 500
	for from := 0; from < n; from += some {
		tx := must[*sql.Tx](t)(db.BeginTx(t.Context(), nil))
		for i := from; i < min(from+some, n); i++ {
			one := grown(i, 50)
			values := must[[]any](t)(incidentRow(one, int64(i+1)))
			insert := `INSERT INTO incidents (id, time, state, paged, score, search, body, cluster, level, changed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`
			values[3], values[6] = 0, encoded(t, one)
			must[sql.Result](t)(tx.ExecContext(t.Context(), insert, values[:10]...))
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	return address
}

// grown returns an incident of one pod, of about 500 bytes for each of its signals.
func grown(i, signals int) *incident.Incident {
	c, at := incident.NewCorrelator(nil), start.Add(time.Duration(i)*time.Second)
	name := fmt.Sprintf("shop/web-%d", i)
	var out *incident.Incident
	for n := range signals {
		a := alert.Alert{
			ID: alert.NewID("old", fmt.Sprint(i), fmt.Sprint(n)), Time: at.Add(time.Duration(n) * time.Second), Rule: fmt.Sprintf("Rule %d", n%3), Priority: alert.Notice,
			Source: "k8s_audit", Tactics: []string{"execution"}, Entities: []alert.Entity{pod(name)},
			Subject: finding.Subject{Kind: "Pod", Namespace: "shop", Name: strings.TrimPrefix(name, "shop/")},
		}
		a.Output = fmt.Sprintf("%s in %s, number %d, with a sentence that says what it means and what to look at first", a.Rule, name, n)
		out = c.Add("", incident.FromAlert(&a)).Incident
	}
	return out
}

// TestMovedInSteps: what is cut off goes on, and a replica of the version before sees
// each incident as it was, before it is moved and afterwards.
func TestMovedInSteps(t *testing.T) {
	const n = 2*moveBatch + 7
	address := manyIncidents(t, n)
	old := other(t, address)
	defer old.Close()
	read := func() (list []incident.Incident) {
		t.Helper()
		rows := must[*sql.Rows](t)(old.QueryContext(t.Context(), "SELECT seq, body FROM incidents WHERE time >= $1 ORDER BY time, seq", 0))
		defer rows.Close()
		for rows.Next() {
			var seq int64
			var body string
			var i incident.Incident
			if err := errors.Join(rows.Scan(&seq, &body), json.Unmarshal([]byte(body), &i)); err != nil {
				t.Fatal(err)
			}
			list = append(list, i)
		}
		return list
	}
	want := read()
	// One has no place where it should go.
	in := encoded(t, grown(moveBatch, 50))
	must[sql.Result](t)(old.ExecContext(t.Context(), "UPDATE incidents SET body = 'damaged' WHERE seq = $1", moveBatch+1))
	if s, err := Open(t.Context(), address); err == nil || !strings.Contains(err.Error(), "read incident "+grown(moveBatch, 1).ID) {
		t.Fatalf("opened %v: %v", s, err)
	}
	must[sql.Result](t)(old.ExecContext(t.Context(), "UPDATE incident_heads SET body = $1 WHERE seq = $2", in, moveBatch+1))
	var left int
	if err := old.QueryRow("SELECT count(*) FROM incident_heads WHERE apart = 0").Scan(&left); err != nil || left != n-moveBatch {
		t.Errorf("%d incidents are left, %v; want %d", left, err, n-moveBatch)
	}
	if have := read(); !reflect.DeepEqual(have, want) {
		t.Error("half-way incidents are others than before")
	}
	s := must[*Store](t)(Open(t.Context(), address))
	defer s.Close()
	if err := old.QueryRow("SELECT count(*) FROM incident_heads WHERE body LIKE '%\"signals\"%' OR apart = 0").Scan(&left); err != nil || left != 0 {
		t.Errorf("%d incidents are left, %v", left, err)
	}
	if have := read(); !reflect.DeepEqual(have, want) {
		t.Error("incidents are others than before")
	}
	if have, _, err := s.Correlated(t.Context(), start); err != nil || len(have) != n || !reflect.DeepEqual(have[n-1].Signals, want[n-1].Signals) {
		t.Errorf("%d incidents are read, %v", len(have), err)
	}
}

// TestVersionBefore: what a replica of the version before writes of incidents, and what
// it removes, is refused, and nothing of them is lost.
func TestVersionBefore(t *testing.T) {
	address := manyIncidents(t, 3)
	s := must[*Store](t)(Open(t.Context(), address))
	defer s.Close()
	old := other(t, address)
	defer old.Close()
	want := must2(s.Incidents(t.Context(), incident.Query{}))(t)
	for _, statement := range []string{
		"DELETE FROM incidents WHERE seq IN (1, 2, 3)", "DELETE FROM incidents WHERE id = '" + want[0].ID + "'", "UPDATE incidents SET state = 'closed'",
		`INSERT INTO incidents (id, time, state, paged, score, search, body, cluster, level, changed) VALUES ('` + want[0].ID + `', 1, 'new', 0, 0, '', '{}', '', 0, 9)
		ON CONFLICT (id) DO UPDATE SET time = excluded.time, state = excluded.state, body = excluded.body`,
	} {
		if _, err := old.ExecContext(t.Context(), statement); err == nil || !regexp.MustCompile("view").MatchString(err.Error()) {
			t.Errorf("%s: %v", statement, err)
		}
	}
	if have := must2(s.Incidents(t.Context(), incident.Query{}))(t); len(have) != 3 || !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v", have)
	}
}

// BenchmarkMoveSignals starts on a database of the version before signals had a table
// of their own:
//
//	go test ./store -run '^$' -bench MoveSignals/20000 -benchtime 1x
//
// It says how large the database was, became and was at most, and for how long at
// most a replica of that version waits to write while it is done.
func BenchmarkMoveSignals(b *testing.B) {
	for _, n := range []int{1000, 20_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				address := manyIncidents(b, n)
				old := other(b, address)
				before := must[int64](b)(sizeOf(b.Context(), old, address))
				ctx, cancel := context.WithCancel(b.Context())
				most := make(chan [2]int64)
				go watch(ctx, old, address, most)
				b.StartTimer()
				s := must[*Store](b)(Open(b.Context(), address))
				b.StopTimer()
				cancel()
				longest := <-most
				b.ReportMetric(float64(before>>20), "MiB-before")
				b.ReportMetric(float64(must[int64](b)(sizeOf(b.Context(), old, address))>>20), "MiB-after")
				b.ReportMetric(float64(longest[0]>>20), "MiB-at-most")
				b.ReportMetric(time.Duration(longest[1]).Seconds(), "s-waited")
				began := time.Now()
				must[retention.Report](b)(s.Retain(b.Context(), unlimited, time.Now()))
				b.ReportMetric(time.Since(began).Seconds(), "s-retention")
				s.Close()
				old.Close()
				b.StartTimer()
			}
		})
	}
}

// other opens a database as another program.
func other(t testing.TB, address string) *sql.DB {
	if IsPostgres(address) {
		return must[*sql.DB](t)(sql.Open("pgx", address))
	}
	return must[*sql.DB](t)(sql.Open("sqlite", "file:"+address))
}

func sizeOf(ctx context.Context, db *sql.DB, address string) (n int64, err error) {
	if IsPostgres(address) {
		err = db.QueryRowContext(ctx, "SELECT pg_database_size(current_database())").Scan(&n)
		return n, err
	}
	for _, name := range []string{address, address + "-wal"} {
		if info, err := os.Stat(name); err == nil {
			n += info.Size()
		}
	}
	return n, nil
}

// watch measures until ctx ends how large the database is at most, and for how long
// an old replica waits to write what it reads incidents for.
func watch(ctx context.Context, db *sql.DB, address string, out chan<- [2]int64) {
	var most [2]int64
	for pause(ctx, 20*time.Millisecond) {
		if size, err := sizeOf(ctx, db, address); err == nil {
			most[0] = max(most[0], size)
		}
		if !IsPostgres(address) {
			continue
		}
		began := time.Now()
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			continue
		}
		var n int
		_, locking := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", lockRecords)
		reading := tx.QueryRowContext(ctx, "SELECT count(*) FROM incidents WHERE id = 'x'").Scan(&n)
		tx.Rollback()
		if errors.Join(locking, reading) != nil { // the end
			continue
		}
		most[1] = max(most[1], int64(time.Since(began)))
	}
	out <- most
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func encoded(t testing.TB, v any) string {
	t.Helper()
	return string(must[[]byte](t)(json.Marshal(v)))
}
