package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/store/words"
)

// correlated is the name of the checkpoint of what has been joined.
const correlated = "incidents"

// A Joined says what the incidents in the store come from.
type Joined struct {
	Alert   int64 // the seq up to which alerts were joined
	Changes int64 // how often people have changed an incident
}

// ErrChanged says that incidents are no longer what somebody knows them to be.
var ErrChanged = errors.New("another replica or a person has changed incidents meanwhile")

// A Merge says that an incident is part of another one.
type Merge struct{ Part, Whole string } // by id

// save forgets the part, and lets what was told of it follow the whole.
func (m Merge) save(ctx context.Context, tx *sql.Tx) error {
	for _, query := range []string{
		"DELETE FROM incident_words WHERE rowid IN (SELECT seq FROM incidents WHERE id = ?)",
		"DELETE FROM incident_signals WHERE incident = ?", "DELETE FROM incident_heads WHERE id = ?",
	} {
		if _, err := tx.ExecContext(ctx, query, m.Part); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, "UPDATE announced SET whole = ? WHERE whole = ?", m.Whole, m.Part)
	return err
}

// SaveIncidents keeps incidents as they are now, and says so to them, forgets those that are part of
// others, and remembers up to which alert all were joined: all of it, or nothing.
// Where they come from was what it says, else the error is [ErrChanged]: of two
// that join the same alerts, one does.
func (s *Store) SaveIncidents(ctx context.Context, changed []*incident.Incident, merged []Merge, was Joined, alertSeq int64) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		if now, err := joined(tx.QueryRowContext(ctx, readCheckpoint, correlated)); err != nil || now != was {
			return cmp.Or(err, ErrChanged)
		}
		for _, m := range merged {
			if err := m.save(ctx, tx); err != nil {
				return err
			}
		}
		if err := saveIncidents(s.newBatch(ctx, tx), changed...); err != nil {
			return err
		}
		return Joined{alertSeq, was.Changes}.save(ctx, tx)
	})
	if err != nil {
		return s.explain("save incidents in", err)
	}
	for _, i := range changed {
		i.Saved()
	}
	return nil
}

func joined(row *sql.Row) (j Joined, err error) {
	var body string
	if err := row.Scan(&body); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			err = nil
		}
		return j, err
	}
	if n, err := fmt.Sscan(body, &j.Alert, &j.Changes); n == 0 { // versions before wrote one number
		return j, fmt.Errorf("read up to where alerts were joined: %q: %w", body, err)
	}
	return j, nil
}

func (j Joined) save(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, saveCheckpoint, correlated, fmt.Sprint(j.Alert, j.Changes))
	return err
}

// saveIncidents writes incidents, each of which is there once: of their signals those
// that the store does not have.
func saveIncidents(b *batch, list ...*incident.Incident) error {
	var last int64
	if _, err := b.row("SELECT coalesce(max(changed), 0) FROM incidents", nil, []any{&last}); err != nil {
		return err
	}
	rows := make([][]any, len(list))
	for n, i := range list {
		var err error
		if rows[n], err = incidentRow(i, last+1+int64(n)); err != nil {
			return err
		}
	}
	if err := saveSignals(b, list); err != nil {
		return err
	}
	return b.insert(`INSERT INTO incident_heads (id, time, state, paged, score, search, body, cluster, level, changed, apart) VALUES %s
		ON CONFLICT (id) DO UPDATE SET time = excluded.time, state = excluded.state, paged = excluded.paged,
		score = excluded.score, search = excluded.search, body = excluded.body, cluster = excluded.cluster, level = excluded.level,
		changed = CASE WHEN excluded.search = incident_heads.search THEN incident_heads.changed ELSE excluded.changed END`, rows, nil)
}

func incidentRow(i *incident.Incident, change int64) ([]any, error) {
	body, err := headOf(i)
	if err != nil {
		return nil, err
	}
	search := strings.Join(incidentTexts(i), "\n")
	return []any{i.ID, nanoseconds(i.Last), string(i.State), !i.Paged.IsZero(), i.Score, search, body, i.Cluster, i.Level(), change, 1}, nil
}

// incidentTexts returns what incidents are searched by.
func incidentTexts(i *incident.Incident) []string {
	texts := append([]string{i.Story}, i.Owners...)
	for _, e := range i.Entities {
		texts = append(texts, e.Name)
	}
	for n := range i.Signals {
		if rule := i.Signals[n].Rule; !slices.Contains(texts, rule) {
			texts = append(texts, rule)
		}
	}
	return texts
}

