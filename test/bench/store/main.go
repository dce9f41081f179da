// Program store fills a database with alerts and measures what pages and writers
// wait for:
//
//	go run ./test/bench/store -alerts 10000000 -dir /var/tmp
//	go run ./test/bench/store -alerts 1000000 -postgres
//
// It makes the database below -dir, in a file or in a PostgreSQL of its own, and
// removes it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/store"
	"github.com/kubeguardian/kubeguardian/store/postgrestest"
	"github.com/kubeguardian/kubeguardian/store/retention"
)

func main() {
	alerts := flag.Int("alerts", 100_000, "`number` of alerts")
	postgres := flag.Bool("postgres", false, "PostgreSQL in place of SQLite")
	dir := flag.String("dir", os.TempDir(), "`folder` for the database")
	batch := flag.Int("batch", 500, "`number` of alerts that are added at once")
	fast := flag.Bool("bulk", false, "make small alerts by statements of the database")
	existing := flag.String("existing", "", "`address` of a database that was filled so, to measure alone")
	flag.Parse()
	err := errors.New("-existing and -postgres do not go together")
	switch {
	case *existing == "":
		err = run(context.Background(), *dir, *alerts, *batch, *postgres, *fast)
	case !*postgres:
		err = look(context.Background(), *existing)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "store:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, parent string, alerts, batch int, postgres, fast bool) error {
	dir, err := os.MkdirTemp(parent, "store-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	address := filepath.Join(dir, "kubeguardian.db")
	if postgres {
		server, err := postgrestest.Start(ctx, dir, "shared_buffers=256MB", "max_wal_size=1GB")
		if err != nil {
			return err
		}
		defer server.Stop()
		if address, err = server.Create(ctx, "kubeguardian"); err != nil {
			return err
		}
	}
	db, err := store.Open(ctx, address)
	if err != nil {
		return err
	}
	defer db.Close()
	began := time.Now()
	if fast {
		err = bulk(ctx, address, alerts)
	} else {
		err = fill(ctx, db, alerts, batch)
	}
	if err != nil {
		return err
	}
	took := time.Since(began)
	if err := index(ctx, db); err != nil {
		return err
	}
	size, err := sizeOf(dir)
	fmt.Printf("%d alerts in %s, %.0f/s, %d MB\n", alerts, took.Round(time.Second), float64(alerts)/took.Seconds(), size>>20)
	if err != nil {
		return err
	}
	return measure(ctx, db, alerts)
}

// index makes the words known to searches, which the server does meanwhile.
func index(ctx context.Context, db *store.Store) error {
	began := time.Now()
	for more := true; more; {
		var err error
		if more, err = db.Index(ctx); err != nil {
			return err
		}
	}
	fmt.Printf("words indexed in %s\n", time.Since(began).Round(time.Millisecond))
	return nil
}

// look measures a database that is there.
func look(ctx context.Context, address string) error {
	db, err := store.Open(ctx, address)
	if err != nil {
		return err
	}
	defer db.Close()
	n, err := db.LastAlert(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%d alerts\n", n)
	return measure(ctx, db, int(n))
}

func sizeOf(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}

// fill adds alerts of about 1 kB, the newest of now, a third of which repeat
// others.
func fill(ctx context.Context, db *store.Store, n, batch int) error {
	first, last := time.Now().Add(-30*24*time.Hour), time.Now()
	step := last.Sub(first) / time.Duration(n)
	for from := 0; from < n; from += batch {
		alerts := make([]alert.Alert, 0, batch)
		for i := from; i < min(from+batch, n); i++ {
			alerts = append(alerts, made(i, first.Add(time.Duration(i)*step)))
		}
		_, _, err := db.AddGrouped(ctx, alerts, func(a *alert.Alert) (alert.Group, error) {
			return alert.Group{Key: []byte(a.ID), Within: 10 * time.Minute}, nil
		})
		if err != nil {
			return err
		}
		if from/1_000_000 != (from+batch)/1_000_000 {
			fmt.Printf("%d\n", from+batch)
		}
	}
	return nil
}

func made(i int, at time.Time) alert.Alert {
	pod, user := fmt.Sprintf("team-%d/web-%d", i%50, i%2000), fmt.Sprintf("user-%d", i%5000)
	rules := []string{"Exec into pod", "Secrets listed", "Anonymous request", "Terminal shell in container", "Cluster role made"}
	a := alert.Alert{
		ID: alert.NewID("bench", fmt.Sprint(i), "rule"), Time: at.UTC(), Rule: fmt.Sprintf("%s %d", rules[i%5], i%60), Priority: alert.Priority(2 + i%6),
		Source: "k8s_audit", Cluster: "bench", Tags: []string{"k8s", "mitre_execution", "T1609"}, Tactics: []string{"execution"},
		Subject: finding.Subject{Kind: "Pod", Namespace: fmt.Sprintf("team-%d", i%50), Name: fmt.Sprintf("web-%d", i%2000)},
		OutputFields: map[string]any{"ka.user.name": user, "ka.verb": "create", "ka.target.name": pod, "ka.response.code": 201,
			"ka.useragent": "kubectl/v1.37.1 (linux/amd64) kubernetes/" + fmt.Sprint(i), "ka.uri": "/api/v1/namespaces/" + strings.Replace(pod, "/", "/pods/", 1) + "/exec?command=sh&stdin=true"},
		Entities: []alert.Entity{{Kind: alert.User, Name: user}, {Kind: alert.Pod, Name: pod}},
	}
	if i%100_000 == 0 {
		a.Priority = alert.Emergency
	}
	a.Output = fmt.Sprintf("%s by %s in %s, with a sentence that says what it means and what to look at first", a.Rule, user, pod)
	return a
}

// measure prints how long each query of the pages takes.
func measure(ctx context.Context, db *store.Store, n int) error {
	urgent, day := alert.Emergency, time.Now().Add(-24*time.Hour)
	deep := time.Now().Add(-15 * 24 * time.Hour)
	page := func(q func() alert.Query) func() error {
		return func() error { _, _, err := db.Alerts(ctx, q()); return err }
	}
	random := func(n int) int { return rand.IntN(n) }
	for _, m := range []struct {
		name string
		call func() error
	}{
		{"newest alerts", page(func() alert.Query { return alert.Query{} })},
		{"a page in the middle", page(func() alert.Query { return alert.Query{Before: finding.Cursor{Time: deep, Seq: 1}} })},
		{"of a rule", page(func() alert.Query { return alert.Query{Rule: made(random(n), deep).Rule} })},
		{"of a namespace", page(func() alert.Query { return alert.Query{Namespace: fmt.Sprintf("team-%d", random(50))} })},
		{"of a priority that is rare", page(func() alert.Query { return alert.Query{Priority: &urgent} })},
		{"of a pod", page(func() alert.Query {
			return alert.Query{Entity: alert.Entity{Kind: alert.Pod, Name: made(random(n), deep).Entities[1].Name}}
		})},
		{"of a pod that there is not", page(func() alert.Query { return alert.Query{Entity: alert.Entity{Kind: alert.Pod, Name: "none"}} })},
		{"with a text that is common", page(func() alert.Query { return alert.Query{Text: "user-1"} })},
		{"with a text that is rare", page(func() alert.Query { return alert.Query{Text: fmt.Sprintf("kubernetes/%d", random(n))} })},
		{"with a text that there is not", page(func() alert.Query { return alert.Query{Text: "nowhere to be found"} })},
		{"with words that are common", page(func() alert.Query { return alert.Query{Text: "by user-1 in team-2/web-3"} })},
		{"with a part of a word", page(func() alert.Query { return alert.Query{Text: "owhere"} })},
		{"with two letters", page(func() alert.Query { return alert.Query{Text: "zz"} })},
		{"what is new", func() error { _, _, err := db.AlertsAfter(ctx, int64(n-20), alert.Query{}); return err }},
		{"last number", func() error { _, err := db.LastAlert(ctx); return err }},
		{"one alert", func() error { _, _, err := db.Alert(ctx, made(random(n), deep).ID); return err }},
		{"counts of a day", func() error { _, err := db.AlertCounts(ctx, day); return err }},
		{"counts of decisions", func() error { _, err := db.DecisionCounts(ctx, day); return err }},
		{"counts by rule", func() error { _, err := db.RuleCounts(ctx); return err }},
		{"search of entities", func() error { _, err := db.Entities(ctx, "web-19", 20); return err }},
		{"open incidents", func() error {
			_, _, err := db.Incidents(ctx, incident.Query{State: incident.Open})
			return err
		}},
		{"size", func() error { _, err := db.Size(ctx); return err }},
		{"nothing to remove", func() error {
			_, err := db.Retain(ctx, retention.Limits{Alerts: 1e5 * time.Hour, Decisions: 1e5 * time.Hour, Records: 1e9}, time.Now())
			return err
		}},
	} {
		if err := times(m.name, m.call); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

// times calls a query many times, or for some seconds, and prints quantiles.
func times(name string, call func() error) error {
	var took []time.Duration
	for began := time.Now(); len(took) < 100 && (len(took) < 3 || time.Since(began) < 5*time.Second); {
		start := time.Now()
		if err := call(); err != nil {
			return err
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	fmt.Printf("%-32s p50 %10s   p95 %10s   of %d\n", name, took[len(took)/2].Round(time.Microsecond), took[len(took)*95/100].Round(time.Microsecond), len(took))
	return nil
}
