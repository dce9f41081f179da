// Package database connects a service to its PostgreSQL: the schema kept up to
// date, and transactions that survive the loss of the primary.
package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"github.com/sethvargo/go-retry"
	"golang.org/x/sys/unix"
)

// A Config says where a database is.
type Config struct {
	Host         string
	Port         int
	Name, User   string
	PasswordFile string // read for each new connection, so that it can be replaced
	Password     string // without a file: all who see the process's environment can see it
	SSLMode      string // as libpq has it: disable, require, verify-full …
	RootCertFile string // for verify-ca and verify-full
}

// Bounds of one attempt, so that one to which nobody answers does not hold up
// the next.
const (
	connectTimeout = 3 * time.Second
	attemptTimeout = 8 * time.Second
	migrateTimeout = time.Minute
)

// maxConns is the number of connections of one replica of a service. A
// connection on which an answer was given up counts for some seconds more.
const maxConns = 10

// Dialer returns what connects to databases: it gives up a connection whose other
// end has not confirmed anything for 5 seconds, where TCP alone takes 15 minutes.
func Dialer() *net.Dialer {
	return &net.Dialer{
		Timeout:         connectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 3 * time.Second, Interval: time.Second, Count: 3},
		Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			controlled := c.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 5000)
			})
			return errors.Join(controlled, err)
		},
	}
}

// Open prepares connections; the first is made when it is needed.
func Open(ctx context.Context, c Config) (*pgxpool.Pool, error) {
	conf, err := pgxpool.ParseConfig(c.dsn())
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", c.Name, err)
	}
	conf.ConnConfig.ConnectTimeout = connectTimeout
	conf.ConnConfig.DialFunc = Dialer().DialContext
	conf.MaxConns = maxConns
	conf.MaxConnLifetime = 30 * time.Minute
	conf.BeforeConnect = func(_ context.Context, cc *pgx.ConnConfig) error {
		var err error
		cc.Password, err = c.password()
		return err
	}
	return pgxpool.NewWithConfig(ctx, conf)
}

func (c Config) password() (string, error) {
	if c.PasswordFile == "" {
		return c.Password, nil
	}
	password, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("database %s: password: %w", c.Name, err)
	}
	return strings.TrimRight(string(password), "\r\n"), nil
}

func (c Config) dsn() string {
	options := []struct{ key, value string }{
		{"host", c.Host}, {"port", strconv.Itoa(c.Port)}, {"dbname", c.Name}, {"user", c.User},
		{"sslmode", c.SSLMode}, {"sslrootcert", c.RootCertFile},
	}
	var dsn strings.Builder
	for _, o := range options {
		if o.value != "" {
			fmt.Fprintf(&dsn, "%s='%s' ", o.key, strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(o.value))
		}
	}
	return dsn.String()
}

// Migrate brings the schema up to date. Replicas that start together take
// turns. It waits for the database until the context ends.
func Migrate(ctx context.Context, pool *pgxpool.Pool, migrations fs.FS) error {
	err := again(ctx, migrateTimeout, func(ctx context.Context) error { return migrate(ctx, pool, migrations) })
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

func migrate(ctx context.Context, pool *pgxpool.Pool, migrations fs.FS) error {
	if err := pool.Ping(ctx); err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations, goose.WithSessionLocker(locker))
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}

// Do runs a transaction, again if the database went away, was not yet ready, or
// found a conflict with another transaction; until the context ends. Since a
// commit may have succeeded although its answer was lost, do must be right to
// run twice.
func Do(ctx context.Context, pool *pgxpool.Pool, do func(tx pgx.Tx) error) error {
	return again(ctx, attemptTimeout, func(ctx context.Context) error {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		err = pgx.BeginFunc(ctx, conn, do)
		if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == readOnly {
			_ = conn.Conn().Close(ctx) // it leads to a standby for good; the next one may not
		}
		return err
	})
}

// readOnly is the code of a write at a standby, or at a primary that was just
// demoted.
const readOnly = "25006"

// again calls f, each time for so long at most, until it succeeds, fails for
// good, or the context ends.
func again(ctx context.Context, within time.Duration, f func(context.Context) error) error {
	backoff := retry.WithCappedDuration(time.Second, retry.NewExponential(20*time.Millisecond))
	backoff = retry.WithJitterPercent(25, backoff)
	return retry.Do(ctx, backoff, func(ctx context.Context) error {
		attempt, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		err := f(attempt)
		if err != nil && (passes(err) || attempt.Err() != nil) {
			return retry.RetryableError(err)
		}
		return err
	})
}

// passes reports whether an error says something about the moment and not about
// what was asked. Codes: PostgreSQL's manual, appendix A.
func passes(err error) bool {
	e, said := errors.AsType[*pgconn.PgError](err)
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return !said || !strings.HasPrefix(e.Code, "28") && !strings.HasPrefix(e.Code, "3D") // wrong password, no such database
	}
	if said {
		switch {
		case strings.HasPrefix(e.Code, "08"), // connection lost
			strings.HasPrefix(e.Code, "40"),                         // serialization failure, deadlock
			strings.HasPrefix(e.Code, "53"),                         // too many connections
			e.Code == "57P01", e.Code == "57P02", e.Code == "57P03", // shutting down, crashed, starting up
			e.Code == "25006",                                  // read-only: a standby, or a primary that was just demoted
			e.Code == "XX000", strings.HasPrefix(e.Code, "58"): // Pgpool-II lost its node
			return true
		}
		return false
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) { // of migrations, which go through database/sql
		return true
	}
	return pgconn.SafeToRetry(err) || strings.HasSuffix(err.Error(), "EOF") || strings.Contains(err.Error(), "conn closed")
}

// IsUnique reports whether an error says that a value which must be unique is
// there already.
func IsUnique(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == "23505"
}