// ChangeIncident applies what a person does to an incident, to those that it takes
// in and to what is split from it. The error is the one of the change, or of the
// store; found is false when there is no such incident.
func (s *Store) ChangeIncident(ctx context.Context, id string, c incident.Change) (i *incident.Incident, found bool, err error) {
	err = s.write(ctx, func(tx *sql.Tx) (err error) {
		if i, err = incidentIn(ctx, tx, id); err != nil {
			return err
		}
		found = true
		if err := i.Apply(c); err != nil {
			return err
		}
		if err := arrange(ctx, tx, i, c); err != nil {
			return err
		}
		now, err := joined(tx.QueryRowContext(ctx, readCheckpoint, correlated))
		if err != nil {
			return err
		}
		now.Changes++
		if err := now.save(ctx, tx); err != nil {
			return err
		}
		return saveIncidents(newBatch(ctx, tx), i)
	})
	if wrong := (*incident.ChangeError)(nil); errors.As(err, &wrong) {
		return nil, found, wrong
	}
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	if err != nil {
		return nil, found, s.explain("change incident in", err)
	}
	return i, found, nil
}

func incidentIn(ctx context.Context, tx *sql.Tx, id string) (*incident.Incident, error) {
	var body string
	if err := tx.QueryRowContext(ctx, "SELECT body FROM incidents WHERE id = ?", id).Scan(&body); err != nil {
		return nil, err
	}
	i := &incident.Incident{}
	err := decode(body, i)
	i.Saved()
	return i, err
}

// arrange merges other incidents into one, and splits alerts from it.
func arrange(ctx context.Context, tx *sql.Tx, i *incident.Incident, c incident.Change) error {
	for _, id := range c.Merge {
		other, err := incidentIn(ctx, tx, id)
		if errors.Is(err, sql.ErrNoRows) {
			return incident.Missing(id)
		}
		if err != nil {
			return err
		}
		if err := i.Merge(other); err != nil {
			return err
		}
		if err := (Merge{id, i.ID}).save(ctx, tx); err != nil {
			return err
		}
	}
	if len(c.Split) == 0 {
		return nil
	}
	part, err := i.Split(c.Split)
	if err != nil {
		return err
	}
	for _, s := range part.Signals { // what was told of one that began with it is told of the part
		if _, err := tx.ExecContext(ctx, "UPDATE announced SET whole = ? WHERE incident = ?", part.ID, s.Alert); err != nil {
			return err
		}
	}
	return saveIncidents(newBatch(ctx, tx), part)
}

// Correlated returns the incidents in which something happened since a time,
// and what they come from.
func (s *Store) Correlated(ctx context.Context, since time.Time) (incidents []*incident.Incident, was Joined, err error) {
	// First: what changes meanwhile is noticed when it is saved.
	if was, err = joined(s.readers.QueryRowContext(ctx, readCheckpoint, correlated)); err != nil {
		return nil, was, s.explain("read incidents from", err)
	}
	rows, err := s.readers.QueryContext(ctx, "SELECT seq, body FROM incidents WHERE time >= ? ORDER BY time, seq", nanoseconds(since))
	if err != nil {
		return nil, was, s.explain("read incidents from", err)
	}
	incidents, _, err = scanIncidents(rows, 0)
	return incidents, was, s.explain("read incidents from", err)
}

// Incidents returns a page of the incidents that q selects, the one in which
// something happened last first, and the cursor of the next page, which is zero
// after the last.
func (s *Store) Incidents(ctx context.Context, q incident.Query) (page []incident.Incident, next finding.Cursor, err error) {
	n, text := limit(q.Limit), words.Parse(q.Text)
	record := func(_ int64, body string) (i incident.Incident, selected bool, err error) {
		if err = decode(body, &i); err != nil {
			return i, false, err
		}
		wanted := q.Entity == alert.Entity{} || slices.Contains(i.Entities, q.Entity)
		return i, wanted && (q.Text == "" || text.In(incidentTexts(&i)...)), nil
	}
	if q.Text == "" && q.Entity == (alert.Entity{}) {
		page, next, err = s.newestIncidents(ctx, q, n, record)
	} else {
		page, next, err = s.searchIncidents(ctx, q, n, record)
	}
	return page, next, s.explain("read incidents from", err)
}

// incidentsFor returns the table that has what a query asks for: without the signals
// of incidents, which are most of them, or the view with these.
func incidentsFor(q incident.Query) string {
	if q.Brief && q.Text == "" {
		return "incident_heads"
	}
	return "incidents"
}

