// Package store keeps alerts, admission decisions and findings in one SQLite
// file.
//
// What a method that writes has acknowledged survives a killed process and a
// power cut. There is one writer at a time and any number of readers, which
// neither wait for it nor stop it. All methods may be called concurrently.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// A Store is an open database.
type Store struct {
	path     string
	writer   *sql.DB // one connection
	readers  *sql.DB
	scanning sync.Mutex // one ReplaceFindings at a time
}

// applicationID marks the file as ours; see PRAGMA application_id.
const applicationID = 0x4b754764

// migrations lead from one version of the schema to the next, the first one
// from an empty file. A released one never changes.
//
// The body of a record is its JSON; the columns before it are what queries
// select by, with "search" as the text that users search in.
var migrations = [...]string{`
CREATE TABLE alerts (
	seq       INTEGER PRIMARY KEY AUTOINCREMENT, -- grows, with gaps; never used twice
	id        TEXT NOT NULL UNIQUE,
	time      INTEGER NOT NULL,                  -- nanoseconds since 1970
	priority  INTEGER NOT NULL,
	rule      TEXT NOT NULL,
	namespace TEXT NOT NULL,
	search    TEXT NOT NULL,
	body      TEXT NOT NULL
);
CREATE INDEX alerts_time      ON alerts (time, priority);
CREATE INDEX alerts_rule      ON alerts (rule, time);
CREATE INDEX alerts_namespace ON alerts (namespace, time);

CREATE TABLE decisions (
	seq       INTEGER PRIMARY KEY AUTOINCREMENT,
	id        TEXT NOT NULL UNIQUE,
	time      INTEGER NOT NULL,
	outcome   TEXT NOT NULL,
	namespace TEXT NOT NULL,
	search    TEXT NOT NULL,
	body      TEXT NOT NULL
);
CREATE INDEX decisions_time    ON decisions (time, outcome);
CREATE INDEX decisions_outcome ON decisions (outcome, time);

CREATE TABLE findings (
	place     TEXT PRIMARY KEY,                  -- worst first, unique; see placeOf
	control   TEXT NOT NULL,
	level     TEXT NOT NULL,
	weight    INTEGER NOT NULL,                  -- of the severity
	status    TEXT NOT NULL,
	namespace TEXT NOT NULL,
	observed  INTEGER NOT NULL,
	search    TEXT NOT NULL,
	body      TEXT NOT NULL                      -- without observedAt
);
CREATE INDEX findings_status  ON findings (status, place);
CREATE INDEX findings_control ON findings (control, place);
`, `
CREATE TABLE held (                              -- what policies that do not deny would have denied
	day         INTEGER NOT NULL,                -- of UTC, since 1970
	policy      TEXT NOT NULL,
	binding     TEXT NOT NULL,
	user        TEXT NOT NULL,                   -- this and the next two are empty for all beyond the limit of a day
	namespace   TEXT NOT NULL,
	kind        TEXT NOT NULL,
	requests    INTEGER NOT NULL,
	enforcement TEXT NOT NULL,                   -- this and all that follows is of the last request
	last        INTEGER NOT NULL,                -- nanoseconds since 1970
	operation   TEXT NOT NULL,
	version     TEXT NOT NULL,
	name        TEXT NOT NULL,
	message     TEXT NOT NULL,
	PRIMARY KEY (day, policy, binding, user, namespace, kind)
) WITHOUT ROWID;
CREATE TABLE held_since (time INTEGER NOT NULL);  -- seconds since 1970
INSERT INTO held_since VALUES (CAST(strftime('%s', 'now') AS INTEGER));
`, `
CREATE TABLE checkpoints (
	name TEXT PRIMARY KEY, -- of what is read
	body TEXT NOT NULL     -- how far
);
`, `
ALTER TABLE alerts ADD COLUMN grp BLOB;          -- what its repeats have in common; NULL: nothing repeats it
CREATE INDEX alerts_grp ON alerts (grp, time) WHERE grp IS NOT NULL;
CREATE TABLE repeats (                           -- alerts that another one has counted
	seq  INTEGER PRIMARY KEY,
	id   TEXT NOT NULL UNIQUE,
	time INTEGER NOT NULL
);
CREATE INDEX repeats_time ON repeats (time);
`, `
CREATE TABLE incidents (
	seq    INTEGER PRIMARY KEY AUTOINCREMENT,
	id     TEXT NOT NULL UNIQUE,
	time   INTEGER NOT NULL,                     -- of the last signal, nanoseconds since 1970
	state  TEXT NOT NULL,
	paged  INTEGER NOT NULL,
	score  INTEGER NOT NULL,
	search TEXT NOT NULL,
	body   TEXT NOT NULL
);
CREATE INDEX incidents_time  ON incidents (time, seq);
CREATE INDEX incidents_state ON incidents (state, time, seq);
`, entityTables}

