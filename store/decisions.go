package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
)

// AddDecisions stores admission decisions in one transaction. Those that the
// store has already, by id, are left out.
func (s *Store) AddDecisions(ctx context.Context, decisions []finding.Decision) error {
	if len(decisions) == 0 {
		return nil
	}
	err := s.write(ctx, func(tx *sql.Tx) error {
		b := s.newBatch(ctx, tx)
		held := heldWriter{tx, map[int64]int{}}
		for _, d := range decisions {
			body, err := json.Marshal(d)
			if err != nil {
				return fmt.Errorf("encode decision %s: %w", d.ID, err)
			}
			search := []string{d.Operation, d.Subject.String(), d.ID}
			for _, v := range d.Violations {
				search = append(search, v.Policy, v.Message)
			}
			var seq int64
			isNew, err := b.row(`INSERT INTO decisions (id, time, outcome, dry, namespace, search, body)
				VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING RETURNING seq`,
				[]any{d.ID, nanoseconds(d.Time), string(d.Outcome()), d.DryRun, d.Subject.Namespace, searchText(d.User, search...), string(body)}, []any{&seq})
			if err != nil {
				return err
			}
			if !isNew {
				continue
			}
			b.involve("decision", seq, d.Time, decided(&d))
			if err := held.add(ctx, &d); err != nil {
				return err
			}
		}
		return b.noteInvolved()
	})
	return s.explain("add decisions to", err)
}

// Decisions returns a page of the decisions that q selects, newest first, and
// the cursor of the next page, which is zero after the last.
func (s *Store) Decisions(ctx context.Context, q finding.DecisionQuery) (page []finding.Decision, next finding.Cursor, err error) {
	l := listing{from: "decisions", time: "time", seq: "seq", index: &where{}, rest: &where{}}
	l.index.add(q.Outcome != "", "outcome = ?", string(q.Outcome))
	both := q.Outcome != "" && q.Namespace != ""
	l.rest.add(both, "namespace = ?", q.Namespace)
	l.index.add(q.Namespace != "" && !both, "namespace = ?", q.Namespace)
	l.index.between(q.Since, q.Until)
	l.rest.text(q.Text)
	page, next, err = pageOf(ctx, s.readers, l, q.Before, limit(q.Limit), func(_ int64, body string) (d finding.Decision, selected bool, err error) {
		return d, true, decode(body, &d)
	})
	return page, next, s.explain("read decisions from", err)
}

// DecisionCounts returns how many decisions there are since a time, by outcome.
// Dry runs do not count: nothing was denied by them.
func (s *Store) DecisionCounts(ctx context.Context, since time.Time) (map[finding.Outcome]int, error) {
	return counts[finding.Outcome](ctx, s, recent("decisions", "outcome || ''", "time >= ? AND dry = 0"), nanoseconds(since))
}
