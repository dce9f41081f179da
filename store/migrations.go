package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// migrations lead from one version of the schema to the next, the first one
// from an empty database. A released one never changes. They are in the words of
// SQLite, which the dialect of PostgreSQL knows to say in its own: INTEGER, TEXT
// and BLOB, times as nanoseconds since 1970, reserved words in quotes. Queries name
// their subqueries and use no functions that only one of the two has.
//
// The body of a record is its JSON; the columns before it are what queries
// select by, with "search" as the text that users search in; that of alerts is
// empty, see blocks.go.
var migrations = [...]string{`
CREATE TABLE alerts (
	seq       INTEGER PRIMARY KEY AUTOINCREMENT, -- grows, with gaps; never used twice
	id        TEXT NOT NULL UNIQUE,
	time      INTEGER NOT NULL,                  -- nanoseconds since 1970
	priority  INTEGER NOT NULL,
	rule      TEXT NOT NULL,
	namespace TEXT NOT NULL,
	search    TEXT NOT NULL,
	body      TEXT NOT NULL
);
CREATE INDEX alerts_time      ON alerts (time, priority);
CREATE INDEX alerts_rule      ON alerts (rule, time);
CREATE INDEX alerts_namespace ON alerts (namespace, time);

CREATE TABLE decisions (
	seq       INTEGER PRIMARY KEY AUTOINCREMENT,
	id        TEXT NOT NULL UNIQUE,
	time      INTEGER NOT NULL,
	outcome   TEXT NOT NULL,
	namespace TEXT NOT NULL,
	search    TEXT NOT NULL,
	body      TEXT NOT NULL
);
CREATE INDEX decisions_time    ON decisions (time, outcome);
CREATE INDEX decisions_outcome ON decisions (outcome, time);

CREATE TABLE findings (
	place     TEXT PRIMARY KEY,                  -- worst first, unique; see placeOf
	control   TEXT NOT NULL,
	level     TEXT NOT NULL,
	weight    INTEGER NOT NULL,                  -- of the severity
	status    TEXT NOT NULL,
	namespace TEXT NOT NULL,
	observed  INTEGER NOT NULL,
	search    TEXT NOT NULL,
	body      TEXT NOT NULL                      -- without observedAt
);
CREATE INDEX findings_status  ON findings (status, place);
CREATE INDEX findings_control ON findings (control, place);
`, `
CREATE TABLE held (                              -- what policies that do not deny would have denied
	day         INTEGER NOT NULL,                -- of UTC, since 1970
	policy      TEXT NOT NULL,
	binding     TEXT NOT NULL,
	"user"      TEXT NOT NULL,                   -- this and the next two are empty for all beyond the limit of a day
	namespace   TEXT NOT NULL,
	kind        TEXT NOT NULL,
	requests    INTEGER NOT NULL,
	enforcement TEXT NOT NULL,                   -- this and all that follows is of the last request
	last        INTEGER NOT NULL,                -- nanoseconds since 1970
	operation   TEXT NOT NULL,
	version     TEXT NOT NULL,
	name        TEXT NOT NULL,
	message     TEXT NOT NULL,
	PRIMARY KEY (day, policy, binding, "user", namespace, kind)
) WITHOUT ROWID;
CREATE TABLE held_since (time INTEGER NOT NULL);  -- seconds since 1970
INSERT INTO held_since VALUES (CAST(strftime('%s', 'now') AS INTEGER));
`, `
CREATE TABLE checkpoints (
	name TEXT PRIMARY KEY, -- of what is read
	body TEXT NOT NULL     -- how far
);
`, `
ALTER TABLE alerts ADD COLUMN grp BLOB;          -- what its repeats have in common; NULL: nothing repeats it
CREATE INDEX alerts_grp ON alerts (grp, time) WHERE grp IS NOT NULL;
CREATE TABLE repeats (                           -- alerts that another one has counted
	seq  INTEGER PRIMARY KEY,
	id   TEXT NOT NULL UNIQUE,
	time INTEGER NOT NULL
);
CREATE INDEX repeats_time ON repeats (time);
`, `
CREATE TABLE incidents (
	seq    INTEGER PRIMARY KEY AUTOINCREMENT,
	id     TEXT NOT NULL UNIQUE,
	time   INTEGER NOT NULL,                     -- of the last signal, nanoseconds since 1970
	state  TEXT NOT NULL,
	paged  INTEGER NOT NULL,
	score  INTEGER NOT NULL,
	search TEXT NOT NULL,
	body   TEXT NOT NULL
);
CREATE INDEX incidents_time  ON incidents (time, seq);
CREATE INDEX incidents_state ON incidents (state, time, seq);
`, entityTables, `
ALTER TABLE decisions ADD COLUMN dry INTEGER NOT NULL DEFAULT 0; -- 1: of a dry run, which denied nothing
UPDATE decisions SET dry = 1 WHERE body LIKE '%"dryRun":true%';
DROP INDEX decisions_time;
DROP INDEX decisions_outcome;
CREATE INDEX decisions_newest    ON decisions (time, seq, outcome, dry);
CREATE INDEX decisions_outcome   ON decisions (outcome, time, seq);
CREATE INDEX decisions_namespace ON decisions (namespace, time, seq);
DROP INDEX alerts_time;
DROP INDEX alerts_rule;
DROP INDEX alerts_namespace;
CREATE INDEX alerts_newest    ON alerts (time, seq, priority);
CREATE INDEX alerts_rule      ON alerts (rule, time, seq);
CREATE INDEX alerts_namespace ON alerts (namespace, time, seq);
CREATE INDEX alerts_priority  ON alerts (priority, time, seq);
CREATE INDEX findings_namespace ON findings (namespace, place);
CREATE TABLE rules (                             -- that have alerts
	rule   TEXT PRIMARY KEY,
	alerts INTEGER NOT NULL,
	last   INTEGER NOT NULL                      -- time of the newest
);
INSERT INTO rules SELECT rule, count(*), max(time) FROM alerts GROUP BY rule;
`, actionsTable, deliveryTables, blockTables, followColumns, notifyFromBegin}

// migrate brings a schema of a version up to date, in a transaction.
func migrate(ctx context.Context, tx *sql.Tx, version int, translate func(string) string) error {
	if version > len(migrations) {
		return fmt.Errorf("its schema has version %d and this program knows %d: run the newer version of KubeGuardian that wrote it", version, len(migrations))
	}
	for n, m := range migrations[version:] {
		if _, err := tx.ExecContext(ctx, translate(m)); err != nil {
			return fmt.Errorf("bring schema from version %d to %d: %w", version+n, version+n+1, err)
		}
	}
	return nil
}

var errForeign = errors.New("this is a database of another program: choose another one")
