package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/kubeguardian/kubeguardian/store/dialer"
	"github.com/kubeguardian/kubeguardian/store/postgres"
)

// How long a call waits for a server that takes writes, such as a standby that
// takes over.
const (
	writePatience = 20 * time.Second
	readPatience  = 5 * time.Second

	answerPatience = 20 * time.Second // for any sign of an answer to one statement
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
	s.writer = sql.OpenDB(postgres.Connector{Connector: stdlib.GetConnector(*config), Patience: writePatience})
	s.writer.SetMaxOpenConns(8)
	s.writer.SetMaxIdleConns(4)
	s.readers = sql.OpenDB(postgres.Connector{Connector: stdlib.GetConnector(*config), Patience: readPatience})
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
		case postgres.ReadOnly:
			return ": name all servers in the URL, with target_session_attrs=read-write"
		}
	}
	return ""
}
