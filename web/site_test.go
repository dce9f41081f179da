package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/access"
	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/audit"
	"github.com/kubeguardian/kubeguardian/bus/fleet"
	"github.com/kubeguardian/kubeguardian/bus/roster"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/health"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
	"github.com/kubeguardian/kubeguardian/playground"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/store"
)

const testToken = "test-token-0123456789"

// testTokens has one of each role by its name, and one that may do nothing.
func testTokens() []access.Token {
	tokens := []access.Token{{User: "administrator", Role: access.Admin, Value: testToken}, {User: "nobody", Value: "nobody"}}
	for _, role := range access.Roles() {
		tokens = append(tokens, access.Token{User: string(role), Role: role, Value: string(role)})
	}
	return tokens
}

// A site is a server with a real store, on a port of its own.
type site struct {
	*Server
	store    *store.Store
	file     string // of the store
	url      string
	log      *lockedBuffer
	mu       sync.Mutex
	health   Health // guarded by mu
	score    control.Score
	clusters []roster.Cluster
	audited  audit.Result
	enforced []finding.Enforced
	counted  time.Time // since when
	policies Policies
	rules    []Rule
	checked  []health.Check
	fixes    []control.Fix
	seen     time.Time
}

// deliveries are those of a notifier on a store, as the server has them.
type deliveries struct {
	*notify.Notifier
	store *store.Store
}

func (d deliveries) Deliveries(ctx context.Context, q delivery.Query) ([]delivery.Message, int64, error) {
	return d.store.Deliveries(ctx, q)
}

