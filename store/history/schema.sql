CREATE TABLE finding_spans (                     -- for how long each state failed
	seq      INTEGER PRIMARY KEY AUTOINCREMENT,
	place    TEXT NOT NULL,                      -- of the state, as in findings
	found    INTEGER NOT NULL,                   -- this and resolved are nanoseconds since 1970
	fresh    INTEGER NOT NULL,                   -- 1: an evaluation before that had not seen it
	resolved INTEGER NOT NULL,                   -- 0: it fails still
	became   TEXT NOT NULL,
	body     TEXT NOT NULL
);
CREATE UNIQUE INDEX finding_spans_open ON finding_spans (place) WHERE resolved = 0;
CREATE INDEX finding_spans_resolved ON finding_spans (resolved);
CREATE TABLE finding_span_subjects (
	subject TEXT NOT NULL,
	span    INTEGER NOT NULL,                    -- its seq
	PRIMARY KEY (subject, span)
) WITHOUT ROWID;
CREATE INDEX finding_span_subjects_span ON finding_span_subjects (span);
