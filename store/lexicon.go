package store

import (
	"cmp"
	"context"
	"database/sql"
	_ "embed" // the text of the schema
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/store/dialect"
	"github.com/kubeguardian/kubeguardian/store/words"
)

// wordTable makes a table of the terms of records, or of some of them, by number.
func wordTable(name string) string {
	return "CREATE VIRTUAL TABLE " + name + ` USING fts5(words, content = '', contentless_delete = 1, detail = none, tokenize = "ascii tokenchars '-_.'");` + "\n"
}

// wordTablePostgres makes one in PostgreSQL: of a tsvector that none of its parsers
// has seen.
func wordTablePostgres(name string) string {
	return "CREATE TABLE " + name + " (rowid BIGINT PRIMARY KEY, words TSVECTOR NOT NULL); CREATE INDEX " + name + "_words ON " + name + " USING gin (words);\n"
}

// inPostgres says in the words of PostgreSQL what migrations say.
func inPostgres() *strings.Replacer {
	// A view of a join is not written through, and one with a row costs nothing.
	tables := []string{"/* one */", " CROSS JOIN (SELECT 1) AS one"}
	for _, name := range []string{"block_words", "incident_words", "entity_words", "finding_words"} {
		tables = append(tables, wordTable(name), wordTablePostgres(name))
	}
	return dialect.Schema(tables...)
}

// recordWords index the words of single records, by the number of each.
var recordWords = wordColumns + wordTable("incident_words") + wordTable("entity_words") + wordTable("finding_words")

//go:embed schema/words.sql
var wordColumns string

// A lexicon is an index of the terms of each record of a table. What is written gets
// a number that is higher than all before, by which the index is behind the table:
// writers do not wait for it, and searches look through the rest.
type lexicon struct {
	words   string // the table of the terms, and the name of the checkpoint
	lock    int64  // of those that write the records
	some    int    // records that are indexed at once
	after   string // a query for the change, the number and the text of records after a change
	changed string // one for the numbers of records, and their changes, of some numbers
	tail    string // one for the numbers of records after a change
	terms   func(text string) (map[string]bool, error)
}

func incidentLexicon() lexicon {
	return lexicon{
		"incident_words", lockRecords, 64,
		"SELECT changed, seq, search || '\n' || body FROM incident_heads WHERE changed > ? ORDER BY changed LIMIT ?", "SELECT seq, changed FROM incidents WHERE seq IN (%s)",
		"SELECT seq FROM incidents WHERE changed > ? ORDER BY changed LIMIT ?",
		func(text string) (map[string]bool, error) {
			var i incident.Incident
			end := strings.LastIndexByte(text, '\n') // JSON has none
			if err := decode(text[end+1:], &i); err != nil {
				return nil, err
			}
			terms := termsOf(text[:max(end, 0)])
			for _, e := range i.Entities {
				terms[entityTerm(e).Text] = true
			}
			return terms, nil
		},
	}
}

func entityLexicon() lexicon {
	return lexicon{
		"entity_words", lockRecords, 1000,
		"SELECT id, id, name FROM entities WHERE id > ? ORDER BY id LIMIT ?", "SELECT id, id FROM entities WHERE id IN (%s)",
		"SELECT id FROM entities WHERE id > ? ORDER BY id LIMIT ?",
		func(text string) (map[string]bool, error) { return termsOf(text), nil },
	}
}

func findingLexicon() lexicon {
	return lexicon{
		"finding_words", lockFindings, 500,
		"SELECT seq, seq, body FROM findings WHERE seq > ? ORDER BY seq LIMIT ?", "SELECT seq, seq FROM findings WHERE seq IN (%s)",
		"SELECT seq FROM findings WHERE seq > ? ORDER BY seq LIMIT ?",
		func(text string) (map[string]bool, error) {
			var f finding.Finding
			if err := decode(text, &f); err != nil {
				return nil, err
			}
			terms := termsOf(findingTexts(&f)...)
			terms[subjectTerm(f.Subject.String()).Text] = true
			return terms, nil
		},
	}
}

func termsOf(texts ...string) map[string]bool {
	terms := map[string]bool{}
	for _, text := range texts {
		words.Add(terms, text)
	}
	return terms
}

// entityTerm is what an incident has for each entity that it involves.
func entityTerm(e alert.Entity) words.Term { return words.Key(string(e.Kind), e.Name) }

// subjectTerm is what a finding has for its subject.
func subjectTerm(subject string) words.Term { return words.Key(subject) }

// index makes the terms of some records known that are new, and reports whether it
// may be called again at once. What has changed meanwhile is left for that call.
func (s *Store) index(ctx context.Context, x lexicon) (more bool, err error) {
	after, err := s.reached(ctx, x.words)
	if err != nil {
		return false, err
	}
	list, last, err := s.newTerms(ctx, x, after)
	if err != nil || len(list) == 0 {
		return false, s.explain("read words from", err)
	}
	err = s.writeUnder(ctx, x.lock, func(tx *sql.Tx) error {
		b := s.newBatch(ctx, tx)
		body := ""
		if _, err := b.row(readCheckpoint, []any{x.words}, []any{&body}); err != nil {
			return err
		}
		if now, _ := strconv.ParseInt(body, 10, 64); now != after {
			return nil // another one has done it
		}
		if err := s.replaceTerms(b, x, list); err != nil {
			return err
		}
		return b.exec(saveCheckpoint, x.words, strconv.FormatInt(last, 10))
	})
	return len(list) == x.some, s.explain("index words in", err)
}

