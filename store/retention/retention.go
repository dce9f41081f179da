// Package retention removes the oldest records of a database: those that are too
// old, too many, or more than the database may take. It never removes an alert that
// somebody has still to be told of.
//
// The age of an alert counts from when it came, by which the alerts are in order,
// and not from what it says of itself: a source that was away for long may send
// what is older than all that is kept. The age of another record counts from its
// time, which is the server's own.
package retention

import (
	"cmp"
	"context"
	"database/sql"
	"math"
	"time"
)

// Tables are those that retention needs besides the records: when alerts came. Of
// alerts of a version before, their blocks know.
const Tables = `
CREATE TABLE arrivals (                          -- all alerts up to a number had come by a time
	seq  INTEGER PRIMARY KEY,
	time INTEGER NOT NULL
);
CREATE INDEX arrivals_time ON arrivals (time, seq);
INSERT INTO arrivals (seq, time) SELECT high, CASE WHEN latest < present THEN latest ELSE present END FROM
	(SELECT high, max(last) OVER (ORDER BY high) AS latest, CAST(strftime('%s', 'now') AS INTEGER) * 1000000000 AS present FROM blocks) AS seen;
`

// A Database is where the records are. Queries may have the dialect of SQLite.
type Database struct {
	Read *sql.DB
	// Write runs a function in a transaction of those that write records, and
	// WriteWords in one of those that write the index of words. They may run it
	// again after a failure that passes.
	Write, WriteWords func(context.Context, func(*sql.Tx) error) error
	Postgres          bool
}

// Limits say how much is kept.
type Limits struct {
	Alerts    time.Duration // since they came; also of incidents and messages
	Decisions time.Duration
	Records   int   // alerts, and decisions, at most
	Bytes     int64 // of the database at most; 0: no limit
	// Told are the positions up to which readers of alerts have come, by what
	// they do. What one of them has not read stays.
	Told map[string]int64
}

// The kinds of records that are removed.
const (
	Alerts    = "alerts"
	Decisions = "decisions"
	Incidents = "incidents"
	Messages  = "messages"
)

// The limits that records are removed for.
const (
	Age    = "age"
	Number = "number"
	Size   = "size"
)

// A Cause is a kind of records and why some of it were removed.
type Cause struct{ Kind, Limit string }

// Causes lists all of them.
func Causes() (all []Cause) {
	for _, kind := range []string{Alerts, Decisions, Incidents, Messages} {
		for _, limit := range []string{Age, Number, Size} {
			if limit != Number || kind == Alerts || kind == Decisions {
				all = append(all, Cause{kind, limit})
			}
		}
	}
	return all
}

// A Report says what was done.
type Report struct {
	Removed map[Cause]int
	Bytes   int64     // that the database takes now, without what later records use again
	Oldest  time.Time // when the oldest alert came that is not kept for an incident, about; zero: there is none
	Held    int       // alerts that are over a limit, and stay because somebody has still to be told
	For     string    // who, if some are held
	Over    bool      // the database is larger than it may be, and nothing more may go
}

// Sum returns how many records were removed.
func (r *Report) Sum() (n int) {
	for _, one := range r.Removed {
		n += one
	}
	return n
}

const (
	batch = 2000 // records of one transaction, which bounds how long others wait
	// newest is how many alerts stay whatever the size: a limit that is less than
	// what else there is must not remove each alert as it comes.
	newest = 1000
)

// Run removes what is over the limits, the oldest first, in small transactions
// between which others write. Its report is of what was removed also when it fails
// half-way.
func Run(ctx context.Context, db Database, l Limits, now time.Time) (Report, error) {
	r := &run{Database: db, limits: l, now: now, report: Report{Removed: map[Cause]int{}}}
	for _, step := range []func(context.Context) error{r.begin, r.byAge, r.byNumber, r.bySize, r.end} {
		if err := step(ctx); err != nil {
			return r.report, err
		}
	}
	return r.report, nil
}

// A run removes records once.
type run struct {
	Database
	limits Limits
	now    time.Time
	report Report

	told   int64 // the last alert that all have been told of
	behind string
	after  int64 // up to where all alerts are gone, but for those that are kept
	kept   *kept // nil: not read yet
	kinds  []kind
}

