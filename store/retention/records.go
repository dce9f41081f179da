package retention

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
)

// cameBefore returns the number of the last alert that is known to have come
// before a time.
func (r *run) cameBefore(ctx context.Context, at time.Time) (seq int64, err error) {
	err = r.Read.QueryRowContext(ctx, "SELECT coalesce((SELECT seq FROM arrivals WHERE time < ? ORDER BY time DESC, seq DESC LIMIT 1), 0)", at.UnixNano()).Scan(&seq)
	return seq, err
}

// An old record is one that may be removed.
type old struct {
	seq int64
	id  string
}

// oldAlerts returns alerts that may go, the first n of those after a number and up
// to one, and up to where they are all. Between them may be some that are kept.
func (r *run) oldAlerts(ctx context.Context, upTo int64, n int) (list []old, last int64, err error) {
	kept, err := r.keeps(ctx)
	if err != nil {
		return nil, r.after, err
	}
	rows, err := r.Read.QueryContext(ctx, "SELECT seq, id FROM alerts WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?", r.after, upTo, n)
	if err != nil {
		return nil, r.after, err
	}
	defer rows.Close()
	for last = r.after; rows.Next(); {
		var one old
		if err := rows.Scan(&one.seq, &one.id); err != nil {
			return nil, r.after, err
		}
		if last = one.seq; !kept.alerts[one.id] {
			list = append(list, one)
		}
	}
	return list, last, rows.Err()
}

// oldestAlert returns when the oldest alert came, by the first time by which it is
// known to have come.
func (r *run) oldestAlert(ctx context.Context) (at time.Time, err error) {
	for {
		list, last, err := r.oldAlerts(ctx, r.told, 1)
		if err != nil || last == r.after {
			return at, err
		}
		if len(list) > 0 {
			return r.timeOf(ctx, "SELECT time FROM arrivals WHERE seq >= ? ORDER BY seq LIMIT 1", list[0].seq)
		}
		r.after = last
	}
}

func (r *run) removeAlerts(ctx context.Context, before time.Time, n int) (removed int, err error) {
	upTo, err := r.cameBefore(ctx, before)
	if err != nil {
		return 0, err
	}
	for removed == 0 {
		list, last, err := r.oldAlerts(ctx, min(upTo, r.told), n)
		if err != nil || last == r.after {
			return 0, err
		}
		if len(list) > 0 {
			err = r.Write(ctx, func(tx *sql.Tx) (err error) {
				removed, err = deleteAlerts(ctx, tx, list)
				return err
			})
		}
		if err != nil {
			return 0, err
		}
		r.after = last
	}
	return removed, nil
}

// deleteAlerts deletes alerts with what they involve, and takes them from the
// counts of their rules.
func deleteAlerts(ctx context.Context, tx *sql.Tx, list []old) (deleted int, err error) {
	rules := map[string]int{}
	for from := 0; from < len(list); from += someOf {
		part := list[from:min(from+someOf, len(list))]
		in, args := numbers(part)
		if err := uninvolve(ctx, tx, "alert", in, args); err != nil {
			return 0, err
		}
		if err := deletedRules(ctx, tx, rules, in, args); err != nil {
			return 0, err
		}
	}
	for rule, n := range rules {
		if _, err := tx.ExecContext(ctx, "UPDATE rules SET alerts = alerts - ? WHERE rule = ?", n, rule); err != nil {
			return 0, err
		}
		deleted += n
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM rules WHERE alerts <= 0")
	return deleted, err
}

// deletedRules deletes alerts and counts them by rule.
func deletedRules(ctx context.Context, tx *sql.Tx, rules map[string]int, in string, args []any) error {
	rows, err := tx.QueryContext(ctx, "DELETE FROM alerts WHERE seq IN "+in+" RETURNING rule", args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var rule string
		if err := rows.Scan(&rule); err != nil {
			return err
		}
		rules[rule]++
	}
	return rows.Err()
}

// uninvolve forgets what records of a table involve.
func uninvolve(ctx context.Context, tx *sql.Tx, record, in string, args []any) error {
	_, err := tx.ExecContext(ctx, fmt.Sprintf(`DELETE FROM %[1]s_entities WHERE (entity, happened, %[1]s) IN (SELECT e.entity, e.happened, e.%[1]s
		FROM %[1]ss AS gone JOIN %[1]s_entities AS e ON e.happened = gone.time AND e.%[1]s = gone.seq WHERE gone.seq IN %[2]s)`, record, in), args...)
	return err
}

// someOf is how many records one statement has.
const someOf = 250

// someList is the list of them.
var someList = "(?" + strings.Repeat(", ?", someOf-1) + ")"

// numbers returns the list of the numbers of records, and what stands in it. All
// lists are as long, so that there is one statement of each kind.
func numbers(part []old) (in string, args []any) {
	args = make([]any, someOf)
	for i := range args {
		args[i] = part[min(i, len(part)-1)].seq
	}
	return someList, args
}

func (r *run) removeDecisions(ctx context.Context, before time.Time, n int) (removed int, err error) {
	list, err := r.oldIn(ctx, "SELECT seq, '' FROM decisions WHERE time < ? ORDER BY time, seq LIMIT ?", before.UnixNano(), n)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return r.removeIn(ctx, "decisions", list, func(tx *sql.Tx, in string, args []any) error {
		return uninvolve(ctx, tx, "decision", in, args)
	})
}

func (r *run) oldIn(ctx context.Context, query string, args ...any) (list []old, err error) {
	rows, err := r.Read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var one old
		if err := rows.Scan(&one.seq, &one.id); err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	return list, rows.Err()
}

// removeIn deletes records of a table, each some after a function that may be nil.
func (r *run) removeIn(ctx context.Context, table string, list []old, first func(tx *sql.Tx, in string, args []any) error) (removed int, err error) {
	err = r.Write(ctx, func(tx *sql.Tx) error {
		removed = 0
		for from := 0; from < len(list); from += someOf {
			in, args := numbers(list[from:min(from+someOf, len(list))])
			if first != nil {
				if err := first(tx, in, args); err != nil {
					return err
				}
			}
			result, err := tx.ExecContext(ctx, "DELETE FROM "+table+" WHERE seq IN "+in, args...)
			if err != nil {
				return err
			}
			n, err := result.RowsAffected()
			if err != nil {
				return err
			}
			removed += int(n)
		}
		return nil
	})
	return removed, err
}

// removeMessages removes messages that were done with. Those that wait stay.
func (r *run) removeMessages(ctx context.Context, before time.Time, n int) (removed int, err error) {
	list, err := r.oldIn(ctx, "SELECT seq, '' FROM deliveries WHERE done > 0 AND done < ? ORDER BY done LIMIT ?", before.UnixNano(), n)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return r.removeIn(ctx, "deliveries", list, nil)
}

// oldestIncident returns when something happened last in the oldest incident that
// may go.
func (r *run) oldestIncident(ctx context.Context) (time.Time, error) {
	list, err := r.oldIncidents(ctx, r.anyTime(), 1)
	if err != nil || len(list) == 0 {
		return time.Time{}, err
	}
	return r.timeOf(ctx, "SELECT time FROM incidents WHERE seq = ?", list[0].seq)
}

func (r *run) removeIncidents(ctx context.Context, before time.Time, n int) (removed int, err error) {
	list, err := r.oldIncidents(ctx, before, n)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return r.removeIn(ctx, "incident_heads", list, func(tx *sql.Tx, in string, args []any) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM incident_words WHERE rowid IN "+in, args...); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM incident_signals WHERE incident IN (SELECT id FROM incident_heads WHERE seq IN "+in+")", args...)
		return err
	})
}

