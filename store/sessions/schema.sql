CREATE TABLE sessions (                          -- of browsers
	id       TEXT PRIMARY KEY,                   -- follows from the cookie, and not the other way round
	began    INTEGER NOT NULL,                   -- nanoseconds since 1970, and so are the others
	used     INTEGER NOT NULL,                   -- about
	renewing INTEGER NOT NULL,                   -- until when somebody renews the credential; 0: nobody
	body     BLOB NOT NULL                       -- the credential, by a key that follows from the cookie
);
CREATE INDEX sessions_used ON sessions (used);
