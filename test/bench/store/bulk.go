package main

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/kubeguardian/kubeguardian/store"
)

// bulkStep is how many alerts one statement makes.
const bulkStep = 100_000

// bulk fills an empty database by statements that make rows of their own, many
// times as fast as alerts are added. What they make are small alerts, of about
// 400 bytes, over 30 days.
func bulk(ctx context.Context, address string, n int) error {
	driver, source := "sqlite", "file:"+address+"?_pragma=synchronous(OFF)&_pragma=cache_size(-200000)&_pragma=busy_timeout(10000)"
	if store.IsPostgres(address) {
		driver, source = "pgx", address
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		return err
	}
	defer db.Close()
	const bodies = `'{"id":"' || id || '","time":"2026-01-02T03:04:05Z","rule":"' || rule || '","priority":"Warning","source":"k8s_audit","output":"' ||
		rule || ' by user-' || (n % 5000) || ' in ' || ns || '/web-' || (n % 20000) || '","output_fields":{"ka.user.name":"user-' || (n % 5000) ||
		'","ka.verb":"create","ka.useragent":"kubectl/' || n || '"},"cluster":"bench","subject":{"kind":"Pod","namespace":"' || ns || '","name":"web-' || (n % 20000) || '"}}'`
	first := time.Now().Add(-30 * 24 * time.Hour).UnixNano()
	step := 30 * 24 * time.Hour.Nanoseconds() / int64(n)
	number := func(text string) string {
		return strings.NewReplacer("FIRST", fmt.Sprint(first), "STEP", fmt.Sprint(step), "BODY", bodies).Replace(text)
	}
	for from := 0; from < n; from += bulkStep {
		to := min(from+bulkStep, n)
		made := fmt.Sprintf(`WITH RECURSIVE i (n) AS (SELECT CAST(%d AS BIGINT) UNION ALL SELECT n + 1 FROM i WHERE n < %d),
			a AS (SELECT n, 'bulk' || n AS id, 'Rule number ' || (n %% 60) AS rule, 'team-' || (n %% 50) AS ns FROM i) `, from+1, to)
		for _, query := range []string{
			"INSERT INTO alerts (seq, id, time, priority, rule, namespace, search, body) " + made +
				"SELECT n, id, FIRST + n * STEP, CASE WHEN n % 100000 = 0 THEN 0 ELSE 2 + n % 6 END, rule, ns, '', BODY FROM a",
			"INSERT INTO alert_entities (entity, happened, alert) " + made + "SELECT 1 + n % 5000, FIRST + n * STEP, n FROM a UNION ALL SELECT 5001 + (n % 20000), FIRST + n * STEP, n FROM a",
		} {
			if _, err := db.ExecContext(ctx, number(query)); err != nil {
				return fmt.Errorf("make alerts from %d: %w", from, err)
			}
		}
	}
	for _, query := range []string{
		`INSERT INTO entities (id, kind, name, last) WITH RECURSIVE i (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < 4999) SELECT 1 + n, 'user', 'user-' || n, FIRST + n * STEP FROM i`,
		`INSERT INTO entities (id, kind, name, last) WITH RECURSIVE i (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < 19999) SELECT 5001 + n, 'pod', 'team-' || (n % 50) || '/web-' || n, FIRST + n * STEP FROM i`,
		`INSERT INTO rules SELECT rule, count(*), max(time) FROM alerts GROUP BY rule`,
		`ANALYZE`,
	} {
		if store.IsPostgres(address) || query != "ANALYZE" {
			if _, err := db.ExecContext(ctx, number(query)); err != nil {
				return err
			}
		}
	}
	return nil
}
