package store

import (
	"context"
	"database/sql"
	"errors"
)

// SaveCheckpoint keeps how far a source has been read, in the words of its
// reader. It is on the disk when it returns: save it after what was read is.
func (s *Store) SaveCheckpoint(ctx context.Context, name string, body []byte) error {
	_, err := s.exec(ctx, saveCheckpoint, name, string(body))
	return s.explain("save checkpoint in", err)
}

const readCheckpoint = "SELECT body FROM checkpoints WHERE name = ?"

const saveCheckpoint = "INSERT INTO checkpoints (name, body) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body"

// Checkpoint returns what was saved last; found is false if nothing was.
func (s *Store) Checkpoint(ctx context.Context, name string) (body []byte, found bool, err error) {
	var text string
	err = s.readers.QueryRowContext(ctx, readCheckpoint, name).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	return []byte(text), err == nil, s.explain("read checkpoint from", err)
}
