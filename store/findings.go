package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/store/history"
	"github.com/kubeguardian/kubeguardian/store/words"
)

// refreshAfter is how old the stored observation of a state that stays the same
// may become before it is written again. It is well under the 15 minutes for
// which evidence from the API counts as fresh, and it keeps a busy cluster,
// scanned every second, from rewriting every state every second.
const refreshAfter = 5 * time.Minute

// ReplaceFindings makes the stored states equal to findings, all or nothing. It
// writes only what changed. The ObservedAt of an unchanged state may lag by up
// to five minutes, and never leads.
func (s *Store) ReplaceFindings(ctx context.Context, findings []finding.Finding) error {
	s.scanning.Lock()
	defer s.scanning.Unlock()
	changed, err := stateRows(findings)
	if err != nil {
		return s.explain("replace findings in", err)
	}
	known, err := history.Compare(ctx, s.readers, eachFinding(changed))
	if err != nil {
		return s.explain("replace findings in", err)
	}
	var gone []any             // places
	seen := map[string]int64{} // when, of what is as it was
	err = s.eachState(ctx, func(place string, observed int64, body string) {
		state, ok := changed[place]
		switch {
		case !ok:
			gone = append(gone, place)
			return
		case state.body != body:
			return
		case time.Duration(state.observed-observed) < refreshAfter:
			delete(changed, place)
		default:
			seen[place] = state.observed
			delete(changed, place)
		}
	})
	if err == nil && len(changed)+len(gone)+len(seen)+known.Len() > 0 {
		now := time.Now()
		err = s.writeUnder(ctx, lockFindings, func(tx *sql.Tx) error {
			if err := writeStates(s.newBatch(ctx, tx), changed, gone, seen); err != nil {
				return err
			}
			return known.Save(ctx, tx, now)
		})
	}
	return s.explain("replace findings in", err)
}

// A state is one row of findings.
type state struct {
	*finding.Finding
	observed int64
	body     string
}

func stateRows(findings []finding.Finding) (map[string]state, error) {
	out := make(map[string]state, len(findings))
	for i := range findings {
		f := findings[i]
		observed := nanoseconds(f.ObservedAt)
		f.Amend(func(d *finding.Detail) { d.ObservedAt = time.Time{} })
		body, err := json.Marshal(f)
		if err != nil {
			return nil, fmt.Errorf("encode finding %s of %s: %w", f.Control, f.Subject, err)
		}
		out[freePlace(out, &f)] = state{&f, observed, string(body)}
	}
	return out, nil
}

func eachFinding(states map[string]state) iter.Seq2[string, *finding.Finding] {
	return func(yield func(string, *finding.Finding) bool) {
		for place, f := range states {
			if !yield(place, f.Finding) {
				return
			}
		}
	}
}

// FindingSpans returns for how long findings failed, or have failed.
func (s *Store) FindingSpans(ctx context.Context, q finding.SpanQuery) ([]finding.Span, error) {
	spans, err := history.Spans(ctx, s.readers, q)
	return spans, s.explain("read findings from", err)
}

// freePlace numbers the states that share control and subject, as two objects
// of one name in a folder do, so that none hides another.
func freePlace(taken map[string]state, f *finding.Finding) string {
	place := placeOf(f)
	for n := 2; ; n++ {
		if _, ok := taken[place]; !ok {
			return place
		}
		place = fmt.Sprintf("%s#%d", placeOf(f), n)
	}
}

// placeOf is the key of a state, in the order in which findings are listed:
// severity, control, subject.
func placeOf(f *finding.Finding) string {
	s := f.Subject
	return strings.Join([]string{
		fmt.Sprintf("%02d", 99-f.Severity.Weight()), f.Control,
		s.Namespace, s.Kind, s.Name, s.Container, s.APIVersion, s.Source,
	}, "|")
}

func (s *Store) eachState(ctx context.Context, f func(place string, observed int64, body string)) error {
	rows, err := s.readers.QueryContext(ctx, "SELECT place, observed, body FROM findings")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var place, body string
		var observed int64
		if err := rows.Scan(&place, &observed, &body); err != nil {
			return err
		}
		f(place, observed, body)
	}
	return rows.Err()
}

// writeStates writes what changed anew: the words of a state are known by its number.
func writeStates(b *batch, changed map[string]state, gone []any, seen map[string]int64) error {
	places := slices.Sorted(maps.Keys(changed)) // neighbours are listed together
	rows := make([][]any, len(places))
	for n, place := range places {
		f := changed[place]
		rows[n] = []any{place, f.Control, string(f.Level), f.Severity.Weight(), string(f.Status), f.Subject.Namespace, f.observed,
			searchText(f.Message, findingTexts(f.Finding)[1:]...), f.body}
		gone = append(gone, place)
	}
	if err := deleteStates(b, gone); err != nil {
		return err
	}
	for place, observed := range seen {
		if err := b.exec("UPDATE findings SET observed = ? WHERE place = ?", observed, place); err != nil {
			return err
		}
	}
	return b.insert("INSERT INTO findings (place, control, level, weight, status, namespace, observed, search, body) VALUES %s", rows, nil)
}

