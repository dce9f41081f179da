-- the signals of incidents, apart from these: an incident that grows is not written again as a whole
ALTER TABLE incidents RENAME TO incident_heads;
ALTER TABLE incident_heads ADD COLUMN apart INTEGER NOT NULL DEFAULT 0; -- 1: the body has no signals; see moveSignals
CREATE INDEX incident_heads_whole ON incident_heads (seq) WHERE apart = 0;
CREATE TABLE incident_signals (
	incident TEXT NOT NULL,                      -- id
	time     INTEGER NOT NULL,                   -- nanoseconds since 1970
	number   INTEGER NOT NULL,                   -- in the order in which they joined it
	alert    TEXT NOT NULL,                      -- id
	body     TEXT NOT NULL,
	PRIMARY KEY (incident, time, number)
);
-- A replica of the version before reads it as the table that it was, and cannot write
-- it: in PostgreSQL for what stands in place of "one".
CREATE VIEW incidents AS SELECT seq, id, time, state, paged, score, search, cluster, level, changed,
	CASE WHEN apart = 0 THEN body ELSE substr(body, 1, length(body) - 1) || ',"signals":[' ||
		coalesce((SELECT string_agg(s.body, ',' ORDER BY s.time, s.number) FROM incident_signals AS s WHERE s.incident = i.id), '') || ']}' END AS body
	FROM incident_heads AS i/* one */;
