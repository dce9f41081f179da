package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/kubeguardian/kubeguardian/incident"
)

// moveBatch is how many incidents are moved at once, which bounds how long others wait.
const moveBatch = 50

// moveSignals puts the signals of incidents that a version before has stored into
// their table, in steps: when it is cut off the next one goes on.
func (s *Store) moveSignals(ctx context.Context) error {
	for {
		var more bool
		err := s.readers.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM incident_heads WHERE apart = 0)").Scan(&more)
		if err == nil && !more {
			return nil
		}
		if err == nil {
			err = s.write(ctx, func(tx *sql.Tx) error { return moveSome(s.newBatch(ctx, tx)) })
		}
		if err != nil {
			return s.explain("move the alerts of incidents in", err)
		}
	}
}

func moveSome(b *batch) error {
	var list []*incident.Incident
	var heads [][]any
	err := b.each("SELECT id, body FROM incident_heads WHERE apart = 0 ORDER BY seq LIMIT ?", []any{moveBatch}, func(rows *sql.Rows) error {
		var id, body string
		i := &incident.Incident{}
		err := rows.Scan(&id, &body)
		if err == nil {
			err = decode(body, i)
		}
		if err == nil {
			body, err = headOf(i)
		}
		if err != nil {
			return fmt.Errorf("read incident %s: %w", id, err)
		}
		list, heads = append(list, i), append(heads, []any{id, body})
		return nil
	})
	if err != nil {
		return err
	}
	if err := saveSignals(b, list); err != nil {
		return err
	}
	return b.insert(`WITH moved (id, body) AS (VALUES %s) UPDATE incident_heads SET apart = 1,
		body = (SELECT moved.body FROM moved WHERE moved.id = incident_heads.id) WHERE id IN (SELECT id FROM moved)`, heads, nil)
}

// headOf returns what the table of incidents has of one: all but its signals.
func headOf(i *incident.Incident) (string, error) {
	body, err := json.Marshal(struct {
		*incident.Incident
		Signals *struct{} `json:"signals,omitempty"`
	}{Incident: i})
	if err != nil {
		return "", fmt.Errorf("encode incident %s: %w", i.ID, err)
	}
	return string(body), nil
}

// saveSignals writes the signals of incidents that the store does not have.
func saveSignals(b *batch, list []*incident.Incident) error {
	there, err := areThere(b, list)
	if err != nil {
		return err
	}
	var replaced []any
	var signals [][]any
	for _, i := range list {
		joined, before := i.Unsaved()
		if !there[i.ID] {
			joined, before = i.Signals, 0
		}
		if before == 0 {
			replaced = append(replaced, i.ID)
		}
		for n, s := range joined {
			body, err := json.Marshal(&s)
			if err != nil {
				return fmt.Errorf("encode alert %s in incident %s: %w", s.Alert, i.ID, err)
			}
			signals = append(signals, []any{i.ID, nanoseconds(s.Time), before + n, s.Alert, string(body)})
		}
	}
	if err := b.eachOf("DELETE FROM incident_signals WHERE incident IN (%s)", "?", replaced, nil, func(*sql.Rows) error { return nil }); err != nil {
		return err
	}
	return b.insert("INSERT INTO incident_signals (incident, time, number, alert, body) VALUES %s", signals, nil)
}

// areThere returns which of incidents are in the store: what was may have been
// removed since, as it was old.
func areThere(b *batch, list []*incident.Incident) (map[string]bool, error) {
	ids, there := make([]any, len(list)), map[string]bool{}
	for n, i := range list {
		ids[n] = i.ID
	}
	err := b.eachOf("SELECT id FROM incident_heads WHERE id IN (%s)", "?", ids, nil, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		there[id] = true
		return err
	})
	return there, err
}
