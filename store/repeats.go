package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/store/dialect"
)

// AddGrouped is AddAlerts for alerts that may be repeats: of those that say the
// same within the time that their group gives, the first one is kept and counts
// the others. It returns the alerts that it stored and those that it counted.
//
// Alerts and counts are on the disk, together, when it returns; after an error
// there is neither. An alert that comes again, by its id, neither is stored nor
// counts again, for as long as alerts are kept.
func (s *Store) AddGrouped(ctx context.Context, alerts []alert.Alert, group func(*alert.Alert) (alert.Group, error)) (added, repeated []alert.Alert, err error) {
	return s.addGrouped(ctx, alerts, sql.NullString{}, group)
}

// addGrouped is AddGrouped for alerts of a cluster; nil is the server's own.
func (s *Store) addGrouped(ctx context.Context, alerts []alert.Alert, cluster sql.NullString, group func(*alert.Alert) (alert.Group, error)) (added, repeated []alert.Alert, err error) {
	if len(alerts) == 0 {
		return nil, nil, nil
	}
	groups := make([]alert.Group, len(alerts))
	for i := range alerts {
		if groups[i], err = group(&alerts[i]); err != nil {
			return nil, nil, s.explain("add alerts to", err)
		}
	}
	var g *grouping
	err = s.write(ctx, func(tx *sql.Tx) (err error) {
		if g, err = newGrouping(s.newBatch(ctx, tx), alerts, groups); err != nil {
			return err
		}
		g.cluster = cluster
		for i, a := range alerts {
			if err := g.add(a, groups[i]); err != nil {
				return err
			}
		}
		return g.finish()
	})
	if err != nil {
		return nil, nil, s.explain("add alerts to", err)
	}
	return g.added, g.repeated, nil
}

// A grouping adds alerts in one transaction. What the store has of their groups
// it reads first, and what it adds it writes last, each with few statements.
type grouping struct {
	*batch
	cluster         sql.NullString
	known           map[string]bool          // ids that are stored, or about to be
	newest          map[string]*place        // of each group, by its key
	pending         []*place                 // to be stored
	counts          map[int64]*alert.Repeats // still to be written, by the seq of the alert that counts them
	added, repeated []alert.Alert
}

// A place is an alert that is kept, of which others may be repeats.
type place struct {
	at   int64  // its time
	seq  int64  // 0: to be stored
	body string // once it is stored
	key  []byte

	alert.Alert // until it is stored
}

