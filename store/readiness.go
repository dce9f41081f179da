package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
)

const (
	maxHeldRows    = 10_000 // of a day; further kinds of requests are counted together
	maxHeldMessage = 1024   // bytes
	day            = 24 * time.Hour
)

// dayOf numbers the days of UTC.
func dayOf(t time.Time) int64 { return t.UTC().Unix() / int64(day/time.Second) }

// A heldWriter counts the violations that decisions let pass, by day, policy,
// user, namespace and kind.
type heldWriter struct {
	tx   *sql.Tx
	rows map[int64]int // of a day, once it is known
}

func (w *heldWriter) add(ctx context.Context, d *finding.Decision) error {
	for _, v := range d.Held() {
		message := v.Message
		if len(message) > maxHeldMessage {
			message = strings.ToValidUTF8(message[:maxHeldMessage], "")
		}
		what := []any{v.Enforcement, nanoseconds(d.Time), d.Operation, d.Subject.APIVersion, d.Subject.Name, message}
		of := []any{dayOf(d.Time), v.Policy, v.Binding}
		if err := w.count(ctx, what, append(of, d.User, d.Subject.Namespace, d.Subject.Kind)); err != nil {
			return err
		}
	}
	return nil
}

// count adds one to a row, or begins it. When the day has too many, it is that of
// all others.
func (w *heldWriter) count(ctx context.Context, what, key []any) error {
	const update = `UPDATE held SET requests = requests + 1, enforcement = ?, last = ?, operation = ?, version = ?, name = ?, message = ?
		WHERE day = ? AND policy = ? AND binding = ? AND "user" = ? AND namespace = ? AND kind = ?`
	if updated, err := w.exec(ctx, update, append(slices.Clone(what), key...)); updated > 0 || err != nil {
		return err
	}
	today := key[0].(int64)
	n, known := w.rows[today]
	if !known {
		if err := w.tx.QueryRowContext(ctx, "SELECT count(*) FROM held WHERE day = ?", today).Scan(&n); err != nil {
			return err
		}
	}
	if n >= maxHeldRows && key[3] != "" {
		return w.count(ctx, what, append(slices.Clone(key[:3]), "", "", ""))
	}
	w.rows[today] = n + 1
	_, err := w.exec(ctx, `INSERT INTO held (requests, enforcement, last, operation, version, name, message, day, policy, binding, "user", namespace, kind)
		VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, append(slices.Clone(what), key...))
	return err
}

func (w *heldWriter) exec(ctx context.Context, query string, args []any) (changed int64, err error) {
	result, err := w.tx.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// Readiness returns what policies that do not deny would have denied in the last
// days, that of today included, ordered by policy and binding. A policy of which
// nothing is known is not among them.
func (s *Store) Readiness(ctx context.Context, days int, now time.Time) ([]finding.Readiness, error) {
	since := dayOf(now) - int64(max(days, 1)) + 1
	out, err := s.readiness(ctx, since)
	return out, s.explain("read held requests from", err)
}

func (s *Store) readiness(ctx context.Context, since int64) (out []finding.Readiness, err error) {
	at := map[[2]string]int{}
	err = s.each(ctx, `SELECT policy, binding, requests, last, enforcement FROM (
		SELECT policy, binding, last, enforcement, sum(requests) OVER (PARTITION BY policy, binding) AS requests,
			row_number() OVER (PARTITION BY policy, binding ORDER BY last DESC) AS place
		FROM held WHERE day >= ?) AS numbered WHERE place = 1 ORDER BY policy, binding`, since, func(rows *sql.Rows) error {
		r := finding.Readiness{Users: []finding.UserRequests{}, Samples: []finding.Held{}}
		var last int64
		if err := rows.Scan(&r.Policy, &r.Binding, &r.Requests, &last, &r.Enforcement); err != nil {
			return err
		}
		r.Last = time.Unix(0, last).UTC()
		at[[2]string{r.Policy, r.Binding}] = len(out)
		out = append(out, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	// Of a policy that was first held to something since the query above, the next
	// report tells.
	of := func(policy, binding string) *finding.Readiness {
		if i, known := at[[2]string{policy, binding}]; known {
			return &out[i]
		}
		return &finding.Readiness{}
	}
	err = s.each(ctx, fmt.Sprintf(`SELECT policy, binding, "user", n FROM (
		SELECT policy, binding, "user", sum(requests) AS n, row_number() OVER (PARTITION BY policy, binding ORDER BY sum(requests) DESC, "user") AS place
		FROM held WHERE day >= ? GROUP BY policy, binding, "user") AS numbered WHERE place <= %d ORDER BY place`, finding.ReadinessUsers), since, func(rows *sql.Rows) error {
		var policy, binding string
		var u finding.UserRequests
		if err := rows.Scan(&policy, &binding, &u.User, &u.Requests); err != nil {
			return err
		}
		r := of(policy, binding)
		r.Users = append(r.Users, u)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, s.each(ctx, fmt.Sprintf(`SELECT policy, binding, last, operation, "user", version, kind, namespace, name, message FROM (
		SELECT *, row_number() OVER (PARTITION BY policy, binding ORDER BY last DESC) AS place FROM held WHERE day >= ?) AS numbered
		WHERE place <= %d ORDER BY place`, finding.ReadinessSamples), since, func(rows *sql.Rows) error {
		var policy, binding string
		var h finding.Held
		var last int64
		s := &h.Subject
		if err := rows.Scan(&policy, &binding, &last, &h.Operation, &h.User, &s.APIVersion, &s.Kind, &s.Namespace, &s.Name, &h.Message); err != nil {
			return err
		}
		h.Time = time.Unix(0, last).UTC()
		r := of(policy, binding)
		r.Samples = append(r.Samples, h)
		return nil
	})
}

// each calls scan for each row of a query with one argument.
func (s *Store) each(ctx context.Context, query string, arg any, scan func(*sql.Rows) error) error {
	rows, err := s.readers.QueryContext(ctx, query, arg)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// HeldSince returns since when the store counts held requests.
func (s *Store) HeldSince(ctx context.Context) (time.Time, error) {
	var seconds int64
	err := s.readers.QueryRowContext(ctx, "SELECT time FROM held_since").Scan(&seconds)
	return time.Unix(seconds, 0).UTC(), s.explain("read held requests from", err)
}

// PruneReadiness forgets the held requests of days that ended before a time.
func (s *Store) PruneReadiness(ctx context.Context, before time.Time) error {
	_, err := s.exec(ctx, "DELETE FROM held WHERE day < ?", dayOf(before))
	return s.explain("delete old held requests from", err)
}
