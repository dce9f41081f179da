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
