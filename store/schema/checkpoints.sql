CREATE TABLE checkpoints (
	name TEXT PRIMARY KEY, -- of what is read
	body TEXT NOT NULL     -- how far
);
