package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/store/dialect"
	"github.com/kubeguardian/kubeguardian/store/words"
)

// An involvement is an entity of a record.
type involvement struct {
	table  string // alert or decision
	seq    int64
	at     int64
	entity alert.Entity
}

// involve remembers what the new record of a table involves, for noteInvolved.
func (b *batch) involve(table string, seq int64, at time.Time, entities []alert.Entity) {
	for _, e := range entities {
		b.involved = append(b.involved, involvement{table, seq, nanoseconds(at), e})
	}
}

// noteInvolved writes what records involve.
func (b *batch) noteInvolved() error {
	last := map[alert.Entity]int64{}
	for n := range b.involved {
		i := &b.involved[n]
		i.entity.Name = dialect.Storable(i.entity.Name)
		if at, ok := last[i.entity]; !ok || i.at > at {
			last[i.entity] = i.at
		}
	}
	ids, err := b.entities(last)
	if err != nil {
		return err
	}
	for _, table := range []string{"alert", "decision"} {
		var rows [][]any
		for _, i := range b.involved {
			if i.table == table {
				rows = append(rows, []any{ids[i.entity], i.at, i.seq})
			}
		}
		query := fmt.Sprintf("INSERT INTO %s_entities (entity, happened, %[1]s) VALUES %%s ON CONFLICT DO NOTHING", table)
		if err := b.insert(query, rows, nil); err != nil {
			return err
		}
	}
	b.involved = nil
	return nil
}

// settled is how far the time that is kept of an entity may be behind its latest
// record: it has three indices, which a flood would write once for each alert.
const settled = 10 * time.Second

// entities returns the numbers of entities that were involved last at some times.
func (b *batch) entities(last map[alert.Entity]int64) (map[alert.Entity]int64, error) {
	names := make([][]any, 0, len(last))
	for e := range last {
		names = append(names, []any{string(e.Kind), e.Name})
	}
	ids, fresh := make(map[alert.Entity]int64, len(last)), map[alert.Entity]bool{}
	err := b.insert(`WITH wanted (k, n) AS (VALUES %s) SELECT id, kind, name, last FROM wanted CROSS JOIN entities WHERE kind = k AND name = n`,
		names, func(rows *sql.Rows) error {
			var id, at int64
			var e alert.Entity
			err := rows.Scan(&id, &e.Kind, &e.Name, &at)
			ids[e], fresh[e] = id, last[e] < at+settled.Nanoseconds()
			return err
		})
	if err != nil {
		return nil, err
	}
	var rows [][]any
	for e, at := range last {
		if !fresh[e] {
			rows = append(rows, []any{string(e.Kind), e.Name, at})
		}
	}
	return ids, b.insert(`INSERT INTO entities (kind, name, last) VALUES %s ON CONFLICT (kind, name) DO UPDATE
		SET last = CASE WHEN excluded.last > entities.last THEN excluded.last ELSE entities.last END RETURNING id, kind, name`,
		rows, func(rows *sql.Rows) error {
			var id int64
			var e alert.Entity
			err := rows.Scan(&id, &e.Kind, &e.Name)
			ids[e] = id
			return err
		})
}

// decided returns the entities of a decision: who asked, and for what.
func decided(d *finding.Decision) []alert.Entity {
	var out []alert.Entity
	if d.User != "" {
		out = append(out, alert.Entity{Kind: alert.User, Name: d.User})
	}
	switch s := d.Subject; {
	case s.Name == "":
	case s.Kind == "Pod":
		out = append(out, alert.Entity{Kind: alert.Pod, Name: s.Namespace + "/" + s.Name})
	case s.Kind == "Node":
		out = append(out, alert.Entity{Kind: alert.Node, Name: s.Name})
	default:
		out = append(out, alert.Entity{Kind: alert.Workload, Name: s.String()})
	}
	return out
}

// filled is the checkpoint of up to where records of earlier versions are
// noted by what they involve.
const filled = "entities"

// fillBatch bounds how long that keeps the writer busy.
const fillBatch = 2000