// reached returns the number that a checkpoint has, 0 without one.
func (s *Store) reached(ctx context.Context, checkpoint string) (n int64, err error) {
	body, found, err := s.Checkpoint(ctx, checkpoint)
	if err != nil || !found {
		return 0, err
	}
	n, err = strconv.ParseInt(string(body), 10, 64)
	return n, s.explain("read up to where words are indexed in", err)
}

// A termed record is one with its terms.
type termed struct {
	change, seq int64
	terms       map[string]bool
}

func (s *Store) newTerms(ctx context.Context, x lexicon, after int64) (list []termed, last int64, err error) {
	rows, err := s.readers.QueryContext(ctx, x.after, after, x.some)
	if err != nil {
		return nil, after, err
	}
	defer rows.Close()
	for last = after; rows.Next(); {
		var one termed
		var text string
		if err := rows.Scan(&one.change, &one.seq, &text); err != nil {
			return nil, after, err
		}
		if one.terms, err = x.terms(text); err != nil {
			return nil, after, err
		}
		list, last = append(list, one), one.change
	}
	return list, last, rows.Err()
}

// replaceTerms writes the terms of records that have not changed since they were read.
func (s *Store) replaceTerms(b *batch, x lexicon, list []termed) error {
	seqs, now := make([]any, len(list)), map[int64]int64{}
	for i, one := range list {
		seqs[i] = one.seq
	}
	err := b.eachOf(x.changed, "?", seqs, nil, func(rows *sql.Rows) error {
		var seq, change int64
		err := rows.Scan(&seq, &change)
		now[seq] = change
		return err
	})
	if err != nil {
		return err
	}
	if err := b.eachOf("DELETE FROM "+x.words+" WHERE rowid IN (%s)", "?", seqs, nil, func(*sql.Rows) error { return nil }); err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(one termed) bool { return now[one.seq] != one.change })
	return s.putTerms(b, x.words, list...)
}

// putTerms adds terms to a table of them. What has none, such as an entity named /,
// is in no table.
func (s *Store) putTerms(b *batch, table string, list ...termed) error {
	insert, separator, quote := "INSERT INTO "+table+" (rowid, words) VALUES %s", " ", ""
	if s.postgres {
		insert, separator, quote = "WITH added (id, list) AS (VALUES %s) INSERT INTO "+table+" (rowid, words) SELECT id, CAST(list AS tsvector) FROM added", "' '", "'"
	}
	var rows [][]any
	for _, one := range list {
		if len(one.terms) > 0 {
			rows = append(rows, []any{one.seq, quote + strings.Join(slices.Sorted(maps.Keys(one.terms)), separator) + quote})
		}
	}
	return b.insert(insert, rows, nil)
}

// having returns the query, with its argument, for the numbers in a table of terms
// that have all of some.
func (s *Store) having(table string, terms []words.Term) (query, arg string) {
	parts := make([]string, len(terms))
	and, quote, prefix := " AND ", `"`, " *"
	query = "SELECT rowid FROM " + table + " WHERE " + table + " MATCH ?"
	if s.postgres {
		and, quote, prefix = " & ", "'", ":*"
		query = "SELECT rowid FROM " + table + " WHERE words @@ CAST(CAST(? AS TEXT) AS tsquery)"
	}
	for i, t := range terms {
		if parts[i] = quote + t.Text + quote; t.Prefix {
			parts[i] += prefix
		}
	}
	return query, strings.Join(parts, and)
}

// fewFound is of how many records all are read that may be what is searched for.
const fewFound = 2000

// few returns the numbers of the records that have some terms, and of those that are
// not indexed yet. It is not ok when there are no terms, or too many records.
func (s *Store) few(ctx context.Context, x lexicon, terms []words.Term) (seqs []int64, ok bool, err error) {
	if len(terms) == 0 {
		return nil, false, nil
	}
	after, err := s.reached(ctx, x.words)
	if err != nil {
		return nil, false, err
	}
	query, arg := s.having(x.words, terms)
	err = s.matched(ctx, query+" LIMIT ?", []any{arg, fewFound + 1}, func(rows *sql.Rows) error { return scanSeq(rows, &seqs) })
	if err != nil || len(seqs) > fewFound {
		return nil, false, err
	}
	rows, err := s.readers.QueryContext(ctx, x.tail, after, fewFound+1)
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	for rows.Next() && err == nil {
		err = scanSeq(rows, &seqs)
	}
	slices.Sort(seqs)
	seqs = slices.Compact(seqs)
	return seqs, len(seqs) <= fewFound, cmp.Or(err, rows.Err())
}

func scanSeq(rows *sql.Rows, into *[]int64) error {
	*into = append(*into, 0)
	return rows.Scan(&(*into)[len(*into)-1])
}

// matched calls scan for each row of a query for terms.
func (s *Store) matched(ctx context.Context, query string, args []any, scan func(*sql.Rows) error) error {
	tx, err := s.readers.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if s.postgres { // which does not count what it costs to unpack the words of all
		if _, err := tx.ExecContext(ctx, "SET LOCAL enable_seqscan = off"); err != nil {
			return err
		}
	}
	rows, err := tx.QueryContext(ctx, query, args...)
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

// in selects records by their numbers.
func (w *where) in(column string, seqs []int64) {
	args := make([]any, len(seqs))
	for i, seq := range seqs {
		args[i] = seq
	}
	w.add(true, column+" IN (NULL"+strings.Repeat(", ?", len(seqs))+")", args...)
}
