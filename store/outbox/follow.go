package outbox

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/notify/delivery"
	"github.com/kubeguardian/kubeguardian/store/dialect"
)

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
func (q *Queue) Revive(ctx context.Context, destination string, seq int64, now time.Time) (n int, err error) {
	dead, which := "state = ?", []any{string(delivery.Dead)}
	if seq != 0 {
		dead, which = dead+" AND seq = ?", append(which, seq)
	}
	at := dialect.Nanoseconds(now)
	args := append([]any{string(delivery.Waiting), at, at, at, destination}, which...)
	args = append(append(args, string(delivery.Waiting), destination), which...)
	err = q.write(ctx, func(tx *sql.Tx) error {
		n, err = affected(tx.ExecContext(ctx, `UPDATE deliveries SET state = ?, reason = '', attempts = 0, done = 0, created = ?, due = ?, next = ?
			WHERE destination = ? AND (`+dead+` OR state <> ? AND follows <> '' AND follows IN (SELECT key FROM deliveries WHERE destination = ? AND `+dead+`))`, args...))
		return err
	})
	return n, q.explain("queue dead letters again in", err)
}

// LastTold returns when one of these was told of the last time, and how far the
// one had come that had come furthest; zero if none was. The id of an incident is
// that of its first alert, and outlives it when it becomes a part of another one.
func (q *Queue) LastTold(ctx context.Context, ids []string) (at time.Time, level int, err error) {
	if len(ids) == 0 {
		return at, 0, nil
	}
	args := make([]any, 0, 2*len(ids))
	for range 2 {
		for _, id := range ids {
			args = append(args, id)
		}
	}
	list := "(?" + strings.Repeat(", ?", len(ids)-1) + ")"
	var last int64
	err = q.readers.QueryRowContext(ctx, "SELECT COALESCE(max(time), 0), COALESCE(max(level), 0) FROM announced WHERE incident IN "+list+" OR whole IN "+list, args...).Scan(&last, &level)
	if last != 0 {
		at = time.Unix(0, last).UTC()
	}
	return at, level, q.explain("read incidents from", err)
}
