package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus/roster"
)

// AddReported is AddAlerts for alerts that another cluster has reported. All have
// its name.
func (s *Store) AddReported(ctx context.Context, cluster string, alerts []alert.Alert) (added []alert.Alert, err error) {
	added, _, err = s.addGrouped(ctx, alerts, sql.NullString{String: cluster, Valid: true}, func(*alert.Alert) (alert.Group, error) { return alert.Group{}, nil })
	return added, err
}

// SaveReport keeps what a cluster says of itself in place of what it said before.
func (s *Store) SaveReport(ctx context.Context, r roster.Report) error {
	body, err := json.Marshal(r.State)
	if err != nil {
		return fmt.Errorf("encode state of cluster %s: %w", r.Cluster, err)
	}
	_, err = s.exec(ctx, "INSERT INTO clusters (name, seen, body) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET seen = excluded.seen, body = excluded.body",
		r.Cluster, nanoseconds(r.At), string(body))
	return s.explain("save state of a cluster in", err)
}

// Reports returns what each cluster has said of itself last, by name.
func (s *Store) Reports(ctx context.Context) (reports []roster.Report, err error) {
	rows, err := s.readers.QueryContext(ctx, "SELECT name, seen, body FROM clusters ORDER BY name")
	if err != nil {
		return nil, s.explain("read states of clusters from", err)
	}
	defer rows.Close()
	for rows.Next() {
		var r roster.Report
		var at int64
		var body string
		if err := scanBody(rows, &body, &r.State, &r.Cluster, &at); err != nil {
			return nil, s.explain("read states of clusters from", err)
		}
		r.At = time.Unix(0, at).UTC()
		reports = append(reports, r)
	}
	return reports, s.explain("read states of clusters from", rows.Err())
}

// of selects the alerts of one cluster, without an index: planners may choose one
// that is in no useful order.
func (w *where) of(cluster, own string) {
	if cluster != "" && cluster == own {
		w.add(true, "cluster IS NULL")
		return
	}
	w.add(cluster != "", "coalesce(cluster, '') = ?", cluster)
}
