package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/store/outbox"
	"github.com/kubeguardian/kubeguardian/store/postgres"
	"github.com/kubeguardian/kubeguardian/store/retention"
)

// A recorder notes the queries of a database.
type recorder struct {
	open func(context.Context) (driver.Conn, error)

	mu      sync.Mutex
	queries []recorded
}

type recorded struct {
	text string
	args []any
}

func (r *recorder) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := r.open(ctx)
	return recording{c, r}, err
}

func (r *recorder) Driver() driver.Driver { return nil }

type recording struct {
	driver.Conn
	*recorder
}

func (c recording) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	q := recorded{text: query}
	for _, a := range args {
		q.args = append(q.args, a.Value)
	}
	c.mu.Lock()
	c.queries = append(c.queries, q)
	c.mu.Unlock()
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

func (c recording) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

// record makes a store note what it reads with.
func record(t *testing.T, s *Store) *recorder {
	t.Helper()
	r := &recorder{open: func(context.Context) (driver.Conn, error) {
		return s.writer.Driver().Open(dsn(s.name, "_pragma=query_only(1)"))
	}}
	if s.postgres {
		config, err := parseURL(server.URL(strings.Fields(s.name)[0]))
		if err != nil {
			t.Fatal(err)
		}
		r.open = postgres.Connector{Connector: stdlib.GetConnector(*config), Patience: readPatience}.Connect
	}
	if err := s.readers.Close(); err != nil {
		t.Fatal(err)
	}
	s.readers = sql.OpenDB(r)
	s.Queue = outbox.New(s.readers, s.write, s.explain)
	return r
}

