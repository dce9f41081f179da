package store

import (
	"context"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/store/dialect"
)

const ruleCounts = "SELECT rule, alerts, last FROM rules WHERE alerts > 0"

// RuleCounts returns how many alerts there are of each rule that has some.
func (s *Store) RuleCounts(ctx context.Context) (map[string]alert.Matches, error) {
	rows, err := s.readers.QueryContext(ctx, ruleCounts)
	if err != nil {
		return nil, s.explain("count alerts in", err)
	}
	defer rows.Close()
	out := map[string]alert.Matches{}
	for rows.Next() {
		var rule string
		var m alert.Matches
		var last int64
		if err := rows.Scan(&rule, &m.Count, &last); err != nil {
			return nil, s.explain("count alerts in", err)
		}
		m.Last = time.Unix(0, last).UTC()
		out[rule] = m
	}
	return out, s.explain("count alerts in", rows.Err())
}

// counted adds alerts to the counts of their rules.
func (g *grouping) counted(alerts []*place) error {
	type count struct{ n, last int64 }
	rules := map[string]count{}
	for _, p := range alerts {
		c := rules[dialect.Storable(p.Rule)]
		rules[dialect.Storable(p.Rule)] = count{c.n + 1, max(c.last, p.at)}
	}
	var rows [][]any
	for rule, c := range rules {
		rows = append(rows, []any{rule, c.n, c.last})
	}
	return g.insert(`INSERT INTO rules (rule, alerts, last) VALUES %s ON CONFLICT (rule) DO UPDATE SET alerts = rules.alerts + excluded.alerts,
		last = CASE WHEN excluded.last > rules.last THEN excluded.last ELSE rules.last END`, rows, nil)
}
