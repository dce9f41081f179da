package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/kubeguardian/kubeguardian/store/transfer"
)

// CopyFrom copies all records of a database in SQLite, which nobody writes to, into
// this one in PostgreSQL, which is new: all of them or nothing. It returns how many
// rows each table has. The indices of words are made anew while the server runs.
func (s *Store) CopyFrom(ctx context.Context, from *Store) (rows map[string]int, err error) {
	if from.postgres || !s.postgres {
		return nil, errors.New("copy a database: want one in a file and one in PostgreSQL")
	}
	err = s.write(ctx, func(tx *sql.Tx) (err error) {
		rows, err = transfer.Run(ctx, from.readers, tx, indexed, "block_words", incidentLexicon().words, entityLexicon().words, findingLexicon().words)
		return err
	})
	return rows, s.explain("copy records into", err)
}