// explained returns the plan of a query. PostgreSQL scans tables as small as
// those of tests, unless it is kept from that.
func explained(t *testing.T, s *Store, q recorded) string {
	t.Helper()
	tx := must[*sql.Tx](t)(s.writer.BeginTx(t.Context(), nil))
	defer tx.Rollback()
	explain := "EXPLAIN QUERY PLAN "
	if s.postgres {
		explain = "EXPLAIN "
		must[sql.Result](t)(tx.Exec("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"))
	}
	rows, err := tx.Query(explain+q.text, q.args...)
	if err != nil {
		t.Fatalf("%s: %v", q.text, err)
	}
	defer rows.Close()
	var plan []string
	for rows.Next() {
		var a, b, c int
		var line string
		into := []any{&line}
		if !s.postgres {
			into = []any{&a, &b, &c, &line}
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		if line != "USE TEMP B-TREE FOR string_agg(ORDER BY)" { // of the signals of one incident
			plan = append(plan, line)
		}
	}
	return strings.Join(plan, "\n")
}

// badPlans are signs that a query looks at all records, or puts them in order
// itself. Tables that stay small may be read as a whole. SQLite calls tables as a
// query does: i and s are those of the view of incidents.
func badPlans(postgres bool) *regexp.Regexp {
	if postgres {
		return regexp.MustCompile(`Seq Scan on (alerts|decisions|findings|incident_heads|incident_signals|entities|alert_entities|decision_entities|repeats|deliveries|announced|finding_span_subjects)\b|\bSort\b`)
	}
	return regexp.MustCompile(`(?m)SCAN (alerts|decisions|findings|incident_heads|incident_signals|incidents|i|s|signals|entities|alert_entities|decision_entities|repeats|deliveries|announced|finding_span_subjects)$|TEMP B-TREE`)
}

// TestPlans: what pages, streams and the joiner ask for is read in the order of
// an index, on both databases.
func TestPlans(t *testing.T) {
	s := open(t)
	s.Own = "central"
	ctx := t.Context()
	must[[]alert.Alert](t)(s.AddAlerts(ctx, involving(500)))
	if err := s.AddDecisions(ctx, testDecisions(100)); err != nil {
		t.Fatal(err)
	}
	replace(t, s, testFindings(200))
	r := record(t, s)
	critical, cursor := alert.Critical, finding.Cursor{Time: start.Add(100 * time.Second), Seq: 50}
	alerts := func(q alert.Query) func() error {
		return func() error { _, _, err := s.Alerts(ctx, q); return err }
	}
	decisions := func(q finding.DecisionQuery) func() error {
		return func() error { _, _, err := s.Decisions(ctx, q); return err }
	}
	incidents := func(q incident.Query) func() error {
		return func() error { _, _, err := s.Incidents(ctx, q); return err }
	}
	findings := func(q finding.Query) func() error {
		return func() error { _, _, err := s.FindingPage(ctx, q); return err }
	}
	groups := func(q finding.Query) func() error {
		return func() error { _, err := s.FindingGroups(ctx, q); return err }
	}
	bad := badPlans(s.postgres)
	for name, call := range map[string]func() error{
		"alerts":                  alerts(alert.Query{}),
		"alerts, next page":       alerts(alert.Query{Before: cursor}),
		"alerts of a time":        alerts(alert.Query{Since: start, Until: start.Add(time.Hour), Before: cursor}),
		"alerts of a rule":        alerts(alert.Query{Rule: "Secrets listed", Before: cursor}),
		"alerts of a namespace":   alerts(alert.Query{Namespace: "team-1", Before: cursor}),
		"alerts of both":          alerts(alert.Query{Rule: "Secrets listed", Namespace: "team-1", Before: cursor}),
		"alerts of an entity":     alerts(alert.Query{Entity: pod("web-0"), Before: cursor}),
		"alerts of a cluster":     alerts(alert.Query{Cluster: "eu-1", Before: cursor}),
		"own alerts":              alerts(alert.Query{Cluster: "central", Before: cursor}),
		"an entity of a cluster":  alerts(alert.Query{Cluster: "eu-1", Entity: pod("web-0")}),
		"alerts with a text":      alerts(alert.Query{Text: "none", Before: cursor}),
		"text of an entity":       alerts(alert.Query{Text: "none", Entity: pod("web-0"), Priority: &critical}),
		"priority of a namespace": alerts(alert.Query{Namespace: "team-1", Priority: &critical}),
		"new alerts":              func() error { _, _, err := s.AlertsAfter(ctx, 10, alert.Query{}); return err },
		"new alerts of an entity": func() error { _, _, err := s.AlertsAfter(ctx, 10, alert.Query{Entity: pod("web-0")}); return err },
		"last alert":              func() error { _, err := s.LastAlert(ctx); return err },
		"one alert":               func() error { _, _, err := s.Alert(ctx, "id"); return err },
		"decisions":               decisions(finding.DecisionQuery{Before: cursor}),
		"decisions of an outcome": decisions(finding.DecisionQuery{Outcome: finding.Denied, Before: cursor}),
		"decisions of both":       decisions(finding.DecisionQuery{Outcome: finding.Denied, Namespace: "shop"}),
		"decisions in a place":    decisions(finding.DecisionQuery{Namespace: "shop", Before: cursor}),
		"decisions with a text":   decisions(finding.DecisionQuery{Text: "none"}),
		"decisions of an entity": func() error {
			_, err := s.DecisionsOf(ctx, pod("web-0"), finding.DecisionQuery{Limit: 10, Since: start})
			return err
		},
		"denials of an entity": func() error {
			_, err := s.DecisionsOf(ctx, pod("web-0"), finding.DecisionQuery{Since: start, Until: start.Add(time.Hour), Outcome: finding.Denied})
			return err
		},
		"incidents":              incidents(incident.Query{Before: cursor}),
		"open incidents":         incidents(incident.Query{State: incident.Open, Before: cursor}),
		"incidents of a state":   incidents(incident.Query{State: incident.New, Before: cursor}),
		"incidents of a cluster": incidents(incident.Query{Cluster: "eu-1", Before: cursor}),
		"own incidents":          incidents(incident.Query{Cluster: "central", State: incident.Open}),
		"urgent incidents":       incidents(incident.Query{State: incident.Open, Paged: true, Cluster: "eu-1"}),
		"incidents with a text":  incidents(incident.Query{Text: "none", Before: cursor}),
		"incidents of an entity": incidents(incident.Query{Entity: pod("web-0"), State: incident.New, Cluster: "central"}),
		"many incidents":         incidents(incident.Query{Text: "p", Cluster: "eu-1", State: incident.Closed}),
		"one incident":           func() error { _, _, err := s.Incident(ctx, "id"); return err },
		"changed incidents":      func() error { _, err := s.Changed(ctx, 10); return err },
		"one message":            func() error { _, _, err := s.Delivery(ctx, "a", "key"); return err },
		"joined incidents":       func() error { _, _, err := s.Correlated(ctx, start); return err },
		"findings":               findings(finding.Query{}),
		"findings, next page":    findings(finding.Query{After: "50"}),
		"findings of a control":  findings(finding.Query{Control: "CON-SEC-01", After: "50"}),
		"findings of a status":   findings(finding.Query{Status: finding.Fail, After: "50"}),
		"findings of a place":    findings(finding.Query{Namespace: "team-1", After: "50"}),
		"findings with a text":   findings(finding.Query{Text: "none", Status: finding.Fail}),
		"findings of a subject":  findings(finding.Query{Subject: "Pod/shop/web-0", Status: finding.Fail}),
		"many findings":          findings(finding.Query{Text: "p", Status: finding.Fail}),
		"groups of findings":     groups(finding.Query{Status: finding.Fail, Namespace: "team-1"}),
		"groups of all":          groups(finding.Query{}),
		"groups with a text":     groups(finding.Query{Text: "p"}),
		"counts of rules":        func() error { _, err := s.RuleCounts(ctx); return err },
		"entities":               func() error { _, err := s.Entities(ctx, "web", 10); return err },
		"many entities":          func() error { _, err := s.Entities(ctx, "w", 10); return err },
		"a checkpoint":           func() error { _, _, err := s.Checkpoint(ctx, "a"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			r.queries = nil
			if err := call(); err != nil {
				t.Fatal(err)
			}
			if len(r.queries) == 0 {
				t.Fatal("nothing was asked")
			}
			for _, q := range slices.Clone(r.queries) {
				if strings.Contains(q.text, "ORDER BY +") {
					continue // of few records, see TestSearchReadsFewBlocks and TestFewPlans
				}
				if plan := explained(t, s, q); bad.MatchString(plan) {
					t.Errorf("%s\n%s", q.text, plan)
				}
			}
		})
	}
}

// TestRetentionPlans: what may go is found by indices.
func TestRetentionPlans(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	must[[]alert.Alert](t)(s.AddAlerts(ctx, involving(500)))
	r, bad := record(t, s), badPlans(s.postgres)
	retain(t, s, retention.Limits{Bytes: 1}, start.Add(time.Hour))
	seen := ""
	for _, q := range r.queries {
		plan := explained(t, s, q)
		if seen += plan; bad.MatchString(plan) {
			t.Errorf("%s\n%s", q.text, plan)
		}
	}
	for _, index := range []string{"incidents_time", "incidents_paged", "incidents_state", "announced_whole"} {
		if !strings.Contains(seen, index) {
			t.Errorf("nothing is read by %s", index)
		}
	}
}

// TestUrgentPlans: of those up to a priority, the newest of each are merged: what
// is put in order are a few pages.
func TestUrgentPlans(t *testing.T) {
	s := open(t)
	s.Own = "central"
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), involving(500)))
	r := record(t, s)
	critical := alert.Critical
	for _, cluster := range []string{"", "central"} {
		r.queries = nil
		if _, _, err := s.Alerts(t.Context(), alert.Query{Priority: &critical, Cluster: cluster}); err != nil {
			t.Fatal(err)
		}
		plan := explained(t, s, r.queries[0])
		if n := strings.Count(plan, "alerts_priority"); n != int(critical)+1 || strings.Contains(plan, "Seq Scan") {
			t.Errorf("of cluster %q %d priorities are read by their index\n%s", cluster, n, plan)
		}
	}
}

