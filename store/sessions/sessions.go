// Package sessions keeps the sessions of browsers, and who has failed to log in, in
// the database, where all replicas of a server find them.
package sessions

import (
	"context"
	"database/sql"
	_ "embed" // the text of the schema
	"errors"
	"fmt"
	"time"

	"github.com/kubeguardian/kubeguardian/access/sealed"
)

// Schema makes the table.
//
//go:embed schema.sql
var Schema string

// Most is how many sessions there are at most.
const Most = 1000

// Sessions are those of a database. All fields are needed.
type Sessions struct {
	Readers *sql.DB
	// Write runs a function in a transaction, perhaps twice. Those that write sessions
	// take turns.
	Write func(context.Context, func(*sql.Tx) error) error
	// Explain names the database in an error.
	Explain func(doing string, err error) error
}

// Add keeps a new session. It forgets those that began or were used last before
// the times, and of more than [Most] the ones that are idle for longest.
func (s *Sessions) Add(ctx context.Context, added sealed.Session, began, used time.Time) error {
	err := s.Write(ctx, func(tx *sql.Tx) error {
		if _, err := prune(ctx, tx, began, used); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO sessions (id, began, used, renewing, body) VALUES (?, ?, ?, 0, ?) ON CONFLICT (id) DO NOTHING",
			added.ID, added.Began.UnixNano(), added.Used.UnixNano(), added.Body)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, fmt.Sprintf("DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE id <> ? ORDER BY used DESC, began DESC LIMIT %d OFFSET %d)", Most, Most-1), added.ID)
		return err
	})
	return s.Explain("add a session to", err)
}

func prune(ctx context.Context, tx *sql.Tx, began, used time.Time) (int64, error) {
	result, err := tx.ExecContext(ctx, "DELETE FROM sessions WHERE used <= ? OR began <= ?", used.UnixNano(), began.UnixNano())
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// Prune forgets the sessions that began or were used last before the times, and
// returns how many they were.
func (s *Sessions) Prune(ctx context.Context, began, used time.Time) (deleted int, err error) {
	err = s.Write(ctx, func(tx *sql.Tx) error {
		n, err := prune(ctx, tx, began, used)
		deleted = int(n)
		return err
	})
	return deleted, s.Explain("delete old sessions from", err)
}

const columns = "id, began, used, body"

func scan(row *sql.Row) (found sealed.Session, ok bool, err error) {
	var began, used int64
	if err := row.Scan(&found.ID, &began, &used, &found.Body); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			err = nil
		}
		return found, false, err
	}
	found.Began, found.Used = time.Unix(0, began).UTC(), time.Unix(0, used).UTC()
	return found, true, nil
}

// Session returns a session, and whether there is one.
func (s *Sessions) Session(ctx context.Context, id string) (sealed.Session, bool, error) {
	found, ok, err := scan(s.Readers.QueryRowContext(ctx, "SELECT "+columns+" FROM sessions WHERE id = ?", id))
	return found, ok, s.Explain("read a session from", err)
}

// Use says that a session was used.
func (s *Sessions) Use(ctx context.Context, id string, at time.Time) error {
	return s.Explain("keep when a session was used in", s.exec(ctx, "UPDATE sessions SET used = ? WHERE id = ? AND used < ?", at.UnixNano(), id, at.UnixNano()))
}

// Claim returns a session as it is now to the one who may renew its credential
// until a time, and false to all others, also if there is no session.
func (s *Sessions) Claim(ctx context.Context, id string, until time.Time) (claimed sealed.Session, mine bool, err error) {
	err = s.Write(ctx, func(tx *sql.Tx) (err error) {
		claimed, mine, err = scan(tx.QueryRowContext(ctx, "UPDATE sessions SET renewing = ? WHERE id = ? AND renewing < ? RETURNING "+columns,
			until.UnixNano(), id, time.Now().UnixNano()))
		return err
	})
	return claimed, mine, s.Explain("claim a session in", err)
}

// Renew keeps a renewed credential, or with nil the one there is, and ends the
// claim.
func (s *Sessions) Renew(ctx context.Context, id string, body []byte) error {
	query, args := "UPDATE sessions SET renewing = 0 WHERE id = ?", []any{id}
	if body != nil {
		query, args = "UPDATE sessions SET renewing = 0, body = ? WHERE id = ?", []any{body, id}
	}
	return s.Explain("renew a session in", s.exec(ctx, query, args...))
}

// End forgets a session, if there is one.
func (s *Sessions) End(ctx context.Context, id string) error {
	return s.Explain("end a session in", s.exec(ctx, "DELETE FROM sessions WHERE id = ?", id))
}

func (s *Sessions) exec(ctx context.Context, query string, args ...any) error {
	return s.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, query, args...)
		return err
	})
}
