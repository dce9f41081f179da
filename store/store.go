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
	"math"
	"sync"
	"time"

	"github.com/kubeguardian/kubeguardian/store/history"
)

// A Store is an open database.
type Store struct {
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
	if err := s.fillEntities(ctx); err != nil {
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
		return again(ctx, func() error { return s.transact(ctx, lock, f) })
	}
	return s.transact(ctx, lock, f)
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
		return result, again(ctx, run)
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

// Counts are the numbers of records in the store.
type Counts struct{ Alerts, Decisions, Findings int }

// Counts returns the numbers of records in the store.
func (s *Store) Counts(ctx context.Context) (Counts, error) {
	var c Counts
	err := s.readers.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM alerts),
		(SELECT count(*) FROM decisions), (SELECT count(*) FROM findings)`).Scan(&c.Alerts, &c.Decisions, &c.Findings)
	return c, s.explain("count records in", err)
}

// pruneBatch bounds how long a deletion keeps the writer busy.
const pruneBatch = 2000

// Prune deletes the alerts and decisions older than the given times, oldest
// first, and returns how many they were, also when it fails half-way; what others
// have counted or involved is forgotten with them, and incidents in which nothing
// happened since. It works in small steps, between which others write. A file
// keeps its size; later records use the space.
func (s *Store) Prune(ctx context.Context, alertsBefore, decisionsBefore time.Time) (deleted int, err error) {
	deleted, err = s.inSteps(ctx, func(tx *sql.Tx) (int64, error) { return pruneAlerts(ctx, tx, alertsBefore) })
	if err != nil {
		return deleted, s.explain("delete old alerts from", err)
	}
	for _, t := range []struct {
		table  string
		before time.Time
	}{{"repeats", alertsBefore}, {"incidents", alertsBefore}, {"decisions", decisionsBefore}} {
		query := fmt.Sprintf("DELETE FROM %s WHERE seq IN (SELECT seq FROM %[1]s WHERE time < ? ORDER BY time LIMIT %d)", t.table, pruneBatch)
		n, err := s.deleteInSteps(ctx, query, t.before)
		if deleted += n; err != nil {
			return deleted, s.explain("delete old "+t.table+" from", err)
		}
	}
	if _, err := s.inSteps(ctx, func(tx *sql.Tx) (int64, error) { return history.Prune(ctx, tx, alertsBefore, pruneBatch) }); err != nil {
		return deleted, s.explain("delete old findings from", err)
	}
	if err := s.pruneBlocks(ctx, alertsBefore); err != nil {
		return deleted, s.explain("delete old words from", err)
	}
	return deleted, s.explain("delete old entities from", s.pruneEntities(ctx, alertsBefore, decisionsBefore))
}

// deleteInSteps runs a query that deletes pruneBatch rows until it finds fewer.
func (s *Store) deleteInSteps(ctx context.Context, query string, before time.Time) (deleted int, err error) {
	return s.inSteps(ctx, func(tx *sql.Tx) (int64, error) {
		result, err := tx.ExecContext(ctx, query, nanoseconds(before))
		if err != nil {
			return 0, err
		}
		return result.RowsAffected()
	})
}

// inSteps runs a step that deletes pruneBatch rows until it finds fewer.
func (s *Store) inSteps(ctx context.Context, step func(*sql.Tx) (int64, error)) (deleted int, err error) {
	for last := int64(pruneBatch); last == pruneBatch; deleted += int(last) {
		err := s.write(ctx, func(tx *sql.Tx) (err error) {
			last, err = step(tx)
			return err
		})
		if err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}

// Beyond returns the times before which alerts and decisions are not among the
// newest n; zero when there are no more than that.
func (s *Store) Beyond(ctx context.Context, n int) (alerts, decisions time.Time, err error) {
	for table, before := range map[string]*time.Time{"alerts": &alerts, "decisions": &decisions} {
		var at sql.NullInt64
		// Numbers are cheap to compare and have gaps: only with enough of them it
		// is worth counting.
		err := s.readers.QueryRowContext(ctx, fmt.Sprintf(`SELECT CASE WHEN (SELECT max(seq) FROM %s) - (SELECT min(seq) FROM %[1]s) >= ?1 - 1
			THEN (SELECT time FROM %[1]s ORDER BY time DESC, seq DESC LIMIT 1 OFFSET ?1 - 1) END`, table), n).Scan(&at)
		if err != nil {
			return alerts, decisions, s.explain("count records in", err)
		}
		if at.Valid {
			*before = time.Unix(0, at.Int64).UTC()
		}
	}
	return alerts, decisions, nil
}

// nanoseconds returns t as it is stored. Times that do not fit, which only
// a broken or hostile source has, become the nearest that does.
func nanoseconds(t time.Time) int64 {
	switch year := t.Year(); {
	case year < 1678:
		return math.MinInt64
	case year > 2261:
		return math.MaxInt64
	}
	return t.UnixNano()
}
