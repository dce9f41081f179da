-- messages to destinations, of all states, and the incidents that are messages already
CREATE TABLE deliveries (
	seq         INTEGER PRIMARY KEY AUTOINCREMENT,
	destination TEXT NOT NULL,
	key         TEXT NOT NULL,
	grp         TEXT NOT NULL,
	state       TEXT NOT NULL,
	title       TEXT NOT NULL,
	created     INTEGER NOT NULL,                -- this and all times are nanoseconds since 1970
	due         INTEGER NOT NULL,
	until       INTEGER NOT NULL,
	next        INTEGER NOT NULL,
	done        INTEGER NOT NULL,                -- 0: it waits
	attempts    INTEGER NOT NULL,
	count       INTEGER NOT NULL,
	first       INTEGER NOT NULL,
	last        INTEGER NOT NULL,
	reason      TEXT NOT NULL,
	body        TEXT NOT NULL,
	UNIQUE (destination, key)
);
CREATE INDEX deliveries_queue ON deliveries (destination, state, due, seq);
CREATE INDEX deliveries_group ON deliveries (destination, grp, seq);
CREATE INDEX deliveries_list  ON deliveries (destination, state, seq);
CREATE INDEX deliveries_state ON deliveries (state, seq);
CREATE INDEX deliveries_done  ON deliveries (done);
CREATE TABLE announced (                         -- incidents that were made into messages
	incident TEXT PRIMARY KEY,
	time     INTEGER NOT NULL
);
CREATE INDEX announced_time ON announced (time);
