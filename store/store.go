// Package store keeps alerts, incidents, admission decisions and findings, in one
// SQLite file or in PostgreSQL.
//
// What a method that writes has acknowledged survives a killed process and a
// power cut. Writers take turns, also those of several programs on one
// PostgreSQL; readers neither wait for them nor stop them. All methods may be
// called concurrently.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/kubeguardian/kubeguardian/store/actionlog"
	"github.com/kubeguardian/kubeguardian/store/dialect"
	"github.com/kubeguardian/kubeguardian/store/history"
	"github.com/kubeguardian/kubeguardian/store/outbox"
	"github.com/kubeguardian/kubeguardian/store/postgres"
	"github.com/kubeguardian/kubeguardian/store/retention"
	"github.com/kubeguardian/kubeguardian/store/sessions"
)

// A Store is an open database.
type Store struct {
	*outbox.Queue
	*actionlog.Chain

	// Own is the name of the server's own cluster, by which alerts and incidents are
	// asked for that no other has reported. It is set before the store is used.
	Own string

	name     string // in errors: the file, or the servers and the database
	writer   *sql.DB
	readers  *sql.DB
	postgres bool
	hint     func(error) string // what users can do about an error
	scanning sync.Mutex         // one ReplaceFindings at a time
}

// Open opens a database and brings its schema up to date: that of PostgreSQL at
// a URL that begins with postgres:// or postgresql://, else SQLite's in a file,
// which it creates when there is none. It refuses a database that is not
// KubeGuardian's and one that a newer version has written. No error shows the
// password of a URL.
func Open(ctx context.Context, address string) (*Store, error) {
	open := openSQLite
	if IsPostgres(address) {
		open = openPostgres
	}
	s, err := open(ctx, address)
	if err != nil {
		return nil, err
	}
	s.Queue = outbox.New(s.readers, s.write, s.explain)
	s.Chain = actionlog.New(s.readers, s.writingUnder(lockActions), s.explain)
	err = s.fillEntities(ctx)
	if err == nil {
		err = s.moveSignals(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close waits for running calls to end and closes the file.
func (s *Store) Close() error {
	return errors.Join(s.readers.Close(), s.writer.Close())
}

// The locks that writers on PostgreSQL take turns by: one for each group of
// tables that are read and written together.
const (
	lockSchema = applicationID + iota
	lockRecords
	lockFindings
	lockActions
	lockSearch
	lockSessions
)

// write runs f in a transaction, and leaves no trace of it when f fails. Writers
// take turns: f sees all that others have committed, and what f numbers is seen
// in the order of the numbers. On PostgreSQL it runs f again when the connection
// broke or a standby took over, perhaps after the commit: f begins anew each
// time, and does nothing twice.
func (s *Store) write(ctx context.Context, f func(*sql.Tx) error) error {
	return s.writeUnder(ctx, lockRecords, f)
}

// writeUnder is write for tables that have a lock of their own.
func (s *Store) writeUnder(ctx context.Context, lock int64, f func(*sql.Tx) error) error {
	if s.postgres {
		return postgres.Again(ctx, writePatience, func() error { return s.transact(ctx, lock, f) })
	}
	return s.transact(ctx, lock, f)
}

func (s *Store) writingUnder(lock int64) func(context.Context, func(*sql.Tx) error) error {
	return func(ctx context.Context, f func(*sql.Tx) error) error { return s.writeUnder(ctx, lock, f) }
}

func (s *Store) transact(ctx context.Context, lock int64, f func(*sql.Tx) error) error {
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // has no effect after Commit
	if s.postgres {
		// It is released after the commit is visible to others.
		if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock(?)", lock); err != nil {
			return err
		}
	}
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// exec runs one statement that writes, and that has the same effect when it runs
// twice.
func (s *Store) exec(ctx context.Context, query string, args ...any) (result sql.Result, err error) {
	run := func() error {
		result, err = s.writer.ExecContext(ctx, query, args...)
		return err
	}
	if s.postgres {
		return result, postgres.Again(ctx, writePatience, run)
	}
	return result, run()
}

// explain names the database in an error, and says what to do about the causes
// that users meet.
func (s *Store) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s database %s: %w%s", doing, s.name, err, s.hint(err))
}

// Sessions returns what keeps the sessions of browsers.
func (s *Store) Sessions() *sessions.Sessions {
	return &sessions.Sessions{Readers: s.readers, Write: s.writingUnder(lockSessions), Explain: s.explain}
}

// Counts are the numbers of records in the store.
type Counts struct{ Alerts, Decisions, Findings int }

// Counts returns the numbers of records in the store.
func (s *Store) Counts(ctx context.Context) (Counts, error) {
	var c Counts
	err := s.readers.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM alerts),
		(SELECT count(*) FROM decisions), (SELECT count(*) FROM findings)`).Scan(&c.Alerts, &c.Decisions, &c.Findings)
	return c, s.explain("count records in", err)
}

// Retain removes what is over the limits, oldest first. Alerts of which messages
// have not been made yet stay, whatever the limits.
func (s *Store) Retain(ctx context.Context, l retention.Limits, now time.Time) (retention.Report, error) {
	notified, joined, found, err := s.Notified(ctx)
	if err != nil {
		return retention.Report{}, err
	}
	l.Told = maps.Clone(l.Told)
	if l.Told == nil {
		l.Told = map[string]int64{}
	}
	if l.Told["incidents"] = joined; found {
		l.Told["messages"] = notified
	}
	db := retention.Database{Read: s.readers, Write: s.write, Postgres: s.postgres}
	db.WriteWords = s.writingUnder(lockSearch)
	report, err := retention.Run(ctx, db, l, now)
	if err == nil {
		err = s.forgetFindings(ctx, now.Add(-l.Alerts))
	}
	return report, s.explain("remove old records from", err)
}

// forgetFindings forgets in steps, between which others write, what became of
// findings before a time.
func (s *Store) forgetFindings(ctx context.Context, before time.Time) error {
	const step = 2000
	for last := int64(step); last == step; {
		err := s.write(ctx, func(tx *sql.Tx) (err error) {
			last, err = history.Prune(ctx, tx, before, step)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Size returns how many bytes the database takes, without what later records use
// again.
func (s *Store) Size(ctx context.Context) (int64, error) {
	n, err := retention.Bytes(ctx, s.readers, s.postgres)
	return n, s.explain("measure", err)
}

// nanoseconds returns t as it is stored.
func nanoseconds(t time.Time) int64 { return dialect.Nanoseconds(t) }
