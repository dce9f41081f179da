package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
)

// Changed returns incidents that were made into messages and are in another state
// by now than the one that was told of, by the ids that they were told of by:
// several may be one by now. Nothing follows what was told to be closed.
func (s *Store) Changed(ctx context.Context, n int) (map[string]*incident.Incident, error) {
	rows, err := s.readers.QueryContext(ctx, `SELECT announced.incident, incidents.body FROM announced JOIN incidents ON incidents.id = announced.whole
		WHERE announced.state IN (?, ?, ?) AND incidents.state <> announced.state LIMIT ?`,
		string(incident.New), string(incident.Acknowledged), string(incident.Contained), n)
	if err != nil {
		return nil, s.explain("read incidents from", err)
	}
	defer rows.Close()
	out := map[string]*incident.Incident{}
	for rows.Next() {
		var told, body string
		i := &incident.Incident{}
		err := rows.Scan(&told, &body)
		if err == nil {
			err = decode(body, i)
		}
		if err != nil {
			return nil, s.explain("read incidents from", err)
		}
		out[told] = i
	}
	return out, s.explain("read incidents from", rows.Err())
}

// Delivery returns the message to a destination that has a key, and whether there
// is one.
func (s *Store) Delivery(ctx context.Context, destination, key string) (m delivery.Message, found bool, err error) {
	list, err := scanDeliveries(ctx, s.readers, " WHERE destination = ? AND key = ?", destination, key)
	if err != nil || len(list) == 0 {
		return m, false, s.explain("read messages from", err)
	}
	return list[0], true, nil
}

// follow adds a message that follows another one: after that and all that follow
// it, whatever clocks say. Where that is gone, or told of by a summary, there is
// nothing to follow; where it is a dead letter this is one, too.
func follow(ctx context.Context, tx *sql.Tx, m *delivery.Message, now time.Time) error {
	before, found, err := oneDelivery(ctx, tx, "destination = ? AND key = ?", m.Destination, m.Follows)
	if err != nil || !found || before.State == delivery.Summarised {
		return err
	}
	var last sql.NullInt64
	err = tx.QueryRowContext(ctx, "SELECT max(due) FROM deliveries WHERE destination = ? AND follows = ? AND follows <> ''", m.Destination, m.Follows).Scan(&last)
	if err != nil {
		return err
	}
	m.Due = latest(m.Due, before.Due)
	if last.Valid {
		m.Due = latest(m.Due, time.Unix(0, last.Int64).UTC())
	}
	if err := insertDelivery(ctx, tx, m); err != nil || m.Seq == 0 || before.State != delivery.Dead {
		return err
	}
	return finish(ctx, tx, delivery.Result{Seq: m.Seq, State: delivery.Dead, Reason: "the message that it follows is a dead letter", Next: now}, now)
}

// abandon lets the messages that follow one, and wait, become what that became.
func abandon(ctx context.Context, tx *sql.Tx, r delivery.Result, done int64) error {
	reason := "the message that it follows is a dead letter"
	if r.State == delivery.Summarised {
		reason = "the message that it follows is in a summary"
	}
	_, err := tx.ExecContext(ctx, `UPDATE deliveries SET state = ?, reason = ?, done = ? WHERE state = ? AND follows <> ''
		AND destination = (SELECT destination FROM deliveries WHERE seq = ?) AND follows = (SELECT key FROM deliveries WHERE seq = ?)`,
		string(r.State), reason, done, string(delivery.Waiting), r.Seq, r.Seq)
	return err
}

// Revive queues dead letters of a destination again: one, or with seq 0 all, each
// with what follows it, also where that was delivered. It returns how many. They
// keep their order among themselves and their keys.
func (s *Store) Revive(ctx context.Context, destination string, seq int64, now time.Time) (n int, err error) {
	dead, which := "state = ?", []any{string(delivery.Dead)}
	if seq != 0 {
		dead, which = dead+" AND seq = ?", append(which, seq)
	}
	at := nanoseconds(now)
	args := append([]any{string(delivery.Waiting), at, at, at, destination}, which...)
	args = append(append(args, string(delivery.Waiting), destination), which...)
	err = s.write(ctx, func(tx *sql.Tx) error {
		n, err = affected(tx.ExecContext(ctx, `UPDATE deliveries SET state = ?, reason = '', attempts = 0, done = 0, created = ?, due = ?, next = ?
			WHERE destination = ? AND (`+dead+` OR state <> ? AND follows <> '' AND follows IN (SELECT key FROM deliveries WHERE destination = ? AND `+dead+`))`, args...))
		return err
	})
	return n, s.explain("queue dead letters again in", err)
}
