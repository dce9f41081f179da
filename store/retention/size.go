package retention

import (
	"context"
	"database/sql"
	"fmt"
)

// Bytes returns how much a database takes, without what later records use again.
//
// Of a file it is exact. PostgreSQL has no such number, and what it keeps as
// statistics is gone after a crash: of large tables the rows are measured that are
// on some pages. What was deleted is not counted, whether or not it was cleaned up
// yet; indices count by the share of their table.
func Bytes(ctx context.Context, db *sql.DB, postgres bool) (n int64, err error) {
	if !postgres {
		err = db.QueryRowContext(ctx, "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size").Scan(&n)
		return n, err
	}
	tables, err := postgresTables(ctx, db)
	if err != nil {
		return 0, err
	}
	for _, t := range tables {
		share, err := t.share(ctx, db)
		if err != nil {
			return 0, err
		}
		n += int64(share * float64(t.rows+t.rest))
	}
	return n, nil
}

// A table is one of PostgreSQL, with its size in bytes.
type table struct {
	name  string
	pages int64 // without what is apart from its rows
	rows  int64 // with it
	rest  int64 // indices
}

func postgresTables(ctx context.Context, db *sql.DB) (tables []table, err error) {
	rows, err := db.QueryContext(ctx, `SELECT quote_ident(relname), pg_relation_size(oid) / current_setting('block_size')::int, pg_table_size(oid), pg_indexes_size(oid)
		FROM pg_class WHERE relkind = 'r' AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) ORDER BY relname`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var t table
		if err := rows.Scan(&t.name, &t.pages, &t.rows, &t.rest); err != nil {
			return nil, err
		}
		tables = append(tables, t)
	}
	return tables, rows.Err()
}

const (
	// samplePages is how many pages of a table are looked at, about: the share that
	// is in use is then right to a few percent.
	samplePages = 1000
	smallPages  = 64 // up to which a table counts as a whole
)

// share returns how much of a table is in use.
func (t *table) share(ctx context.Context, db *sql.DB) (share float64, err error) {
	if t.pages <= smallPages {
		return 1, nil
	}
	percent := min(100, 100*float64(samplePages)/float64(t.pages))
	var used int64
	// The seed makes it the same pages each time, as long as the table does not grow.
	err = db.QueryRowContext(ctx, fmt.Sprintf("SELECT CAST(coalesce(sum(pg_column_size(sample.*) + %d), 0) AS BIGINT) FROM %s AS sample TABLESAMPLE SYSTEM (%f) REPEATABLE (1)",
		pointer, t.name, percent)).Scan(&used)
	return min(1, float64(used)*100/percent/float64(t.rows)), err
}

// pointer is what a row takes on its page besides itself, with what it is rounded up by.
const pointer = 8
