-- the words of incidents, entities and findings, by which these are found
ALTER TABLE incidents ADD COLUMN changed INTEGER NOT NULL DEFAULT 0; -- number of the last change of its words: of all of them, the later the higher
UPDATE incidents SET changed = seq;
CREATE INDEX incidents_changed ON incidents (changed);
CREATE INDEX incidents_cluster ON incidents (cluster, state, time, seq);
CREATE INDEX incidents_paged   ON incidents (state, time, seq) WHERE paged = 1;
DROP INDEX entities_last;
CREATE INDEX entities_newest   ON entities (last, id);
CREATE TABLE states (                            -- findings, each with a number: one that changes gets a new one
	seq       INTEGER PRIMARY KEY AUTOINCREMENT,
	place     TEXT NOT NULL UNIQUE,              -- worst first; see placeOf
	control   TEXT NOT NULL,
	level     TEXT NOT NULL,
	weight    INTEGER NOT NULL,                  -- of the severity
	status    TEXT NOT NULL,
	namespace TEXT NOT NULL,
	observed  INTEGER NOT NULL,
	search    TEXT NOT NULL,
	body      TEXT NOT NULL                      -- without observedAt
);
INSERT INTO states (place, control, level, weight, status, namespace, observed, search, body)
	SELECT place, control, level, weight, status, namespace, observed, search, body FROM findings ORDER BY place;
DROP TABLE findings;
ALTER TABLE states RENAME TO findings;
CREATE INDEX findings_status    ON findings (status, place);
CREATE INDEX findings_namespace ON findings (namespace, place);
CREATE INDEX findings_control   ON findings (control, place);
CREATE INDEX findings_groups    ON findings (control, status, place, level, weight, namespace);