// lockedBuffer takes the log of a server while a test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newSite starts a server; configure changes it before the first request.
func newSite(t *testing.T, configure ...func(*site)) *site {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeguardian.db")
	db, err := store.Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{store: db, file: file, log: &lockedBuffer{}}
	for _, l := range finding.Levels() {
		s.score.Levels = append(s.score.Levels, control.LevelScore{Level: l})
	}
	gate, err := access.New(access.Options{Tokens: testTokens()})
	if err != nil {
		t.Fatal(err)
	}
	nobody, err := notify.New(notify.Setup{Config: &config.Notify{}, Store: db})
	if err != nil {
		t.Fatal(err)
	}
	s.Server, err = New(Options{
		Cluster: "test-cluster", Version: "v0", Access: gate, Login: Login{Token: true, Audience: "kubeguardian"}, Sessions: db.Sessions(), Actions: db,
		Alerts: db, Incidents: db, Decisions: db, Findings: db, Entities: db,
		Deliveries: deliveries{nobody, db},
		Rules:      func() []Rule { return s.rules },
		Checks:     func() []health.Check { return s.checked },
		Settings: func() []config.Setting {
			return []config.Setting{{Name: "retention.alerts", Value: "720h0m0s"}, {Name: "web.tokenFile", Value: "/var/lib/kubeguardian/token"}}
		},
		Playground: playground.New(playground.Options{Rules: func() ([]rule.File, error) { return nil, nil }}),
		Posture:    func() (control.Score, []control.Fix, time.Time) { return s.score, s.fixes, s.seen },
		Audit:      func() (audit.Result, time.Time) { return s.audited, s.seen },
		Policies:   func() Policies { return s.policies },
		Clusters:   func() []roster.Cluster { return s.clusters },
		Agents: func() []fleet.Agent {
			return []fleet.Agent{{State: fleet.State{Node: "n1", Version: "v0", Interval: 10 * time.Second, Rules: 120, Missing: map[string]string{"dns": "not supported"}}, Status: fleet.Degraded, LastSeen: s.seen, Reasons: []string{"7 events were dropped."}}}
		},
		Readiness: func(ctx context.Context, days int) ([]finding.Readiness, time.Time, error) {
			held, err := db.Readiness(ctx, days, time.Now())
			return finding.InForce(held, s.enforced), s.counted, err
		},
		Health: func() Health {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.health
		},
		Log: slog.New(slog.NewTextHandler(s.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range configure {
		c(s)
	}
	server := httptest.NewServer(s)
	s.url = server.URL
	t.Cleanup(func() {
		s.Close()
		server.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// add stores alerts as the server does, and tells the live pages.
func (s *site) add(t *testing.T, alerts ...alert.Alert) {
	t.Helper()
	added, err := s.store.AddAlerts(t.Context(), alerts)
	if err != nil {
		t.Fatal(err)
	}
	s.Publish(added)
}

// A visitor is a browser without script: it keeps cookies and follows
// redirects.
type visitor struct {
	*http.Client
	t   *testing.T
	url string
}

func (s *site) visitor(t *testing.T) *visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &visitor{&http.Client{Jar: jar}, t, s.url}
}

// member is a visitor who has logged in.
func (s *site) member(t *testing.T) *visitor { t.Helper(); return s.memberBy(t, testToken) }

// memberBy is a visitor who has logged in with a token.
func (s *site) memberBy(t *testing.T, token string) *visitor {
	t.Helper()
	v := s.visitor(t)
	if code, body, _ := v.login(token, "/login"); code != http.StatusOK && code != http.StatusForbidden {
		t.Fatalf("log in: %d %s", code, body)
	}
	return v
}

func (v *visitor) read(resp *http.Response, err error) (code int, body, path string) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return resp.StatusCode, string(data), resp.Request.URL.RequestURI()
}

func (v *visitor) login(token, next string) (code int, body, path string) {
	v.t.Helper()
	return v.read(v.PostForm(v.url+"/login", url.Values{"token": {token}, "next": {next}}))
}

func (v *visitor) get(path string) (code int, body string) {
	v.t.Helper()
	code, body, _ = v.read(v.Get(v.url + path))
	return code, body
}

// bearer asks the API with a token, and returns the code and the answer.
func (s *site) bearer(t *testing.T, path, token string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequest("GET", s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	code, body, _ := s.visitor(t).read(http.DefaultClient.Do(req))
	var out map[string]any
	if err := json.Unmarshal([]byte(body), &out); err != nil {
		t.Fatalf("%s: %v in %q", path, err, body)
	}
	return code, out
}

func testAlert(i int) alert.Alert {
	rules := []string{"Exec into pod", "Secrets listed", "Binding to cluster-admin created", "Anonymous request"}
	verbs := []string{"create", "list", "create", "get"}
	resources := []string{"pods", "secrets", "clusterrolebindings", "configmaps"}
	priorities := []alert.Priority{alert.Warning, alert.Notice, alert.Critical, alert.Error}
	users := []string{"developer@example.com", "system:serviceaccount:shop:gateway", "admin", "system:anonymous"}
	k := i % 4
	a := alert.Alert{
		ID:   alert.NewID("k8s_audit", fmt.Sprint(i), rules[k]),
		Time: time.Now().Add(time.Duration(i-500) * time.Second).Truncate(time.Millisecond).UTC(),
		Rule: rules[k], Priority: priorities[k], Source: "k8s_audit", Hostname: "kubeguardian-0", Cluster: "test-cluster",
		Tags: []string{"k8s", "mitre_execution"}, Tactics: []string{"execution"},
		Subject: finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: fmt.Sprintf("offer-service-%d", i)},
		OutputFields: map[string]any{
			"ka.user.name": users[k], "ka.verb": verbs[k], "ka.target.resource": resources[k],
			"ka.target.name": fmt.Sprintf("offer-service-%d", i), "ka.target.namespace": "shop",
			"ka.sourceips": []any{"10.0.2.1", fmt.Sprintf("10.0.3.%d", i%250)}, "ka.auditid": fmt.Sprintf("a-%d", i), "ka.response.code": 200,
		},
	}
	if k == 0 {
		a.OutputFields["ka.target.subresource"] = "exec"
	}
	a.Entities = []alert.Entity{{Kind: alert.User, Name: users[k]}, {Kind: alert.Workload, Name: "Deployment/shop/offer-service-04"}, {Kind: alert.Address, Name: fmt.Sprintf("10.0.3.%d", i%250)}}
	a.Output = fmt.Sprintf("%s: %s did %s %s in shop from 10.0.3.%d", a.Rule, users[k], verbs[k], resources[k], i%250)
	return a
}

func testAlerts(from, to int) (out []alert.Alert) {
	for i := from; i < to; i++ {
		out = append(out, testAlert(i))
	}
	return out
}

func ptr(v float64) *float64 { return &v }

func testScore() control.Score {
	return control.Score{
		Total: ptr(52.3), Low: 52.3, High: 71.9,
		Levels: []control.LevelScore{
			{Level: finding.Infrastructure, Score: nil},
			{Level: finding.Cluster, Score: ptr(9.4), Pass: 0.47, Fail: 0.33, Unknown: 0.2, Coverage: 0.8, Controls: 9},
			{Level: finding.Container, Score: ptr(13.8), Pass: 0.72, Fail: 0.18, Unknown: 0.04, Accepted: 0.06, Coverage: 0.96, Controls: 19,
				Notes: []string{"capped at 13.8: Deployment/shop/gateway is reachable from the internet and fails a critical control"}},
			{Level: finding.Application, Score: ptr(19.99), Pass: 0.9995, Fail: 0.0005, Coverage: 1, Controls: 4},
			{Level: finding.Code, Score: ptr(0), Unknown: 1, Controls: 3, Notes: []string{"not enough evidence: no pipeline results were given"}},
		},
		Notes: []string{"infrastructure has no data: the total is of the other four levels"},
	}
}

func testFixes() []control.Fix {
	return []control.Fix{
		{Control: "CON-SEC-01", Title: "Privileged containers", Severity: finding.Critical, Count: 2, Gain: 4.6, Fix: "Remove securityContext.privileged, or set it to false."},
		{Control: "CLU-RBA-01", Title: "Bindings to cluster-admin", Severity: finding.Critical, Count: 1, Gain: 3.1, Fix: "Bind a role with the verbs that are needed."},
		{Control: "CLU-NET-01", Title: "Namespaces without default deny", Severity: finding.High, Count: 4, Gain: 2.2, Fix: "Add a NetworkPolicy that selects all pods and allows nothing."},
		{Control: "CON-IMG-02", Title: "Images without a fixed version", Severity: finding.Medium, Count: 11, Gain: 0.9, Fix: "Pin the image by digest."},
	}
}

func testFindings() (out []finding.Finding) {
	for i := range 60 {
		fix := testFixes()[i%4]
		f := finding.Finding{
			Definition: &finding.Definition{Control: fix.Control, Title: fix.Title, Level: finding.Container, Severity: fix.Severity},
			Detail:     &finding.Detail{Fix: fix.Fix, Message: fmt.Sprintf("container web sets privileged: true (%d)", i), ObservedAt: time.Now()},
			Status:     finding.Fail, Gain: 0.2, Subject: &finding.Subject{APIVersion: "apps/v1", Kind: "Deployment", Namespace: "shop", Name: fmt.Sprintf("offer-service-%02d", i), Container: "web"},
		}
		if i%4 == 1 {
			f.Level, f.Subject.Source = finding.Cluster, fmt.Sprintf("deploy/rbac.yaml:%d", i)
		}
		if i%9 == 0 {
			f.Status, f.Reason, f.Message, f.Gain = finding.Unknown, "the cluster did not let us read it", "", 0
		}
		out = append(out, f)
	}
	return out
}

func testDecisions() (out []finding.Decision) {
	for i := range 60 {
		d := finding.Decision{
			ID: fmt.Sprintf("uid-%d", i), Time: time.Now().Add(-time.Duration(i) * time.Minute), Operation: "CREATE", User: "developer@example.com",
			Subject: finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: fmt.Sprintf("debug-%d", i)}, Allowed: true, Microseconds: int64(300 + 17*i),
		}
		warning := finding.Violation{Policy: "latest-tags", Enforcement: "warn", Message: "image busybox has no version: pin it by digest"}
		switch i % 4 {
		case 0:
			d.Allowed = false
			d.Violations = []finding.Violation{
				{Policy: "privileged-containers", Enforcement: "deny", Message: "container shell is privileged: remove securityContext.privileged"}, warning}
		case 1:
			d.Violations = []finding.Violation{warning}
		}
		out = append(out, d)
	}
	return out
}

// testAudit has two policies that few objects violate, and one that many do.
func testAudit() audit.Result {
	r := audit.Result{Objects: 240}
	for i := range 120 {
		found := audit.Found{Subject: finding.Subject{APIVersion: "apps/v1", Kind: "Deployment", Namespace: []string{"shop", "bank"}[i%2], Name: fmt.Sprintf("offer-service-%03d", i)}}
		if i%3 > 0 {
			found.Violations = append(found.Violations, finding.Violation{Policy: "latest-tags", Binding: "warn-everywhere", Enforcement: "warn", Message: fmt.Sprintf("container web: image registry.example.com/shop/web:latest has no version; pin it by digest (%d)", i)})
		}
		if i%40 == 1 {
			found.Violations = append(found.Violations,
				finding.Violation{Policy: "privileged-containers", Binding: "enforce", Enforcement: "deny", Message: "container web is privileged: remove securityContext.privileged"},
				finding.Violation{Policy: "privileged-containers", Binding: "notes", Enforcement: "audit", Message: "container web is privileged: remove securityContext.privileged"},
				finding.Violation{Policy: "K8sOwnedWorkload", Binding: "teams", Enforcement: "dryrun", Message: "label the workload with its team"})
		}
		if len(found.Violations) > 0 {
			r.Found = append(r.Found, found)
		}
	}
	r.Failures = []audit.Failure{{Subject: finding.Subject{Kind: "Pod", Namespace: "shop", Name: "odd"}, Reason: `policy "rights" cannot judge: nobody asks for it`}}
	return r
}

// testEnforced is what is in force on the site: the first would have denied what
// testDecisions only warns of, the second has denied, the others nothing.
func testEnforced() []finding.Enforced {
	return []finding.Enforced{
		{Policy: "latest-tags", Enforcement: "warn"}, {Policy: "privileged-containers", Enforcement: "deny"}, {Policy: "privileged-containers", Enforcement: "audit"},
		{Policy: "K8sOwnedWorkload", Binding: "teams", Enforcement: "dryrun"}, {Policy: "probes", Binding: "probes", Enforcement: "warn"},
	}
}

func testRules() []Rule {
	var out []Rule
	for i := range 5 {
		a := testAlert(i)
		out = append(out, Rule{
			Name: a.Rule, Desc: "somebody did what may be an attack", Source: a.Source, Priority: a.Priority, Tags: a.Tags, File: "kubernetes_audit.yaml", Line: 10 + i,
			Condition: "ka.verb = create and ka.target.resource = pods", Output: "%ka.user.name did it", Exceptions: []string{"controllers: ka.user.name by in: (system:admin)"},
		})
	}
	out[4].Name, out[4].Silent = "Never matched", "it is disabled, in its file or by detection.select"
	return out
}

func testPolicies() Policies {
	return Policies{Items: []Policy{
		{Kind: "ValidatingAdmissionPolicy", Name: "latest-tags", Source: "policies/images.yaml", Enforced: "admission"},
		{Kind: "ValidatingAdmissionPolicy", Name: "privileged-containers", Source: "policies/pods.yaml", Enforced: "admission"},
		{Kind: "ConstraintTemplate", Name: "k8sownedworkload", Source: "cluster", Enforced: "nobody", Errors: []PolicyError{{Message: "rego does not parse", Location: "spec.targets[0].rego: line 3"}}},
	}}
}

// full gives a site the data of a busy cluster.
func full(t *testing.T) func(*site) {
	return func(s *site) {
		s.score, s.fixes, s.seen = testScore(), testFixes(), time.Now().Add(-40*time.Second)
		s.audited, s.enforced, s.counted = testAudit(), testEnforced(), time.Now().Add(-9*24*time.Hour)
		s.rules, s.policies = testRules(), testPolicies()
		s.checked = []health.Check{health.Of("Database", "Alerts are kept for 30 days.", ""), health.Of("Audit log", "", "check --audit-webhook-config-file", "No request appears in it.")}
		s.health = Health{LastAuditEvent: time.Now().Add(-3 * time.Second), AuditEvents: 18204, Admission: true}
		s.add(t, testAlerts(0, 130)...)
		if err := s.store.AddDecisions(t.Context(), testDecisions()); err != nil {
			t.Fatal(err)
		}
		if err := s.store.ReplaceFindings(t.Context(), testFindings()); err != nil {
			t.Fatal(err)
		}
	}
}
