-- the signals of incidents, apart from these: an incident that grows is not written again as a whole
ALTER TABLE incidents RENAME TO incident_heads;  -- whose body has no signals
CREATE TABLE incident_signals (
	incident TEXT NOT NULL,                      -- id
	time     INTEGER NOT NULL,                   -- nanoseconds since 1970
	number   INTEGER NOT NULL,                   -- in the order in which they joined it
	alert    TEXT NOT NULL,                      -- id
	body     TEXT NOT NULL,
	PRIMARY KEY (incident, time, number)
);
-- A replica of the version before reads it as the table that it was, and cannot write it.
CREATE VIEW incidents AS SELECT seq, id, time, state, paged, score, search, cluster, level, changed,
	substr(body, 1, length(body) - 1) || ',"signals":[' || coalesce((SELECT string_agg(s.body, ',' ORDER BY s.time, s.number)
		FROM incident_signals AS s WHERE s.incident = i.id), '') || ']}' AS body
	FROM incident_heads AS i;
