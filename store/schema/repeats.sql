ALTER TABLE alerts ADD COLUMN grp BLOB;          -- what its repeats have in common; NULL: nothing repeats it
CREATE INDEX alerts_grp ON alerts (grp, time) WHERE grp IS NOT NULL;
CREATE TABLE repeats (                           -- alerts that another one has counted
	seq  INTEGER PRIMARY KEY,
	id   TEXT NOT NULL UNIQUE,
	time INTEGER NOT NULL
);
CREATE INDEX repeats_time ON repeats (time);
