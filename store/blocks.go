package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/store/words"
)

// blockTables index the words of alerts by blocks: an index of single alerts would
// have many times the entries.
var blockTables = `
CREATE TABLE blocks (                            -- of alerts with consecutive numbers
	id    INTEGER PRIMARY KEY,
	low   INTEGER NOT NULL,                      -- the first number
	high  INTEGER NOT NULL,                      -- and the last one
	first INTEGER NOT NULL,                      -- time of the oldest alert
	last  INTEGER NOT NULL                       -- and of the newest
);
CREATE INDEX blocks_last ON blocks (last, id);
` + wordTable("block_words")

const (
	blockSize    = 1024
	blocksAtOnce = 4
	indexed      = "blocks" // the checkpoint of up to which alert there are blocks
)

// A block is some alerts, by their numbers, and the terms by which they are found.
type block struct {
	id, low, high int64
	first, last   int64 // nanoseconds since 1970
	terms         map[string]bool
}

// Index makes the words of some of the records known to searches that it does not
// know yet, in the order in which they came, and reports whether it may be called
// again at once. Searches look through the newest alerts, of which there are too
// few, one by one. Several programs may call it on one database.
func (s *Store) Index(ctx context.Context) (more bool, err error) {
	more, err = s.indexAlerts(ctx)
	for _, x := range []lexicon{incidentLexicon(), entityLexicon(), findingLexicon()} {
		again, failed := s.index(ctx, x)
		more, err = more || again, errors.Join(err, failed)
	}
	return more, err
}

func (s *Store) indexAlerts(ctx context.Context) (more bool, err error) {
	after, err := s.reached(ctx, indexed)
	if err != nil {
		return false, err
	}
	if last, err := s.LastAlert(ctx); err != nil || last-after < blockSize {
		return false, err // there is no full block
	}
	blocks, err := s.nextBlocks(ctx, after)
	if err != nil || len(blocks) == 0 {
		return false, s.explain("read alerts from", err)
	}
	err = s.writeUnder(ctx, lockSearch, func(tx *sql.Tx) error {
		b := s.newBatch(ctx, tx)
		body := ""
		if _, err := b.row(readCheckpoint, []any{indexed}, []any{&body}); err != nil {
			return err
		}
		if now, _ := strconv.ParseInt(body, 10, 64); now != after {
			return nil // another one has done it
		}
		for i := range blocks {
			if err := s.addBlock(b, &blocks[i]); err != nil {
				return err
			}
		}
		return b.exec(saveCheckpoint, indexed, fmt.Sprint(blocks[len(blocks)-1].high))
	})
	return len(blocks) == blocksAtOnce, s.explain("index words in", err)
}

// nextBlocks makes full blocks of the alerts after a number.
func (s *Store) nextBlocks(ctx context.Context, after int64) (blocks []block, err error) {
	rows, err := s.readers.QueryContext(ctx, "SELECT seq, time, body FROM alerts WHERE seq > ? ORDER BY seq LIMIT ?", after, blockSize*blocksAtOnce)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	b, n := newBlock(), 0
	for rows.Next() {
		var seq, at int64
		var body string
		var a alert.Alert
		if err := scanBody(rows, &body, &a, &seq, &at); err != nil {
			return nil, err
		}
		if n == 0 {
			b.id, b.low = seq, seq
		}
		b.high, b.first, b.last = seq, min(b.first, at), max(b.last, at)
		for _, text := range a.Texts() {
			words.Add(b.terms, text)
		}
		if n++; n == blockSize {
			blocks = append(blocks, b)
			b, n = newBlock(), 0
		}
	}
	return blocks, rows.Err()
}

func newBlock() block {
	return block{first: math.MaxInt64, last: math.MinInt64, terms: map[string]bool{}}
}

func (s *Store) addBlock(b *batch, k *block) error {
	if err := s.putTerms(b, "block_words", termed{seq: k.id, terms: k.terms}); err != nil {
		return err
	}
	return b.exec("INSERT INTO blocks (id, low, high, first, last) VALUES (?, ?, ?, ?, ?)", k.id, k.low, k.high, k.first, k.last)
}

// indexEvery is how long what is new waits for its index.
const indexEvery = 2 * time.Second

// indexRest is how many times longer than it worked an indexer rests that has more
// to do: incidents that change all the time are never all indexed.
const indexRest = 4

// Indexer returns what calls Index again and again until its context ends, and
// tells a log of errors.
func (s *Store) Indexer(log *slog.Logger) func(context.Context) error {
	return func(ctx context.Context) error {
		for {
			began := time.Now()
			more, err := s.Index(ctx)
			if err != nil && ctx.Err() == nil {
				log.Error("searches are slow until words are indexed", "error", err)
			}
			pause := indexEvery
			if more {
				pause = min(pause, indexRest*time.Since(began))
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(pause):
			}
		}
	}
}
