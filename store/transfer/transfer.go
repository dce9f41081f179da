// Package transfer copies the tables of a database in SQLite into one in PostgreSQL
// that has the same tables, by the dialect of package store's connections.
package transfer

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrNotEmpty says that there are records where the copy is to be.
var ErrNotEmpty = errors.New("there are records in it already: make a new, empty database for the copy, in which no server has run")

// Run copies all rows of a database in SQLite into one in PostgreSQL with the same
// columns in each table, and where numbers that were given end. It returns how many
// rows each table had. Indices, which are tables with a checkpoint of the same name,
// are left out, as if nothing had been indexed.
func Run(ctx context.Context, from *sql.DB, to *sql.Tx, indices ...string) (rows map[string]int, err error) {
	source, err := from.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer source.Rollback() // nothing was written
	t := &transfer{source, to}
	tables, err := column[string](ctx, source, "SELECT name FROM sqlite_schema WHERE type = 'table' AND substr(name, 1, 7) <> 'sqlite_' ORDER BY name")
	if err != nil {
		return nil, err
	}
	tables = slices.DeleteFunc(tables, func(table string) bool {
		return slices.ContainsFunc(indices, func(index string) bool { return table == index || strings.HasPrefix(table, index+"_") })
	})
	for _, table := range tables {
		if err := t.empty(ctx, table); err != nil {
			return nil, err
		}
	}
	rows = map[string]int{}
	for _, table := range tables {
		if rows[table], err = t.copy(ctx, table); err != nil {
			return nil, fmt.Errorf("copy table %s: %w", table, err)
		}
		if err := t.goOn(ctx, table); err != nil {
			return nil, fmt.Errorf("copy numbers of table %s: %w", table, err)
		}
	}
	for _, index := range indices {
		if _, err := to.ExecContext(ctx, "DELETE FROM checkpoints WHERE name = ?", index); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// A transfer copies between two transactions.
type transfer struct {
	from *sql.Tx // of SQLite
	to   *sql.Tx // of PostgreSQL
}

// empty removes what a new table has, and refuses one that is used.
func (t *transfer) empty(ctx context.Context, table string) error {
	if table == "checkpoints" || table == "held_since" { // the schema puts rows into them
		_, err := t.to.ExecContext(ctx, "DELETE FROM "+quoted(table))
		return err
	}
	used, err := column[bool](ctx, t.to, "SELECT EXISTS (SELECT 1 FROM "+quoted(table)+")")
	if err == nil && used[0] {
		err = fmt.Errorf("%w: table %s", ErrNotEmpty, table)
	}
	return err
}

// Bounds of one statement.
const (
	maxValues = 8192
	maxBytes  = 4 << 20
)

// copy copies the rows of a table.
func (t *transfer) copy(ctx context.Context, table string) (n int, err error) {
	names, err := column[string](ctx, t.from, "SELECT name FROM pragma_table_info(?)", table)
	if err != nil {
		return 0, err
	}
	for i := range names {
		names[i] = quoted(names[i])
	}
	list := strings.Join(names, ", ")
	rows, err := t.from.QueryContext(ctx, "SELECT "+list+" FROM "+quoted(table))
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var values []any
	size := 0
	flush := func() error {
		if len(values) == 0 {
			return nil
		}
		row := ", (?" + strings.Repeat(", ?", len(names)-1) + ")"
		_, err := t.to.ExecContext(ctx, "INSERT INTO "+quoted(table)+" ("+list+") VALUES "+strings.Repeat(row, len(values)/len(names))[2:], values...)
		values, size = values[:0], 0
		return err
	}
	for rows.Next() {
		row := make([]any, len(names))
		into := make([]any, len(names))
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			return n, err
		}
		values, n = append(values, row...), n+1
		for _, v := range row {
			switch v := v.(type) {
			case string:
				size += len(v)
			case []byte:
				size += len(v)
			}
		}
		if len(values)+len(names) > maxValues || size > maxBytes {
			if err := flush(); err != nil {
				return n, err
			}
		}
	}
	return n, errors.Join(rows.Err(), flush())
}

// goOn has the numbers of new rows begin after all that were given, also to rows that
// are gone.
func (t *transfer) goOn(ctx context.Context, table string) error {
	numbered, err := column[string](ctx, t.to, "SELECT column_name FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = ? AND is_identity = 'YES'", table)
	if err != nil {
		return err
	}
	for _, name := range numbered {
		last, err := column[int64](ctx, t.from, "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = ?), 0), coalesce((SELECT max("+quoted(name)+") FROM "+quoted(table)+"), 0))", table)
		if err != nil {
			return err
		}
		if last[0] == 0 {
			continue
		}
		if _, err := t.to.ExecContext(ctx, "SELECT setval(pg_get_serial_sequence(?, ?), ?)", quoted(table), name, last[0]); err != nil {
			return err
		}
	}
	return nil
}

// quoted returns a name as both databases read it.
func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// column returns the only column that a query has.
func column[T any](ctx context.Context, tx *sql.Tx, query string, args ...any) (out []T, err error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var v T
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}
