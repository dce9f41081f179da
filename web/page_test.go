package web

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/audit"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
)

// checkText reports what of want is missing in a page, and what of not is there.
func checkText(t *testing.T, body string, want, not []string) {
	t.Helper()
	for _, s := range want {
		if !strings.Contains(body, s) {
			t.Errorf("%q is missing", s)
		}
	}
	for _, s := range not {
		if strings.Contains(body, s) {
			t.Errorf("%q is there", s)
		}
	}
	if t.Failed() {
		t.Log(body)
	}
}

func TestPagesShowWhatIsStored(t *testing.T) {
	v := newSite(t, full(t)).member(t)
	last := testAlert(129)
	tests := []struct {
		name, path string
		want, not  []string
	}{
		{"overview", "/", []string{"52.3", "52.3–71.9 of 100", "no data: nothing of this level", "Fix next", "+4.6", "all 53 failing",
			last.Rule, "privileged-containers", "data-stream", "18204 since the start", "15 denied"}, []string{"{{", "data-empty"}},
		{"alerts", "/alerts", []string{last.ID, last.Output, "10.0.3.129", "older →", "data-stream", "pods/exec"}, []string{testAlert(0).ID}},
		{"alerts by rule", "/alerts?rule=Secrets+listed", []string{testAlert(1).ID, "clear", "rule=Secrets&#43;listed"}, []string{testAlert(2).ID, "older →"}},
		{"alerts by priority", "/alerts?priority=critical", []string{testAlert(2).ID, `value="critical" selected`}, []string{testAlert(3).ID}},
		{"alerts by text", "/alerts?text=a-77", []string{testAlert(77).ID}, []string{testAlert(78).ID}},
		{"alerts in a window", "/alerts?since=2026-01-01T00:00:00Z", []string{last.ID, "since 2026-01-01T00:00:00Z"}, nil},
		{"alerts of the past have no stream", "/alerts?until=1h", []string{"No alert matches this filter"}, []string{"data-stream"}},
		{"alert", "/alerts/" + last.ID, []string{last.Output, "ka.auditid", "a-129", "Raw JSON", "&#34;output_fields&#34;: {", "execution"}, nil},
		{"decisions", "/decisions", []string{"debug-0", "container shell is privileged", "out-denied", "older →", "0.3 ms"}, []string{"debug-59"}},
		{"denied decisions", "/decisions?outcome=denied", []string{"debug-56"}, []string{"debug-57", "older →"}},
		{"findings", "/findings", []string{"Privileged containers", "all 13 →", "deploy/rbac.yaml:1", "+4.6 points", "fail <span class=\"muted\">53</span>"}, []string{"did not let us read"}},
		{"unknown findings", "/findings?status=unknown", []string{"the cluster did not let us read it"}, []string{"sets privileged"}},
		{"findings of a control", "/findings?control=CON-SEC-01", []string{"offer-service-04", "offer-service-56"}, []string{"offer-service-05", "→"}},
		{"findings of a level", "/findings?level=cluster&severity=critical", []string{"Bindings to cluster-admin"}, []string{"Privileged containers"}},
		{"findings in pages", "/findings?control=CON-SEC-01&limit=3", []string{"more →"}, []string{"← first"}},
		{"audit", "/audit", []string{"240 objects judged", ">all 80 →<", "privileged-containers", "deny 3", "audit 3", "dryrun 3", "not judged", "nobody asks for it",
			"/findings?text=Deployment%2Fbank%2Foffer-service-001", "offer-service-007", "format=openreports"}, []string{"offer-service-010", "all 3 →", "{{"}},
		{"audit of a policy", "/audit?policy=latest-tags&limit=30", []string{"offer-service-001", "offer-service-044", "more →", `name="policy" value="latest-tags"`}, []string{"offer-service-046", "← first", "privileged"}},
		{"audit, next page", "/audit?policy=latest-tags&limit=30&after=40", []string{"← first", "more →"}, []string{"offer-service-001"}},
		{"audit by enforcement", "/audit?enforcement=dryrun&namespace=bank", []string{"K8sOwnedWorkload", "offer-service-001", `<option selected>dryrun`, "clear"}, []string{"latest-tags"}},
		{"audit by text", "/audit?text=SERVICE-007", []string{"offer-service-007"}, []string{"offer-service-008"}},
		{"audit without a match", "/audit?text=none", []string{"No violation matches this filter"}, nil},
		{"readiness", "/readiness", []string{"latest-tags", ">30<", "developer@example.com", "create by developer@example.com", "it can be moved to warn", "it can be moved to deny"},
			[]string{"privileged-containers", "{{", "Counting began"}},
		{"readiness of a longer time", "/readiness?days=14", []string{"Counting began", `value="14" selected`}, []string{"it can be moved"}},
		{"readiness in pages", "/readiness?limit=1&after=1", []string{"K8sOwnedWorkload", "← first", "more →"}, []string{"latest-tags"}},
		{"findings that do not exist", "/findings?text=none", []string{"No finding matches this filter"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, body := v.get(tt.path)
			if code != http.StatusOK {
				t.Fatalf("%d: %s", code, body)
			}
			checkText(t, body, tt.want, tt.not)
		})
	}
}

