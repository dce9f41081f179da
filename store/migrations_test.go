package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/store/retention"
	"github.com/kubeguardian/kubeguardian/store/sessions"
)

// oldSchema makes an empty database as a version before had it, which knew the first n
// migrations.
func oldSchema(t testing.TB, address string, n int) *sql.DB {
	t.Helper()
	translate, version := func(m string) string { return m }, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d; PRAGMA journal_mode = WAL", applicationID, n)
	if IsPostgres(address) {
		translate, version = inPostgres().Replace, fmt.Sprintf("CREATE TABLE kubeguardian_schema (version BIGINT NOT NULL); INSERT INTO kubeguardian_schema VALUES (%d)", n)
	}
	db := other(t, address)
	for _, statement := range append(slices.Clone(migrations[:n]), version) {
		if _, err := db.ExecContext(t.Context(), translate(statement)); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	return db
}

// older makes a database as a version before had it, which knew the first n
// migrations, with ten alerts, three decisions, three findings and, once there are any, an incident.
func older(t *testing.T, address string, n int) {
	t.Helper()
	written := min(n, slices.Index(migrations[:], signalTables)) // after which incidents are written otherwise
	db := oldSchema(t, address, written)
	defer db.Close()
	run := func(statement string) {
		t.Helper()
		must[sql.Result](t)(db.ExecContext(t.Context(), statement))
	}
	defer func() {
		later := fmt.Sprintf("PRAGMA user_version = %d", n)
		if IsPostgres(address) {
			later = fmt.Sprintf("UPDATE kubeguardian_schema SET version = %d", n)
		}
		for _, m := range append(slices.Clone(migrations[written:n]), later) {
			if IsPostgres(address) {
				m = inPostgres().Replace(m)
			}
			run(m)
		}
	}()
	body := func(v any) string { return string(must[[]byte](t)(json.Marshal(v))) }
	for _, a := range involving(10) {
		run(fmt.Sprintf("INSERT INTO alerts (id, time, priority, rule, namespace, search, body) VALUES ('%s', %d, %d, '%s', '%s', '', '%s')",
			a.ID, a.Time.UnixNano(), a.Priority, a.Rule, a.Subject.Namespace, body(a)))
	}
	for _, d := range testDecisions(3) {
		run(fmt.Sprintf("INSERT INTO decisions (id, time, outcome, namespace, search, body) VALUES ('%s', %d, '%s', '%s', '', '%s')",
			d.ID, d.Time.UnixNano(), d.Outcome(), d.Subject.Namespace, body(d)))
	}
	for _, f := range testFindings(3) {
		run(fmt.Sprintf("INSERT INTO findings (place, control, level, weight, status, namespace, observed, search, body) VALUES ('%s', '%s', '%s', %d, '%s', '%s', %d, '%s', '%s')",
			placeOf(&f), f.Control, f.Level, f.Severity.Weight(), f.Status, f.Subject.Namespace, start.UnixNano(), f.Message+"\n"+f.Subject.String(), body(f)))
	}
	if slices.Contains(migrations[:n], incidentTable) {
		i := incident.Incident{ID: "one", State: incident.New, Last: start, Entities: []alert.Entity{pod("web-0")}, Signals: oldSignals()}
		run(fmt.Sprintf("INSERT INTO incidents (id, time, state, paged, score, search, body) VALUES ('one', %d, 'new', 0, 0, 'shop/web-0', '%s')", start.UnixNano(), body(i)))
	}
	if slices.Contains(migrations[:n], recordWords) {
		run("UPDATE incidents SET changed = seq")
	}
	if slices.Contains(migrations[:n], listIndices) { // which has counts of rules
		run("INSERT INTO rules SELECT rule, count(*), max(time) FROM alerts GROUP BY rule")
	}
	if slices.Contains(migrations[:n], blockTables) {
		run(fmt.Sprintf("INSERT INTO blocks (id, low, high, first, last) VALUES (1, 1, 5, %d, %d)", start.UnixNano(), start.Add(4*time.Second).UnixNano()))
	}
	if slices.Contains(migrations[:n], retention.Tables) {
		run(fmt.Sprintf("INSERT INTO arrivals (seq, time) VALUES (5, %d)", start.Add(4*time.Second).UnixNano()))
	}
	if slices.Contains(migrations[:n], sessions.Schema) {
		run("INSERT INTO sessions (id, began, used, renewing, body) VALUES ('one', 1, 1, 0, 'x')")
	}
	if slices.Contains(migrations[:n], sessions.FailureSchema) {
		run("INSERT INTO login_failures (network, count, until) VALUES ('192.0.2.1/32', 3, 2)")
	}
}

// oldSignals are those of the incident of a version before.
func oldSignals() []incident.Signal {
	return []incident.Signal{
		{Alert: "first", Time: start, Output: "a \\u0000"}, {Alert: "second", Time: start.Add(1500 * time.Millisecond), Output: "a zero \x00"},
		{Alert: "third", Time: start.Add(1500 * time.Millisecond)}, {Alert: "of no time", Time: time.Time{}},
	}
}

// TestOlderVersions: a database of each version before is brought up to date with
// all that is in it.
func TestOlderVersions(t *testing.T) {
	for n := 1; n < len(migrations); n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			path := address(t)
			older(t, path, n)
			s := must[*Store](t)(Open(t.Context(), path))
			defer s.Close()
			checkOlder(t, s, n)
		})
	}
}

