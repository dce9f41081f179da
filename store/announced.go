package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/store/outbox"
)

// Notified returns the seq of the last alert that was made into messages, and of
// the last that was joined into incidents. In the database of a version that did
// not notify found is false.
func (s *Store) Notified(ctx context.Context) (notified, joined int64, found bool, err error) {
	body, found, err := s.Checkpoint(ctx, outbox.Progress)
	if err == nil && found {
		_, err = fmt.Sscan(string(body), &notified)
	}
	if err != nil {
		return 0, 0, false, fmt.Errorf("read up to where there are messages: %w", err)
	}
	body, some, err := s.Checkpoint(ctx, correlated)
	if err == nil && some {
		_, err = fmt.Sscan(string(body), &joined)
	}
	if err != nil {
		return 0, 0, false, fmt.Errorf("read up to where alerts were joined: %w", err)
	}
	return notified, joined, found, nil
}

// Unannounced returns paged incidents that nobody looks at and that are no
// messages yet, by the order in which they began, after a place in it, and the
// place to go on at.
func (s *Store) Unannounced(ctx context.Context, after int64, n int) (list []*incident.Incident, last int64, err error) {
	rows, err := s.readers.QueryContext(ctx, `SELECT seq, body FROM incidents WHERE state = ? AND paged = 1 AND seq > ?
		AND NOT EXISTS (SELECT 1 FROM announced WHERE announced.incident = incidents.id) ORDER BY seq LIMIT ?`, string(incident.New), after, n)
	if err != nil {
		return nil, after, s.explain("read incidents from", err)
	}
	list, last, err = scanIncidents(rows, after)
	return list, last, s.explain("read incidents from", err)
}

// scanIncidents reads rows of seq and body, and the last seq.
func scanIncidents(rows *sql.Rows, after int64) (list []*incident.Incident, last int64, err error) {
	defer rows.Close()
	for last = after; rows.Next(); {
		var body string
		i := &incident.Incident{}
		if err := scanBody(rows, &body, i, &last); err != nil {
			return nil, after, err
		}
		i.Saved()
		list = append(list, i)
	}
	return list, last, rows.Err()
}

// PagedAlerts returns which alerts, of a time or later, are signals of incidents that
// paged.
func (s *Store) PagedAlerts(ctx context.Context, since time.Time) (paged map[string]bool, err error) {
	rows, err := s.readers.QueryContext(ctx, `SELECT alert FROM incidents JOIN incident_signals AS signals ON incident = id AND signals.time >= ?
		WHERE paged = 1 AND incidents.time >= ?`, nanoseconds(since), nanoseconds(since))
	if err != nil {
		return nil, s.explain("read incidents from", err)
	}
	defer rows.Close()
	paged = map[string]bool{}
	for rows.Next() {
		var alert string
		if err := rows.Scan(&alert); err != nil {
			return nil, s.explain("read incidents from", err)
		}
		paged[alert] = true
	}
	return paged, s.explain("read incidents from", rows.Err())
}

// Changed returns incidents that were made into messages and are in another state
// by now than the one that was told of, by the ids that they were told of by:
// several may be one by now. Nothing follows what was told to be closed.
func (s *Store) Changed(ctx context.Context, n int) (map[string]*incident.Incident, error) {
	rows, err := s.readers.QueryContext(ctx, `SELECT announced.incident, incidents.body FROM announced JOIN incidents ON incidents.id = announced.whole
		WHERE announced.state IN (?, ?, ?) AND incidents.state <> announced.state LIMIT ?`,
		string(incident.New), string(incident.Acknowledged), string(incident.Contained), n)
	if err != nil {
		return nil, s.explain("read incidents from", err)
	}
	defer rows.Close()
	out := map[string]*incident.Incident{}
	for rows.Next() {
		var told, body string
		i := &incident.Incident{}
		err := rows.Scan(&told, &body)
		if err == nil {
			err = decode(body, i)
		}
		if err != nil {
			return nil, s.explain("read incidents from", err)
		}
		out[told] = i
	}
	return out, s.explain("read incidents from", rows.Err())
}