// Open opens the database in a file, which it creates with mode 0600 when there
// is none, and brings its schema up to date. It refuses a file that is not a
// KubeGuardian database and one that a newer version has written.
func Open(ctx context.Context, path string) (*Store, error) {
	s := &Store{path: path}
	if err := createFile(path); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	var err error
	if s.writer, err = sql.Open("sqlite", dsn(path, "_txlock=immediate")); err != nil {
		return nil, s.explain("open", err)
	}
	s.writer.SetMaxOpenConns(1)
	if err := s.prepare(ctx); err != nil {
		s.writer.Close()
		return nil, s.explain("open", err)
	}
	if s.readers, err = sql.Open("sqlite", dsn(path, "_pragma=query_only(1)")); err != nil {
		s.writer.Close()
		return nil, s.explain("open", err)
	}
	s.readers.SetMaxOpenConns(4)
	if err := s.fillEntities(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// createFile makes the file before SQLite does, so that it is never readable
// by others, and so that its name in the folder survives a power cut.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// dsn is the address of the file for the driver. With FULL, a commit returns
// after its log is on the disk; the size limit gives space back after a burst.
func dsn(path, option string) string {
	file := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}
	file.RawQuery = "_pragma=busy_timeout(10000)&_pragma=synchronous(FULL)&_pragma=journal_size_limit(67108864)&" + option
	return file.String()
}

// prepare checks that the file is ours before it changes anything in it.
func (s *Store) prepare(ctx context.Context) error {
	if _, err := schemaVersion(ctx, s.writer); err != nil {
		return err
	}
	if err := os.Chmod(s.path, 0o600); err != nil {
		return err
	}
	if _, err := s.writer.ExecContext(ctx, "PRAGMA journal_mode = WAL"); err != nil {
		return err
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		version, err := schemaVersion(ctx, tx)
		if err != nil {
			return err
		}
		for _, m := range migrations[version:] {
			if _, err := tx.ExecContext(ctx, m); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, len(migrations)))
		return err
	})
}

// schemaVersion returns how many migrations the file has seen, or why we must
// not write to it.
func schemaVersion(ctx context.Context, db interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}) (version int, err error) {
	var id, tables int
	err = db.QueryRowContext(ctx, `SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)
		FROM pragma_application_id, pragma_user_version`).Scan(&id, &version, &tables)
	switch {
	case err != nil:
		return 0, err
	case id != applicationID && (id != 0 || tables > 0):
		return 0, errForeign
	case version > len(migrations):
		return 0, fmt.Errorf("its schema has version %d and this program knows %d: run the newer version of KubeGuardian that wrote it", version, len(migrations))
	}
	return version, nil
}

var errForeign = errors.New("this is a database of another program: choose another file")

// Close waits for running calls to end and closes the file.
func (s *Store) Close() error {
	return errors.Join(s.readers.Close(), s.writer.Close())
}

// write runs f in a transaction, and leaves no trace of it when f fails.
func (s *Store) write(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // has no effect after Commit
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// explain names the file in an error, and says what to do about the causes
// that users meet.
func (s *Store) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	hint := ""
	var cause *sqlite.Error
	if errors.As(err, &cause) {
		switch cause.Code() & 0xff {
		case sqlite3.SQLITE_FULL:
			hint = ": free some space or shorten the retention"
		case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
			hint = ": the file is damaged or not a database: move it away to start with an empty one"
		}
	}
	return fmt.Errorf("%s database %s: %w%s", doing, s.path, err, hint)
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

// Prune deletes the alerts and decisions older than the given times and
// returns how many they were, also when it fails half-way; alerts that others
// have counted are forgotten with them, and incidents in which nothing happened
// since. The file keeps its size; later records
// use the space.
func (s *Store) Prune(ctx context.Context, alertsBefore, decisionsBefore time.Time) (deleted int, err error) {
	for _, t := range []struct {
		table  string
		before time.Time
	}{{"alerts", alertsBefore}, {"repeats", alertsBefore}, {"incidents", alertsBefore}, {"decisions", decisionsBefore}} {
		query := fmt.Sprintf("DELETE FROM %s WHERE seq IN (SELECT seq FROM %[1]s WHERE time < ? LIMIT %d)", t.table, pruneBatch)
		for last := int64(pruneBatch); last == pruneBatch; deleted += int(last) {
			result, err := s.writer.ExecContext(ctx, query, nanoseconds(t.before))
			if err != nil {
				return deleted, s.explain("delete old "+t.table+" from", err)
			}
			if last, err = result.RowsAffected(); err != nil {
				return deleted, s.explain("delete old "+t.table+" from", err)
			}
		}
	}
	return deleted, s.pruneEntities(ctx, alertsBefore, decisionsBefore)
}

// nanoseconds returns t as SQLite stores it. Times that do not fit, which only
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
