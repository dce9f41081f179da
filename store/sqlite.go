package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// applicationID marks the file as ours; see PRAGMA application_id.
const applicationID = 0x4b754764

// openSQLite opens the database in a file, which it creates with mode 0600 when
// there is none.
func openSQLite(ctx context.Context, path string) (*Store, error) {
	s := &Store{name: path, hint: sqliteHint}
	if err := createFile(path); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	var err error
	if s.writer, err = sql.Open("sqlite", dsn(path, "_txlock=immediate&_pragma=cache_size(-65536)&_pragma=wal_autocheckpoint(4000)")); err != nil {
		return nil, s.explain("open", err)
	}
	s.writer.SetMaxOpenConns(1)
	if err := s.prepareFile(ctx, path); err != nil {
		s.writer.Close()
		return nil, s.explain("open", err)
	}
	if s.readers, err = sql.Open("sqlite", dsn(path, "_pragma=query_only(1)&_pragma=cache_size(-16384)")); err != nil {
		s.writer.Close()
		return nil, s.explain("open", err)
	}
	s.readers.SetMaxOpenConns(4)
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

// prepareFile checks that the file is ours before it changes anything in it.
func (s *Store) prepareFile(ctx context.Context, path string) error {
	version, err := fileVersion(ctx, s.writer)
	if err == nil && version > len(migrations) {
		err = migrate(ctx, nil, version, nil) // says so
	}
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	if _, err := s.writer.ExecContext(ctx, "PRAGMA journal_mode = WAL"); err != nil {
		return err
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		version, err := fileVersion(ctx, tx)
		if err != nil {
			return err
		}
		if err := migrate(ctx, tx, version, func(m string) string { return m }); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, len(migrations)))
		return err
	})
}

// fileVersion returns how many migrations the file has seen, or why we must not
// write to it.
func fileVersion(ctx context.Context, db interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}) (version int, err error) {
	var id, tables int
	err = db.QueryRowContext(ctx, `SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)
		FROM pragma_application_id, pragma_user_version`).Scan(&id, &version, &tables)
	if err == nil && id != applicationID && (id != 0 || tables > 0) {
		err = errForeign
	}
	return version, err
}

// sqliteHint says what users can do about an error.
func sqliteHint(err error) string {
	var cause *sqlite.Error
	if errors.As(err, &cause) {
		switch cause.Code() & 0xff {
		case sqlite3.SQLITE_FULL:
			return ": free some space or shorten the retention"
		case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
			return ": the file is damaged or not a database: move it away to start with an empty one"
		}
	}
	return ""
}