// oldIncidents returns incidents in which nothing happened since a time, and that
// nobody closed since then, the oldest n at most: none that is kept or has an alert,
// and none whose end has still to be told.
func (r *run) oldIncidents(ctx context.Context, before time.Time, n int) (list []old, err error) {
	kept, err := r.keeps(ctx)
	if err != nil {
		return nil, err
	}
	for page, last := someOf, (place{math.MinInt64, 0}); page == someOf && len(list) < n; {
		page = 0
		err := r.someIncidents(ctx, before, last, func(one old, at place, since time.Time) {
			if page, last = page+1, at; len(list) < n && !kept.incidents[one.id] && since.Before(before) {
				list = append(list, one)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// A place is one in the order of time.
type place struct{ time, seq int64 }

// someIncidents calls f with the first someOf incidents after a place of which nothing
// is left to be told or looked at, and with when each came into its state. It reads few
// at once: PostgreSQL would begin with all alerts if it were to find all.
func (r *run) someIncidents(ctx context.Context, before time.Time, after place, f func(one old, at place, since time.Time)) error {
	rows, err := r.Read.QueryContext(ctx, `SELECT seq, id, time, body FROM incident_heads AS i WHERE time < ? AND (time, seq) > (?, ?) AND NOT EXISTS (SELECT 1 FROM announced
		WHERE announced.whole = i.id AND announced.state <> i.state AND announced.state <> 'closed')
		AND NOT EXISTS (SELECT 1 FROM incident_signals JOIN alerts ON alerts.id = alert WHERE incident = i.id) ORDER BY time, seq LIMIT ?`,
		before.UnixNano(), after.time, after.seq, someOf)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var one old
		var at place
		var body string
		if err := rows.Scan(&one.seq, &one.id, &at.time, &body); err != nil {
			return err
		}
		var i struct{ Since time.Time }
		if err := json.Unmarshal([]byte(body), &i); err != nil {
			return fmt.Errorf("read incident %s: %w", one.id, err)
		}
		at.seq = one.seq
		f(one, at, i.Since)
	}
	return rows.Err()
}

// What is kept, whatever the limits, are incidents that somebody has to look at or
// looks at, with their alerts.
type kept struct{ incidents, alerts map[string]bool }

// maxKept bounds the incidents that are kept: the newest ones are.
const maxKept = 1000

// keeps returns what is kept, as it was when it was asked for the first time.
func (r *run) keeps(ctx context.Context) (*kept, error) {
	if r.kept != nil {
		return r.kept, nil
	}
	k := &kept{map[string]bool{}, map[string]bool{}}
	for _, which := range []string{"state = 'new' AND paged = 1", "state = 'acknowledged'", "state = 'contained'"} {
		if err := r.keep(ctx, k, which); err != nil {
			return nil, err
		}
	}
	r.kept = k
	return k, nil
}

// keep adds the newest of some incidents.
func (r *run) keep(ctx context.Context, k *kept, which string) error {
	rows, err := r.Read.QueryContext(ctx, `SELECT id, coalesce(alert, '') FROM (SELECT id FROM incident_heads WHERE `+which+`
		ORDER BY time DESC, seq DESC LIMIT ?) AS newest LEFT JOIN incident_signals ON incident = id`, maxKept)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id, alert string
		if err := rows.Scan(&id, &alert); err != nil {
			return err
		}
		k.incidents[id], k.alerts[alert] = true, true
	}
	return rows.Err()
}