// statesOf returns the states that a query selects.
func statesOf(q incident.Query) []incident.State {
	switch q.State {
	case "":
		return incident.States()
	case incident.Open:
		return slices.DeleteFunc(incident.States(), func(s incident.State) bool { return s == incident.Closed })
	}
	return []incident.State{q.State}
}

// newestIncidents merges the newest ones of each state, and of the server's own
// cluster also those that do not name it: each part is in the order of an index.
func (s *Store) newestIncidents(ctx context.Context, q incident.Query, n int, record func(int64, string) (incident.Incident, bool, error)) ([]incident.Incident, finding.Cursor, error) {
	var parts []string
	var args []any
	for _, state := range statesOf(q) {
		for _, cluster := range s.clusterTerms(q) {
			w := &where{}
			w.add(true, "state = ?", string(state))
			w.add(q.Paged, "paged = 1")
			w = w.and(cluster)
			w.before(q.Before)
			parts = append(parts, "SELECT * FROM (SELECT seq, time FROM incidents"+w.String()+" ORDER BY time DESC, seq DESC LIMIT ?) AS part")
			args = append(append(args, w.args...), n+1)
		}
	}
	rows, err := s.readers.QueryContext(ctx, "SELECT seq, time, body FROM "+incidentsFor(q)+" WHERE seq IN (SELECT seq FROM (SELECT seq FROM ("+
		strings.Join(parts, " UNION ALL ")+") AS parts ORDER BY time DESC, seq DESC LIMIT ?) AS newest) ORDER BY +time DESC, +seq DESC", append(args, n+1)...)
	if err != nil {
		return nil, finding.Cursor{}, err
	}
	return scanPage(rows, n, record)
}

// clusterTerms returns what selects the incidents of a cluster, in parts. Few page,
// so that those have an index without it.
func (s *Store) clusterTerms(q incident.Query) []*where {
	all, unnamed, one := &where{}, &where{}, &where{}
	unnamed.add(true, "cluster IS NULL")
	one.add(true, "cluster = ?", q.Cluster)
	switch {
	case q.Cluster == "":
		return []*where{all}
	case q.Paged:
		all.add(q.Cluster == s.Own, "coalesce(cluster, ?) = ?", s.Own, s.Own)
		all.add(q.Cluster != s.Own, "coalesce(cluster, '') = ?", q.Cluster)
		return []*where{all}
	case q.Cluster == s.Own:
		return []*where{unnamed, one}
	}
	return []*where{one}
}

// searchIncidents looks for a text or an entity: at those that the index of words
// has when these are few, else at all, for as long as a search may take.
func (s *Store) searchIncidents(ctx context.Context, q incident.Query, n int, record func(int64, string) (incident.Incident, bool, error)) ([]incident.Incident, finding.Cursor, error) {
	l := listing{from: incidentsFor(q), time: "time", seq: "seq", index: &where{}, rest: &where{}, picks: true}
	states := statesOf(q)
	args := make([]any, len(states))
	for i, state := range states {
		args[i] = string(state)
	}
	l.rest.add(q.State != "", "state || '' IN (?"+strings.Repeat(", ?", len(states)-1)+")", args...)
	l.rest.add(q.Paged, "+paged = 1")
	l.rest.add(q.Cluster != "" && q.Cluster != s.Own, "coalesce(cluster, '') = ?", q.Cluster)
	l.rest.add(q.Cluster != "" && q.Cluster == s.Own, "coalesce(cluster, ?) = ?", q.Cluster, q.Cluster)
	l.rest.text(q.Text)
	l.rest.text(q.Entity.Name)
	terms := words.Parse(q.Text).Terms()
	if q.Entity != (alert.Entity{}) {
		terms = append(terms, entityTerm(q.Entity))
	}
	seqs, few, err := s.few(ctx, incidentLexicon(), terms)
	if err != nil {
		return nil, finding.Cursor{}, err
	}
	if few {
		return pageOfFew(ctx, s.readers, l, seqs, q.Before, n, record)
	}
	return pageOf(ctx, s.readers, l, q.Before, n, record)
}

// Incident returns one incident, and whether there is one.
func (s *Store) Incident(ctx context.Context, id string) (i incident.Incident, found bool, err error) {
	var body string
	err = s.readers.QueryRowContext(ctx, "SELECT body FROM incidents WHERE id = ?", id).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return i, false, nil
	}
	if err == nil {
		err = decode(body, &i)
	}
	return i, err == nil, s.explain("read incident from", err)
}