// A kind is one kind of records.
type kind struct {
	name   string
	before time.Time // what is older is too old
	// oldest returns when the oldest record came that may go; zero if there is none.
	oldest func(context.Context) (time.Time, error)
	// remove removes the oldest n records at most of those before a time, and
	// returns how many.
	remove func(ctx context.Context, before time.Time, n int) (int, error)
}

// begin notes when alerts came, and finds out which may go.
func (r *run) begin(ctx context.Context) error {
	r.told = math.MaxInt64
	for name, seq := range r.limits.Told {
		if seq < r.told || seq == r.told && name < r.behind {
			r.told, r.behind = seq, name
		}
	}
	old := r.now.Add(-r.limits.Alerts)
	r.kinds = []kind{
		{Alerts, old, r.oldestAlert, r.removeAlerts},
		{Decisions, r.now.Add(-r.limits.Decisions), r.oldestOf("decisions", "time", ""), r.removeDecisions},
		{Incidents, old, r.oldestIncident, r.removeIncidents},
		{Messages, old, r.oldestOf("deliveries", "done", " WHERE done > 0"), r.removeMessages},
	}
	return r.mark(ctx)
}

// mark notes that all alerts had come by now. A clock that was ahead is put right.
func (r *run) mark(ctx context.Context) error {
	return r.Write(ctx, func(tx *sql.Tx) error {
		at := r.now.UnixNano()
		if _, err := tx.ExecContext(ctx, "UPDATE arrivals SET time = ? WHERE time > ?", at, at); err != nil {
			return err
		}
		var last, marked int64
		err := tx.QueryRowContext(ctx, "SELECT (SELECT coalesce(max(seq), 0) FROM alerts), (SELECT coalesce(max(seq), 0) FROM arrivals)").Scan(&last, &marked)
		if err != nil || last <= marked {
			return err
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO arrivals (seq, time) VALUES (?, ?)", last, at)
		return err
	})
}

func (r *run) byAge(ctx context.Context) error {
	for _, k := range r.kinds {
		if _, err := r.removeOf(ctx, k, Age, k.before, math.MaxInt); err != nil {
			return err
		}
	}
	old, err := r.cameBefore(ctx, r.now.Add(-r.limits.Alerts))
	if err != nil || old <= r.told {
		return err
	}
	return r.Read.QueryRowContext(ctx, "SELECT count(*) FROM alerts WHERE seq > ? AND seq <= ?", r.told, old).Scan(&r.report.Held)
}

// removeOf removes the oldest n records of a kind that are before a time.
func (r *run) removeOf(ctx context.Context, k kind, limit string, before time.Time, n int) (removed int, err error) {
	for removed < n {
		some, err := k.remove(ctx, before, min(batch, n-removed))
		if some > 0 {
			r.report.Removed[Cause{k.name, limit}] += some
			removed += some
		}
		if err != nil || some == 0 {
			return removed, err
		}
	}
	return removed, nil
}

func (r *run) byNumber(ctx context.Context) error {
	alerts, err := r.alerts(ctx)
	if err != nil {
		return err
	}
	decisions, err := r.decisions(ctx)
	if err != nil {
		return err
	}
	for i, over := range []int{alerts - r.limits.Records, decisions - r.limits.Records} {
		removed, err := r.removeOf(ctx, r.kinds[i], Number, r.anyTime(), max(over, 0))
		if err != nil {
			return err
		}
		if r.kinds[i].name == Alerts {
			if err := r.hold(ctx, over-removed); err != nil {
				return err
			}
		}
	}
	return nil
}

// anyTime is after all records.
func (r *run) anyTime() time.Time { return time.Unix(0, math.MaxInt64) }

// hold notes how many alerts are over a limit that have not been told of.
func (r *run) hold(ctx context.Context, over int) error {
	if over <= r.report.Held {
		return nil
	}
	var untold int
	err := r.Read.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT 1 FROM alerts WHERE seq > ? LIMIT ?) AS few", r.told, over).Scan(&untold)
	r.report.Held = max(r.report.Held, untold)
	return err
}

