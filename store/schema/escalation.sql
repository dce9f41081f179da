ALTER TABLE incidents ADD COLUMN level INTEGER NOT NULL DEFAULT 0;     -- how far it has come
ALTER TABLE announced ADD COLUMN level INTEGER NOT NULL DEFAULT 10000; -- how far it had come when it was told of; what was told of before this was there does not escalate
ALTER TABLE deliveries ADD COLUMN incident TEXT NOT NULL DEFAULT '';   -- what it was announced as, if it is about an incident
CREATE INDEX deliveries_incident ON deliveries (incident) WHERE incident <> '';
