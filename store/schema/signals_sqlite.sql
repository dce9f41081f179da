INSERT INTO incident_signals (incident, time, number, alert, body)
	SELECT id, CASE WHEN substr(at, 1, 2) IN ('19', '20', '21') THEN CAST(1000 * unixepoch(at, 'subsec') AS INTEGER) * 1000000 ELSE time END, number, alert, signal
	FROM (SELECT i.id, i.time, s.key AS number, s.value AS signal, json_extract(s.value, '$.alert') AS alert, json_extract(s.value, '$.time') AS at
		FROM incident_heads AS i, json_each(i.body, '$.signals') AS s WHERE s.type = 'object') AS known;
UPDATE incident_heads SET body = json_remove(body, '$.signals');