// TestDriftPlans: alerts about drift are read by an index that has no others.
func TestDriftPlans(t *testing.T) {
	s := open(t)
	s.Own = "central"
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), involving(500)))
	must[sql.Result](t)(s.writer.Exec("ANALYZE"))
	r := record(t, s)
	if _, _, err := s.Alerts(t.Context(), alert.Query{Drift: true, Cluster: "central", Before: finding.Cursor{Time: start.Add(400 * time.Second), Seq: 400}}); err != nil {
		t.Fatal(err)
	}
	for _, q := range r.queries {
		if plan := explained(t, s, q); !strings.Contains(plan, "alerts_drift") || badPlans(s.postgres).MatchString(plan) {
			t.Errorf("%s\n%s", q.text, plan)
		}
	}
}

// TestCountPlans: what is counted since a time is read by an index of the time.
func TestCountPlans(t *testing.T) {
	s := open(t)
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), involving(500)))
	if err := s.AddDecisions(t.Context(), testDecisions(500)); err != nil {
		t.Fatal(err)
	}
	must[sql.Result](t)(s.writer.Exec("ANALYZE"))
	r := record(t, s)
	must[map[alert.Priority]int](t)(s.AlertCounts(t.Context(), start.Add(time.Hour)))
	must[map[finding.Outcome]int](t)(s.DecisionCounts(t.Context(), start.Add(time.Hour)))
	for i, index := range []string{"alerts_newest", "decisions_newest"} {
		want := regexp.MustCompile(`SEARCH \w+ USING COVERING INDEX ` + index + ` \(time>\?\)`)
		if s.postgres {
			want = regexp.MustCompile(`Index Only Scan using ` + index + `(?s:.*)Index Cond: \(+"time" >= `)
		}
		if plan := explained(t, s, r.queries[i]); !want.MatchString(plan) {
			t.Errorf("%s\n%s", r.queries[i].text, plan)
		}
	}
}

// TestSearchGoesOn: a search that looks at many records ends with short pages, and
// its cursors lead to all that there is.
func TestSearchGoesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("stores many alerts")
	}
	s := open(t)
	const n = 3 * searchWindow
	for from := 0; from < n; from += 1000 {
		must[[]alert.Alert](t)(s.AddAlerts(t.Context(), testAlerts(from, from+1000)))
	}
	for text, want := range map[string]int{"user-77 ": 1, "by user-1": 0, "nowhere": 0} {
		found, q := 0, alert.Query{Text: text, Limit: 1000}
		for more := true; more; {
			page, next, err := s.Alerts(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			found, q.Before, more = found+len(page), next, next != finding.Cursor{}
		}
		for i := range n {
			if text == "by user-1" && strings.HasPrefix(fmt.Sprint(i), "1") {
				want++
			}
		}
		if found != want {
			t.Errorf("%q: %d found, want %d", text, found, want)
		}
	}
}
