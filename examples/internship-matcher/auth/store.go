package auth

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/api/authv1"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/database"
)

var (
	errNone  = errors.New("auth: no such account")
	errTaken = errors.New("auth: address taken")
)

// After so many wrong passwords in a row an address rests for a while.
const (
	maxFailures = 10
	rest        = 15 * time.Minute
)

// A user is a row.
type user struct {
	ID, Email, Name, Role, Password string
	Created                         time.Time
}

func (u user) proto() *authv1.User {
	return &authv1.User{Id: u.ID, Email: u.Email, Name: u.Name, Role: role(u.Role), Created: timestamppb.New(u.Created)}
}

// A store keeps accounts in PostgreSQL.
type store struct{ pool *pgxpool.Pool }

const columns = "id, email, name, role, password, created"

// add keeps a new account; [errTaken] if another has its address. A retry after
// a lost answer finds its own row, because the id is the caller's.
func (s store) add(ctx context.Context, u user) (user, error) {
	err := database.Do(ctx, s.pool, func(tx pgx.Tx) error {
		const insert = `INSERT INTO users (id, email, name, role, password) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (id) DO UPDATE SET id = EXCLUDED.id RETURNING created`
		return tx.QueryRow(ctx, insert, u.ID, u.Email, u.Name, u.Role, u.Password).Scan(&u.Created)
	})
	if database.IsUnique(err) {
		return user{}, errTaken
	}
	return u, err
}

func (s store) byEmail(ctx context.Context, email string) (user, error) {
	return s.one(ctx, "SELECT "+columns+" FROM users WHERE lower(email) = lower($1) AND deleted IS NULL", email)
}

func (s store) byID(ctx context.Context, id string) (user, error) {
	return s.one(ctx, "SELECT "+columns+" FROM users WHERE id = $1 AND deleted IS NULL", id)
}

// one returns the account that a query finds, or [errNone].
func (s store) one(ctx context.Context, query string, arg any) (user, error) {
	var u user
	err := database.Do(ctx, s.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, query, arg)
		if err != nil {
			return err
		}
		u, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[user])
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return user{}, errNone
	}
	return u, err
}

// failures counts the recent wrong passwords of an address.
func (s store) failures(ctx context.Context, email string) (count int, err error) {
	err = database.Do(ctx, s.pool, func(tx pgx.Tx) error {
		const query = `SELECT coalesce(max(count), 0) FROM login_failures WHERE email = lower($1) AND last > now() - $2::interval`
		return tx.QueryRow(ctx, query, email, rest).Scan(&count)
	})
	return count, err
}

func (s store) failed(ctx context.Context, email string) error {
	return s.exec(ctx, `INSERT INTO login_failures AS f (email, count, last) VALUES (lower($1), 1, now())
		ON CONFLICT (email) DO UPDATE SET last = now(),
			count = CASE WHEN f.last > now() - $2::interval THEN f.count + 1 ELSE 1 END`, email, rest)
}

func (s store) succeeded(ctx context.Context, email string) error {
	return s.exec(ctx, "DELETE FROM login_failures WHERE email = lower($1)", email)
}

func (s store) exec(ctx context.Context, statement string, args ...any) error {
	return database.Do(ctx, s.pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, statement, args...)
		return err
	})
}