func deleteStates(b *batch, places []any) error {
	var seqs []any
	err := b.eachOf("DELETE FROM findings WHERE place IN (%s) RETURNING seq", "?", places, nil, func(rows *sql.Rows) error {
		var seq int64
		err := rows.Scan(&seq)
		seqs = append(seqs, seq)
		return err
	})
	if err != nil {
		return err
	}
	return b.eachOf("DELETE FROM finding_words WHERE rowid IN (%s)", "?", seqs, nil, func(*sql.Rows) error { return nil })
}

// findingTexts returns what findings are searched by.
func findingTexts(f *finding.Finding) []string {
	return []string{f.Message, f.Title, f.Control, f.Subject.String(), f.Subject.Container, f.Subject.Source, f.Reason, f.Fix}
}

// Findings returns all states, worst first.
func (s *Store) Findings(ctx context.Context) ([]finding.Finding, error) {
	page, _, err := s.findings(ctx, finding.Query{}, math.MaxInt32)
	return page, err
}

// FindingPage returns a page of the findings that q selects, worst first, and
// what to set as q.After for the next page; "" after the last.
func (s *Store) FindingPage(ctx context.Context, q finding.Query) (page []finding.Finding, next string, err error) {
	return s.findings(ctx, q, limit(q.Limit))
}

func (s *Store) findings(ctx context.Context, q finding.Query, n int) (page []finding.Finding, next string, err error) {
	last := ""
	place, whole, err := s.eachFinding(ctx, q, n+1, func(r *findingRow) (more bool, err error) {
		if len(page) == n {
			next = last
			return false, nil
		}
		f, err := r.finding()
		page, last = append(page, f), r.place
		return true, err
	})
	if next == "" && !whole {
		next = place
	}
	return page, next, s.explain("read findings from", err)
}

// FindingGroups returns the findings that q selects by control, worst severity
// first, then the most findings, with the first few of each. It ignores q.After
// and q.Limit: there are as many groups as controls. A search that finds too many
// to look at all of them counts only some.
func (s *Store) FindingGroups(ctx context.Context, q finding.Query) ([]finding.Group, error) {
	q.After = ""
	of := s.searchedGroups
	if q.Text == "" && q.Subject == "" {
		of = s.countedGroups
	}
	groups, err := of(ctx, q)
	slices.SortFunc(groups, func(a, b finding.Group) int {
		x, y := a.Findings[0], b.Findings[0]
		return cmp.Or(cmp.Compare(y.Severity.Weight(), x.Severity.Weight()), cmp.Compare(b.Count, a.Count), cmp.Compare(x.Control, y.Control))
	})
	return groups, s.explain("read findings from", err)
}

// fewOfGroup is how many findings of a group are returned with it.
const fewOfGroup = 5