// TestRepeatsAreShown: a counter in the list, and all of it on the alert's page.
func TestRepeatsAreShown(t *testing.T) {
	s := newSite(t)
	a := testAlert(1)
	a.Repeats = &alert.Repeats{Count: 41, First: a.Time, Last: a.Time.Add(time.Minute)}
	a.Previous = &alert.Repeats{Count: 7, First: a.Time.Add(-time.Hour), Last: a.Time.Add(-time.Hour)}
	a.OverLimit = true
	s.add(t, a)
	v := s.member(t)
	if _, page := v.get("/alerts"); !strings.Contains(page, "+41</span>") {
		t.Errorf("the list has no counter:\n%s", page)
	}
	_, page := v.get("/alerts/" + a.ID)
	for _, want := range []string{"<dd>41 times, from ", "by any alert of the rule", "was repeated 7 times"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q:\n%s", want, page)
		}
	}
}

// "No alerts" must not look like "no data".
func TestEmptyAndBlind(t *testing.T) {
	const blind, quiet = "no audit event received yet", "no rule has matched one"
	seen := Health{LastAuditEvent: time.Now(), AuditEvents: 5, Admission: true}
	tests := []struct {
		name, path string
		health     Health
		scanned    bool
		want, not  []string
	}{
		{"blind overview", "/", Health{Problems: []string{"the cluster is <unreachable>"}}, false,
			[]string{blind, "No data yet", "no scan has finished yet", "not registered", "Security score: no data", "the cluster is &lt;unreachable&gt;"},
			[]string{quiet, "Nothing fails"}},
		{"quiet overview", "/", seen, true, []string{quiet, "No request yet", "Nothing fails"}, []string{blind, "No data yet", "not registered"}},
		{"blind alerts", "/alerts", Health{}, false, []string{blind, "not the same as no alerts"}, []string{quiet}},
		{"quiet alerts", "/alerts", seen, false, []string{quiet}, []string{blind}},
		{"stale alerts", "/alerts", Health{LastAuditEvent: time.Now().Add(-time.Hour)}, false, []string{"lamp warn", "1 h ago"}, []string{blind}},
		{"filtered alerts", "/alerts?rule=x", seen, false, []string{"No alert matches this filter"}, []string{quiet}},
		{"blind decisions", "/decisions", Health{}, false, []string{"the API server does not ask"}, nil},
		{"quiet decisions", "/decisions", seen, false, []string{"No request yet"}, nil},
		{"blind findings", "/findings", seen, false, []string{"No data: no scan has finished"}, []string{"No finding matches"}},
		{"clean findings", "/findings", seen, true, []string{"No finding matches"}, []string{"No data"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := newSite(t, func(s *site) {
				s.health = tt.health
				if tt.scanned {
					s.seen = time.Now()
				}
			}).member(t)
			code, body := v.get(tt.path)
			if code != http.StatusOK {
				t.Fatalf("%d: %s", code, body)
			}
			checkText(t, body, tt.want, tt.not)
		})
	}
}

// Everything a cluster says may be an attack on the page.
func TestHostileData(t *testing.T) {
	const attack = `</script><script>alert(1)</script><img src=x onerror=alert(1)>"'{{.}}javascript:alert(1)`
	s := newSite(t, full(t))
	a := testAlert(200)
	a.Rule, a.Output, a.Hostname, a.Tags, a.Tactics = attack, attack, attack, []string{attack}, []string{attack}
	a.Subject = finding.Subject{Kind: attack, Namespace: attack, Name: attack, Source: attack}
	a.OutputFields = map[string]any{attack: attack, "ka.user.name": attack, "ka.sourceips": []any{attack}}
	s.add(t, a)
	d := testDecisions()[0]
	d.ID, d.User, d.Operation, d.Subject, d.Time = attack, attack, attack, a.Subject, time.Now()
	d.Violations = []finding.Violation{{Policy: attack, Enforcement: attack, Message: attack}}
	f := testFindings()[1]
	f.Title, f.Message, f.Evidence, f.Fix, f.Control, f.Reason, f.Subject = attack, attack, attack, attack, attack, attack, &a.Subject
	d.Allowed = true
	d.Violations[0].Binding = attack
	s.enforced = []finding.Enforced{{Policy: attack, Binding: attack, Enforcement: attack}}
	s.audited.Found = []audit.Found{{Subject: a.Subject, Violations: d.Violations}}
	s.fixes = []control.Fix{{Control: attack, Title: attack, Severity: attack, Fix: attack}}
	s.score.Notes = []string{attack}
	s.health.Problems = []string{attack}
	if err := s.store.AddDecisions(t.Context(), []finding.Decision{d}); err != nil {
		t.Fatal(err)
	}
	if err := s.store.ReplaceFindings(t.Context(), []finding.Finding{f}); err != nil {
		t.Fatal(err)
	}
	v := s.member(t)
	search := "?text=" + url.QueryEscape(attack)
	for _, path := range []string{"/", "/alerts", "/alerts/" + a.ID, "/decisions", "/findings", "/audit", "/readiness", "/alerts" + search, "/decisions" + search, "/findings" + search, "/audit" + search} {
		code, body := v.get(path)
		if code != http.StatusOK || strings.Count(body, "&lt;script&gt;") < 3 {
			t.Errorf("%s: %d, and the text is not shown", path, code)
		}
		for _, bad := range []string{"<script>alert", "<img src=x", `="javascript:`} {
			if strings.Contains(body, bad) {
				t.Errorf("%s contains %s", path, bad)
			}
		}
	}
	if _, body := s.visitor(t).get("/login?next=" + url.QueryEscape("/"+attack)); strings.Contains(body, "<script>alert") {
		t.Errorf("the login page contains it: %s", body)
	}
}

