package sessions

import (
	"context"
	"database/sql"
	_ "embed" // the text of the schema
	"errors"
	"time"
)

// FailureSchema makes the table of failed logins.
//
//go:embed failures.sql
var FailureSchema string

// Fail counts a failed login of a network. The first one begins a window, which
// ends at a time; failures whose window is over by now are forgotten, of all
// networks. So there are as many rows as failures that the caller lets through
// within a window.
func (s *Sessions) Fail(ctx context.Context, network string, now, until time.Time) error {
	return s.Explain("count a failed login in", s.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM login_failures WHERE until <= ?", now.UnixNano()); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO login_failures (network, count, until) VALUES (?, 1, ?) ON CONFLICT (network) DO UPDATE SET count = login_failures.count + 1",
			network, until.UnixNano())
		return err
	}))
}

// Failures returns how often a network has failed in a window that goes on.
func (s *Sessions) Failures(ctx context.Context, network string, now time.Time) (count int, err error) {
	err = s.Readers.QueryRowContext(ctx, "SELECT count FROM login_failures WHERE network = ? AND until > ?", network, now.UnixNano()).Scan(&count)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return count, s.Explain("read failed logins from", err)
}