func newGrouping(b *batch, alerts []alert.Alert, groups []alert.Group) (*grouping, error) {
	g := &grouping{batch: b, known: map[string]bool{}, newest: map[string]*place{}, counts: map[int64]*alert.Repeats{}}
	ids, keys, until := make([]any, len(alerts)), map[string]bool{}, int64(0)
	for i, a := range alerts {
		ids[i] = dialect.Storable(a.ID)
		if w := groups[i]; w.Within > 0 {
			keys[string(w.Key)] = true
			if w.Limit > 0 {
				keys[string(w.Rest)] = true
			}
			until = max(until, nanoseconds(a.Time.Add(w.Within)))
		}
	}
	for _, table := range []string{"alerts", "repeats"} {
		err := b.eachOf("SELECT id FROM "+table+" WHERE id IN (%s)", "?", ids, nil, func(rows *sql.Rows) error {
			var id string
			err := rows.Scan(&id)
			g.known[id] = true
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return g, g.readNewest(slices.Sorted(maps.Keys(keys)), until)
}

// readNewest reads the newest alert of each group before a time.
func (g *grouping) readNewest(keys []string, until int64) error {
	args := make([]any, len(keys))
	for i, key := range keys {
		args[i] = []byte(key)
	}
	return g.eachOf(`WITH keys (k) AS (VALUES %s) SELECT k, seq, time, body FROM keys JOIN alerts ON seq =
		(SELECT seq FROM alerts WHERE grp = k AND time < ? ORDER BY time DESC LIMIT 1)`, "(CAST(? AS BLOB))", args, []any{until}, func(rows *sql.Rows) error {
		var key []byte
		p := &place{}
		err := rows.Scan(&key, &p.seq, &p.at, &p.body)
		g.newest[string(key)] = p
		return err
	})
}

// add stores an alert, or counts it.
func (g *grouping) add(a alert.Alert, w alert.Group) error {
	if a.ID = dialect.Storable(a.ID); g.known[a.ID] {
		return nil
	}
	g.known[a.ID] = true
	if w.Within <= 0 {
		g.keep(a, nil)
		return nil
	}
	kept, key, err := g.kept(&a, w)
	if err != nil {
		return err
	}
	if kept != nil {
		g.repeated = append(g.repeated, a)
		once := &alert.Repeats{Count: 1, First: a.Time, Last: a.Time}
		if kept.seq == 0 {
			kept.Repeats = kept.Repeats.With(once)
		} else {
			g.counts[kept.seq] = g.counts[kept.seq].With(once)
		}
		return nil
	}
	if a.Previous, err = g.previous(key, nanoseconds(a.Time)); err != nil {
		return err
	}
	g.keep(a, key)
	return nil
}

// keep notes an alert that is to be stored.
func (g *grouping) keep(a alert.Alert, key []byte) {
	p := &place{at: nanoseconds(a.Time), key: key, Alert: a}
	g.pending = append(g.pending, p)
	if before := g.newest[string(key)]; key != nil && (before == nil || before.at <= p.at) {
		g.newest[string(key)] = p
	}
}

// kept returns the alert that an alert repeats, nil if it has to be kept itself,
// and the key by which it is in the store.
func (g *grouping) kept(a *alert.Alert, w alert.Group) (p *place, key []byte, err error) {
	from, at, until := nanoseconds(a.Time.Add(-w.Within)), nanoseconds(a.Time), nanoseconds(a.Time.Add(w.Within))
	if p, err = g.within(w.Key, from, until); err != nil || p != nil || w.Limit <= 0 {
		return p, w.Key, err
	}
	n := 0
	for _, other := range g.pending {
		if other.Rule == a.Rule && other.at > from && other.at <= at {
			n++
		}
	}
	stored := 0
	_, err = g.row("SELECT count(*) FROM (SELECT 1 FROM alerts WHERE rule = ? AND time > ? AND time <= ? LIMIT ?) AS few",
		[]any{a.Rule, from, at, w.Limit}, []any{&stored})
	if err != nil || n+stored < w.Limit {
		return nil, w.Key, err
	}
	a.OverLimit = true
	p, err = g.within(w.Rest, from, until)
	return p, w.Rest, err
}

// within returns the newest alert of a group between two times, if there is one.
func (g *grouping) within(key []byte, from, until int64) (*place, error) {
	newest := g.newest[string(key)]
	switch {
	case newest == nil || newest.at <= from:
		return nil, nil
	case newest.at < until:
		return newest, nil
	}
	// The alert is late: the one that is asked for is older than the newest.
	return g.search("grp = ? AND time > ? AND time < ?", key, from, until)
}

// previous returns the repeats of the last alert of a group before a time.
func (g *grouping) previous(key []byte, at int64) (*alert.Repeats, error) {
	before := g.newest[string(key)]
	if before != nil && before.at > at {
		var err error
		if before, err = g.search("grp = ? AND time <= ?", key, at); err != nil {
			return nil, err
		}
	}
	if before == nil {
		return nil, nil
	}
	if before.seq == 0 {
		return before.Repeats, nil
	}
	var stored alert.Alert
	err := decode(before.body, &stored)
	return stored.Repeats.With(g.counts[before.seq]), err
}

// search returns the newest alert that a term selects.
func (g *grouping) search(term string, args ...any) (*place, error) {
	if err := g.store(); err != nil {
		return nil, err
	}
	p := &place{}
	found, err := g.row("SELECT seq, time, body FROM alerts WHERE "+term+" ORDER BY time DESC LIMIT 1", args, []any{&p.seq, &p.at, &p.body})
	if !found {
		return nil, err
	}
	return p, nil
}

// store writes the alerts that are pending, and what they involve.
func (g *grouping) store() error {
	places := make(map[string]*place, len(g.pending))
	rows := make([][]any, len(g.pending))
	for i, p := range g.pending {
		body, err := json.Marshal(p.Alert)
		if err != nil {
			return fmt.Errorf("encode alert %s of rule %q: %w", p.ID, p.Rule, err)
		}
		p.body = string(body)
		places[p.ID] = p
		drift := 0
		if slices.Contains(p.Tags, alert.DriftTag) {
			drift = 1
		}
		rows[i] = []any{p.ID, p.at, p.Priority, p.Rule, p.Subject.Namespace, "", p.body, p.key, g.cluster, drift}
	}
	err := g.insert("INSERT INTO alerts (id, time, priority, rule, namespace, search, body, grp, cluster, drift) VALUES %s ON CONFLICT (id) DO NOTHING RETURNING id, seq",
		rows, func(rows *sql.Rows) error {
			var id string
			var seq int64
			if err := rows.Scan(&id, &seq); err != nil {
				return err
			}
			places[id].seq = seq
			return nil
		})
	if err != nil {
		return err
	}
	for _, p := range g.pending {
		g.added = append(g.added, p.Alert)
		g.involve("alert", p.seq, p.Time, p.Involves())
	}
	if err := g.counted(g.pending); err != nil {
		return err
	}
	g.pending = nil
	return g.noteInvolved()
}

// finish writes all that is not written yet.
func (g *grouping) finish() error {
	if err := g.store(); err != nil {
		return err
	}
	rows := make([][]any, len(g.repeated))
	for i, a := range g.repeated {
		rows[i] = []any{a.ID, nanoseconds(a.Time)}
	}
	if err := g.insert("INSERT INTO repeats (id, time) VALUES %s", rows, nil); err != nil {
		return err
	}
	return g.count()
}

// count writes how often each alert was repeated that had been stored before.
func (g *grouping) count() error {
	seqs := slices.Sorted(maps.Keys(g.counts))
	bodies := make(map[int64]string, len(seqs))
	args := make([]any, len(seqs))
	for i, seq := range seqs {
		args[i] = seq
	}
	err := g.eachOf("SELECT seq, body FROM alerts WHERE seq IN (%s)", "?", args, nil, func(rows *sql.Rows) error {
		var seq int64
		var body string
		err := rows.Scan(&seq, &body)
		bodies[seq] = body
		return err
	})
	if err != nil {
		return err
	}
	for _, seq := range seqs {
		var a alert.Alert
		if err := decode(bodies[seq], &a); err != nil {
			return err
		}
		a.Repeats = a.Repeats.With(g.counts[seq])
		more, err := json.Marshal(a)
		if err != nil {
			return fmt.Errorf("encode alert %s of rule %q: %w", a.ID, a.Rule, err)
		}
		if err := g.exec("UPDATE alerts SET body = ? WHERE seq = ?", string(more), seq); err != nil {
			return err
		}
	}
	return nil
}
