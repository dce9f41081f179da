// Package actionlog keeps the log of what people did in the database, as a chain in
// which each entry has the hash of the one before.
package actionlog

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"math"
	"time"

	"github.com/kubeguardian/kubeguardian/action"
)

// The number of entries in a page: when none is named, and at most.
const (
	defaultLimit = 50
	maxLimit     = 1000
)

// A Chain is the log of a database.
type Chain struct {
	readers *sql.DB
	write   func(context.Context, func(*sql.Tx) error) error
	explain func(doing string, err error) error
}

// New returns the log of a database that is read by readers. The function writes in
// a transaction, perhaps twice, and no two at a time that add entries; explain names
// the database in an error.
func New(readers *sql.DB, write func(context.Context, func(*sql.Tx) error) error, explain func(doing string, err error) error) *Chain {
	return &Chain{readers, write, explain}
}

const columns = "seq, time, who, source, action, object, change, result, previous, hash"

// AppendAction adds an entry to the log of actions, and returns it with its
// number and its hash. It is on the disk when it returns.
func (c *Chain) AppendAction(ctx context.Context, e action.Entry) (action.Entry, error) {
	id := rand.Text()
	var added action.Entry
	err := c.write(ctx, func(tx *sql.Tx) error {
		var err error
		added, err = scanAction(tx.QueryRowContext(ctx, "SELECT "+columns+" FROM actions WHERE id = ?", id))
		if !errors.Is(err, sql.ErrNoRows) {
			return err // or it was written before the connection broke
		}
		var head action.Head
		err = tx.QueryRowContext(ctx, "SELECT seq, hash FROM actions ORDER BY seq DESC LIMIT 1").Scan(&head.Seq, &head.Hash)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		added = head.Seal(e)
		_, err = tx.ExecContext(ctx, "INSERT INTO actions (id, "+columns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			id, added.Seq, added.Time.UnixNano(), added.User, added.Source, added.Action, added.Object, added.Change, added.Result, added.Previous, added.Hash)
		return err
	})
	return added, c.explain("add an action to", err)
}

type scanner interface{ Scan(...any) error }

func scanAction(row scanner) (e action.Entry, err error) {
	var nanos int64
	err = row.Scan(&e.Seq, &nanos, &e.User, &e.Source, &e.Action, &e.Object, &e.Change, &e.Result, &e.Previous, &e.Hash)
	e.Time = time.Unix(0, nanos).UTC()
	return e, err
}

// Actions returns a page of the log of actions, newest first: those before an
// entry, or the last ones if before is 0. The cursor of the next page is 0 after
// the last.
func (c *Chain) Actions(ctx context.Context, before int64, most int) (page []action.Entry, next int64, err error) {
	n := most
	if n <= 0 {
		n = defaultLimit
	}
	n = min(n, maxLimit)
	if before == 0 {
		before = math.MaxInt64
	}
	page, err = c.readActions(ctx, "SELECT "+columns+" FROM actions WHERE seq < ? ORDER BY seq DESC LIMIT ?", before, n+1)
	if len(page) > n {
		page = page[:n]
		next = page[n-1].Seq
	}
	return page, next, err
}

func (c *Chain) readActions(ctx context.Context, query string, args ...any) (entries []action.Entry, err error) {
	rows, err := c.readers.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, c.explain("read actions from", err)
	}
	defer rows.Close()
	for rows.Next() {
		e, err := scanAction(rows)
		if err != nil {
			return nil, c.explain("read actions from", err)
		}
		entries = append(entries, e)
	}
	return entries, c.explain("read actions from", rows.Err())
}

// verifyBatch is how many entries are read at once.
const verifyBatch = 1000

// VerifyActions checks the chain of all actions, and returns its head. With
// anchors, heads that were kept elsewhere, it also checks that the log has these
// entries still. An error is an [action.BrokenError], or of the database.
func (c *Chain) VerifyActions(ctx context.Context, anchors ...action.Head) (head action.Head, err error) {
	chain := action.NewChain(anchors...)
	for {
		batch, err := c.readActions(ctx, "SELECT "+columns+" FROM actions WHERE seq > ? ORDER BY seq LIMIT ?", chain.Head().Seq, verifyBatch)
		if err != nil {
			return chain.Head(), err
		}
		for _, e := range batch {
			if err := chain.Add(e); err != nil {
				return chain.Head(), err
			}
		}
		if len(batch) < verifyBatch {
			return chain.Head(), chain.End()
		}
	}
}
