package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/kubeguardian/kubeguardian/action/deed"
	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus"
	"github.com/kubeguardian/kubeguardian/bus/fleet"
	"github.com/kubeguardian/kubeguardian/bus/spool"
	"github.com/kubeguardian/kubeguardian/bus/verdict"
	"github.com/kubeguardian/kubeguardian/correlate"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/finding"
)

// onePod answers like an API server that has one pod, with a probe, and one node.
func onePod(t *testing.T) *rest.Config {
	t.Helper()
	pod := `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web","namespace":"shop","uid":"u1","resourceVersion":"1"},"spec":{"nodeName":"n1","containers":[{"name":"app","image":"web:1","livenessProbe":{"exec":{"command":["cat","/healthy"]}}}]}}`
	stop := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/api":
			fmt.Fprint(w, `{"kind":"APIVersions","versions":["v1"]}`)
			return
		case "/apis":
			fmt.Fprint(w, `{"kind":"APIGroupList","apiVersion":"v1","groups":[]}`)
			return
		case "/api/v1":
			fmt.Fprint(w, `{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"pods","namespaced":true,"kind":"Pod","verbs":["get","list","watch"]},{"name":"nodes","kind":"Node","verbs":["get","list","watch"]}]}`)
			return
		}
		item, known := map[string][2]string{"/api/v1/pods": {"PodList", pod}, "/api/v1/nodes": {"NodeList", `{"kind":"Node","apiVersion":"v1","metadata":{"name":"n1","resourceVersion":"1"}}`}}[r.URL.Path]
		switch {
		case r.URL.Query().Has("sendInitialEvents"): // an older one
			w.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
		case r.URL.Query().Has("watch"):
			w.(http.Flusher).Flush()
			select {
			case <-stop:
			case <-r.Context().Done():
			}
		case known:
			fmt.Fprintf(w, `{"kind":%q,"apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[%s]}`, item[0], item[1])
		default:
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`)
		}
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(stop) })
	return &rest.Config{Host: srv.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
}

// A node sends what its agent does.
type node struct {
	*bus.Publisher
	state func(fleet.State)
}

func startNode(t *testing.T, r *running) *node {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	sp, err := spool.Open(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := bus.Endpoint{URL: r.BusURL(), TokenFile: token}.ConnectAgent("n1", log)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Publisher: bus.NewPublisher("n1", sp, log)}
	n.state = func(s fleet.State) {
		if err := bus.SendState(t.Context(), nc, &s); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx, nc) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		nc.Close()
		if err := sp.Close(); err != nil {
			t.Error(err)
		}
	})
	for end := time.Now().Add(2 * time.Minute); !nc.IsConnected(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no connection to the bus")
		}
	}
	return n
}

// entered is what an agent says of a command in the pod.
func entered(process int, at time.Time, words string) alert.Alert {
	return alert.Alert{
		ID: alert.NewID(event.Syscall, fmt.Sprint(process), correlate.EnteredRule), Time: at, Rule: correlate.EnteredRule, Priority: alert.Informational, Source: event.Syscall,
		Output: "12:00:00.000000000: Informational A program was started in a running container", Hostname: "n1",
		OutputFields: map[string]any{
			"k8s.ns.name": "shop", "k8s.pod.name": "web", "container.id": "3f2a9c01d7be", "container.image.repository": "web", "proc.exeline": words,
			"proc.pid": process, "proc.pid.ts": at.UnixNano(), "user.name": "root", "proc.pname": "runc",
		},
		Tags: []string{"container"}, Subject: finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "web", Container: "app"},
	}
}

// auditedAt sends an event of the audit log: any, or an exec with words.
func (r *running) auditedAt(at time.Time, words ...string) {
	r.t.Helper()
	e := map[string]any{
		"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": fmt.Sprint("a", at.UnixNano()), "stage": "ResponseComplete", "verb": "get", "requestURI": "/healthz",
		"user": map[string]any{"username": "alice"}, "responseStatus": map[string]any{"code": 200},
		"requestReceivedTimestamp": at.UTC().Format("2006-01-02T15:04:05.000000Z"), "stageTimestamp": at.UTC().Format("2006-01-02T15:04:05.000000Z"),
	}
	if len(words) > 0 {
		e["stage"], e["requestURI"] = "ResponseStarted", "/api/v1/namespaces/shop/pods/web/exec?container=app&command="+strings.Join(words, "&command=")
		e["objectRef"] = map[string]any{"resource": "pods", "subresource": "exec", "namespace": "shop", "name": "web", "apiVersion": "v1"}
		e["responseStatus"] = map[string]any{"code": 101}
	}
	data, err := json.Marshal(map[string]any{"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": []any{e}})
	if err != nil {
		r.t.Fatal(err)
	}
	if code, body := r.webhook("/audit", string(data)); code != http.StatusOK {
		r.t.Fatalf("audit event: %d %s", code, body)
	}
}

func startWithAgents(t *testing.T, limits correlate.Options, config ...string) *running {
	t.Helper()
	hosts := write(t, "n1 0123456789abcdef\n")
	opts := options(t, t.TempDir(), fmt.Sprintf("admission: {enabled: false}\ndetection: {heartbeat: 0s}\nbus: {listen: \"127.0.0.1:0\", hostTokens: %q}\n", hosts)+strings.Join(config, ""))
	opts.Cluster, opts.commands = onePod(t), limits
	r := start(t, opts)
	for end := time.Now().Add(2 * time.Minute); r.nodes() == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the cluster has not been read")
		}
	}
	return r
}

// storedRules returns the rules of the alerts that are stored, but for those of the
// audit log, sorted, once there are so many.
func (r *running) storedRules(want int) []string {
	r.t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		records, _, err := r.store.AlertsAfter(r.t.Context(), 0, alert.Query{Limit: 100})
		if err != nil {
			r.t.Fatal(err)
		}
		var rules []string
		for _, a := range records {
			if a.Source != event.K8sAudit {
				rules = append(rules, a.Rule)
			}
		}
		slices.Sort(rules)
		if len(rules) >= want || time.Now().After(end) {
			return rules
		}
	}
}

func (r *running) awaitCommands(outcomes map[string]uint64) {
	r.t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		done, counts := true, r.judge.Counts()
		for outcome, n := range outcomes {
			done = done && counts[outcome] == n
		}
		if done {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("commands %v, want %v", counts, outcomes)
		}
	}
}

// A command that no request explains is an alert; one that somebody asked for, a
// probe and a command outside pods are not.
func TestUnexplainedCommand(t *testing.T) {
	r := startWithAgents(t, correlate.Options{})
	n := startNode(t, r)
	now := time.Now()
	at := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }
	r.auditedAt(at(-60))
	r.auditedAt(at(-21), "sh", "-c", "id")
	host := entered(4, at(-20), "id")
	delete(host.OutputFields, "k8s.pod.name")
	for _, a := range []alert.Alert{entered(1, at(-20), "sh -c id"), entered(2, at(-20), "cat /healthy"), entered(3, at(-20), "bash -i"), host} {
		if err := n.Publish(&a); err != nil {
			t.Fatal(err)
		}
	}
	r.awaitCommands(map[string]uint64{"explained": 2, "outside_pods": 1})
	if rules := r.storedRules(0); len(rules) > 0 {
		t.Errorf("before the log is known: %q", rules)
	}
	r.auditedAt(at(0))
	r.awaitCommands(map[string]uint64{"explained": 2, "unexplained": 1})
	if rules := r.storedRules(1); !slices.Equal(rules, []string{correlate.Rule}) {
		t.Errorf("alerts %q", rules)
	}
	r.auditedAt(at(-19).Add(-time.Second), "bash", "-i") // the log of another API server was late
	if rules := r.storedRules(2); !slices.Equal(rules, []string{verdict.LateRule, correlate.Rule}) {
		t.Errorf("alerts %q", rules)
	}
	again := entered(3, at(-20), "bash -i")
	again.ID = "of another program of the process"
	if err := n.Publish(&again); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(2 * time.Minute); r.agents.Alerts().Received < 5; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%+v", r.agents.Alerts())
		}
	}
	r.awaitCommands(map[string]uint64{"unexplained": 1, "unknown": 0})
}

// Without an audit log no command is said to be unexplained.
func TestCommandWithoutAuditLog(t *testing.T) {
	r := startWithAgents(t, correlate.Options{Wait: time.Second})
	n := startNode(t, r)
	a := entered(1, time.Now(), "bash -i")
	if err := n.Publish(&a); err != nil {
		t.Fatal(err)
	}
	r.awaitCommands(map[string]uint64{"unknown": 1})
	if rules := r.storedRules(1); !slices.Equal(rules, []string{correlate.EnteredRule}) {
		t.Errorf("alerts %q", rules)
	}
	records, _, err := r.store.AlertsAfter(t.Context(), 0, alert.Query{Limit: 1})
	if err != nil || len(records) != 1 || !strings.Contains(records[0].Output, "nothing is heard of the audit log") || records[0].Cluster != "test" {
		t.Errorf("%+v, %v", records, err)
	}
}

// TestRaiseAll: of what the server tells of, that is new which it has not told of.
func TestRaiseAll(t *testing.T) {
	r := startWithAgents(t, correlate.Options{})
	raise := func(events ...string) (raised []string) {
		var list []alert.Alert
		for _, event := range events {
			list = append(list, alert.Alert{ID: event, Rule: fleet.DropsEvents.Rule(), Priority: alert.Error, Output: "of " + event, Subject: finding.Subject{Kind: "Node", Name: "n1"}})
		}
		for _, a := range r.raiseAll(t.Context(), list) {
			raised = append(raised, a.Output)
		}
		return raised
	}
	for i, want := range [][]string{{"of a", "of b"}, {"of c"}, nil} {
		if have := raise([][]string{{"a", "b"}, {"b", "c", "a"}, nil}[i]...); !slices.Equal(have, want) {
			t.Errorf("step %d: raised %q, want %q", i, have, want)
		}
	}
	page, _, err := r.store.Alerts(t.Context(), alert.Query{Entity: alert.Entity{Kind: alert.Node, Name: "n1"}})
	if err != nil || len(page) != 3 || page[0].Source != "kubeguardian" || page[0].Cluster != "test" {
		t.Errorf("%+v, %v", page, err)
	}
}

// An agent that falls silent, and one that drops events, are seen.
func TestAgentsAreWatched(t *testing.T) {
	r := startWithAgents(t, correlate.Options{})
	n := startNode(t, r)
	n.state(fleet.State{Node: "n1", Version: "v1", Started: time.Now(), Time: time.Now(), Interval: time.Second, Rules: 120})
	n.state(fleet.State{Node: "n1", Version: "v1", Started: time.Now(), Time: time.Now(), Interval: time.Second, Rules: 120, Dropped: 7})
	rules := r.storedRules(2)
	if !slices.Equal(rules, []string{"Agent drops events", "Agent is silent"}) {
		t.Errorf("alerts %q", rules)
	}
	if _, body := r.page("/api/v1/agents"); !strings.Contains(body, `"status":"silent"`) || !strings.Contains(body, `"dropped":7`) {
		t.Error(body)
	}
	if h := strings.Join(r.health().Problems, "\n"); !strings.Contains(h, "Agents are silent, and what happens on their nodes is not known: n1.") {
		t.Error(h)
	}
	if _, body := r.page("/metrics"); !strings.Contains(body, `kubeguardian_agents{status="silent"} 1`) || !strings.Contains(body, "kubeguardian_bus_connections 1") {
		t.Errorf("metrics %.3000s", body)
	}
}

// TestDeedsOfAgents: what an agent did is in the log of actions, once, also where
// the alert is only counted as a repeat.
func TestDeedsOfAgents(t *testing.T) {
	r := startWithAgents(t, correlate.Options{})
	n := startNode(t, r)
	for i := range 3 {
		a := alert.Alert{
			ID: alert.NewID(event.Syscall, fmt.Sprint("deed", i/2), "Miner"), Time: time.Now(), Rule: "Miner", Priority: alert.Critical, Source: event.Syscall, Output: "miner", Hostname: "n1",
			OutputFields: map[string]any{"proc.exepath": "/miner", "enforce.kill": "killed", "enforce.kill.by": "kernel"},
			Subject:      finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "web", Container: "app"},
		}
		if err := n.Publish(&a); err != nil {
			t.Fatal(err)
		}
	}
	last := alert.Alert{ID: alert.NewID(event.Syscall, "last", "Last"), Time: time.Now(), Rule: "Last", Priority: alert.Critical, Source: event.Syscall, Output: "last", Hostname: "n1", OutputFields: map[string]any{"enforce.block-egress": "refused", "enforce.block-egress.reason": "protected"}}
	if err := n.Publish(&last); err != nil {
		t.Fatal(err)
	}
	var results []string
	for end := time.Now().Add(2 * time.Minute); len(results) < 3 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		entries, _, err := r.store.Actions(t.Context(), 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		results = nil
		for _, e := range entries {
			if e.User == deed.Agents && e.Source == "n1" {
				results = append(results, e.Action+" "+e.Result)
			}
		}
	}
	if slices.Sort(results); !slices.Equal(results, []string{"block-egress denied: protected", "kill done", "kill done"}) {
		t.Errorf("log of actions %q", results)
	}
}