// alerts returns how many alerts there are.
func (r *run) alerts(ctx context.Context) (n int, err error) {
	err = r.Read.QueryRowContext(ctx, "SELECT CAST(coalesce(sum(alerts), 0) AS INTEGER) FROM rules").Scan(&n)
	return n, err
}

// decisions returns how many decisions there are, or less when these are not more
// than may be: their numbers are cheap to compare and have gaps.
func (r *run) decisions(ctx context.Context) (n int, err error) {
	err = r.Read.QueryRowContext(ctx, "SELECT coalesce((SELECT max(seq) FROM decisions) - (SELECT min(seq) FROM decisions) + 1, 0)").Scan(&n)
	if err != nil || n <= r.limits.Records {
		return 0, err
	}
	err = r.Read.QueryRowContext(ctx, "SELECT count(*) FROM decisions").Scan(&n)
	return n, err
}

// bySize removes the records that came first, of whatever kind, until the rest is
// not larger than it may be.
func (r *run) bySize(ctx context.Context) (err error) {
	for {
		if err := r.sweep(ctx); err != nil {
			return err
		}
		if r.report.Bytes, err = Bytes(ctx, r.Read, r.Postgres); err != nil {
			return err
		}
		over := r.report.Bytes - r.limits.Bytes
		if r.limits.Bytes == 0 || over <= 0 {
			return nil
		}
		alerts, err := r.alerts(ctx)
		if err != nil {
			return err
		}
		removed, err := r.removeOldest(ctx, max(batch, int(float64(alerts)*float64(over)/float64(r.report.Bytes))))
		if err != nil {
			return err
		}
		if removed == 0 {
			r.report.Over = true
			return r.hold(ctx, max(0, alerts-newest))
		}
	}
}

// removeOldest removes about n records, each time some of the kind that has the
// oldest one.
func (r *run) removeOldest(ctx context.Context, n int) (removed int, err error) {
	for removed < n {
		from, spare, err := r.oldest(ctx)
		if err != nil || spare == 0 {
			return removed, err
		}
		some, err := r.removeOf(ctx, from, Size, r.anyTime(), min(spare, n-removed))
		if removed += some; err != nil || some == 0 {
			return removed, err
		}
	}
	return removed, nil
}

// oldest returns the kind that has the oldest record which may go, and how many of
// it may go at once; 0 when there are none.
func (r *run) oldest(ctx context.Context) (from kind, spare int, err error) {
	var first time.Time
	for _, k := range r.kinds {
		n := batch
		if k.name == Alerts {
			if n, err = r.alerts(ctx); err != nil {
				return from, 0, err
			}
			n = min(batch, n-newest)
		}
		at, err := k.oldest(ctx)
		if err != nil {
			return from, 0, err
		}
		if n > 0 && !at.IsZero() && (spare == 0 || at.Before(first)) {
			from, spare, first = k, n, at
		}
	}
	return from, spare, nil
}

// end forgets what no record needs any more, and says what is left.
func (r *run) end(ctx context.Context) (err error) {
	if r.report.Held > 0 {
		r.report.For = r.behind
	}
	r.report.Oldest, err = r.oldestAlert(ctx)
	return err
}

// oldestOf returns what finds the oldest record of a table by a column, which has
// an index.
func (r *run) oldestOf(table, column, where string) func(context.Context) (time.Time, error) {
	return func(ctx context.Context) (time.Time, error) {
		return r.timeOf(ctx, "SELECT "+column+" FROM "+table+where+" ORDER BY "+column+" LIMIT 1")
	}
}

func (r *run) timeOf(ctx context.Context, query string, args ...any) (at time.Time, err error) {
	rows, err := r.Read.QueryContext(ctx, query, args...)
	if err != nil {
		return at, err
	}
	defer rows.Close()
	for rows.Next() {
		var nanoseconds int64
		if err := rows.Scan(&nanoseconds); err != nil {
			return at, err
		}
		at = time.Unix(0, nanoseconds).UTC()
	}
	return at, cmp.Or(rows.Err(), rows.Close())
}
