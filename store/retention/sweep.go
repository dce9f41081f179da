package retention

import (
	"context"
	"database/sql"
	"time"
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
	if err := r.sweepEntities(ctx, unused); err != nil {
		return err
	}
	for _, s := range []struct {
		query string
		args  []any
	}{
		{"DELETE FROM arrivals WHERE seq IN (SELECT seq FROM arrivals WHERE seq < ? AND seq < (SELECT max(seq) FROM arrivals) LIMIT ?)", []any{r.after}},
		{"DELETE FROM repeats WHERE seq IN (SELECT seq FROM repeats WHERE time < ? ORDER BY time LIMIT ?)", []any{old.UnixNano()}},
		{`DELETE FROM announced WHERE incident IN (SELECT incident FROM announced WHERE time < ?
			AND NOT EXISTS (SELECT 1 FROM incidents WHERE incidents.id = announced.whole) ORDER BY time LIMIT ?)`, []any{old.UnixNano()}},
	} {
		if err := r.repeat(ctx, r.Write, s.query, append(s.args, batch)...); err != nil {
			return err
		}
	}
	return nil
}

// sweepEntities forgets the entities that nothing has involved since a time, with
// their words.
func (r *run) sweepEntities(ctx context.Context, unused time.Time) error {
	for {
		list, err := r.oldIn(ctx, `SELECT id, '' FROM entities WHERE last < ?
			AND NOT EXISTS (SELECT 1 FROM alert_entities WHERE entity = id)
			AND NOT EXISTS (SELECT 1 FROM decision_entities WHERE entity = id) ORDER BY last LIMIT ?`, unused.UnixNano(), batch)
		if err != nil || len(list) == 0 {
			return err
		}
		err = r.Write(ctx, func(tx *sql.Tx) error {
			for from := 0; from < len(list); from += someOf {
				if err := forgetEntities(ctx, tx, list[from:min(from+someOf, len(list))]); err != nil {
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

// forgetEntities deletes those that nothing has involved meanwhile.
func forgetEntities(ctx context.Context, tx *sql.Tx, list []old) error {
	in, args := numbers(list)
	rows, err := tx.QueryContext(ctx, `DELETE FROM entities WHERE id IN `+in+`
		AND NOT EXISTS (SELECT 1 FROM alert_entities WHERE entity = id)
		AND NOT EXISTS (SELECT 1 FROM decision_entities WHERE entity = id) RETURNING id`, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	var gone []old
	for rows.Next() {
		var one old
		if err := rows.Scan(&one.seq); err != nil {
			return err
		}
		gone = append(gone, one)
	}
	if err := rows.Err(); err != nil || len(gone) == 0 {
		return err
	}
	in, args = numbers(gone)
	_, err = tx.ExecContext(ctx, "DELETE FROM entity_words WHERE rowid IN "+in, args...)
	return err
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
