package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
)

// AddGrouped is AddAlerts for alerts that may be repeats: of those that say the
// same within the time that their group gives, the first one is kept and counts
// the others. It returns the alerts that it stored and those that it counted.
//
// Alerts and counts are on the disk, together, when it returns; after an error
// there is neither. An alert that comes again, by its id, neither is stored nor
// counts again, for as long as alerts are kept.
func (s *Store) AddGrouped(ctx context.Context, alerts []alert.Alert, group func(*alert.Alert) (alert.Group, error)) (added, repeated []alert.Alert, err error) {
	if len(alerts) == 0 {
		return nil, nil, nil
	}
	var b *batch
	err = s.write(ctx, func(tx *sql.Tx) error {
		b = newBatch(ctx, tx)
		for _, a := range alerts {
			g, err := group(&a)
			if err == nil {
				err = b.add(a, g)
			}
			if err != nil {
				return err
			}
		}
		return b.count()
	})
	if err != nil {
		return nil, nil, s.explain("add alerts to", err)
	}
	return b.added, b.repeated, nil
}

// A batch adds alerts in one transaction.
type batch struct {
	ctx             context.Context
	tx              *sql.Tx
	statements      map[string]*sql.Stmt     // by text
	counts          map[int64]*alert.Repeats // still to be written, by the place of the alert that counts them
	added, repeated []alert.Alert
}

func newBatch(ctx context.Context, tx *sql.Tx) *batch {
	return &batch{ctx: ctx, tx: tx, counts: map[int64]*alert.Repeats{}, statements: map[string]*sql.Stmt{}}
}

func (b *batch) prepared(query string) (*sql.Stmt, error) {
	if s := b.statements[query]; s != nil {
		return s, nil
	}
	s, err := b.tx.PrepareContext(b.ctx, query)
	b.statements[query] = s
	return s, err
}

func (b *batch) exec(query string, args ...any) (isNew bool, err error) {
	s, err := b.prepared(query)
	if err != nil {
		return false, err
	}
	return inserted(s.ExecContext(b.ctx, args...))
}

// row reads the first row of an answer, and reports whether there is one.
func (b *batch) row(query string, args, into []any) (bool, error) {
	s, err := b.prepared(query)
	if err != nil {
		return false, err
	}
	err = s.QueryRowContext(b.ctx, args...).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// add stores an alert, or counts it.
func (b *batch) add(a alert.Alert, g alert.Group) error {
	var one int
	known, err := b.row("SELECT 1 FROM alerts WHERE id = ?1 UNION ALL SELECT 1 FROM repeats WHERE id = ?1", []any{a.ID}, []any{&one})
	if err != nil || known {
		return err
	}
	if g.Within <= 0 {
		return b.insert(a, nil)
	}
	seq, key, err := b.kept(&a, g)
	if err != nil {
		return err
	}
	if seq != 0 {
		b.repeated = append(b.repeated, a)
		b.counts[seq] = b.counts[seq].With(&alert.Repeats{Count: 1, First: a.Time, Last: a.Time})
		_, err := b.exec("INSERT INTO repeats (id, time) VALUES (?, ?)", a.ID, nanoseconds(a.Time))
		return err
	}
	if a.Previous, err = b.previous(key, a.Time); err != nil {
		return err
	}
	return b.insert(a, key)
}

// kept returns the place of the alert that an alert repeats, 0 if it has to be
// kept itself, and the key by which it is in the store.
func (b *batch) kept(a *alert.Alert, g alert.Group) (seq int64, key []byte, err error) {
	from, until := nanoseconds(a.Time.Add(-g.Within)), nanoseconds(a.Time.Add(g.Within))
	find := func(key []byte) (seq int64, err error) {
		_, err = b.row("SELECT seq FROM alerts WHERE grp = ? AND time > ? AND time < ? ORDER BY time DESC LIMIT 1", []any{key, from, until}, []any{&seq})
		return seq, err
	}
	if seq, err = find(g.Key); err != nil || seq != 0 || g.Limit <= 0 {
		return seq, g.Key, err
	}
	var rule int
	_, err = b.row("SELECT count(*) FROM (SELECT 1 FROM alerts WHERE rule = ? AND time > ? AND time <= ? LIMIT ?) AS few",
		[]any{a.Rule, from, nanoseconds(a.Time), g.Limit}, []any{&rule})
	if err != nil || rule < g.Limit {
		return 0, g.Key, err
	}
	a.OverLimit = true
	seq, err = find(g.Rest)
	return seq, g.Rest, err
}

// previous returns the repeats of the last alert of a group before a time.
func (b *batch) previous(key []byte, at time.Time) (*alert.Repeats, error) {
	var seq int64
	var body string
	found, err := b.row("SELECT seq, body FROM alerts WHERE grp = ? AND time <= ? ORDER BY time DESC LIMIT 1", []any{key, nanoseconds(at)}, []any{&seq, &body})
	if err != nil || !found {
		return nil, err
	}
	var before alert.Alert
	err = decode(body, &before)
	return before.Repeats.With(b.counts[seq]), err
}

func (b *batch) insert(a alert.Alert, key []byte) error {
	body, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode alert %s of rule %q: %w", a.ID, a.Rule, err)
	}
	search := searchText(a.Output, append(fieldTexts(a.OutputFields), a.Rule, a.Subject.String(), a.ID)...)
	var seq int64
	isNew, err := b.row(`INSERT INTO alerts (id, time, priority, rule, namespace, search, body, grp)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING RETURNING seq`,
		[]any{a.ID, nanoseconds(a.Time), a.Priority, a.Rule, a.Subject.Namespace, search, string(body), key}, []any{&seq})
	if err != nil || !isNew {
		return err
	}
	b.added = append(b.added, a)
	return b.involve("alert", seq, a.Time, a.Involves())
}

// count writes how often each alert was repeated.
func (b *batch) count() error {
	for _, seq := range slices.Sorted(maps.Keys(b.counts)) {
		var body string
		var a alert.Alert
		if _, err := b.row("SELECT body FROM alerts WHERE seq = ?", []any{seq}, []any{&body}); err != nil {
			return err
		}
		if err := decode(body, &a); err != nil {
			return err
		}
		a.Repeats = a.Repeats.With(b.counts[seq])
		more, err := json.Marshal(a)
		if err != nil {
			return fmt.Errorf("encode alert %s of rule %q: %w", a.ID, a.Rule, err)
		}
		if _, err := b.exec("UPDATE alerts SET body = ? WHERE seq = ?", string(more), seq); err != nil {
			return err
		}
	}
	return nil
}
