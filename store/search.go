package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
)

// A search for a text, or for what no index has together, looks at the records of
// a window at a time, and ends with the window in which its time is over: its page
// is short then, and the next one goes on from there.
const (
	firstWindow  = 500 // records; each further window is twice as large, up to
	searchWindow = 4_000
	searchTime   = 75 * time.Millisecond
)

// A listing is a query for pages of records, newest first.
type listing struct {
	from  string // tables
	time  string // the columns that order it
	seq   string
	index *where // what an index has
	rest  *where // what each record is asked
	picks bool   // whether not all records that have this are selected
}

// windowed reports whether records are looked at that are not selected.
func (l listing) windowed() bool { return l.picks || len(l.rest.terms) > 0 }

// pageOf reads the page of a listing before a cursor, n records at most.
func pageOf[T any](ctx context.Context, db *sql.DB, l listing, before finding.Cursor, n int, record func(seq int64, body string) (T, bool, error)) (page []T, next finding.Cursor, err error) {
	window := firstWindow
	for began := time.Now(); ; window = min(2*window, searchWindow) {
		floor, err := l.floor(ctx, db, before, window)
		if err != nil {
			return nil, next, err
		}
		most := n - len(page) + 1
		if l.picks {
			most = window
		}
		query, args := l.query(before, floor, most)
		rows, err := db.QueryContext(ctx, query, args...)
		if err != nil {
			return nil, next, err
		}
		part, next, err := scanPage(rows, n-len(page), record)
		if err != nil {
			return nil, next, err
		}
		page = append(page, part...)
		if next != (finding.Cursor{}) || floor == (finding.Cursor{}) {
			return page, next, nil
		}
		if before = floor; len(page) == n || time.Since(began) > searchTime {
			return page, floor, nil
		}
	}
}

// pageOfFew is pageOf for records of which the numbers are known, which are few: they
// are put in order, and read until there is a page of them.
func pageOfFew[T any](ctx context.Context, db *sql.DB, l listing, seqs []int64, before finding.Cursor, n int, record func(seq int64, body string) (T, bool, error)) (page []T, next finding.Cursor, err error) {
	places, err := l.places(ctx, db, seqs, before)
	if err != nil {
		return nil, next, err
	}
	for some := range slices.Chunk(places, n+1) {
		w := &where{}
		w.in("seq", seqsOf(some))
		rows, err := db.QueryContext(ctx, "SELECT seq, time, body FROM "+l.from+w.String()+" ORDER BY +time DESC, +seq DESC", w.args...)
		if err != nil {
			return nil, next, err
		}
		part, next, err := scanPage(rows, n-len(page), record)
		if err != nil || next != (finding.Cursor{}) {
			return append(page, part...), next, err
		}
		page = append(page, part...)
		if last := some[len(some)-1]; len(page) == n && last != places[len(places)-1] {
			return page, last, nil
		}
	}
	return page, next, nil
}

// places returns where those of some numbers are that a listing selects, in its
// order.
func (l listing) places(ctx context.Context, db *sql.DB, seqs []int64, before finding.Cursor) (out []finding.Cursor, err error) {
	w := &where{}
	w.in("seq", seqs)
	w = w.and(l.index).and(l.rest).and(l.before(before))
	rows, err := db.QueryContext(ctx, "SELECT time, seq FROM "+l.from+w.String()+" ORDER BY +time DESC, +seq DESC", w.args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var at int64
		var c finding.Cursor
		if err := rows.Scan(&at, &c.Seq); err != nil {
			return nil, err
		}
		c.Time = time.Unix(0, at).UTC()
		out = append(out, c)
	}
	return out, rows.Err()
}

func seqsOf(places []finding.Cursor) []int64 {
	seqs := make([]int64, len(places))
	for i, p := range places {
		seqs[i] = p.Seq
	}
	return seqs
}

// floor returns the last record of the window before a cursor; zero when the
// window has the end, or when there is no need of windows.
func (l listing) floor(ctx context.Context, db *sql.DB, before finding.Cursor, window int) (c finding.Cursor, err error) {
	if !l.windowed() {
		return c, nil
	}
	w := l.index.and(l.before(before))
	var at int64
	err = db.QueryRowContext(ctx, "SELECT "+l.time+", "+l.seq+" FROM "+l.from+w.String()+l.order()+" LIMIT 1 OFFSET ?",
		append(w.args, window-1)...).Scan(&at, &c.Seq)
	if errors.Is(err, sql.ErrNoRows) {
		return finding.Cursor{}, nil
	}
	c.Time = time.Unix(0, at).UTC()
	return c, err
}

func (l listing) before(c finding.Cursor) *where {
	w := &where{}
	w.add(c != finding.Cursor{}, "("+l.time+", "+l.seq+") < (?, ?)", nanoseconds(c.Time), c.Seq)
	return w
}

func (l listing) order() string { return " ORDER BY " + l.time + " DESC, " + l.seq + " DESC" }

// query returns the query for n records between two cursors.
func (l listing) query(before, floor finding.Cursor, n int) (string, []any) {
	w := l.index.and(l.rest).and(l.before(before))
	w.add(floor != finding.Cursor{}, "("+l.time+", "+l.seq+") >= (?, ?)", nanoseconds(floor.Time), floor.Seq)
	return "SELECT seq, time, body FROM " + l.from + w.String() + l.order() + " LIMIT ?", append(w.args, n)
}

// upTo returns the query for the newest n records, and one more, that have one of
// the values up to one in a column, which an index has before time and seq.
func (l listing) upTo(column string, value int, before finding.Cursor, n int) (string, []any) {
	var parts []string
	var args []any
	for v := range value + 1 {
		one := &where{}
		one.add(true, column+" = ?", v)
		w := one.and(l.index).and(l.rest).and(l.before(before))
		parts = append(parts, "SELECT * FROM (SELECT seq, time, body FROM "+l.from+w.String()+l.order()+" LIMIT ?) AS part")
		args = append(append(args, w.args...), n+1)
	}
	return strings.Join(parts, " UNION ALL ") + " ORDER BY 2 DESC, 1 DESC LIMIT ?", append(args, n+1)
}
