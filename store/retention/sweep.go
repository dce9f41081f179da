package retention

import (
	"context"
	"database/sql"
)

// sweep forgets what only removed records needed: blocks of words, entities, ids of
// what was counted, when alerts came, and which incidents were told of.
func (r *run) sweep(ctx context.Context) error {
	old := r.now.Add(-r.limits.Alerts)
	gone, err := r.timeOf(ctx, "SELECT time FROM arrivals WHERE seq <= ? ORDER BY seq DESC LIMIT 1", r.after)
	if err != nil {
		return err
	}
	if gone.After(old) { // by number or size
		old = gone
	}
	unused := old // entities
	if decided := r.now.Add(-r.limits.Decisions); decided.After(unused) {
		unused = decided
	}
	if err := r.sweepBlocks(ctx); err != nil {
		return err
	}
	for _, s := range []struct {
		query string
		args  []any
	}{
		{"DELETE FROM arrivals WHERE seq IN (SELECT seq FROM arrivals WHERE seq < ? AND seq < (SELECT max(seq) FROM arrivals) LIMIT ?)", []any{r.after}},
		{"DELETE FROM repeats WHERE seq IN (SELECT seq FROM repeats WHERE time < ? ORDER BY time LIMIT ?)", []any{old.UnixNano()}},
		{`DELETE FROM entities WHERE id IN (SELECT id FROM entities WHERE last < ?
			AND NOT EXISTS (SELECT 1 FROM alert_entities WHERE entity = id)
			AND NOT EXISTS (SELECT 1 FROM decision_entities WHERE entity = id) ORDER BY last LIMIT ?)`, []any{unused.UnixNano()}},
		{`DELETE FROM announced WHERE incident IN (SELECT incident FROM announced WHERE time < ?
			AND NOT EXISTS (SELECT 1 FROM incidents WHERE incidents.id = announced.whole) ORDER BY time LIMIT ?)`, []any{old.UnixNano()}},
	} {
		if err := r.repeat(ctx, r.Write, s.query, append(s.args, batch)...); err != nil {
			return err
		}
	}
	return nil
}

// repeat runs a query that deletes a batch until it finds less.
func (r *run) repeat(ctx context.Context, write func(context.Context, func(*sql.Tx) error) error, query string, args ...any) error {
	for last := int64(batch); last == batch; {
		err := write(ctx, func(tx *sql.Tx) error {
			result, err := tx.ExecContext(ctx, query, args...)
			if err != nil {
				return err
			}
			last, err = result.RowsAffected()
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sweepBlocks forgets the blocks of which no alert is left.
func (r *run) sweepBlocks(ctx context.Context) error {
	const few = 64
	for {
		list, err := r.oldIn(ctx, `SELECT id, '' FROM blocks WHERE id <= ? AND high <= ?
			AND NOT EXISTS (SELECT 1 FROM alerts WHERE seq >= low AND seq <= high) ORDER BY id LIMIT ?`, r.after, r.after, few)
		if err != nil || len(list) == 0 {
			return err
		}
		err = r.WriteWords(ctx, func(tx *sql.Tx) error {
			for _, b := range list {
				if _, err := tx.ExecContext(ctx, "DELETE FROM block_words WHERE rowid = ?", b.seq); err != nil {
					return err
				}
				if _, err := tx.ExecContext(ctx, "DELETE FROM blocks WHERE id = ?", b.seq); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}
