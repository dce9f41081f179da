package store

import (
	"context"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
)

const ruleCounts = "SELECT rule, count(*), max(time) FROM alerts GROUP BY rule"

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
