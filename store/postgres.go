package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/kubeguardian/kubeguardian/store/dialect"
	"github.com/kubeguardian/kubeguardian/store/dialer"
)

// How long a call waits for a server that takes writes, such as a standby that
// takes over, and between two tries.
const (
	writePatience = 20 * time.Second
	readPatience  = 5 * time.Second

	answerPatience = 20 * time.Second // for any sign of an answer to one statement
	minRetryDelay  = 50 * time.Millisecond
	maxRetryDelay  = time.Second
)

// IsPostgres reports whether an address is that of a database in PostgreSQL.
func IsPostgres(address string) bool {
	return strings.HasPrefix(address, "postgres://") || strings.HasPrefix(address, "postgresql://")
}

func openPostgres(ctx context.Context, address string) (*Store, error) {
	config, err := parseURL(address)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	var dial dialer.Dialer
	config.DialFunc = dial.Dial
	s := &Store{name: databaseName(config), postgres: true, hint: postgresHint}
	s.writer = sql.OpenDB(connector{stdlib.GetConnector(*config), writePatience})
	s.writer.SetMaxOpenConns(8)
	s.writer.SetMaxIdleConns(4)
	s.readers = sql.OpenDB(connector{stdlib.GetConnector(*config), readPatience})
	s.readers.SetMaxOpenConns(16)
	s.readers.SetMaxIdleConns(4)
	if err := s.prepareSchema(ctx); err != nil {
		return nil, errors.Join(s.explain("open", err), s.Close())
	}
	dial.Limit(answerPatience)
	return s, nil
}

// parseURL reads a URL. What is wrong with one cannot be quoted: it may be a
// part of the password.
func parseURL(address string) (*pgx.ConnConfig, error) {
	parts, err := url.Parse(address)
	if err != nil || !plainURL.MatchString(address) {
		return nil, errors.New("its URL is not of the form postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with what is special in the password as %XX")
	}
	config, err := pgx.ParseConfig(address)
	if err != nil {
		password, _ := parts.User.Password()
		cause := errors.Unwrap(err)
		if cause == nil || shows(cause, password) || shows(cause, parts.Query().Get("password")) {
			return nil, errors.New("its URL has a setting that is not valid")
		}
		return nil, fmt.Errorf("its URL has a setting that is not valid: %w", cause)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 5 * time.Second
	}
	return config, nil
}

// plainURL is what has nothing in it that could be part of the password or not.
var plainURL = regexp.MustCompile(`^[a-z]+://([^/@:?#\s]*(:[^/@:?#\s]*)?@)?[^/@?#\s]*(/[^/@?#\s]*)?(\?[^@#\s]*)?$`)

func shows(err error, password string) bool {
	return password != "" && strings.Contains(err.Error(), password)
}

// databaseName names the servers and the database, without user and password.
func databaseName(c *pgx.ConnConfig) string {
	var hosts []string
	add := func(host string, port uint16) {
		if h := net.JoinHostPort(host, strconv.Itoa(int(port))); len(hosts) == 0 || hosts[len(hosts)-1] != h {
			hosts = append(hosts, h)
		}
	}
	add(c.Host, c.Port)
	for _, f := range c.Fallbacks { // the same host again, where TLS is only preferred
		add(f.Host, f.Port)
	}
	return c.Database + " of PostgreSQL at " + strings.Join(hosts, ",")
}

// prepareSchema makes or updates the tables. Of several programs that start at
// the same time one does it, and the others wait.
func (s *Store) prepareSchema(ctx context.Context) error {
	return s.writeUnder(ctx, lockSchema, func(tx *sql.Tx) error {
		var ours, tables int
		err := tx.QueryRowContext(ctx, `SELECT count(*) FILTER (WHERE table_name = 'kubeguardian_schema'), count(*)
			FROM information_schema.tables WHERE table_schema = current_schema()`).Scan(&ours, &tables)
		if err != nil {
			return err
		}
		version := 0
		switch {
		case ours > 0:
			err = tx.QueryRowContext(ctx, "SELECT version FROM kubeguardian_schema").Scan(&version)
		case tables > 0:
			err = errForeign
		default:
			_, err = tx.ExecContext(ctx, "CREATE TABLE kubeguardian_schema (version BIGINT NOT NULL); INSERT INTO kubeguardian_schema VALUES (0)")
		}
		if err != nil {
			return err
		}
		if err := migrate(ctx, tx, version, inPostgres().Replace); err != nil {
			return err
		}
		if version == len(migrations) {
			return nil
		}
		_, err = tx.ExecContext(ctx, "UPDATE kubeguardian_schema SET version = ?", len(migrations))
		return err
	})
}

// A connector opens connections that take the queries of this package. It waits
// for a server that is away.
type connector struct {
	driver.Connector
	patience time.Duration
}

// Connect implements [driver.Connector].
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	waiting, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	for delay := minRetryDelay; ; delay = min(2*delay, maxRetryDelay) {
		opened, err := c.connect(ctx)
		if err == nil || !transient(err) || !pause(waiting, delay) {
			return opened, err
		}
	}
}

func (c connector) connect(ctx context.Context) (driver.Conn, error) {
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
	if errors.As(err, &cause) && cause.Code == readOnly {
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
	readOnly = "25006"
	internal = "XX000"
)

// again runs f until it succeeds, fails for a reason that stays, or has been
// failing for too long.
func again(ctx context.Context, f func() error) error {
	waiting, cancel := context.WithTimeout(ctx, writePatience)
	defer cancel()
	for delay := minRetryDelay; ; delay = min(2*delay, maxRetryDelay) {
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
		return answer.Code == readOnly || answer.Code == internal
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

// postgresHint says what users can do about an error.
func postgresHint(err error) string {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		switch answer.Code {
		case "28000", "28P01":
			return ": see user and password of the URL, and pg_hba.conf"
		case "3D000":
			return ": create the database, owned by the user of the URL"
		case "42501":
			return ": let the user of the URL own the database"
		case "53100":
			return ": free some space or shorten the retention"
		case readOnly:
			return ": name all servers in the URL, with target_session_attrs=read-write"
		}
	}
	return ""
}
