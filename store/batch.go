package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/store/dialect"
)

// maxRows bounds the rows of one statement.
const maxRows = 256

// A batch is a transaction that reads and writes many rows with few statements:
// PostgreSQL answers each after a round trip.
type batch struct {
	ctx        context.Context
	tx         *sql.Tx
	arrays     bool                 // the database takes columns as arrays
	statements map[string]*sql.Stmt // by text
	involved   []involvement        // still to be noted
}

func newBatch(ctx context.Context, tx *sql.Tx) *batch {
	return &batch{ctx: ctx, tx: tx, statements: map[string]*sql.Stmt{}}
}

// newBatch is newBatch for many rows, which PostgreSQL is given with one statement,
// whatever their number.
func (s *Store) newBatch(ctx context.Context, tx *sql.Tx) *batch {
	b := newBatch(ctx, tx)
	b.arrays = s.postgres
	return b
}

func (b *batch) prepared(query string) (*sql.Stmt, error) {
	if s := b.statements[query]; s != nil {
		return s, nil
	}
	s, err := b.tx.PrepareContext(b.ctx, query)
	b.statements[query] = s
	return s, err
}

func (b *batch) exec(query string, args ...any) error {
	s, err := b.prepared(query)
	if err == nil {
		_, err = s.ExecContext(b.ctx, args...)
	}
	return err
}

// row reads the first row of an answer, and reports whether there is one.
func (b *batch) row(query string, args, into []any) (bool, error) {
	s, err := b.prepared(query)
	if err != nil {
		return false, err
	}
	err = s.QueryRowContext(b.ctx, args...).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// each calls scan for each row of an answer.
func (b *batch) each(query string, args []any, scan func(*sql.Rows) error) error {
	s, err := b.prepared(query)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(b.ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// eachOf runs a query for many values, each of which stands in place of %s as
// one says, followed by more arguments, and calls scan for each row.
func (b *batch) eachOf(query, one string, values, more []any, scan func(*sql.Rows) error) error {
	if b.arrays && len(values) > 0 {
		list, types, err := dialect.Columns(values, 1)
		if err != nil {
			return err
		}
		query = strings.Replace(query, "VALUES %s", "%s", 1)
		return b.each(fmt.Sprintf(query, "SELECT unnest("+types+")"), append(list, more...), scan)
	}
	return inParts(len(values), func(from, to int) error {
		list := strings.Repeat(one+", ", to-from-1) + one
		return b.each(fmt.Sprintf(query, list), append(values[from:to:to], more...), scan)
	})
}

// insert runs a statement that takes rows of values in place of %s, and calls
// scan for each row of its answer, if it has one.
func (b *batch) insert(query string, rows [][]any, scan func(*sql.Rows) error) error {
	if b.arrays {
		return b.insertArrays(query, rows, scan)
	}
	return inParts(len(rows), func(from, to int) error {
		columns := len(rows[from])
		one := "(" + strings.Repeat("?, ", columns-1) + "?)"
		text := fmt.Sprintf(query, strings.Repeat(one+", ", to-from-1)+one)
		args := make([]any, 0, columns*(to-from))
		for _, row := range rows[from:to] {
			args = append(args, row...)
		}
		if scan == nil {
			return b.exec(text, args...)
		}
		return b.each(text, args, scan)
	})
}

// maxArrays bounds the text of the rows of one statement, in bytes: PostgreSQL
// takes no more than a gigabyte at once.
const maxArrays = 64 << 20

// insertArrays is insert with a parameter for each column.
func (b *batch) insertArrays(query string, rows [][]any, scan func(*sql.Rows) error) error {
	for from, to, size := 0, 0, 0; from < len(rows); from, size = to, 0 {
		for ; to < len(rows) && (to == from || size < maxArrays); to++ {
			for _, v := range rows[to] {
				if text, ok := v.(string); ok {
					size += len(text)
				}
			}
		}
		list, types, err := dialect.Columns(slices.Concat(rows[from:to]...), len(rows[from]))
		if err != nil {
			return err
		}
		text := strings.Replace(query, "VALUES %s", "SELECT * FROM unnest("+types+")", 1)
		if scan == nil {
			err = b.exec(text, list...)
		} else {
			err = b.each(text, list, scan)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// inParts calls f for parts of n things. Their sizes are powers of two, so that
// there are few different statements.
func inParts(n int, f func(from, to int) error) error {
	for from, size := 0, maxRows; from < n; from += size {
		for size > n-from {
			size /= 2
		}
		if err := f(from, from+size); err != nil {
			return err
		}
	}
	return nil
}
