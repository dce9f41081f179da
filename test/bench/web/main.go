// Command web measures how long the server takes for each page and each list of
// the API, with many alerts, incidents, decisions and findings in the store: it
// prints the 95th percentile of each, the slowest first, and the processor time of a
// request, which other work on the machine changes less.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"syscall"
	"time"

	"github.com/kubeguardian/kubeguardian/access"
	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/audit"
	"github.com/kubeguardian/kubeguardian/bus/fleet"
	"github.com/kubeguardian/kubeguardian/bus/roster"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/health"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
	"github.com/kubeguardian/kubeguardian/playground"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/store"
	"github.com/kubeguardian/kubeguardian/store/postgrestest"
	"github.com/kubeguardian/kubeguardian/web"
)

const token = "load-token-0123456789"

func main() {
	var n size
	flag.IntVar(&n.alerts, "alerts", 100_000, "alerts in the store")
	flag.IntVar(&n.incidents, "incidents", 100_000, "closed incidents, besides those of the alerts")
	flag.IntVar(&n.decisions, "decisions", 100_000, "decisions in the store")
	flag.IntVar(&n.findings, "findings", 100_000, "findings in the store")
	var o options
	flag.IntVar(&o.rounds, "rounds", 20, "requests for each address")
	flag.StringVar(&o.database, "database", "", "`file` or URL of a database that is filled if it has no alerts, and stays; default: a file for this run")
	flag.BoolVar(&o.postgres, "postgres", false, "a PostgreSQL of this run in place of SQLite")
	flag.StringVar(&o.profile, "profile", "", "`file` for a profile of the CPU while pages are asked for")
	flag.Parse()
	if err := run(context.Background(), n, o); err != nil {
		fmt.Fprintln(os.Stderr, "web: error:", err)
		os.Exit(1)
	}
}

// A size is how many records of each kind there are.
type size struct{ alerts, incidents, decisions, findings int }

type options struct {
	rounds            int
	database, profile string
	postgres          bool
}

func run(ctx context.Context, n size, o options) error {
	dir, err := os.MkdirTemp("", "kubeguardian-web-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	switch {
	case o.postgres:
		server, err := postgrestest.Start(ctx, dir, "shared_buffers=256MB", "max_wal_size=1GB")
		if err != nil {
			return err
		}
		defer server.Stop()
		if o.database, err = server.Create(ctx, "kubeguardian"); err != nil {
			return err
		}
	case o.database == "":
		o.database = filepath.Join(dir, "kubeguardian.db")
	}
	db, err := store.Open(ctx, o.database)
	if err != nil {
		return err
	}
	defer db.Close()
	largest, err := prepare(ctx, db, n)
	if err != nil {
		return err
	}
	site, err := newSite(db)
	if err != nil {
		return err
	}
	defer site.Close()
	server := httptest.NewServer(site)
	defer server.Close()
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	return measure(server.URL, largest, o.rounds)
}

// prepare fills a database, unless it has been filled, and returns the id of the
// incident with the most alerts.
func prepare(ctx context.Context, db *store.Store, n size) (largest string, err error) {
	start := time.Now()
	counts, err := db.Counts(ctx)
	if err != nil {
		return "", err
	}
	if counts.Alerts == 0 {
		if err := fill(ctx, db, n); err != nil {
			return "", err
		}
		took, err := used()
		if err != nil {
			return "", fmt.Errorf("read processor time: %w", err)
		}
		fmt.Printf("%d alerts, %d closed incidents, %d decisions and %d findings stored in %s, of the processor %s\n", n.alerts, n.incidents, n.decisions, n.findings, time.Since(start).Round(time.Second), took.Round(time.Second))
	}
	began, err := used()
	if err != nil {
		return "", fmt.Errorf("read processor time: %w", err)
	}
	for more := true; more; { // what the server does meanwhile
		if more, err = db.Index(ctx); err != nil {
			return "", err
		}
	}
	ended, err := used()
	if err != nil {
		return "", fmt.Errorf("read processor time: %w", err)
	}
	fmt.Printf("indexed, which took %s of the processor\n", (ended - began).Round(time.Second/10))
	open, most := 0, 0
	for q := (incident.Query{State: incident.Open, Limit: 1000}); ; {
		page, next, err := db.Incidents(ctx, q)
		if err != nil {
			return "", err
		}
		for _, i := range page {
			if open++; len(i.Signals) > most {
				most, largest = len(i.Signals), i.ID
			}
		}
		if q.Before = next; next == (finding.Cursor{}) {
			fmt.Printf("%d open incidents, the largest with %d alerts\n", open, most)
			return largest, nil
		}
	}
}