func TestBadRequests(t *testing.T) {
	s := newSite(t, full(t))
	v := s.member(t)
	tests := []struct{ name, query, want string }{
		{"unknown parameter", "/alerts?rul=x", `unknown parameter "rul"`},
		{"twice", "/alerts?rule=a&rule=b", "parameter rule is given 2 times"},
		{"too long", "/alerts?text=" + strings.Repeat("x", 600), "longer than 512 bytes"},
		{"priority", "/alerts?priority=huge", `unknown priority "huge"`},
		{"since", "/alerts?since=yesterday", `have "yesterday"`},
		{"negative age", "/alerts?since=-1h", `have "-1h"`},
		{"cursor", "/alerts?before=x", `unknown cursor "x"`},
		{"half a cursor", "/decisions?before=12", `unknown cursor "12"`},
		{"limit", "/alerts?limit=-1", `want a number, have "-1"`},
		{"outcome", "/decisions?outcome=maybe", `unknown outcome "maybe"`},
		{"level", "/findings?level=sky", `unknown level "sky"`},
		{"severity", "/findings?severity=bad", `unknown severity "bad"`},
		{"status", "/findings?status=bad", `unknown status "bad"`},
		{"query", "/alerts?%zz", "read the query of the URL"},
		{"audit cursor", "/audit?after=x", `want a number, have "x"`},
		{"stream", "/alerts/stream?after=x", "want the id of a stream event"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, answer := s.bearer(t, "/api/v1"+tt.query, testToken)
			if code != http.StatusBadRequest || !strings.Contains(fmt.Sprint(answer["error"]), tt.want) {
				t.Errorf("API: %d %v", code, answer)
			}
			if strings.Contains(tt.query, "/stream") {
				return
			}
			code, body := v.get(tt.query)
			if want := strings.ReplaceAll(tt.want, `"`, "&#34;"); code != http.StatusBadRequest || !strings.Contains(body, want) {
				t.Errorf("page: %d, %q is missing in %s", code, want, body)
			}
		})
	}
	for _, path := range []string{"/nothing", "/alerts/none", "/static/none", "/static/..%2fopenapi.yaml"} {
		if code, _ := v.get(path); code != http.StatusNotFound {
			t.Errorf("%s: %d", path, code)
		}
	}
	for _, path := range []string{"/api/v1/alerts/none", "/api/v1/none", "/api/"} {
		if code, answer := s.bearer(t, path, testToken); code != http.StatusNotFound || answer["error"] == nil {
			t.Errorf("%s: %d %v", path, code, answer)
		}
	}
	if strings.Contains(s.log.String(), "level=ERROR") || strings.Contains(s.log.String(), "level=WARN") {
		t.Errorf("a mistake of a client is in our log: %s", s.log)
	}
}

// A broken store is an error page without details, and a line in the log.
func TestBrokenStore(t *testing.T) {
	s := newSite(t, full(t))
	v := s.member(t)
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
	if code, body := v.get("/"); code != http.StatusServiceUnavailable || !strings.Contains(body, "log says why") || strings.Contains(body, "database") {
		t.Errorf("who has a session, which is there too: %d %s", code, body)
	}
	for _, path := range []string{"/", "/alerts", "/alerts/x", "/decisions", "/findings", "/findings?control=x"} {
		req, err := http.NewRequest("GET", s.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+testToken)
		code, body, _ := v.read(http.DefaultClient.Do(req))
		if code != http.StatusInternalServerError || !strings.Contains(body, "its log says why") || strings.Contains(body, "database") {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	for _, path := range []string{"alerts", "alerts/x", "alerts/stream", "decisions", "findings", "posture"} {
		if code, answer := s.bearer(t, "/api/v1/"+path, testToken); code != http.StatusInternalServerError || answer["error"] == nil {
			t.Errorf("%s: %d %v", path, code, answer)
		}
	}
	if n := strings.Count(s.log.String(), "level=ERROR"); n != 13 {
		t.Errorf("the log has %d errors: %s", n, s.log)
	}
}
