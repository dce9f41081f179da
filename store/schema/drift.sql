ALTER TABLE alerts ADD COLUMN drift INTEGER NOT NULL DEFAULT 0; -- 1: it has the tag drift
UPDATE alerts SET drift = 1 WHERE body LIKE '%"drift"%'; -- or says the word elsewhere
CREATE INDEX alerts_drift ON alerts (time, seq) WHERE drift = 1;
