// Package history remembers when findings were found and when they were resolved:
// the states themselves are replaced by each evaluation.
//
// What it writes is written in the transaction that replaces the states, so that
// both always agree.
package history

import (
	"context"
	"database/sql"
	_ "embed" // the text of the schema
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
)

// Schema makes the tables.
//
//go:embed schema.sql
var Schema string

// A Queryer reads, in a transaction or not.
type Queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// A Difference is what an evaluation says that the history does not know yet.
type Difference struct {
	found    map[string]*finding.Finding // by place
	resolved map[string]finding.Status   // what became of it, by place
	first    bool                        // there is no history yet
}

// Compare returns what states, by their places, say anew. What fails is found;
// what is not known any more is as it was, since losing sight of a failure is no
// fix.
func Compare(ctx context.Context, db Queryer, states iter.Seq2[string, *finding.Finding]) (Difference, error) {
	d := Difference{map[string]*finding.Finding{}, map[string]finding.Status{}, false}
	open, err := openPlaces(ctx, db)
	if err != nil {
		return d, err
	}
	d.first = len(open) == 0
	for place, f := range states {
		failed := open[place]
		delete(open, place)
		switch {
		case f.Status == finding.Fail && !failed:
			d.found[place] = f
		case f.Status != finding.Fail && f.Status != finding.Unknown && failed:
			d.resolved[place] = f.Status
		}
	}
	for place := range open {
		d.resolved[place] = ""
	}
	return d, nil
}

func openPlaces(ctx context.Context, db Queryer) (map[string]bool, error) {
	rows, err := db.QueryContext(ctx, "SELECT place FROM finding_spans WHERE resolved = 0")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	open := map[string]bool{}
	for rows.Next() {
		var place string
		if err := rows.Scan(&place); err != nil {
			return nil, err
		}
		open[place] = true
	}
	return open, rows.Err()
}

// Len returns how much there is to save.
func (d Difference) Len() int { return len(d.found) + len(d.resolved) }

// Save notes the difference as of a time. Twice has the effect of once.
func (d Difference) Save(ctx context.Context, tx *sql.Tx, now time.Time) error {
	for place, became := range d.resolved {
		if _, err := tx.ExecContext(ctx, "UPDATE finding_spans SET resolved = ?, became = ? WHERE place = ? AND resolved = 0", now.UnixNano(), string(became), place); err != nil {
			return err
		}
	}
	if len(d.found) == 0 {
		return nil
	}
	fresh := 1
	if d.first {
		var some int // resolved ones: the history of a cluster in which nothing failed
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT seq FROM finding_spans LIMIT 1) AS one").Scan(&some); err != nil {
			return err
		}
		fresh = some
	}
	for place, f := range d.found {
		if err := begin(ctx, tx, place, f, now, fresh); err != nil {
			return err
		}
	}
	return nil
}

func begin(ctx context.Context, tx *sql.Tx, place string, f *finding.Finding, now time.Time, fresh int) error {
	body, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode finding %s of %s: %w", f.Control, f.Subject, err)
	}
	var seq int64
	err = tx.QueryRowContext(ctx, `INSERT INTO finding_spans (place, found, fresh, resolved, became, body) VALUES (?, ?, ?, 0, '', ?)
		ON CONFLICT (place) WHERE resolved = 0 DO NOTHING RETURNING seq`, place, now.UnixNano(), fresh, string(body)).Scan(&seq)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, subject := range f.Concerns() {
		if _, err := tx.ExecContext(ctx, "INSERT INTO finding_span_subjects (subject, span) VALUES (?, ?) ON CONFLICT DO NOTHING", subject, seq); err != nil {
			return err
		}
	}
	return nil
}

// Bounds of what is asked for at once.
const (
	maxSubjects = 200
	maxSpans    = 1000
)

// Spans returns the spans that a query selects: those first that are open, then
// the latest.
func Spans(ctx context.Context, db Queryer, q finding.SpanQuery) ([]finding.Span, error) {
	subjects := q.Subjects[:min(len(q.Subjects), maxSubjects)]
	if len(subjects) == 0 {
		return nil, nil
	}
	var args []any
	for _, s := range subjects {
		args = append(args, s)
	}
	where := "seq IN (SELECT span FROM finding_span_subjects WHERE subject IN (?" + strings.Repeat(", ?", len(subjects)-1) + "))"
	if !q.Since.IsZero() {
		where, args = where+" AND (resolved = 0 OR resolved >= ?)", append(args, q.Since.UnixNano())
	}
	if !q.Until.IsZero() {
		where, args = where+" AND found < ?", append(args, q.Until.UnixNano())
	}
	most := q.Limit
	if most <= 0 || most > maxSpans {
		most = maxSpans
	}
	rows, err := db.QueryContext(ctx, "SELECT found, fresh, resolved, became, body FROM finding_spans WHERE "+where+
		" ORDER BY CASE WHEN resolved = 0 THEN 0 ELSE 1 END, found DESC, seq DESC LIMIT ?", append(args, most)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []finding.Span
	for rows.Next() {
		s, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

func scan(rows *sql.Rows) (s finding.Span, err error) {
	var found, fresh, resolved int64
	var body string
	if err := rows.Scan(&found, &fresh, &resolved, &s.Became, &body); err != nil {
		return s, err
	}
	s.Found, s.New = time.Unix(0, found).UTC(), fresh == 1
	if resolved != 0 {
		s.Resolved = time.Unix(0, resolved).UTC()
	}
	return s, json.Unmarshal([]byte(body), &s.Finding)
}

// MaxResolved bounds the spans that are kept after they have ended.
const MaxResolved = 200_000

// Prune deletes at most n of the spans that ended before a time, or that are
// beyond [MaxResolved], and returns how many.
func Prune(ctx context.Context, tx *sql.Tx, before time.Time, n int) (int64, error) {
	return prune(ctx, tx, before, n, MaxResolved)
}

func prune(ctx context.Context, tx *sql.Tx, before time.Time, n, most int) (int64, error) {
	var beyond sql.NullInt64 // when the latest of those ended that are too many
	err := tx.QueryRowContext(ctx, "SELECT max(resolved) FROM (SELECT resolved FROM finding_spans WHERE resolved > 0 ORDER BY resolved DESC LIMIT 1 OFFSET ?) AS one", most).Scan(&beyond)
	if err != nil {
		return 0, err
	}
	end := max(before.UnixNano(), beyond.Int64+1)
	const old = "(SELECT seq FROM finding_spans WHERE resolved > 0 AND resolved < ? ORDER BY resolved, seq LIMIT ?)"
	if _, err := tx.ExecContext(ctx, "DELETE FROM finding_span_subjects WHERE span IN "+old, end, n); err != nil {
		return 0, err
	}
	result, err := tx.ExecContext(ctx, "DELETE FROM finding_spans WHERE seq IN "+old, end, n)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}
