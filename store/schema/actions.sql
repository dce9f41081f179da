CREATE TABLE actions (                           -- what people did; rows are added, and never change
	seq      INTEGER PRIMARY KEY,                -- 1, 2, 3 …
	id       TEXT NOT NULL UNIQUE,               -- of the write; not part of the chain
	time     INTEGER NOT NULL,                   -- nanoseconds since 1970
	who      TEXT NOT NULL,
	source   TEXT NOT NULL,
	action   TEXT NOT NULL,
	object   TEXT NOT NULL,
	change   TEXT NOT NULL,
	result   TEXT NOT NULL,
	previous TEXT NOT NULL,
	hash     TEXT NOT NULL
);