// fillEntities notes what the records involve that a version before this one has
// stored, in steps: when it is cut off the next one goes on.
func (s *Store) fillEntities(ctx context.Context) error {
	if _, done, err := s.Checkpoint(ctx, filled); err != nil || done {
		return err
	}
	fill := func(table string, involves func(body string) (time.Time, []alert.Entity, error)) error {
		for last, more := int64(0), true; more; {
			err := s.write(ctx, func(tx *sql.Tx) (err error) {
				last, more, err = fillSome(ctx, tx, table, last, involves)
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
	err := fill("alert", func(body string) (time.Time, []alert.Entity, error) {
		var a alert.Alert
		err := decode(body, &a)
		return a.Time, a.Involves(), err
	})
	if err == nil {
		err = fill("decision", func(body string) (time.Time, []alert.Entity, error) {
			var d finding.Decision
			err := decode(body, &d)
			return d.Time, decided(&d), err
		})
	}
	if err != nil {
		return s.explain("note what old records involve in", err)
	}
	return s.SaveCheckpoint(ctx, filled, []byte("done"))
}

func fillSome(ctx context.Context, tx *sql.Tx, table string, after int64, involves func(body string) (time.Time, []alert.Entity, error)) (last int64, more bool, err error) {
	rows, err := tx.QueryContext(ctx, fmt.Sprintf("SELECT seq, body FROM %ss WHERE seq > ? ORDER BY seq LIMIT ?", table), after, fillBatch)
	if err != nil {
		return after, false, err
	}
	defer rows.Close()
	type record struct {
		seq      int64
		at       time.Time
		entities []alert.Entity
	}
	var records []record
	for rows.Next() {
		var r record
		var body string
		if err := rows.Scan(&r.seq, &body); err != nil {
			return after, false, err
		}
		if r.at, r.entities, err = involves(body); err != nil {
			return after, false, err
		}
		records = append(records, r)
	}
	if err := rows.Err(); err != nil {
		return after, false, err
	}
	b := newBatch(ctx, tx)
	for _, r := range records {
		b.involve(table, r.seq, r.at, r.entities)
		after = r.seq
	}
	return after, len(records) == fillBatch, b.noteInvolved()
}

// Entities returns the entities in whose names a text is found, those first that a
// record has involved last, give or take what [settled] says: up to n, of those that
// a search has time to look at.
func (s *Store) Entities(ctx context.Context, text string, n int) (found []alert.Seen, err error) {
	found, err = s.searchEntities(ctx, words.Parse(text), limit(n))
	for i := range found {
		if err == nil {
			err = s.seenLast(ctx, &found[i])
		}
	}
	slices.SortStableFunc(found, func(a, b alert.Seen) int { return b.Last.Compare(a.Last) })
	return found, s.explain("read entities from", err)
}

func (s *Store) searchEntities(ctx context.Context, text words.Query, n int) (found []alert.Seen, err error) {
	seqs, few, err := s.few(ctx, entityLexicon(), text.Terms())
	if err != nil {
		return nil, err
	}
	w := &where{}
	if few {
		w.in("id", seqs)
		_, err = s.someEntities(ctx, w, " ORDER BY +last DESC, +id DESC LIMIT ?", len(seqs), text, n, &found)
		return found, err
	}
	window := firstWindow
	for began := time.Now(); ; window = min(2*window, searchWindow) {
		last, err := s.someEntities(ctx, w, " ORDER BY last DESC, id DESC LIMIT ?", window, text, n, &found)
		if err != nil || last == nil || len(found) == n || time.Since(began) > searchTime {
			return found, err
		}
		w = &where{}
		w.add(true, "(last, id) < (?, ?)", last...)
	}
}

// someEntities adds to what was found, up to n, those of some entities that have a
// text, and returns the place of the last of them, nil when they are not as many as
// asked for.
func (s *Store) someEntities(ctx context.Context, w *where, order string, some int, text words.Query, n int, found *[]alert.Seen) (last []any, err error) {
	rows, err := s.readers.QueryContext(ctx, "SELECT id, last, kind, name FROM entities"+w.String()+order, append(w.args, some)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	read := 0
	for ; len(*found) < n && rows.Next(); read++ {
		var e alert.Seen
		var id, at int64
		if err := rows.Scan(&id, &at, &e.Kind, &e.Name); err != nil {
			return nil, err
		}
		if last = []any{at, id}; text.In(e.Name) {
			e.Last = time.Unix(0, at).UTC()
			*found = append(*found, e)
		}
	}
	if read < some {
		last = nil
	}
	return last, rows.Err()
}

// seenLast looks up when a record involved an entity last.
func (s *Store) seenLast(ctx context.Context, e *alert.Seen) error {
	var alerted, decided sql.NullInt64
	err := s.readers.QueryRowContext(ctx, "SELECT (SELECT max(happened) FROM alert_entities WHERE entity = "+entityOf+"), (SELECT max(happened) FROM decision_entities WHERE entity = "+entityOf+")",
		string(e.Kind), e.Name, string(e.Kind), e.Name).Scan(&alerted, &decided)
	if last := time.Unix(0, max(alerted.Int64, decided.Int64)).UTC(); last.After(e.Last) {
		e.Last = last
	}
	return err
}

// entityOf is the number of an entity by its kind and name.
const entityOf = "(SELECT id FROM entities WHERE kind = ? AND name = ?)"

// DecisionsOf returns the newest decisions that involve an entity, of the time and
// the outcome that q names; all else of q but its limit does not count. Denials are
// looked for among all denials of the time, which are few of all that an entity is
// involved in.
func (s *Store) DecisionsOf(ctx context.Context, e alert.Entity, q finding.DecisionQuery) (page []finding.Decision, err error) {
	w, happened := &where{}, "happened"
	from, order := "decision_entities JOIN decisions ON seq = decision", "happened DESC, decision DESC"
	if q.Outcome == finding.Denied {
		happened, from, order = "time", "decisions", "time DESC, seq DESC"
		w.add(true, "EXISTS (SELECT 1 FROM decision_entities WHERE entity = "+entityOf+" AND happened = time AND decision = seq)", string(e.Kind), e.Name)
	} else {
		w.add(true, "entity = "+entityOf, string(e.Kind), e.Name)
	}
	w.add(!q.Since.IsZero(), happened+" >= ?", nanoseconds(q.Since))
	w.add(!q.Until.IsZero(), happened+" < ?", nanoseconds(q.Until))
	w.add(q.Outcome != "", "outcome = ?", string(q.Outcome))
	rows, err := s.readers.QueryContext(ctx, "SELECT seq, time, body FROM "+from+w.String()+" ORDER BY "+order+" LIMIT ?", append(w.args, limit(q.Limit))...)
	if err == nil {
		page, _, err = scanPage(rows, limit(q.Limit), func(_ int64, body string) (d finding.Decision, selected bool, err error) {
			return d, true, decode(body, &d)
		})
	}
	return page, s.explain("read decisions from", err)
}
