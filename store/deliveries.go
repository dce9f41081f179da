package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
)

// announced is the name of the checkpoint of the alerts that are messages.
const announced = "notify"

const deliveryColumns = "seq, destination, key, grp, state, title, created, due, until, next, done, attempts, count, first, last, reason, body, follows, incident"

// Notified returns the seq of the last alert that was made into messages, and of
// the last that was joined into incidents. In the database of a version that did
// not notify found is false.
func (s *Store) Notified(ctx context.Context) (notified, joined int64, found bool, err error) {
	body, found, err := s.Checkpoint(ctx, announced)
	if err == nil && found {
		_, err = fmt.Sscan(string(body), &notified)
	}
	if err != nil {
		return 0, 0, false, fmt.Errorf("read up to where there are messages: %w", err)
	}
	body, some, err := s.Checkpoint(ctx, correlated)
	if err == nil && some {
		_, err = fmt.Sscan(string(body), &joined)
	}
	if err != nil {
		return 0, 0, false, fmt.Errorf("read up to where alerts were joined: %w", err)
	}
	return notified, joined, found, nil
}

// Enqueue takes messages into the queue and remembers up to where what happened
// is in it: all of it, or nothing. A message whose group has one that was not
// tried yet is counted in that; one whose group had a message within its window
// is due when that ends. A message that is there already, by its key, is left
// out. It returns which have been added, and how many alerts have no message of
// their own.
func (s *Store) Enqueue(ctx context.Context, messages []delivery.Message, p delivery.Progress, now time.Time) (added []delivery.Message, counted int, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
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
			if _, err := tx.ExecContext(ctx, "INSERT INTO announced (incident, time, state, whole, level) VALUES (?, ?, ?, ?, ?) ON CONFLICT (incident) DO NOTHING", told.As, nanoseconds(now), told.State, told.Incident, told.Level); err != nil {
				return err
			}
		}
		for _, b := range p.Became {
			if _, err := tx.ExecContext(ctx, "UPDATE announced SET state = ? WHERE incident = ?", b.State, b.Incident); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, saveCheckpoint, announced, fmt.Sprint(p.Alert))
		return err
	})
	return added, counted, s.explain("queue messages in", err)
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
				min(nanoseconds(before.First), nanoseconds(m.First)), max(nanoseconds(before.Last), nanoseconds(m.Last)), before.Seq)
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
		m.Destination, m.Key, m.Group, string(delivery.Waiting), m.Title, nanoseconds(m.Created), nanoseconds(m.Due), nanoseconds(m.Until), nanoseconds(m.Next),
		m.Count, nanoseconds(m.First), nanoseconds(m.Last), string(m.Body), m.Follows, m.Incident).Scan(&m.Seq)
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
	m, err = scanDelivery(tx.QueryRowContext(ctx, "SELECT "+deliveryColumns+" FROM deliveries WHERE "+where, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return m, false, nil
	}
	return m, err == nil, err
}

type queryer interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}

func scanDeliveries(ctx context.Context, db queryer, where string, args ...any) (list []delivery.Message, err error) {
	rows, err := db.QueryContext(ctx, "SELECT "+deliveryColumns+" FROM deliveries"+where, args...)
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
func (s *Store) Claim(ctx context.Context, destination string, n int, now time.Time) (batch []delivery.Message, next time.Time, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
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
	return batch, next, s.explain("read messages from", err)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Finish keeps what attempts led to.
func (s *Store) Finish(ctx context.Context, results []delivery.Result, now time.Time) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		for _, r := range results {
			if err := finish(ctx, tx, r, now); err != nil {
				return err
			}
		}
		return nil
	})
	return s.explain("keep deliveries in", err)
}

func finish(ctx context.Context, tx *sql.Tx, r delivery.Result, now time.Time) error {
	done := nanoseconds(now)
	if r.State == delivery.Waiting {
		done = 0
	}
	_, err := tx.ExecContext(ctx, "UPDATE deliveries SET state = ?, reason = ?, next = ?, done = ? WHERE seq = ? AND state = ?",
		string(r.State), r.Reason, nanoseconds(r.Next), done, r.Seq, string(delivery.Waiting))
	if err != nil || r.State != delivery.Dead && r.State != delivery.Summarised {
		return err
	}
	return abandon(ctx, tx, r, done)
}

// Summarise queues one message in place of those of a destination that are due,
// were never tried and follow no other, if there are at least two, and returns how many there
// were. The function makes it of them; at most 1,000 go into one.
func (s *Store) Summarise(ctx context.Context, destination string, now time.Time, of func([]delivery.Message) (delivery.Message, error)) (n int, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		n = 0
		in, err := scanDeliveries(ctx, tx, " WHERE destination = ? AND state = ? AND due <= ? AND attempts = 0 AND follows = '' ORDER BY due, seq LIMIT ?",
			destination, string(delivery.Waiting), nanoseconds(now), maxLimit)
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
	return n, s.explain("summarise messages in", err)
}

