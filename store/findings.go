package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/store/history"
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
	var gone []string
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
			if err := writeStates(ctx, tx, changed, gone, seen); err != nil {
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

func writeStates(ctx context.Context, tx *sql.Tx, changed map[string]state, gone []string, seen map[string]int64) error {
	for _, place := range gone {
		if _, err := tx.ExecContext(ctx, "DELETE FROM findings WHERE place = ?", place); err != nil {
			return err
		}
	}
	update, err := tx.PrepareContext(ctx, "UPDATE findings SET observed = ? WHERE place = ?")
	if err != nil {
		return err
	}
	for place, observed := range seen {
		if _, err := update.ExecContext(ctx, observed, place); err != nil {
			return err
		}
	}
	insert, err := tx.PrepareContext(ctx, `INSERT INTO findings (place, control, level, weight, status, namespace, observed, search, body)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (place) DO UPDATE SET control = excluded.control, level = excluded.level,
		weight = excluded.weight, status = excluded.status, namespace = excluded.namespace, observed = excluded.observed,
		search = excluded.search, body = excluded.body`)
	if err != nil {
		return err
	}
	for place, f := range changed {
		search := searchText(f.Message, f.Title, f.Control, f.Subject.String(), f.Subject.Container, f.Subject.Source, f.Reason, f.Fix)
		if _, err := insert.ExecContext(ctx, place, f.Control, string(f.Level), f.Severity.Weight(), string(f.Status),
			f.Subject.Namespace, f.observed, search, f.body); err != nil {
			return err
		}
	}
	return nil
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
	w := findingFilter(q)
	w.add(q.After != "", "place > ?", q.After)
	rows, err := s.readers.QueryContext(ctx, "SELECT place, observed, body FROM findings"+w.String()+
		" ORDER BY place LIMIT ?", append(w.args, n+1)...)
	if err != nil {
		return nil, "", s.explain("read findings from", err)
	}
	defer rows.Close()
	last := ""
	for rows.Next() {
		var f finding.Finding
		var place string
		if err := scanFinding(rows, &f, &place); err != nil {
			return nil, "", s.explain("read findings from", err)
		}
		if len(page) == n {
			next = last
			break
		}
		page, last = append(page, f), place
	}
	return page, next, s.explain("read findings from", rows.Err())
}

// FindingGroups returns the findings that q selects by control, worst severity
// first, then the most findings, with the first few of each. It ignores q.After
// and q.Limit: there are as many groups as controls.
func (s *Store) FindingGroups(ctx context.Context, q finding.Query) ([]finding.Group, error) {
	const few = 5
	w := findingFilter(q)
	rows, err := s.readers.QueryContext(ctx, `SELECT count, observed, body FROM (
		SELECT control, place, weight, observed, body, row_number() OVER (PARTITION BY control ORDER BY place) AS n,
			count(*) OVER (PARTITION BY control) AS count,
			max(weight) OVER (PARTITION BY control) AS worst
		FROM findings`+w.String()+`) AS numbered WHERE n <= ? ORDER BY worst DESC, count DESC, control, n`, append(w.args, few)...)
	if err != nil {
		return nil, s.explain("read findings from", err)
	}
	defer rows.Close()
	var groups []finding.Group
	for rows.Next() {
		var f finding.Finding
		var g finding.Group
		if err := scanFinding(rows, &f, &g.Count); err != nil {
			return nil, s.explain("read findings from", err)
		}
		if len(groups) == 0 || groups[len(groups)-1].Findings[0].Control != f.Control {
			groups = append(groups, g)
		}
		last := &groups[len(groups)-1]
		last.Findings = append(last.Findings, f)
	}
	return groups, s.explain("read findings from", rows.Err())
}

// scanFinding reads a row that ends with observed and body.
func scanFinding(rows *sql.Rows, f *finding.Finding, columns ...any) error {
	var observed int64
	var body string
	if err := scanBody(rows, &body, f, append(columns, &observed)...); err != nil {
		return err
	}
	if observed != math.MinInt64 {
		f.Amend(func(d *finding.Detail) { d.ObservedAt = time.Unix(0, observed).UTC() })
	}
	return nil
}

func findingFilter(q finding.Query) *where {
	w := &where{}
	w.add(q.Control != "", "control = ?", q.Control)
	w.add(q.Level != "", "level = ?", string(q.Level))
	w.add(q.Severity != "", "weight >= ?", q.Severity.Weight())
	w.add(q.Status != "", "status = ?", string(q.Status))
	w.add(q.Namespace != "", "namespace = ?", q.Namespace)
	w.text(q.Text)
	return w
}

// FindingCounts returns how many states there are, by status.
func (s *Store) FindingCounts(ctx context.Context) (map[finding.Status]int, error) {
	return counts[finding.Status](ctx, s, "SELECT status, count(*) FROM findings GROUP BY status")
}
