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