// Overdue moves messages that wait to the dead letters: those that came into the
// queue before a time, and of the rest the oldest beyond a number. It returns
// which they are, at most 1,000, so that a call may have to be repeated.
func (s *Store) Overdue(ctx context.Context, destination string, before time.Time, most int, now time.Time) (dead []delivery.Message, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		dead = nil
		old, err := scanDeliveries(ctx, tx, " WHERE destination = ? AND state = ? AND created < ? ORDER BY due, seq LIMIT ?",
			destination, string(delivery.Waiting), nanoseconds(before), maxLimit)
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
	return dead, s.explain("limit the queue in", err)
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
func (s *Store) Orphans(ctx context.Context, known []string, now time.Time) (n int, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		args := []any{string(delivery.Dead), "no destination of this name is configured any more", nanoseconds(now), string(delivery.Waiting)}
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
	return n, s.explain("limit the queue in", err)
}

func affected(result sql.Result, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	n, err := result.RowsAffected()
	return int(n), err
}

// Deliveries returns a page of messages, and the seq before which the next one
// begins, 0 after the last.
func (s *Store) Deliveries(ctx context.Context, q delivery.Query) (page []delivery.Message, next int64, err error) {
	w, n := &where{}, limit(q.Limit)
	w.add(q.Destination != "", "destination = ?", q.Destination)
	w.add(q.State != "", "state = ?", string(q.State))
	w.add(q.Incident != "", "incident <> '' AND incident IN (SELECT incident FROM announced WHERE whole = ?)", q.Incident)
	w.add(q.Before != 0, "seq < ?", q.Before)
	page, err = scanDeliveries(ctx, s.readers, w.String()+" ORDER BY seq DESC LIMIT ?", append(w.args, n+1)...)
	if len(page) > n {
		page, next = page[:n], page[n-1].Seq
	}
	return page, next, s.explain("read messages from", err)
}

// Standings returns how each destination is doing that has messages.
func (s *Store) Standings(ctx context.Context) (map[string]delivery.Standing, error) {
	out, err := s.standings(ctx)
	return out, s.explain("read messages from", err)
}

func (s *Store) standings(ctx context.Context) (map[string]delivery.Standing, error) {
	rows, err := s.readers.QueryContext(ctx, "SELECT destination, state, count(*) FROM deliveries GROUP BY destination, state")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]delivery.Standing{}
	for rows.Next() {
		var destination, state string
		var n int
		if err := rows.Scan(&destination, &state, &n); err != nil {
			return nil, err
		}
		standing := out[destination]
		switch delivery.State(state) {
		case delivery.Waiting:
			standing.Waiting = n
		case delivery.Dead:
			standing.Dead = n
		case delivery.Delivered:
			standing.Delivered = n
		case delivery.Summarised:
			standing.Summarised = n
		}
		out[destination] = standing
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for name, standing := range out {
		head, err := scanDeliveries(ctx, s.readers, " WHERE destination = ? AND state = ? ORDER BY due, seq LIMIT 1", name, string(delivery.Waiting))
		if err != nil {
			return nil, err
		}
		for _, m := range head {
			standing.Oldest, standing.Attempts, standing.Reason = m.Due, m.Attempts, m.Reason
		}
		out[name] = standing
	}
	return out, nil
}

// Unannounced returns paged incidents that nobody looks at and that are no
// messages yet, by the order in which they began, after a place in it, and the
// place to go on at.
func (s *Store) Unannounced(ctx context.Context, after int64, n int) (list []*incident.Incident, last int64, err error) {
	rows, err := s.readers.QueryContext(ctx, `SELECT seq, body FROM incidents WHERE state = ? AND paged = 1 AND seq > ?
		AND NOT EXISTS (SELECT 1 FROM announced WHERE announced.incident = incidents.id) ORDER BY seq LIMIT ?`, string(incident.New), after, n)
	if err != nil {
		return nil, after, s.explain("read incidents from", err)
	}
	list, last, err = scanIncidents(rows, after)
	return list, last, s.explain("read incidents from", err)
}

// scanIncidents reads rows of seq and body, and the last seq.
func scanIncidents(rows *sql.Rows, after int64) (list []*incident.Incident, last int64, err error) {
	defer rows.Close()
	for last = after; rows.Next(); {
		var body string
		i := &incident.Incident{}
		if err := scanBody(rows, &body, i, &last); err != nil {
			return nil, after, err
		}
		list = append(list, i)
	}
	return list, last, rows.Err()
}

// PagedAlerts returns which of these alerts are signals of incidents that paged,
// the earliest of them being of a time.
func (s *Store) PagedAlerts(ctx context.Context, ids []string, since time.Time) (paged map[string]bool, err error) {
	rows, err := s.readers.QueryContext(ctx, "SELECT body FROM incidents WHERE paged = 1 AND time >= ? ORDER BY time", nanoseconds(since))
	if err != nil {
		return nil, s.explain("read incidents from", err)
	}
	defer rows.Close()
	asked := make(map[string]bool, len(ids))
	for _, id := range ids {
		asked[id] = true
	}
	paged = map[string]bool{}
	for rows.Next() {
		var body string
		var i incident.Incident
		if err := scanBody(rows, &body, &i); err != nil {
			return nil, s.explain("read incidents from", err)
		}
		for _, signal := range i.Signals {
			if asked[signal.Alert] {
				paged[signal.Alert] = true
			}
		}
	}
	return paged, s.explain("read incidents from", rows.Err())
}
