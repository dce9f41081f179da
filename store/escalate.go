package store

import (
	"context"
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
