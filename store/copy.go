package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"github.com/kubeguardian/kubeguardian/store/transfer"
)

// CopyFrom copies all records of a database in SQLite, which nobody writes to, into
// this one in PostgreSQL, which is new: all of them or nothing. It returns how many
// rows each table has. The indices of words are made anew while the server runs.
func (s *Store) CopyFrom(ctx context.Context, from *Store) (rows map[string]int, err error) {
	if from.postgres || !s.postgres {
		return nil, errors.New("copy a database: want one in a file and one in PostgreSQL")
	}
	source, err := from.readers.BeginTx(ctx, nil)
	if err != nil {
		return nil, from.explain("read", err)
	}
	defer source.Rollback() // nothing was written
	err = s.write(ctx, func(tx *sql.Tx) (err error) {
		t := transfer.Transfer{From: source, To: tx, Skip: isIndex, Seeded: []string{"checkpoints", "held_since"}}
		if rows, err = t.Run(ctx); err != nil {
			return err
		}
		for _, index := range []string{indexed, incidentLexicon().words, entityLexicon().words, findingLexicon().words} {
			if _, err := tx.ExecContext(ctx, "DELETE FROM checkpoints WHERE name = ?", index); err != nil {
				return err
			}
		}
		return nil
	})
	return rows, s.explain("copy records into", err)
}

// isIndex reports whether a table is of an index of words, which each database has in
// a form of its own.
func isIndex(table string) bool { return table == "blocks" || strings.Contains(table, "_words") }
