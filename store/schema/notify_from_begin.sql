-- of a new database all alerts are told of, also those that came before the notifier looked for the first time
INSERT INTO checkpoints (name, body) SELECT 'notify', '0'
	WHERE NOT EXISTS (SELECT 1 FROM alerts) AND NOT EXISTS (SELECT 1 FROM checkpoints WHERE name = 'notify');
