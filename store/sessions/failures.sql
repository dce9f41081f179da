CREATE TABLE login_failures (                    -- of networks, within a window
	network TEXT PRIMARY KEY,                    -- an IPv4 address or 64 bits of an IPv6 one
	count   INTEGER NOT NULL,
	until   INTEGER NOT NULL                     -- when the window ends; nanoseconds since 1970
);
CREATE INDEX login_failures_until ON login_failures (until);
