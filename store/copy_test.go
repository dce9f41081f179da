package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/access/sealed"
	"github.com/kubeguardian/kubeguardian/action"
	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus/roster"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
	"github.com/kubeguardian/kubeguardian/store/dialect"
	"github.com/kubeguardian/kubeguardian/store/transfer"
)

// lived opens a database in a file that has something of all, of which the newest
// alerts were removed.
func lived(t *testing.T) *Store {
	t.Helper()
	ctx := t.Context()
	s := must[*Store](t)(Open(ctx, filepath.Join(t.TempDir(), "kubeguardian.db")))
	t.Cleanup(func() { s.Close() })
	alerts := involving(3000)
	alerts[1].Output = "a zero \x00 and \xff"
	must[[]alert.Alert](t)(s.AddAlerts(ctx, alerts))
	grouped := testAlerts(5000, 5002)
	_, _, err := s.AddGrouped(ctx, grouped, func(*alert.Alert) (alert.Group, error) {
		return alert.Group{Key: []byte{0, 1, 255}, Within: time.Hour}, nil
	})
	findings := testFindings(20)
	findings[0].Status, findings[1].Status = finding.Fail, finding.Fail
	_, reportedErr := s.AddReported(ctx, "eu-1", testAlerts(6000, 6001))
	for {
		more, err := s.Index(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			break
		}
	}
	message := message("hook", 1)
	i := &incident.Incident{ID: "one", State: incident.New, First: start, Last: start, Signals: []incident.Signal{{Alert: alerts[0].ID, Time: start}}}
	_, _, enqueueErr := s.Enqueue(ctx, []delivery.Message{message}, delivery.Progress{Alert: 7, Incidents: []delivery.Told{{Incident: "one", As: "one", State: "new"}}}, start)
	now := time.Now()
	if err := errors.Join(err, reportedErr, enqueueErr, s.AddDecisions(ctx, testDecisions(40)), s.ReplaceFindings(ctx, findings),
		s.SaveIncidents(ctx, []*incident.Incident{i}, nil, Joined{}, 9), s.SaveReport(ctx, roster.Report{Cluster: "eu-1", At: now}),
		s.Sessions().Add(ctx, sealed.Session{ID: "browser", Began: now, Used: now, Body: []byte{0, 255}}, start, start)); err != nil {
		t.Fatal(err)
	}
	act(t, s, "ada")
	if _, err := s.writer.ExecContext(ctx, "DELETE FROM alerts WHERE seq > 3001"); err != nil {
		t.Fatal(err)
	}
	return s
}

// tableOf returns the rows of a table, as texts, in an order of their own.
func tableOf(t *testing.T, s *Store, table string) (out []string) {
	t.Helper()
	columns := must[[]string](t)(func() (names []string, err error) {
		rows, err := s.readers.QueryContext(t.Context(), "SELECT * FROM "+table+" LIMIT 1")
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		return rows.Columns()
	}())
	slices.Sort(columns)
	for i := range columns {
		columns[i] = `"` + columns[i] + `"`
	}
	rows, err := s.readers.QueryContext(t.Context(), "SELECT "+strings.Join(columns, ", ")+" FROM "+table)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		row, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		for i, v := range row {
			if text, is := v.(string); is {
				row[i] = dialect.Storable(text)
			}
		}
		out = append(out, fmt.Sprintf("%#v", row))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// TestCopy: all that a file has is in PostgreSQL afterwards, and goes on there: what
// was known is known, numbers are given once, sessions and messages are where they
// were. What has records is refused, and nothing of a copy that fails is left.
func TestCopy(t *testing.T) {
	onPostgres(t)
	ctx := t.Context()
	from, to := lived(t), open(t)
	rows := must[map[string]int](t)(to.CopyFrom(ctx, from))
	for _, table := range []string{
		"actions", "alerts", "alert_entities", "announced", "arrivals", "clusters", "decisions", "decision_entities", "deliveries", "entities",
		"findings", "finding_spans", "finding_span_subjects", "held", "held_since", "incident_heads", "incident_signals", "login_failures", "repeats", "rules", "sessions",
	} {
		want, have := tableOf(t, from, table), tableOf(t, to, table)
		if n, copied := rows[table]; !copied || n != len(want) || !slices.Equal(want, have) {
			t.Errorf("of %d rows of %s there are %d, and %d are said to be", len(want), table, len(have), n)
		}
		delete(rows, table)
	}
	if delete(rows, "checkpoints"); len(rows) > 0 {
		t.Errorf("nobody has looked at %v", rows)
	}
	goesOn(t, from, to)

	if _, err := to.CopyFrom(ctx, from); !errors.Is(err, transfer.ErrNotEmpty) {
		t.Errorf("a second copy: %v", err)
	}
	if _, err := from.CopyFrom(ctx, to); err == nil {
		t.Error("PostgreSQL is copied into a file")
	}
	ended, end := context.WithCancel(ctx)
	end()
	third := open(t)
	if _, err := third.CopyFrom(ended, from); err == nil {
		t.Error("a copy succeeds that nobody waits for")
	}
	if _, err := third.CopyFrom(ctx, from); err != nil {
		t.Errorf("after one that failed: %v", err)
	}
}

// goesOn checks that a copy is as the database that it is of.
func goesOn(t *testing.T, from, to *Store) {
	t.Helper()
	ctx := t.Context()
	if added := must[[]alert.Alert](t)(to.AddAlerts(ctx, involving(3001))); len(added) != 1 {
		t.Errorf("%d alerts are new, want 1", len(added))
	}
	var last int64
	if err := from.readers.QueryRowContext(ctx, "SELECT seq FROM sqlite_sequence WHERE name = 'alerts'").Scan(&last); err != nil {
		t.Fatal(err)
	}
	if next := must[int64](t)(to.LastAlert(ctx)); next <= last {
		t.Errorf("a number is given again: %d, after %d", next, last)
	}
	head := must[action.Head](t)(from.VerifyActions(ctx))
	act(t, to, "eve")
	if _, err := to.VerifyActions(ctx, head); err != nil {
		t.Error(err)
	}
	for _, after := range []bool{false, true} { // before and after there is an index
		if found := readAll(t, to, alert.Query{Text: "user-2999", Limit: 10}); len(found) != 1 {
			t.Errorf("a text is found %d times, indexed: %t", len(found), after)
		}
		for more := !after; more; {
			more = must[bool](t)(to.Index(ctx))
		}
	}
	if blocks := tableOf(t, to, "blocks"); len(blocks) == 0 {
		t.Error("no words are indexed")
	}
	claimed, _, err := to.Claim(ctx, "hook", 10, start.Add(time.Hour))
	if err != nil || len(claimed) != 1 || claimed[0].Key != "key-1" {
		t.Errorf("messages that wait: %+v, %v", claimed, err)
	}
	notified, joined, _, err := to.Notified(ctx)
	if err != nil || notified != 7 || joined != 9 {
		t.Errorf("told of %d, joined %d, %v", notified, joined, err)
	}
}
