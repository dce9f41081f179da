CREATE TABLE held (                              -- what policies that do not deny would have denied
	day         INTEGER NOT NULL,                -- of UTC, since 1970
	policy      TEXT NOT NULL,
	binding     TEXT NOT NULL,
	"user"      TEXT NOT NULL,                   -- this and the next two are empty for all beyond the limit of a day
	namespace   TEXT NOT NULL,
	kind        TEXT NOT NULL,
	requests    INTEGER NOT NULL,
	enforcement TEXT NOT NULL,                   -- this and all that follows is of the last request
	last        INTEGER NOT NULL,                -- nanoseconds since 1970
	operation   TEXT NOT NULL,
	version     TEXT NOT NULL,
	name        TEXT NOT NULL,
	message     TEXT NOT NULL,
	PRIMARY KEY (day, policy, binding, "user", namespace, kind)
) WITHOUT ROWID;
CREATE TABLE held_since (time INTEGER NOT NULL);  -- seconds since 1970
INSERT INTO held_since VALUES (CAST(strftime('%s', 'now') AS INTEGER));
