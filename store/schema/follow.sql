ALTER TABLE deliveries ADD COLUMN follows TEXT NOT NULL DEFAULT ''; -- key of another message to the destination
CREATE INDEX deliveries_follows ON deliveries (destination, follows) WHERE follows <> '';
ALTER TABLE announced ADD COLUMN state TEXT NOT NULL DEFAULT 'closed';
ALTER TABLE announced ADD COLUMN whole TEXT NOT NULL DEFAULT '';
UPDATE announced SET whole = incident, state = COALESCE((SELECT incidents.state FROM incidents WHERE incidents.id = announced.incident), 'closed');
CREATE INDEX announced_state ON announced (state);
CREATE INDEX announced_whole ON announced (whole);
