package store

import (
	"context"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/incident"
)

// Escalated returns incidents that were told of, the last time before some time,
// that have come further since and are not closed, in the order they began in,
// after a place in it, and the place to go on at.
func (s *Store) Escalated(ctx context.Context, before time.Time, after int64, n int) (list []*incident.Incident, last int64, err error) {
	rows, err := s.readers.QueryContext(ctx, `SELECT incidents.seq, incidents.body FROM incidents JOIN
		(SELECT whole, max(time) AS told, max(level) AS level FROM announced GROUP BY whole) AS told ON told.whole = incidents.id
		WHERE incidents.level > told.level AND told.told < ? AND incidents.state <> ? AND incidents.seq > ? ORDER BY incidents.seq LIMIT ?`,
		nanoseconds(before), string(incident.Closed), after, n)
	if err != nil {
		return nil, after, s.explain("read incidents from", err)
	}
	list, last, err = scanIncidents(rows, after)
	return list, last, s.explain("read incidents from", err)
}

// LastTold returns when one of these was told of the last time, and how far the
// one had come that had come furthest; zero if none was. The id of an incident is
// that of its first alert, and outlives it when it becomes a part of another one.
func (s *Store) LastTold(ctx context.Context, ids []string) (at time.Time, level int, err error) {
	if len(ids) == 0 {
		return at, 0, nil
	}
	args := make([]any, 0, 2*len(ids))
	for range 2 {
		for _, id := range ids {
			args = append(args, id)
		}
	}
	list := "(?" + strings.Repeat(", ?", len(ids)-1) + ")"
	var last int64
	err = s.readers.QueryRowContext(ctx, "SELECT COALESCE(max(time), 0), COALESCE(max(level), 0) FROM announced WHERE incident IN "+list+" OR whole IN "+list, args...).Scan(&last, &level)
	if last != 0 {
		at = time.Unix(0, last).UTC()
	}
	return at, level, s.explain("read incidents from", err)
}
