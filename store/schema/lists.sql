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
