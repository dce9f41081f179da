ALTER TABLE alerts ADD COLUMN cluster TEXT;      -- that has reported it; NULL: the server's own
CREATE INDEX alerts_cluster ON alerts (cluster, time, seq) WHERE cluster IS NOT NULL;
ALTER TABLE incidents ADD COLUMN cluster TEXT;   -- that it is in; NULL: written before, by a server that had one
CREATE TABLE clusters (                          -- that report
	name TEXT PRIMARY KEY,
	seen INTEGER NOT NULL,                       -- when it said last how it is, nanoseconds since 1970
	body TEXT NOT NULL
);
