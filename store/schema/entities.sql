-- each entity once, and which alerts and decisions involve it
CREATE TABLE entities (
	id   INTEGER PRIMARY KEY AUTOINCREMENT,
	kind TEXT NOT NULL,
	name TEXT NOT NULL,
	last INTEGER NOT NULL,                       -- time of the latest record that involves it
	UNIQUE (kind, name)
);
CREATE INDEX entities_last ON entities (last);
CREATE TABLE alert_entities (
	entity   INTEGER NOT NULL,
	happened INTEGER NOT NULL,                   -- time of the alert
	alert    INTEGER NOT NULL,                   -- its seq
	PRIMARY KEY (entity, happened, alert)
) WITHOUT ROWID;
CREATE INDEX alert_entities_happened ON alert_entities (happened);
CREATE TABLE decision_entities (
	entity   INTEGER NOT NULL,
	happened INTEGER NOT NULL,
	decision INTEGER NOT NULL,
	PRIMARY KEY (entity, happened, decision)
) WITHOUT ROWID;
CREATE INDEX decision_entities_happened ON decision_entities (happened);
