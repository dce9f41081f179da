package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/store/words"
)

// AddAlerts stores alerts in one transaction: after an error none of them is
// stored. Alerts that the store has already, by id, are left out; it returns
// the others. They are on the disk when it returns.
func (s *Store) AddAlerts(ctx context.Context, alerts []alert.Alert) (added []alert.Alert, err error) {
	added, _, err = s.AddGrouped(ctx, alerts, func(*alert.Alert) (alert.Group, error) { return alert.Group{}, nil })
	return added, err
}

// Alerts returns a page of the alerts that q selects, newest first, and the
// cursor of the next page, which is zero after the last.
func (s *Store) Alerts(ctx context.Context, q alert.Query) (page []alert.Record, next finding.Cursor, err error) {
	if terms, ok := searchable(q); ok {
		if page, next, done, err := s.alertsByText(ctx, q, terms); done || err != nil {
			return page, next, err
		}
	}
	text := words.Parse(q.Text)
	record := func(seq int64, body string) (alert.Record, bool, error) {
		r := alert.Record{Seq: seq}
		err := decode(body, &r.Alert)
		return r, err == nil && (q.Text == "" || text.In(r.Alert.Texts()...)), err
	}
	l, n := s.alertListing(q), limit(q.Limit)
	if s.byPriority(q) {
		query, args := l.upTo("priority", int(*q.Priority), q.Before, n)
		var rows *sql.Rows
		if rows, err = s.readers.QueryContext(ctx, query, args...); err == nil {
			page, next, err = scanPage(rows, n, record)
		}
	} else {
		page, next, err = pageOf(ctx, s.readers, l, q.Before, n, record)
	}
	return page, next, s.explain("read alerts from", err)
}

// byPriority reports whether alerts are selected by their priority alone, for
// which there is an index, but not by all priorities. Those of the own cluster are
// most of all.
func (s *Store) byPriority(q alert.Query) bool {
	return q.Priority != nil && *q.Priority < alert.Debug && q.Rule == "" && q.Namespace == "" && q.Text == "" && !q.Drift && (q.Cluster == "" || q.Cluster == s.Own) && q.Entity == alert.Entity{}
}

func (s *Store) alertListing(q alert.Query) listing {
	l := listing{from: "alerts", time: "time", seq: "seq", index: &where{}, rest: &where{}}
	if q.Entity != (alert.Entity{}) { // in the order of the index of entities, which is the same
		l.from, l.time, l.seq = "alert_entities JOIN alerts ON seq = alert", "happened", "alert"
		l.index.add(true, "entity = "+entityOf, string(q.Entity.Kind), q.Entity.Name)
		l.rest.add(q.Rule != "", "rule = ?", q.Rule)
		l.rest.add(q.Namespace != "", "namespace = ?", q.Namespace)
	} else {
		l.index.add(q.Rule != "", "rule = ?", q.Rule)
		both := q.Rule != "" && q.Namespace != ""
		l.rest.add(both, "namespace = ?", q.Namespace)
		l.index.add(q.Namespace != "" && !both, "namespace = ?", q.Namespace)
	}
	if q.Cluster != "" && q.Rule == "" && q.Namespace == "" && (q.Entity == alert.Entity{}) && q.Cluster != s.Own {
		l.index.add(true, "cluster = ?", q.Cluster)
	} else {
		l.rest.of(q.Cluster, s.Own)
	}
	l.index.add(q.Drift, "drift = 1")
	l.index.add(!q.Since.IsZero(), l.time+" >= ?", nanoseconds(q.Since))
	l.index.add(!q.Until.IsZero(), l.time+" < ?", nanoseconds(q.Until))
	if q.Priority != nil && *q.Priority < alert.Debug && !s.byPriority(q) {
		l.rest.add(true, "priority <= ?", *q.Priority)
	}
	l.rest.names(words.Parse(q.Text))
	l.picks = q.Text != ""
	return l
}

