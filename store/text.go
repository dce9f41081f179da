package store

import (
	"context"
	"database/sql"
	"math"
	"slices"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/store/words"
)

// maxTail is how many alerts without an index a search looks through besides the
// blocks of the others. When there are more it looks through all of them.
const maxTail = 20_000

// A textSearch collects the newest alerts with a text, block by block, that whose
// newest alert is newest first.
type textSearch struct {
	*Store
	ctx   context.Context
	query alert.Query
	text  words.Query
	n     int
	found []found // newest first
}

type found struct {
	at int64
	alert.Record
}

// searchable reports whether the words of a query select blocks of alerts, and
// which terms these must have.
func searchable(q alert.Query) (terms []words.Term, ok bool) {
	if q.Text == "" || q.Entity != (alert.Entity{}) {
		return nil, false
	}
	if terms = words.Parse(q.Text).Terms(); len(terms) == 0 {
		return nil, false
	}
	for _, whole := range []string{q.Rule, q.Namespace} {
		terms = append(terms, words.Parse(whole+"\n").Terms()...)
	}
	return terms, true
}

// alertsByText returns a page of alerts with a text. It is not done, and has
// nothing, when too many alerts have no index yet.
func (s *Store) alertsByText(ctx context.Context, q alert.Query, terms []words.Term) (page []alert.Record, next finding.Cursor, done bool, err error) {
	end, err := s.reached(ctx, indexed)
	if err != nil {
		return nil, next, false, err
	}
	last, err := s.LastAlert(ctx)
	if err != nil || last-end > maxTail {
		return nil, next, false, err
	}
	t := &textSearch{Store: s, ctx: ctx, query: q, text: words.Parse(q.Text), n: limit(q.Limit)}
	page, next, err = t.run(end, terms)
	return page, next, true, s.explain("search alerts in", err)
}

func (t *textSearch) run(end int64, terms []words.Term) ([]alert.Record, finding.Cursor, error) {
	began := time.Now()
	// What is indexed meanwhile is in a block beyond the end, which is not read.
	if err := t.look(block{low: end + 1, high: math.MaxInt64}); err != nil {
		return nil, finding.Cursor{}, err
	}
	newest := int64(math.MaxInt64)
	if t.query.Before != (finding.Cursor{}) {
		newest = nanoseconds(t.query.Before.Time)
	}
	below, looked := block{id: math.MaxInt64, last: math.MaxInt64}, false
	for {
		blocks, err := t.blocks(end, below, newest, terms)
		if err != nil {
			return nil, finding.Cursor{}, err
		}
		for _, b := range blocks {
			over := looked && b.last < newest && time.Since(began) > searchTime
			if sure := t.newerThan(b.last); over || sure > t.n {
				page, next := t.page(sure, finding.Cursor{Time: time.Unix(0, b.last).UTC(), Seq: math.MaxInt64})
				return page, next, nil
			}
			if err := t.look(b); err != nil {
				return nil, finding.Cursor{}, err
			}
			below, looked = b, true
		}
		if len(blocks) < someBlocks {
			page, next := t.page(len(t.found), finding.Cursor{})
			return page, next, nil
		}
	}
}

const someBlocks = 64

// blocks returns the next blocks that have all terms.
func (t *textSearch) blocks(end int64, below block, newest int64, terms []words.Term) (blocks []block, err error) {
	w := &where{}
	w.add(true, "(last, id) < (?, ?) AND high <= ? AND first <= ?", below.last, below.id, end, newest)
	w.add(!t.query.Since.IsZero(), "last >= ?", nanoseconds(t.query.Since))
	w.add(!t.query.Until.IsZero(), "first < ?", nanoseconds(t.query.Until))
	having, arg := t.having("block_words", terms)
	w.add(true, "+id IN ("+having+")", arg)
	query := "SELECT id, low, high, first, last FROM blocks" + w.String() + " ORDER BY last DESC, id DESC LIMIT ?"
	err = t.matched(t.ctx, query, append(w.args, someBlocks), func(rows *sql.Rows) error {
		var b block
		err := rows.Scan(&b.id, &b.low, &b.high, &b.first, &b.last)
		blocks = append(blocks, b)
		return err
	})
	return blocks, err
}

// look adds to what was found what a block has, as much as a page takes.
func (t *textSearch) look(b block) error {
	q, w := t.query, &where{}
	// Of all terms the first one alone leads to an index.
	w.add(true, "seq >= ? AND seq <= ?", b.low, b.high)
	w.add(q.Rule != "", "rule || '' = ?", q.Rule)
	w.add(q.Namespace != "", "namespace || '' = ?", q.Namespace)
	w.add(q.Drift, "+drift = 1")
	w.of(q.Cluster, t.Own)
	if q.Priority != nil {
		w.add(true, "+priority <= ?", *q.Priority)
	}
	w.add(!q.Since.IsZero(), "+time >= ?", nanoseconds(q.Since))
	w.add(!q.Until.IsZero(), "+time < ?", nanoseconds(q.Until))
	w.add(q.Before != finding.Cursor{}, "(+time, +seq) < (?, ?)", nanoseconds(q.Before.Time), q.Before.Seq)
	w.names(t.text)
	rows, err := t.readers.QueryContext(t.ctx, "SELECT seq, time, body FROM alerts"+w.String()+" ORDER BY +time DESC, +seq DESC", w.args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for n := 0; n <= t.n && rows.Next(); {
		var f found
		var body string
		if err := scanBody(rows, &body, &f.Alert, &f.Seq, &f.at); err != nil {
			return err
		}
		if t.text.In(f.Alert.Texts()...) {
			t.found = append(t.found, f)
			n++
		}
	}
	slices.SortFunc(t.found, func(a, b found) int { return -cmpPlace(a, b) })
	return rows.Err()
}

func cmpPlace(a, b found) int {
	return slices.Compare([]int64{a.at, a.Seq}, []int64{b.at, b.Seq})
}

// newerThan returns how many of what was found are newer than a time.
func (t *textSearch) newerThan(at int64) int {
	if i := slices.IndexFunc(t.found, func(f found) bool { return f.at <= at }); i >= 0 {
		return i
	}
	return len(t.found)
}

// page returns the first of the alerts that are sure, and where to go on: at the
// end that is given when they are not more than a page.
func (t *textSearch) page(sure int, end finding.Cursor) (page []alert.Record, next finding.Cursor) {
	if next = end; sure > t.n {
		sure = t.n
		last := t.found[sure-1]
		next = finding.Cursor{Time: time.Unix(0, last.at).UTC(), Seq: last.Seq}
	}
	for _, f := range t.found[:sure] {
		page = append(page, f.Record)
	}
	return page, next
}