// deliveries are those of a notifier on a store, as the server has them.
type deliveries struct {
	*notify.Notifier
	store *store.Store
}

// Deliveries returns a page of messages.
func (d deliveries) Deliveries(ctx context.Context, q delivery.Query) ([]delivery.Message, int64, error) {
	return d.store.Deliveries(ctx, q)
}

func newSite(db *store.Store) (*web.Server, error) {
	gate, err := access.New(access.Options{Tokens: []access.Token{{User: "load", Role: access.Admin, Value: token}}})
	if err != nil {
		return nil, err
	}
	notifier, err := notify.New(notify.Setup{Config: &config.Notify{}, Cluster: "load", Store: db, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	rules, err := listRules()
	if err != nil {
		return nil, err
	}
	return web.New(web.Options{
		Cluster: "load", Version: "load", Access: gate, Sessions: db.Sessions(), Actions: db, Alerts: db, Incidents: db, Decisions: db, Findings: db, Entities: db,
		Posture: func() (control.Score, []control.Fix, time.Time) {
			var s control.Score
			for _, l := range finding.Levels() {
				s.Levels = append(s.Levels, control.LevelScore{Level: l})
			}
			return s, nil, time.Now()
		},
		Audit: func() (audit.Result, time.Time) { return audit.Result{}, time.Now() },
		Readiness: func(ctx context.Context, days int) ([]finding.Readiness, time.Time, error) {
			held, err := db.Readiness(ctx, days, time.Now())
			return finding.InForce(held, nil), time.Now(), err
		},
		Policies: func() web.Policies { return web.Policies{} }, Rules: func() []web.Rule { return rules },
		Checks: func() []health.Check { return nil }, Settings: func() []config.Setting { return nil }, Agents: func() []fleet.Agent { return nil },
		Clusters:   clusters,
		Deliveries: deliveries{notifier, db}, Playground: playground.New(playground.Options{Rules: ruleFiles}),
		Health: func() web.Health { return web.Health{LastAuditEvent: time.Now(), Admission: true} }, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
}

func ruleFiles() ([]rule.File, error) { return content.Read[rule.File](content.Rules()) }

func listRules() (out []web.Rule, err error) {
	files, err := ruleFiles()
	if err != nil {
		return nil, err
	}
	set, err := rule.Load(files...)
	if err != nil {
		return nil, err
	}
	for _, d := range set.Definitions() {
		out = append(out, web.Rule{Name: d.Name, Desc: d.Desc, Source: d.Source, Priority: d.Priority, Tags: d.Tags, File: d.File, Line: d.Line, Condition: d.Condition, Output: d.Output, Exceptions: d.Exceptions})
	}
	return out, nil
}

// fill stores what a cluster of some size leaves behind in 30 days.
func fill(ctx context.Context, db *store.Store, size size) error {
	if err := addAlerts(ctx, db, size.alerts); err != nil {
		return err
	}
	if err := addIncidents(ctx, db, size.incidents, size.alerts); err != nil {
		return err
	}
	if err := addDecisions(ctx, db, size.decisions); err != nil {
		return err
	}
	return db.ReplaceFindings(ctx, findings(size.findings))
}

// addAlerts stores alerts of 30 days and the incidents that they make.
func addAlerts(ctx context.Context, db *store.Store, n int) error {
	c := incident.NewCorrelator(nil)
	known := map[string]*incident.Incident{}
	step := 30 * 24 * time.Hour / time.Duration(n)
	for i := 0; i < n; {
		var batch []alert.Alert
		for ; i < n && len(batch) < 1000; i++ {
			batch = append(batch, testAlert(i, time.Now().Add(-step*time.Duration(n-i))))
		}
		if _, err := db.AddAlerts(ctx, batch); err != nil {
			return err
		}
		for k := range batch {
			out := c.Add("load", incident.FromAlert(&batch[k]))
			for _, m := range out.Merged {
				delete(known, m.ID)
			}
			if out.Incident != nil {
				known[out.Incident.ID] = out.Incident
			}
		}
	}
	return db.SaveIncidents(ctx, slices.Collect(maps.Values(known)), nil, store.Joined{}, int64(n))
}

// clusters are those of a hub that report to it.
func clusters() (out []roster.Cluster) {
	for i := range 20 {
		out = append(out, roster.Cluster{Name: fmt.Sprintf("cluster-%d", i), Status: roster.OK, LastSeen: time.Now()})
	}
	return out
}

// addIncidents stores incidents of one alert each, which are closed.
func addIncidents(ctx context.Context, db *store.Store, n, alerts int) error {
	var batch []*incident.Incident
	for i := range n {
		a := testAlert(i, time.Now().Add(-time.Duration(i)*time.Minute))
		c := incident.NewCorrelator(nil).Add("load", incident.FromAlert(&a)).Incident
		c.ID, c.State, c.Reason = fmt.Sprintf("closed-%d", i), incident.Closed, "expected"
		if batch = append(batch, c); len(batch) == 1000 || i == n-1 {
			if err := db.SaveIncidents(ctx, batch, nil, store.Joined{Alert: int64(alerts)}, int64(alerts)); err != nil {
				return err
			}
			batch = nil
		}
	}
	return nil
}

func testAlert(i int, at time.Time) alert.Alert {
	pod, user := fmt.Sprintf("offer-service-%05d", i/7), fmt.Sprintf("developer-%d@example.com", i%300)
	namespace := fmt.Sprintf("team-%d", i%40)
	a := alert.Alert{
		ID: alert.NewID("k8s_audit", fmt.Sprint(i), "x"), Time: at.UTC(), Rule: fmt.Sprintf("Rule number %d", i%120), Priority: alert.Priority(2 + i%5),
		Source: "k8s_audit", Cluster: "load", Tags: []string{"k8s"}, Tactics: []string{[]string{"execution", "discovery", "persistence"}[i%3]},
		Subject: finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: namespace, Name: pod},
		OutputFields: map[string]any{
			"ka.user.name": user, "ka.verb": "create", "ka.target.resource": "pods", "ka.target.subresource": "exec", "ka.target.name": pod,
			"ka.target.namespace": namespace, "ka.sourceips": []any{fmt.Sprintf("10.%d.%d.7", i%200, i%250)}, "ka.auditid": fmt.Sprintf("audit-%08d", i), "ka.response.code": 201,
		},
		Entities: []alert.Entity{
			{Kind: alert.User, Name: user}, {Kind: alert.Workload, Name: fmt.Sprintf("Deployment/%s/offer-service-%d", namespace, i%400)},
			{Kind: alert.Address, Name: fmt.Sprintf("10.%d.%d.7", i%200, i%250)}, {Kind: alert.Node, Name: fmt.Sprintf("node-%d", i%50)}, {Kind: alert.Image, Name: fmt.Sprintf("registry.example.com/shop/service:%d", i%90)},
		},
	}
	a.Output = fmt.Sprintf("%s ran a command in pod %s/%s by create pods/exec", user, namespace, pod)
	return a
}

func addDecisions(ctx context.Context, db *store.Store, n int) error {
	var batch []finding.Decision
	for i := range n {
		d := finding.Decision{
			ID: fmt.Sprintf("uid-%d", i), Time: time.Now().Add(-time.Duration(i) * time.Minute), Operation: "CREATE", User: fmt.Sprintf("developer-%d@example.com", i%300),
			Subject: finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: fmt.Sprintf("team-%d", i%40), Name: fmt.Sprintf("offer-service-%05d", i)}, Allowed: i%9 > 0,
		}
		if i%9 == 0 {
			d.Violations = []finding.Violation{{Policy: "privileged-containers", Enforcement: "deny", Message: "container web is privileged"}}
		}
		if batch = append(batch, d); len(batch) == 1000 || i == n-1 {
			if err := db.AddDecisions(ctx, batch); err != nil {
				return err
			}
			batch = nil
		}
	}
	return nil
}

func findings(n int) (out []finding.Finding) {
	for i := range n {
		f := finding.Finding{
			Definition: &finding.Definition{Control: fmt.Sprintf("CON-SEC-%02d", i%80), Title: fmt.Sprintf("Control %d", i%80), Level: finding.Levels()[i%5], Severity: finding.High},
			Detail:     &finding.Detail{Message: "container web is privileged", Fix: "Remove securityContext.privileged.", ObservedAt: time.Now()},
			Status:     finding.Pass, Subject: &finding.Subject{APIVersion: "apps/v1", Kind: "Deployment", Namespace: fmt.Sprintf("team-%d", i%40), Name: fmt.Sprintf("offer-service-%d", i)},
		}
		if i%3 == 0 {
			f.Status = finding.Fail
		}
		out = append(out, f)
	}
	return out
}

// addresses are all pages and lists, with the searches that find much, little and
// nothing.
func addresses(incident string) []string {
	one := alert.NewID("k8s_audit", "77", "x")
	out := []string{
		"/", "/alerts", "/alerts?priority=critical", "/alerts?rule=Rule+number+7", "/alerts?namespace=team-7", "/alerts?text=offer-service-00077", "/alerts?text=nothing-like-it", "/alerts?text=command", "/alerts?text=command&priority=critical", "/alerts?text=command&cluster=cluster-7",
		"/alerts?entity=user:developer-7%40example.com", "/alerts?since=24h", "/alerts/" + one, "/incidents", "/incidents?state=all&text=developer-7", "/incidents?state=all&text=nothing-like-it", "/incidents?state=all&cluster=cluster-7", "/incidents/" + incident,
		"/decisions", "/decisions?outcome=denied", "/decisions?text=nothing-like-it", "/decisions?text=privileged", "/audit", "/readiness", "/findings", "/findings?control=CON-SEC-03", "/findings?text=nothing-like-it", "/findings?text=privileged",
		"/actions", "/search?q=offer-service-00077", "/search?q=developer-7", "/search?q=nothing-like-it", "/search?q=e",
		"/entity/pod/team-0/offer-service-00040", "/entity/user/developer-7@example.com", "/entity/node/node-7", "/entity/image/registry.example.com/shop/service:7", "/entity/address/10.7.7.7",
		"/entity/workload/Deployment/team-7/offer-service-7", "/rules", "/rules?text=secret", "/policies", "/playground", "/health", "/settings", "/deliveries",
		"/api/v1/alerts", "/api/v1/alerts?limit=1000", "/api/v1/incidents", "/api/v1/incidents/" + incident, "/api/v1/incidents/" + incident + "/timeline", "/api/v1/export/timeline?incident=" + incident, "/api/v1/decisions", "/api/v1/findings", "/api/v1/posture", "/api/v1/health", "/api/v1/health/checks", "/api/v1/rules", "/api/v1/policies",
		"/api/v1/search?q=developer-7", "/api/v1/entity/node/node-7", "/api/v1/admission/readiness", "/api/v1/audit", "/api/v1/settings",
	}
	return out
}

type result struct {
	address          string
	median, p95, cpu time.Duration
	bytes            int
}

// used returns the processor time of this process, of server and client.
func used() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

func measure(base, incident string, rounds int) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	client := &http.Client{Jar: jar, Timeout: time.Minute}
	resp, err := client.PostForm(base+"/login", url.Values{"token": {token}, "next": {"/"}})
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	resp.Body.Close()
	var results []result
	for _, address := range addresses(incident) {
		r := result{address: address}
		before, err := used()
		if err != nil {
			return fmt.Errorf("read processor time: %w", err)
		}
		times := make([]time.Duration, rounds)
		for i := range times {
			start := time.Now()
			resp, err := client.Get(base + address)
			if err != nil {
				return err
			}
			n, err := io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK {
				return fmt.Errorf("get %s: %s: %v", address, resp.Status, err)
			}
			times[i], r.bytes = time.Since(start), int(n)
		}
		after, err := used()
		if err != nil {
			return fmt.Errorf("read processor time: %w", err)
		}
		r.cpu = (after - before) / time.Duration(rounds)
		slices.Sort(times)
		r.median, r.p95 = times[rounds/2], times[min(rounds*95/100, rounds-1)]
		results = append(results, r)
	}
	slices.SortFunc(results, func(a, b result) int { return cmp.Compare(b.p95, a.p95) })
	fmt.Printf("%10s %10s %10s %9s  address, of %d requests each\n", "median", "p95", "processor", "bytes", rounds)
	over := 0
	for _, r := range results {
		fmt.Printf("%10s %10s %10s %9d  %s\n", r.median.Round(10*time.Microsecond), r.p95.Round(10*time.Microsecond), r.cpu.Round(10*time.Microsecond), r.bytes, r.address)
		if r.p95 > 200*time.Millisecond {
			over++
		}
	}
	fmt.Printf("%d of %d addresses take more than 200 ms at the 95th percentile\n", over, len(results))
	return nil
}