// AlertsAfter returns the alerts that were added after seq and that q selects,
// in the order in which they were added, and the seq up to which it looked,
// with which to go on. It ignores q.Before.
func (s *Store) AlertsAfter(ctx context.Context, seq int64, q alert.Query) (records []alert.Record, last int64, err error) {
	w, n := s.alertFilter(q), limit(q.Limit)
	// The end is fixed first: what is added meanwhile is for the next call.
	if last, err = s.LastAlert(ctx); err != nil || last <= seq {
		return nil, seq, err
	}
	if len(w.terms) > 0 || q.Text != "" || q.Entity != (alert.Entity{}) {
		last = min(last, seq+searchWindow)
	}
	w.add(true, "seq > ? AND seq <= ?", seq, last)
	// Not EXISTS: a planner may turn that round, and read all that involve it.
	w.add(q.Entity != alert.Entity{}, "(SELECT alert FROM alert_entities WHERE happened = time AND alert = seq AND entity = "+entityOf+") IS NOT NULL",
		string(q.Entity.Kind), q.Entity.Name)
	rows, err := s.readers.QueryContext(ctx, "SELECT seq, body FROM alerts"+w.String()+" ORDER BY seq LIMIT ?", append(w.args, n)...)
	if err != nil {
		return nil, seq, s.explain("read alerts from", err)
	}
	defer rows.Close()
	read, text := 0, words.Parse(q.Text)
	for rows.Next() {
		var r alert.Record
		var body string
		if err := scanBody(rows, &body, &r.Alert, &r.Seq); err != nil {
			return nil, seq, s.explain("read alerts from", err)
		}
		if q.Text == "" || text.In(r.Alert.Texts()...) {
			records = append(records, r)
		}
		if read++; read == n {
			last = r.Seq
		}
	}
	return records, last, s.explain("read alerts from", rows.Err())
}

// scanBody reads the columns of a row, of which the last is the body of v.
func scanBody(rows *sql.Rows, body *string, v any, columns ...any) error {
	if err := rows.Scan(append(columns, body)...); err != nil {
		return err
	}
	return decode(*body, v)
}

// LastAlert returns the sequence number of the alert that was added last, 0
// when there is none.
func (s *Store) LastAlert(ctx context.Context) (seq int64, err error) {
	err = s.readers.QueryRowContext(ctx, "SELECT coalesce(max(seq), 0) FROM alerts").Scan(&seq)
	return seq, s.explain("read alerts from", err)
}

// Alert returns one alert; found is false when the store does not have it.
func (s *Store) Alert(ctx context.Context, id string) (r alert.Record, found bool, err error) {
	rows, err := s.readers.QueryContext(ctx, "SELECT seq, body FROM alerts WHERE id = ?", id)
	if err != nil {
		return r, false, s.explain("read alert from", err)
	}
	defer rows.Close()
	for rows.Next() {
		var body string
		if err := scanBody(rows, &body, &r.Alert, &r.Seq); err != nil {
			return r, false, s.explain("read alert from", err)
		}
		found = true
	}
	return r, found, s.explain("read alert from", rows.Err())
}

// AlertCounts returns how many alerts there are since a time, by priority.
func (s *Store) AlertCounts(ctx context.Context, since time.Time) (map[alert.Priority]int, error) {
	return counts[alert.Priority](ctx, s, recent("alerts", "+priority", "time >= ?"), nanoseconds(since))
}

// recent returns a query that counts by a column the records that a term selects
// by their time. What is made of the column, and not the column
// itself, keeps SQLite from reading all of them in the order of its index.
func recent(table, column, term string) string {
	return "SELECT what, count(*) FROM (SELECT " + column + " AS what FROM " + table + " WHERE " + term + ") AS recent GROUP BY what"
}

func counts[K comparable](ctx context.Context, s *Store, query string, args ...any) (map[K]int, error) {
	rows, err := s.readers.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, s.explain("count records in", err)
	}
	defer rows.Close()
	out := map[K]int{}
	for rows.Next() {
		var key K
		var n int
		if err := rows.Scan(&key, &n); err != nil {
			return nil, s.explain("count records in", err)
		}
		out[key] = n
	}
	return out, s.explain("count records in", rows.Err())
}

func (s *Store) alertFilter(q alert.Query) *where {
	w := &where{}
	w.add(q.Rule != "", "rule = ?", q.Rule)
	w.add(q.Namespace != "", "namespace = ?", q.Namespace)
	w.add(q.Drift, "drift = 1")
	w.of(q.Cluster, s.Own)
	if q.Priority != nil {
		w.add(true, "priority <= ?", *q.Priority)
	}
	w.between(q.Since, q.Until)
	w.names(words.Parse(q.Text))
	return w
}

// scanPage reads rows of (seq, time, body), of which record selects some, one more
// than the page has, which says that there is a next page.
func scanPage[T any](rows *sql.Rows, n int, record func(seq int64, body string) (T, bool, error)) (page []T, next finding.Cursor, err error) {
	defer rows.Close()
	var end finding.Cursor // of the row before
	for rows.Next() {
		var seq, at int64
		var body string
		if err := rows.Scan(&seq, &at, &body); err != nil {
			return nil, next, err
		}
		r, selected, err := record(seq, body)
		if err != nil {
			return nil, next, err
		}
		if !selected {
			continue
		}
		if len(page) == n {
			next = end
			break
		}
		page, end = append(page, r), finding.Cursor{Time: time.Unix(0, at).UTC(), Seq: seq}
	}
	return page, next, rows.Err()
}
