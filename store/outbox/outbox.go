// Package outbox keeps the messages to destinations in the database: what waits is a
// queue, from which a message goes when it is delivered, in a summary or a dead
// letter.
package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/notify/delivery"
	"github.com/kubeguardian/kubeguardian/store/dialect"
)

// Progress is the name of the checkpoint of the alerts that are messages.
const Progress = "notify"

// The number of messages that a call reads: when it names none, and at most.
const (
	defaultLimit = 50
	maxLimit     = 1000
)

// A Queue is that of a database.
type Queue struct {
	readers *sql.DB
	write   func(context.Context, func(*sql.Tx) error) error
	explain func(doing string, err error) error
}

// New returns the queue of a database that is read by readers. The function writes
// in a transaction, perhaps twice, and no two at a time that write incidents or
// messages; explain names the database in an error.
func New(readers *sql.DB, write func(context.Context, func(*sql.Tx) error) error, explain func(doing string, err error) error) *Queue {
	return &Queue{readers, write, explain}
}

const columns = "seq, destination, key, grp, state, title, created, due, until, next, done, attempts, count, first, last, reason, body, follows, incident"

// Enqueue takes messages into the queue and remembers up to where what happened
// is in it: all of it, or nothing. A message whose group has one that was not
// tried yet is counted in that; one whose group had a message within its window
// is due when that ends. A message that is there already, by its key, is left
// out. It returns which have been added, and how many alerts have no message of
// their own.
func (q *Queue) Enqueue(ctx context.Context, messages []delivery.Message, p delivery.Progress, now time.Time) (added []delivery.Message, counted int, err error) {
	err = q.write(ctx, func(tx *sql.Tx) error {
		added, counted = nil, 0
		for _, m := range messages {
			alerts := m.Count
			merged, err := enqueue(ctx, tx, &m, now)
			switch {
			case err != nil:
				return err
			case merged:
				counted += alerts
			case m.Seq != 0:
				added, counted = append(added, m), counted+alerts-1
			}
		}
		for _, told := range p.Incidents {
			if _, err := tx.ExecContext(ctx, "INSERT INTO announced (incident, time, state, whole, level) VALUES (?, ?, ?, ?, ?) ON CONFLICT (incident) DO NOTHING", told.As, dialect.Nanoseconds(now), told.State, told.Incident, told.Level); err != nil {
				return err
			}
		}
		for _, b := range p.Became {
			if _, err := tx.ExecContext(ctx, "UPDATE announced SET state = ? WHERE incident = ?", b.State, b.Incident); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO checkpoints (name, body) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body", Progress, fmt.Sprint(p.Alert))
		return err
	})
	return added, counted, q.explain("queue messages in", err)
}

// enqueue adds one message, or counts it in another one of its group. A message
// that is there already keeps the seq 0.
func enqueue(ctx context.Context, tx *sql.Tx, m *delivery.Message, now time.Time) (merged bool, err error) {
	if m.Follows != "" {
		return false, follow(ctx, tx, m, now)
	}
	if m.Group != "" {
		before, found, err := oneDelivery(ctx, tx, "destination = ? AND grp = ? ORDER BY seq DESC LIMIT 1", m.Destination, m.Group)
		window := m.Until.Sub(m.Due)
		switch {
		case err != nil:
			return false, err
		case found && before.State == delivery.Waiting && before.Attempts == 0:
			_, err := tx.ExecContext(ctx, "UPDATE deliveries SET count = ?, first = ?, last = ? WHERE seq = ?", before.Count+m.Count,
				min(dialect.Nanoseconds(before.First), dialect.Nanoseconds(m.First)), max(dialect.Nanoseconds(before.Last), dialect.Nanoseconds(m.Last)), before.Seq)
			return true, err
		case found && now.Before(before.Until):
			m.Due, m.Next, m.Until = before.Until, before.Until, before.Until.Add(window)
		}
	}
	return false, insertDelivery(ctx, tx, m)
}

func insertDelivery(ctx context.Context, tx *sql.Tx, m *delivery.Message) error {
	err := tx.QueryRowContext(ctx, `INSERT INTO deliveries (destination, key, grp, state, title, created, due, until, next, done, attempts, count, first, last, reason, body, follows, incident)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?, ?, '', ?, ?, ?) ON CONFLICT (destination, key) DO NOTHING RETURNING seq`,
		m.Destination, m.Key, m.Group, string(delivery.Waiting), m.Title, dialect.Nanoseconds(m.Created), dialect.Nanoseconds(m.Due), dialect.Nanoseconds(m.Until), dialect.Nanoseconds(m.Next),
		m.Count, dialect.Nanoseconds(m.First), dialect.Nanoseconds(m.Last), string(m.Body), m.Follows, m.Incident).Scan(&m.Seq)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	return err
}

type rowScanner interface{ Scan(...any) error }

func scanDelivery(row rowScanner) (m delivery.Message, err error) {
	var created, due, until, next, done, first, last int64
	var state, body string
	err = row.Scan(&m.Seq, &m.Destination, &m.Key, &m.Group, &state, &m.Title, &created, &due, &until, &next, &done, &m.Attempts, &m.Count, &first, &last, &m.Reason, &body, &m.Follows, &m.Incident)
	m.State, m.Body = delivery.State(state), []byte(body)
	for to, at := range map[*time.Time]int64{&m.Created: created, &m.Due: due, &m.Until: until, &m.Next: next, &m.First: first, &m.Last: last} {
		*to = time.Unix(0, at).UTC()
	}
	if done != 0 {
		m.Done = time.Unix(0, done).UTC()
	}
	return m, err
}

func oneDelivery(ctx context.Context, tx *sql.Tx, where string, args ...any) (m delivery.Message, found bool, err error) {
	m, err = scanDelivery(tx.QueryRowContext(ctx, "SELECT "+columns+" FROM deliveries WHERE "+where, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return m, false, nil
	}
	return m, err == nil, err
}

type queryer interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}

func scanDeliveries(ctx context.Context, db queryer, where string, args ...any) (list []delivery.Message, err error) {
	rows, err := db.QueryContext(ctx, "SELECT "+columns+" FROM deliveries"+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		m, err := scanDelivery(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, rows.Err()
}

// Claim returns the messages to send to a destination now, at most n of them, in
// their order, and counts an attempt of each. Nothing overtakes the first: while
// its next attempt is not due, there are none. Without any it returns when there
// may be some, zero if none waits.
func (q *Queue) Claim(ctx context.Context, destination string, n int, now time.Time) (batch []delivery.Message, next time.Time, err error) {
	err = q.write(ctx, func(tx *sql.Tx) error {
		batch, next = nil, time.Time{}
		list, err := scanDeliveries(ctx, tx, " WHERE destination = ? AND state = ? ORDER BY due, seq LIMIT ?", destination, string(delivery.Waiting), n)
		if err != nil {
			return err
		}
		for _, m := range list {
			if ready := latest(m.Due, m.Next); now.Before(ready) {
				if len(batch) == 0 {
					next = ready
				}
				break
			}
			m.Attempts++
			if _, err := tx.ExecContext(ctx, "UPDATE deliveries SET attempts = ? WHERE seq = ?", m.Attempts, m.Seq); err != nil {
				return err
			}
			batch = append(batch, m)
		}
		return nil
	})
	return batch, next, q.explain("read messages from", err)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Finish keeps what attempts led to.
func (q *Queue) Finish(ctx context.Context, results []delivery.Result, now time.Time) error {
	err := q.write(ctx, func(tx *sql.Tx) error {
		for _, r := range results {
			if err := finish(ctx, tx, r, now); err != nil {
				return err
			}
		}
		return nil
	})
	return q.explain("keep deliveries in", err)
}

func finish(ctx context.Context, tx *sql.Tx, r delivery.Result, now time.Time) error {
	done := dialect.Nanoseconds(now)
	if r.State == delivery.Waiting {
		done = 0
	}
	_, err := tx.ExecContext(ctx, "UPDATE deliveries SET state = ?, reason = ?, next = ?, done = ? WHERE seq = ? AND state = ?",
		string(r.State), r.Reason, dialect.Nanoseconds(r.Next), done, r.Seq, string(delivery.Waiting))
	if err != nil || r.State != delivery.Dead && r.State != delivery.Summarised {
		return err
	}
	return abandon(ctx, tx, r, done)
}

// Summarise queues one message in place of those of a destination that are due,
// were never tried and follow no other, if there are at least two, and returns how many there
// were. The function makes it of them; at most 1,000 go into one.
func (q *Queue) Summarise(ctx context.Context, destination string, now time.Time, of func([]delivery.Message) (delivery.Message, error)) (n int, err error) {
	err = q.write(ctx, func(tx *sql.Tx) error {
		n = 0
		in, err := scanDeliveries(ctx, tx, " WHERE destination = ? AND state = ? AND due <= ? AND attempts = 0 AND follows = '' ORDER BY due, seq LIMIT ?",
			destination, string(delivery.Waiting), dialect.Nanoseconds(now), maxLimit)
		if err != nil || len(in) < 2 {
			return err
		}
		m, err := of(in)
		if err != nil {
			return err
		}
		if err := insertDelivery(ctx, tx, &m); err != nil {
			return err
		}
		for _, one := range in {
			if err := finish(ctx, tx, delivery.Result{Seq: one.Seq, State: delivery.Summarised, Reason: "over the limit of the destination: it is in a summary", Next: now}, now); err != nil {
				return err
			}
		}
		n = len(in)
		return nil
	})
	return n, q.explain("summarise messages in", err)
}

// Overdue moves messages that wait to the dead letters: those that came into the
// queue before a time, and of the rest the oldest beyond a number. It returns
// which they are, at most 1,000, so that a call may have to be repeated.
func (q *Queue) Overdue(ctx context.Context, destination string, before time.Time, most int, now time.Time) (dead []delivery.Message, err error) {
	err = q.write(ctx, func(tx *sql.Tx) error {
		dead = nil
		old, err := scanDeliveries(ctx, tx, " WHERE destination = ? AND state = ? AND created < ? ORDER BY due, seq LIMIT ?",
			destination, string(delivery.Waiting), dialect.Nanoseconds(before), maxLimit)
		if err != nil {
			return err
		}
		for _, m := range old {
			reason := fmt.Sprintf("it has waited since %s, longer than it may", m.Created.Format(time.RFC3339))
			if err := bury(ctx, tx, &m, reason, now); err != nil {
				return err
			}
			dead = append(dead, m)
		}
		var n int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM deliveries WHERE destination = ? AND state = ?", destination, string(delivery.Waiting)).Scan(&n); err != nil {
			return err
		}
		if n <= most {
			return nil
		}
		excess, err := scanDeliveries(ctx, tx, " WHERE destination = ? AND state = ? ORDER BY due, seq LIMIT ?", destination, string(delivery.Waiting), min(n-most, maxLimit))
		if err != nil {
			return err
		}
		for _, m := range excess {
			if err := bury(ctx, tx, &m, fmt.Sprintf("the queue has %d messages, of %d that it may: the oldest leave it", n, most), now); err != nil {
				return err
			}
			dead = append(dead, m)
		}
		return nil
	})
	return dead, q.explain("limit the queue in", err)
}

// bury makes a message a dead letter that keeps why its last attempt failed.
func bury(ctx context.Context, tx *sql.Tx, m *delivery.Message, reason string, now time.Time) error {
	if m.Reason != "" {
		reason += "; the last of " + fmt.Sprint(m.Attempts) + " attempts: " + m.Reason
	}
	m.State, m.Reason, m.Done = delivery.Dead, reason, now
	return finish(ctx, tx, delivery.Result{Seq: m.Seq, State: delivery.Dead, Reason: reason, Next: now}, now)
}

// Orphans moves the messages that wait for destinations other than these to the
// dead letters, and returns how many they are.
func (q *Queue) Orphans(ctx context.Context, known []string, now time.Time) (n int, err error) {
	err = q.write(ctx, func(tx *sql.Tx) error {
		args := []any{string(delivery.Dead), "no destination of this name is configured any more", dialect.Nanoseconds(now), string(delivery.Waiting)}
		query := "UPDATE deliveries SET state = ?, reason = ?, done = ? WHERE state = ?"
		if len(known) > 0 {
			query += " AND destination NOT IN (?" + strings.Repeat(", ?", len(known)-1) + ")"
		}
		for _, name := range known {
			args = append(args, name)
		}
		n, err = affected(tx.ExecContext(ctx, query, args...))
		return err
	})
	return n, q.explain("limit the queue in", err)
}

func affected(result sql.Result, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	n, err := result.RowsAffected()
	return int(n), err
}
