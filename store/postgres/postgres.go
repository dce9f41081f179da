// Package postgres connects to servers of PostgreSQL that may be away for a while,
// and lets [database/sql] ask them in the dialect of SQLite.
package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/kubeguardian/kubeguardian/store/dialect"
)

// How long to wait between two tries.
const (
	minDelay = 50 * time.Millisecond
	maxDelay = time.Second
)

// A Connector opens connections that take queries in the dialect of SQLite. It waits
// for a server that is away.
type Connector struct {
	driver.Connector
	Patience time.Duration // for how long
}

// Connect implements [driver.Connector].
func (c Connector) Connect(ctx context.Context) (driver.Conn, error) {
	waiting, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	for delay := minDelay; ; delay = min(2*delay, maxDelay) {
		opened, err := c.connect(ctx)
		if err == nil || !transient(err) || !pause(waiting, delay) {
			return opened, err
		}
	}
}

func (c Connector) connect(ctx context.Context) (driver.Conn, error) {
	opened, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	session := opened.(*stdlib.Conn) // what stdlib's connector opens
	if err := begin(ctx, session.Conn()); err != nil {
		return nil, errors.Join(err, session.Close())
	}
	return &conn{session}, nil
}

// begin sets what a session needs: commits that are on the disk when they
// return, and no lock that is held by a program that is gone.
func begin(ctx context.Context, session *pgx.Conn) error {
	var commit string
	if err := session.QueryRow(ctx, "SHOW synchronous_commit").Scan(&commit); err != nil {
		return err
	}
	set := "SET idle_in_transaction_session_timeout = '30s'"
	if commit == "off" {
		set += "; SET synchronous_commit = on"
	}
	_, err := session.Exec(ctx, set)
	return err
}

// A conn says in the words of PostgreSQL what queries say in those of SQLite.
type conn struct{ *stdlib.Conn }

// PrepareContext implements [driver.ConnPrepareContext]. The session keeps what
// it has prepared, for later transactions too.
func (c *conn) PrepareContext(_ context.Context, query string) (driver.Stmt, error) {
	return statement{c, query}, nil
}

// ExecContext implements [driver.ExecerContext].
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	result, err := c.Conn.ExecContext(ctx, dialect.Rebind(query), args)
	return result, c.check(err)
}

// QueryContext implements [driver.QueryerContext].
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := c.Conn.QueryContext(ctx, dialect.Rebind(query), args)
	return rows, c.check(err)
}

// check gives up a connection to a server that has become a standby.
func (c *conn) check(err error) error {
	var cause *pgconn.PgError
	if errors.As(err, &cause) && cause.Code == ReadOnly {
		_ = c.Close() // it has no more use
	}
	return err
}

// CheckNamedValue implements [driver.NamedValueChecker]: values become what
// SQLite's driver makes of them. Arrays are of such values already.
func (c *conn) CheckNamedValue(v *driver.NamedValue) (err error) {
	switch v.Value.(type) {
	case []string, []int64, [][]byte:
		return nil
	}
	v.Value, err = dialect.Normal(v.Value)
	return err
}

// A statement is a query of a connection.
type statement struct {
	*conn
	query string
}

// Close implements [driver.Stmt].
func (statement) Close() error { return nil }

// NumInput implements [driver.Stmt].
func (statement) NumInput() int { return -1 }

// Exec implements [driver.Stmt].
func (s statement) Exec([]driver.Value) (driver.Result, error) {
	return nil, errors.New("a statement needs a context")
}

// Query implements [driver.Stmt].
func (s statement) Query([]driver.Value) (driver.Rows, error) {
	return nil, errors.New("a statement needs a context")
}

// ExecContext implements [driver.StmtExecContext].
func (s statement) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.conn.ExecContext(ctx, s.query, args)
}

// QueryContext implements [driver.StmtQueryContext].
func (s statement) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.conn.QueryContext(ctx, s.query, args)
}

// The SQLSTATE of a server that takes no writes, and the one by which Pgpool-II
// says that it does not reach a server.
const (
	ReadOnly = "25006"
	internal = "XX000"
)

// Again runs f until it succeeds, fails for a reason that stays, or has been
// failing for longer than patience.
func Again(ctx context.Context, patience time.Duration, f func() error) error {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for delay := minDelay; ; delay = min(2*delay, maxDelay) {
		err := f()
		if err == nil || !transient(err) || !pause(waiting, delay) {
			return err
		}
	}
}

// pause waits, and reports whether ctx still runs.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// transient reports whether an error is of the connection, of a server that ends
// or begins, or of what others did at the same time: then another try may
// succeed.
func transient(err error) bool {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		switch answer.Code[:min(2, len(answer.Code))] {
		case "08", "40", "53", "58": // connection, rollback, resources, system
			return true
		case "57":
			return answer.Code != "57014" // what was cancelled stays so
		}
		return answer.Code == ReadOnly || answer.Code == internal
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, sql.ErrTxDone) {
		return false
	}
	var network net.Error
	var connecting *pgconn.ConnectError
	return errors.As(err, &network) || errors.As(err, &connecting) || errors.Is(err, driver.ErrBadConn) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		strings.Contains(err.Error(), "conn closed") || pgconn.SafeToRetry(err)
}
