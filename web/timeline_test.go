package web

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus/fleet"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
	"github.com/kubeguardian/kubeguardian/store"
)

// told stores an incident about which everything is known: alerts of the audit log
// and of a node, what the agent did, what it did not see, a denial, findings of before and of
// meanwhile, a message.
func told(t *testing.T) func(*site) {
	t.Helper()
	return func(s *site) {
		ctx, now := t.Context(), time.Now().UTC()
		s.health, s.store.Own = Health{LastAuditEvent: now, AuditEvents: 1}, "test-cluster"
		state := func(control, title string, severity finding.Severity, status finding.Status) finding.Finding {
			return finding.Finding{
				Definition: &finding.Definition{Control: control, Title: title, Level: finding.Container, Severity: severity},
				Detail:     &finding.Detail{Fix: "Fix it.", Message: "container web " + hostile, ObservedAt: now}, Status: status,
				Subject: &finding.Subject{APIVersion: "apps/v1", Kind: "Deployment", Namespace: "shop", Name: "web", Container: "web"},
			}
		}
		old := state("CON-SEC-01", "Privileged containers", finding.Critical, finding.Fail)
		for _, findings := range [][]finding.Finding{ // two evaluations
			{old, state("CON-SEC-02", "Writable root", finding.Low, finding.Pass)},
			{old, state("CON-SEC-02", "Writable root", finding.Low, finding.Fail)},
		} {
			if err := s.store.ReplaceFindings(ctx, findings); err != nil {
				t.Fatal(err)
			}
		}
		pod, workload := alert.Entity{Kind: alert.Pod, Name: "shop/web-0"}, alert.Entity{Kind: alert.Workload, Name: "Deployment/shop/web"}
		alerts := []alert.Alert{
			{ID: "a1", Time: now.Add(-20 * time.Minute), Rule: "Exec into pod", Priority: alert.Warning, Source: "k8s_audit", Output: "ada entered web-0", Tactics: []string{"execution"},
				Entities: []alert.Entity{{Kind: alert.User, Name: "ada"}, pod, workload}},
			{ID: "a2", Time: now.Add(-19 * time.Minute), Rule: "Miner started", Priority: alert.Critical, Source: "syscall", Output: "xmrig runs " + hostile, Tactics: []string{"impact"}, Hostname: "worker-1",
				Subject:      finding.Subject{Kind: "Pod", Namespace: "shop", Name: "web-0"},
				OutputFields: map[string]any{"enforce.kill": "killed", "enforce.kill.by": "kernel", "k8s.ns.name": "shop", "k8s.pod.name": "web-0", "container.id": "0123456789ab", "proc.name": "xmrig", "proc.cmdline": "xmrig -o pool.example:3333", "proc.pid": 4711},
				Entities:     []alert.Entity{pod, workload, {Kind: alert.Node, Name: "worker-1"}}},
		}
		drops := alert.Alert{ID: "b1", Time: now.Add(-15 * time.Minute), Rule: fleet.DropsEvents.Rule(), Priority: alert.Error, Source: "kubeguardian", Cluster: s.store.Own,
			Output: "12 % of the events were dropped " + hostile, Subject: finding.Subject{Kind: "Node", Name: "worker-1"}}
		if _, err := s.store.AddAlerts(ctx, append(alerts, drops)); err != nil {
			t.Fatal(err)
		}
		var decisions []finding.Decision
		for n := range 40 { // of which most are of after it
			decisions = append(decisions, finding.Decision{
				ID: fmt.Sprint("d", n), Time: now.Add(time.Duration(n-1) * 40 * time.Minute).Add(-10 * time.Minute), Operation: "CREATE", User: "ada",
				Subject: finding.Subject{Kind: "Pod", Namespace: "shop", Name: "miner"}, Violations: []finding.Violation{{Policy: "no-privilege", Enforcement: "deny", Message: "not here " + hostile}},
			})
		}
		if err := s.store.AddDecisions(ctx, decisions); err != nil {
			t.Fatal(err)
		}
		c := incident.NewCorrelator(nil)
		var out incident.Outcome
		for i := range alerts {
			out = c.Add("test-cluster", incident.FromAlert(&alerts[i]))
		}
		if err := s.store.SaveIncidents(ctx, []*incident.Incident{out.Incident}, nil, store.Joined{}, 0); err != nil {
			t.Fatal(err)
		}
		at := now.Add(-18 * time.Minute)
		message := delivery.Message{Destination: "chat", Key: "k", State: delivery.Waiting, Title: out.Incident.Story, Created: at, Due: at, Next: at, Until: at, Count: 2, First: at, Last: at, Incident: "a1", Body: []byte("{}")}
		added, _, err := s.store.Enqueue(ctx, []delivery.Message{message}, delivery.Progress{Incidents: []delivery.Told{{Incident: "a1", As: "a1", State: "new", Level: out.Incident.Level()}}}, at)
		if err == nil {
			err = s.store.Finish(ctx, []delivery.Result{{Seq: added[0].Seq, State: delivery.Delivered, Next: at}}, at)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestBlindSpots: what a node did not show is in the timeline of its incident however
// many others drop events, and that its agent was silent before it began, and is.
func TestBlindSpots(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	about := func(kind fleet.Kind, node string, before time.Duration) alert.Alert {
		return alert.Alert{ID: alert.NewID(string(kind), node, before.String()), Time: now.Add(-before), Rule: kind.Rule(), Priority: alert.Error, Source: "kubeguardian", Cluster: "test-cluster",
			Output: fmt.Sprint(node, " ", before), Subject: finding.Subject{APIVersion: "v1", Kind: "Node", Name: node}}
	}
	var alerts []alert.Alert
	for n := range 300 {
		alerts = append(alerts, about(fleet.DropsEvents, fmt.Sprint("other-", n), time.Minute), about(fleet.FellSilent, fmt.Sprint("other-", n), 50*time.Hour))
	}
	for n := range 120 { // some of which are of long before
		alerts = append(alerts, about(fleet.DropsEvents, "worker-1", time.Duration(n)*10*time.Minute+5*time.Minute))
	}
	alerts = append(alerts, about(fleet.FellSilent, "worker-1", 70*time.Hour), about(fleet.SpeaksAgain, "worker-1", 60*time.Hour), about(fleet.FellSilent, "worker-2", 72*time.Hour))
	s := newSite(t, func(s *site) {
		s.store.Own = "test-cluster"
		i := &incident.Incident{ID: "a1", Cluster: "test-cluster", State: incident.New, First: now.Add(-18 * time.Hour), Last: now, Tactics: []string{}, Entities: []alert.Entity{{Kind: alert.Node, Name: "worker-1"}, {Kind: alert.Node, Name: "worker-2"}}}
		i.Signals = []incident.Signal{{Alert: "a1", Time: i.First, Rule: "Miner started"}}
		_, err := s.store.AddAlerts(t.Context(), alerts)
		if err := errors.Join(err, s.store.SaveIncidents(t.Context(), []*incident.Incident{i}, nil, store.Joined{}, 0)); err != nil {
			t.Fatal(err)
		}
	})
	code, all := s.bearer(t, "/api/v1/incidents/a1/timeline?limit=1000", testToken)
	if code != http.StatusOK {
		t.Fatal(code, all)
	}
	have := map[string]int{}
	for _, item := range all["items"].([]any) {
		if entry := item.(map[string]any); entry["kind"] == "blind" {
			node, _, _ := strings.Cut(fmt.Sprint(entry["text"]), " ")
			have[node+": "+fmt.Sprint(entry["title"])]++
		}
	}
	want := map[string]int{"worker-1: Agent drops events": 111, "worker-2: Agent is silent": 1}
	if !maps.Equal(have, want) {
		t.Errorf("have %v, want %v", have, want)
	}
}

// TestTimeline: page, API and export tell the same of an incident, whoever has seen
// it, in the order of time, and page by page.
func TestTimeline(t *testing.T) {
	s := newSite(t, told(t))
	if code, body := s.sendChange(t, "a1", `{"state": "acknowledged", "assignee": "eve"}`); code != http.StatusOK {
		t.Fatal(code, body)
	}
	code, all := s.bearer(t, "/api/v1/incidents/a1/timeline", testToken)
	if code != http.StatusOK {
		t.Fatal(code, all)
	}
	var kinds []string
	for _, item := range all["items"].([]any) {
		kinds = append(kinds, fmt.Sprint(item.(map[string]any)["kind"], " ", item.(map[string]any)["grade"]))
	}
	want := []string{"alert Warning", "alert Critical", "response killed", "message delivered", "blind Error", "admission denied", "posture low", "action <nil>", "action <nil>"}
	if first := slices.Index(kinds, "admission denied"); first == 0 { // another one half an hour before
		kinds = kinds[1:]
	}
	if !slices.Equal(kinds, want) {
		t.Errorf("have %q, want %q", kinds, want)
	}
	standing := all["standing"].([]any)
	if len(standing) != 1 || all["stood"] != 1.0 || standing[0].(map[string]any)["finding"].(map[string]any)["control"] != "CON-SEC-01" {
		t.Errorf("stood open: %v", standing)
	}
	var paged []any
	for next := ""; ; {
		code, page := s.bearer(t, "/api/v1/incidents/a1/timeline?limit=3&after="+url.QueryEscape(next), testToken)
		if code != http.StatusOK || page["total"] != float64(len(all["items"].([]any))) {
			t.Fatal(code, page)
		}
		paged = append(paged, page["items"].([]any)...)
		if page["next"] == nil {
			break
		}
		next = page["next"].(string)
	}
	if fmt.Sprint(paged) != fmt.Sprint(all["items"]) {
		t.Errorf("pages have\n%v\nall\n%v", paged, all["items"])
	}
	v := s.member(t)
	_, page := v.get("/incidents/a1")
	checkText(t, page, []string{"Stood open when it began", "Privileged containers", "at least since", "killed", "message to chat", "found: Writable root", "acknowledged it", "assigned it to eve", "not here &lt;script&gt;",
		"/api/v1/export/timeline?format=csv&amp;incident=a1", `href="/decisions?text=d`}, []string{hostile, "{{", "ZgotmplZ"})
	code, text := v.get("/api/v1/export/timeline?format=csv&incident=a1")
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil || code != http.StatusOK || len(rows) != 1+1+len(paged) || rows[1][1] != "posture" {
		t.Errorf("CSV: %d, %d rows, %v", code, len(rows), err)
	}
	code, text = v.get("/api/v1/export/timeline?incident=a1")
	var exported []any
	if err := json.Unmarshal([]byte(text), &exported); err != nil || code != http.StatusOK || fmt.Sprint(exported[1:]) != fmt.Sprint(paged) {
		t.Errorf("JSON: %d, %v, %s", code, err, text)
	}
	for path, want := range map[string]int{
		"/api/v1/incidents/none/timeline": http.StatusNotFound, "/api/v1/incidents/a1/timeline?after=x": http.StatusBadRequest, "/api/v1/incidents/a1/timeline?before=1.1": http.StatusBadRequest,
		"/api/v1/export/timeline": http.StatusBadRequest, "/api/v1/export/timeline?incident=none": http.StatusNotFound, "/incidents/a1?after=x": http.StatusBadRequest,
		"/api/v1/deliveries?incident=a1": http.StatusOK, "/deliveries?incident=a1": http.StatusOK,
	} {
		if code, body := v.get(path); code != want {
			t.Errorf("%s: %d, want %d: %.200s", path, code, want, body)
		}
	}
}

// TestLongTimeline: an incident of many alerts is told page by page.
func TestLongTimeline(t *testing.T) {
	s := newSite(t)
	c := incident.NewCorrelator(nil)
	var out incident.Outcome
	for n := range 250 {
		out = c.Add("test-cluster", incident.FromAlert(&alert.Alert{ID: fmt.Sprint("alert-", n), Time: time.Now().Add(time.Duration(n-250) * time.Second), Rule: fmt.Sprint("Rule ", n), Priority: alert.Critical,
			Source: "k8s_audit", Entities: []alert.Entity{{Kind: alert.User, Name: "ada"}}}))
	}
	if err := s.store.SaveIncidents(t.Context(), []*incident.Incident{out.Incident}, nil, store.Joined{}, 1); err != nil {
		t.Fatal(err)
	}
	v := s.member(t)
	seen := 0
	for path, pages := "/incidents/alert-0", 1; ; pages++ {
		_, body := v.get(path)
		seen += strings.Count(body, `name="split"`)
		checkText(t, body, []string{fmt.Sprintf("%d to %d of 250", 100*(pages-1)+1, min(100*pages, 250))}, nil)
		at := strings.Index(body, `">more →`)
		if at < 0 {
			if pages != 3 || seen != 250 {
				t.Errorf("%d pages show %d alerts", pages, seen)
			}
			return
		}
		start := strings.LastIndex(body[:at], `href="`) + len(`href="`)
		path = strings.ReplaceAll(body[start:at], "&amp;", "&")
	}
}

// TestMuteForm: a mute is for what is known, or for all.
func TestMuteForm(t *testing.T) {
	s := newSite(t, told(t))
	v := s.member(t)
	for mute, want := range map[string]string{"4h": "unless it escalates</dd>", "24h all": "whatever comes</dd>"} {
		if code, body, _ := v.read(v.PostForm(s.url+"/incidents/a1", url.Values{"mute": {mute}})); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d, and not %q", mute, code, want)
		}
	}
}