// countedGroups counts by an index, and then reads the first few of each.
func (s *Store) countedGroups(ctx context.Context, q finding.Query) (groups []finding.Group, err error) {
	w := findingFilter(q, " || ''") // in the order of the controls, whatever other indices there are
	rows, err := s.readers.QueryContext(ctx, "SELECT control, count(*) FROM findings"+w.String()+" GROUP BY control", w.args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	counts := map[string]int{}
	for rows.Next() {
		var control string
		var n int
		if err := rows.Scan(&control, &n); err != nil {
			return nil, err
		}
		counts[control] = n
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	const atOnce = 64
	for some := range slices.Chunk(slices.Sorted(maps.Keys(counts)), atOnce) {
		part, err := s.firstOf(ctx, q, some)
		if err != nil {
			return nil, err
		}
		for _, g := range part {
			g.Count = counts[g.Findings[0].Control]
			groups = append(groups, g)
		}
	}
	return groups, nil
}

// firstOf returns the first few findings of some controls.
func (s *Store) firstOf(ctx context.Context, q finding.Query, controls []string) (groups []finding.Group, err error) {
	var parts []string
	var args []any
	for _, control := range controls {
		q.Control = control
		w := findingFilter(q, "")
		parts = append(parts, "SELECT * FROM (SELECT place, observed, body FROM findings"+w.String()+" ORDER BY place LIMIT ?) AS part")
		args = append(append(args, w.args...), fewOfGroup)
	}
	rows, err := s.readers.QueryContext(ctx, strings.Join(parts, " UNION ALL "), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	at := map[string]int{} // the place of the group of a control
	for rows.Next() {
		var r findingRow
		if err := rows.Scan(&r.place, &r.observed, &r.body); err != nil {
			return nil, err
		}
		f, err := r.finding()
		if err != nil {
			return nil, err
		}
		n, known := at[f.Control] // the parts come in any order
		if !known {
			n, at[f.Control] = len(groups), len(groups)
			groups = append(groups, finding.Group{})
		}
		groups[n].Findings = append(groups[n].Findings, f)
	}
	return groups, rows.Err()
}

// searchedGroups counts what a search finds, for as long as it may take, or longer
// when it has found nothing by then.
func (s *Store) searchedGroups(ctx context.Context, q finding.Query) (groups []finding.Group, err error) {
	at := map[string]int{} // the place of the group of a control
	whole := false
	add := func(r *findingRow) (bool, error) {
		n, known := at[r.control]
		if !known {
			n, at[r.control] = len(groups), len(groups)
			groups = append(groups, finding.Group{})
		}
		g := &groups[n]
		if g.Count++; g.Count > fewOfGroup {
			return true, nil
		}
		f, err := r.finding()
		g.Findings = append(g.Findings, f)
		return true, err
	}
	for !whole && len(groups) == 0 && err == nil {
		q.After, whole, err = s.eachFinding(ctx, q, math.MaxInt32, add)
	}
	for i := range groups {
		groups[i].More = !whole
	}
	return groups, err
}

// A findingRow is a row of findings.
type findingRow struct {
	place, control string
	observed       int64
	search, body   string
}

func (r *findingRow) finding() (f finding.Finding, err error) {
	if err := decode(r.body, &f); err != nil {
		return f, err
	}
	if r.observed != math.MinInt64 {
		f.Amend(func(d *finding.Detail) { d.ObservedAt = time.Unix(0, r.observed).UTC() })
	}
	return f, nil
}

// is reports whether it is what a query searches for.
func (r *findingRow) is(q finding.Query, text words.Query) (bool, error) {
	if q.Text != "" && !text.In(r.search) {
		return false, nil
	}
	if q.Subject == "" {
		return true, nil
	}
	f, err := r.finding()
	return err == nil && f.Subject.String() == q.Subject, err
}

// eachFinding calls f for the findings that q selects, worst first, until it wants
// no more; the caller means to read about n. A search ends when its time is over,
// too: it is not whole then, and has looked at all up to a place.
func (s *Store) eachFinding(ctx context.Context, q finding.Query, n int, f func(*findingRow) (more bool, err error)) (last string, whole bool, err error) {
	if q.Text == "" && q.Subject == "" {
		last, _, err = s.someFindings(ctx, q, findingFilter(q, ""), n, f)
		return last, true, err
	}
	terms := words.Parse(q.Text).Terms()
	if q.Subject != "" {
		terms = append(terms, subjectTerm(q.Subject))
	}
	seqs, few, err := s.few(ctx, findingLexicon(), terms)
	if err != nil {
		return "", false, err
	}
	if few {
		w := &where{}
		w.in("seq", seqs)
		last, _, err = s.someFindings(ctx, q, w.and(findingFilter(q, "")), len(seqs), f)
		return last, true, err
	}
	window := firstWindow
	for began := time.Now(); ; window = min(2*window, searchWindow) {
		read := 0
		last, read, err = s.someFindings(ctx, q, findingFilter(q, ""), window, f)
		if err != nil || read < window {
			return last, true, err
		}
		if q.After = last; time.Since(began) > searchTime {
			return last, false, nil
		}
	}
}

// someFindings reads some findings, of which f is given those with the text and the
// subject of q. What was read is less when f wants no more.
func (s *Store) someFindings(ctx context.Context, q finding.Query, w *where, n int, f func(*findingRow) (bool, error)) (last string, read int, err error) {
	w = w.and(&where{})
	w.add(q.After != "", "place > ?", q.After)
	rows, err := s.readers.QueryContext(ctx, "SELECT place, control, observed, search, body FROM findings"+w.String()+" ORDER BY place LIMIT ?", append(w.args, n)...)
	if err != nil {
		return "", 0, err
	}
	defer rows.Close()
	text := words.Parse(q.Text)
	for rows.Next() {
		var r findingRow
		if err := rows.Scan(&r.place, &r.control, &r.observed, &r.search, &r.body); err != nil {
			return "", 0, err
		}
		last = r.place
		more := true
		is, err := r.is(q, text)
		if is {
			more, err = f(&r)
		}
		if err != nil || !more {
			return last, read, err
		}
		read++
	}
	return last, read, rows.Err()
}

// findingFilter selects what q does, but for its text and its subject. What is put
// after the other columns than the control keeps planners from using their indices.
func findingFilter(q finding.Query, after string) *where {
	w := &where{}
	w.add(q.Control != "", "control = ?", q.Control)
	w.add(q.Level != "", "level"+after+" = ?", string(q.Level))
	w.add(q.Severity != "", "weight >= ?", q.Severity.Weight())
	w.add(q.Status != "", "status"+after+" = ?", string(q.Status))
	w.add(q.Namespace != "", "namespace"+after+" = ?", q.Namespace)
	return w
}

// FindingCounts returns how many states there are, by status.
func (s *Store) FindingCounts(ctx context.Context) (map[finding.Status]int, error) {
	return counts[finding.Status](ctx, s, "SELECT status, count(*) FROM findings GROUP BY status")
}
