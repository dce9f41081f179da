package web

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/store"
)

func (v *visitor) post(path string, form url.Values) (code int, body string) {
	v.t.Helper()
	code, body, _ = v.read(v.PostForm(v.url+path, form))
	return code, body
}

const auditEvent = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a-1","stage":"ResponseComplete","requestURI":"/api/v1/secrets","verb":"list","user":{"username":"<b>ada"},"objectRef":{"resource":"secrets","apiVersion":"v1"},"stageTimestamp":"2026-03-01T12:00:00.000000Z","requestReceivedTimestamp":"2026-03-01T12:00:00.000000Z"}`

func TestPlaygroundPage(t *testing.T) {
	s := newSite(t, full(t))
	v := s.member(t)
	code, body := v.get("/playground?rule=Secrets+listed&alert=" + testAlert(1).ID)
	if code != http.StatusOK {
		t.Fatal(code, body)
	}
	checkText(t, body, []string{"- rule: Secrets listed", "condition: ka.verb = create", testAlert(1).ID}, nil)
	for _, tt := range []struct {
		name      string
		form      url.Values
		want, not []string
	}{
		{"pasted event", url.Values{"rule": {"ka.verb = list and ka.user.name contains ada"}, "event": {auditEvent}}, []string{">matches<", "&lt;b&gt;ada", "decided the result"}, []string{"<b>ada"}},
		{"event of an alert", url.Values{"rule": {"ka.verb = list and ka.user.name = nobody"}, "alert": {testAlert(1).ID}}, []string{"does not match", "ka.user.name = nobody", "the fields of the alert tell"}, nil},
		{"mistake", url.Values{"rule": {"ka.verbs = <i>x"}, "event": {auditEvent}}, []string{"role=\"alert\"", "ka.verbs", "&lt;i&gt;x"}, []string{"<i>x"}},
		{"policy", url.Values{"tab": {"policy"}, "policy": {"kind: Nothing\napiVersion: v1\n"}, "object": {"apiVersion: v1\nkind: Pod\n"}}, []string{"Nothing", "role=\"alert\""}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, body := v.post("/playground", tt.form)
			if code != http.StatusOK {
				t.Fatal(code, body)
			}
			checkText(t, body, tt.want, tt.not)
		})
	}
	if code, body := v.post("/playground", url.Values{"rule": {"ka.verb = x"}, "alert": {"none"}}); code != http.StatusOK || !strings.Contains(body, "no alert with this id") {
		t.Errorf("an alert that is not there: %d", code)
	}
	for body, want := range map[string]int{
		`{"rule":"ka.verb = list","alert":"` + testAlert(1).ID + `"}`: 200, `{"rule":""}`: 422, `{"rules":""}`: 400, `{}x`: 400, `{"rule":"ka.verb = x","alert":"none"}`: 404,
		`{"rule":"` + strings.Repeat("x", 50<<10) + `"}`: 422, `{"rule":"` + strings.Repeat("x", 400<<10) + `"}`: 400,
	} {
		req, err := http.NewRequest("POST", s.url+"/api/v1/evaluations/rule", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+testToken)
		if code, answer, _ := s.visitor(t).read(http.DefaultClient.Do(req)); code != want {
			t.Errorf("%.60s: %d %s", body, code, answer)
		}
	}
}

func TestHealthAndSettings(t *testing.T) {
	s := newSite(t, full(t))
	v := s.member(t)
	_, body := v.get("/health")
	checkText(t, body, []string{"1 to look at", "To do: check --audit-webhook-config-file", `href="/entity/node/n1"`, "7 events were dropped."}, []string{"{{"})
	if strings.Index(body, "Audit log") > strings.Index(body, ">Database<") {
		t.Error("what is in order is shown before a problem")
	}
	code, body := v.get("/settings")
	if code != http.StatusOK {
		t.Fatal(code, body)
	}
	checkText(t, body, []string{"retention.alerts", `href="/deliveries"`}, nil)
	for _, path := range []string{"/api/v1/health/checks", "/api/v1/settings"} {
		if code, answer := s.bearer(t, path, testToken); code != http.StatusOK || len(answer["items"].([]any)) != 2 {
			t.Errorf("%s: %d %v", path, code, answer)
		}
	}
}

// testIncident stores an incident of a request and of two processes of a pod.
func (s *site) testIncident(t *testing.T) incident.Incident {
	t.Helper()
	at := time.Now().Add(-10 * time.Minute).UTC().Truncate(time.Second)
	request := testAlert(0)
	request.Time, request.Priority = at, alert.Critical
	alerts := []alert.Alert{request}
	for i, name := range []string{"curl", "nc"} {
		a := alert.Alert{
			ID: fmt.Sprintf("process-%d", i), Time: at.Add(time.Duration(i+1) * time.Second), Rule: "Shell started " + name, Priority: alert.Warning, Source: "syscall", Hostname: "node-a",
			Subject: finding.Subject{Kind: "Pod", Namespace: "shop", Name: "offer-service-0"}, Entities: []alert.Entity{{Kind: alert.Workload, Name: "Deployment/shop/offer-service-04"}},
			OutputFields: map[string]any{
				"proc.name": name, "proc.cmdline": name + " 192.0.2.7", "proc.pid": 100 + i, "proc.pname": "bash", "proc.aname[2]": "node", "user.name": "root",
				"container.id": "0123456789ab", "container.name": "web", "k8s.ns.name": "shop", "k8s.pod.name": "offer-service-0", "proc.is_exe_upper_layer": i == 1,
			},
		}
		a.Entities = a.Involves()
		alerts = append(alerts, a)
	}
	s.add(t, alerts...)
	c := incident.NewCorrelator(nil)
	var out incident.Outcome
	for i := range alerts {
		alerts[i].Entities = alerts[i].Involves()
		out = c.Add("test-cluster", incident.FromAlert(&alerts[i]))
	}
	if err := s.store.SaveIncidents(t.Context(), []*incident.Incident{out.Incident}, nil, store.Joined{}, 0); err != nil {
		t.Fatal(err)
	}
	return *out.Incident
}

func TestIncidentPage(t *testing.T) {
	s := newSite(t, full(t))
	d := testDecisions()[0]
	d.ID, d.Time, d.User = "during", time.Now().Add(-9*time.Minute), "developer@example.com"
	d.Subject.Name = "late-debugger"
	if err := s.store.AddDecisions(t.Context(), []finding.Decision{d}); err != nil {
		t.Fatal(err)
	}
	i := s.testIncident(t)
	code, body := s.member(t).get("/incidents/" + i.ID)
	if code != http.StatusOK {
		t.Fatal(code, body)
	}
	checkText(t, body, []string{
		">runtime<", ">audit<", ">admission<", "late-debugger", "Fix what made it possible", "Remove securityContext.privileged", "+4.6 points",
		"pod shop/offer-service-0, container web", "not of the image", "pid 101", "curl 192.0.2.7", `href="/entity/pod/shop/offer-service-0"`,
	}, []string{"{{"})
	tree := body[strings.Index(body, `id="processes"`):strings.Index(body, "<h2>Timeline")]
	if strings.Count(tree, ">bash<") != 1 || strings.Index(tree, ">node<") > strings.Index(tree, ">bash<") {
		t.Errorf("ancestors are not shared or not in order: %s", tree)
	}
}
