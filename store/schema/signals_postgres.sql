UPDATE incident_heads SET body = regexp_replace(body, '(?<!\\)((\\\\)*)\\u0000', '\1\\ufffd', 'g') WHERE position('\u0000' IN body) > 0;
INSERT INTO incident_signals (incident, time, number, alert, body)
	SELECT id, CASE WHEN signal->>'time' ~ '^(19|20|21)' THEN CAST(1000000000 * extract(epoch FROM CAST(signal->>'time' AS timestamptz)) AS BIGINT) ELSE time END, number - 1, signal->>'alert', CAST(signal AS TEXT)
	FROM incident_heads, jsonb_array_elements(CASE jsonb_typeof(CAST(body AS jsonb)->'signals') WHEN 'array' THEN CAST(body AS jsonb)->'signals' ELSE '[]' END)
		WITH ORDINALITY AS known (signal, number);
UPDATE incident_heads SET body = CAST(CAST(body AS jsonb) - 'signals' AS TEXT);