func checkOlder(t *testing.T, s *Store, n int) {
	t.Helper()
	ctx := t.Context()
	all := involving(10)
	if have := readAll(t, s, alert.Query{Limit: 100}); len(have) != 10 || have[9].ID != all[0].ID || have[9].Output != all[0].Output {
		t.Errorf("%d alerts are left", len(have))
	}
	if have := readAll(t, s, alert.Query{Entity: pod("web-0"), Limit: 100}); len(have) != 10 {
		t.Errorf("%d alerts involve the pod", len(have))
	}
	if have := readAll(t, s, alert.Query{Drift: true, Limit: 100}); len(have) != 3 {
		t.Errorf("%d alerts are about drift", len(have))
	}
	counted := 0
	for _, m := range must[map[string]alert.Matches](t)(s.RuleCounts(ctx)) {
		counted += m.Count
	}
	if counted != 10 {
		t.Errorf("rules have %d alerts", counted)
	}
	if have := must2(s.Decisions(ctx, finding.DecisionQuery{}))(t); len(have) != 3 {
		t.Errorf("%d decisions are left", len(have))
	}
	i, found, err := s.Incident(ctx, "one")
	if err != nil || found != slices.Contains(migrations[:n], incidentTable) {
		t.Errorf("the incident is there: %v, %v", found, err)
	}
	if found {
		checkOldSignals(t, &i)
	}
	if _, found, err := s.Sessions().Session(ctx, "one"); err != nil || found != slices.Contains(migrations[:n], sessions.Schema) {
		t.Errorf("the session is there: %v, %v", found, err)
	}
	want := 0
	if slices.Contains(migrations[:n], sessions.FailureSchema) {
		want = 3
	}
	if have, err := s.Sessions().Failures(ctx, "192.0.2.1/32", time.Unix(0, 1)); err != nil || have != want {
		t.Errorf("%d failed logins are left, %v; want %d", have, err, want)
	}
	for range 2 { // without an index of their words, and with one
		checkOlderWords(t, s, n)
		indexAll(t, s)
	}
	if added := must[[]alert.Alert](t)(s.AddAlerts(ctx, involving(12))); len(added) != 2 {
		t.Errorf("%d alerts were new, want 2", len(added))
	}
	told(t, s, must[int64](t)(s.LastAlert(ctx)))
	// Of those in a block it is known when they came; of the others that they are there.
	want = 0
	if slices.Contains(migrations[:n], blockTables) {
		want = 5
	}
	l := unlimited
	l.Alerts = time.Since(start) - time.Hour
	r, err := s.Retain(context.WithoutCancel(ctx), l, time.Now())
	if have := r.Removed[retention.Cause{Kind: retention.Alerts, Limit: retention.Age}]; err != nil || have != want {
		t.Errorf("%d alerts were removed for their age, %v; want %d", have, err, want)
	}
}

// checkOldSignals expects those of an incident in the order of their times.
func checkOldSignals(t *testing.T, i *incident.Incident) {
	t.Helper()
	var alerts []string
	for _, s := range i.Signals {
		if !slices.ContainsFunc(oldSignals(), func(old incident.Signal) bool { return reflect.DeepEqual(old, s) }) {
			t.Errorf("have %+v", s)
		}
		alerts = append(alerts, s.Alert)
	}
	if want := []string{"of no time", "first", "second", "third"}; !slices.Equal(alerts, want) {
		t.Errorf("the incident has alerts %q, want %q", alerts, want)
	}
}

func checkOlderWords(t *testing.T, s *Store, n int) {
	t.Helper()
	for _, q := range []finding.Query{{Text: "web-1 is privileged"}, {Subject: "Deployment/team-1/web-001"}} {
		if have := must2(s.FindingPage(t.Context(), q))(t); len(have) != 1 || have[0].Subject.Name != "web-001" {
			t.Errorf("%+v: found %+v", q, have)
		}
	}
	want := 0
	if slices.Contains(migrations[:n], incidentTable) {
		want = 1
	}
	for _, q := range []incident.Query{{Text: "web-0"}, {Entity: pod("web-0")}} {
		if have := must2(s.Incidents(t.Context(), q))(t); len(have) != want {
			t.Errorf("%+v: %d incidents, want %d", q, len(have), want)
		}
	}
	if have := must[[]alert.Seen](t)(s.Entities(t.Context(), "shop/web-", 10)); len(have) != 1 {
		t.Errorf("found %+v", have)
	}
}
