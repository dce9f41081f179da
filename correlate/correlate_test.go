package correlate_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/correlate"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
)

var zero = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return zero.Add(time.Duration(seconds * float64(time.Second))) }

// A step is one thing that happens, at a time of arrival.
type step func(x *correlate.Execs, now time.Time) []correlate.Verdict

// command is one by its process; its words are those of argv.
func command(process string, when float64, pod, words string) step {
	return func(x *correlate.Execs, now time.Time) []correlate.Verdict {
		return x.Command(correlate.Exec{ID: process, Process: process, Time: at(when), Namespace: "shop", Pod: pod, Container: "app", Command: words}, now)
	}
}

func request(id string, when float64, pod string, words ...string) step {
	return func(x *correlate.Execs, _ time.Time) []correlate.Verdict {
		return x.Request(correlate.Request{ID: id, Time: at(when), User: "alice", Namespace: "shop", Pod: pod, Command: words})
	}
}

func heard(server string, when float64) step {
	return func(x *correlate.Execs, _ time.Time) []correlate.Verdict { x.Heard(server, at(when)); return nil }
}

func gone(server string) step {
	return func(x *correlate.Execs, _ time.Time) []correlate.Verdict { x.Gone(server); return nil }
}

func lost(from, to float64) step {
	return func(x *correlate.Execs, _ time.Time) []correlate.Verdict { x.Lost(at(from), at(to)); return nil }
}

// A moment has steps that arrive at a time, in seconds, after which is judged.
type moment struct {
	now   float64
	steps []step
}

func TestExecs(t *testing.T) {
	started := moment{0, []step{heard("a", 0)}}
	for _, tc := range []struct {
		name    string
		moments []moment
		want    []string
	}{
		{"requested", []moment{started, {101, []step{request("r", 99.9, "web", "sh", "-c", "id"), command("p", 100, "web", "sh -c id")}}, {110, []step{heard("a", 110)}}}, []string{"101 p explained r"}},
		{"requested, and the log is later", []moment{started, {100, []step{command("p", 100, "web", "id")}}, {120, []step{request("r", 99.9, "web", "id"), heard("a", 130)}}}, []string{"120 p explained r"}},
		{"no request", []moment{started, {100, []step{command("p", 100, "web", "id")}}, {106, []step{heard("a", 106)}}, {108, []step{heard("a", 107)}}, {109, nil}}, []string{"108 p unexplained"}},
		{"a request that was too early", []moment{started, {100, []step{request("r", 92, "web", "id"), command("p", 100, "web", "id"), heard("a", 107)}}}, []string{"100 p unexplained"}},
		{"a request that came after", []moment{started, {100, []step{request("r", 102.1, "web", "id"), command("p", 100, "web", "id"), heard("a", 107)}}}, []string{"100 p unexplained"}},
		{"clocks that differ", []moment{started, {100, []step{request("r", 101.9, "web", "id"), command("p", 100, "web", "id")}}}, []string{"100 p explained r"}},
		{"another pod", []moment{started, {100, []step{request("r", 99, "db", "id"), command("p", 100, "web", "id"), heard("a", 107)}}}, []string{"100 p unexplained"}},
		{"another command", []moment{started, {100, []step{request("r", 99, "web", "ls"), command("p", 100, "web", "id"), heard("a", 107)}}}, []string{"100 p unexplained"}},
		{"a script", []moment{started, {100, []step{request("r", 99, "web", "/x.sh", "a"), command("p", 100, "web", "/bin/sh /x.sh a")}}}, []string{"100 p explained r"}},
		{"a script by its name", []moment{started, {100, []step{request("r", 99, "web", "x.sh", "a"), command("p", 100, "web", "/bin/sh /usr/bin/x.sh a")}}}, []string{"100 p explained r"}},
		{"a command that was cut", []moment{started, {100, []step{request("r", 99, "web", "echo", strings.Repeat("x", 5000)), command("p", 100, "web", "echo "+strings.Repeat("x", 4000))}}}, []string{"100 p explained r"}},
		{"a log without commands", []moment{started, {100, []step{request("r", 99, "web"), command("p", 100, "web", "id")}}, {107, []step{heard("a", 107)}}}, []string{"107 p explained r"}},
		{"an agent without commands", []moment{started, {100, []step{request("r", 99, "web", "id"), command("p", 100, "web", "")}}, {107, []step{heard("a", 107)}}}, []string{"107 p explained r"}},
		{"one request lets one command in", []moment{started, {100, []step{command("evil", 99.5, "web", "id"), command("p", 100, "web", "id"), request("r", 99, "web", "id"), heard("a", 120)}}}, []string{"100 evil explained r", "100 p unexplained"}},
		{"nobody hides behind the request of another", []moment{started, {100, []step{command("evil", 99.5, "web", "bash"), command("p", 100, "web", "id"), request("r", 99, "web", "id"), heard("a", 120)}}}, []string{"100 p explained r", "100 evil unexplained"}},
		{"a request of two stages", []moment{started, {100, []step{request("r", 99, "web", "id"), command("p", 100, "web", "id"), request("r", 99, "web", "id"), command("q", 100.5, "web", "id"), heard("a", 120)}}}, []string{"100 p explained r", "100 q unexplained"}},
		{"a process that executes again", []moment{started, {100, []step{command("p", 100, "web", "sh"), command("p", 100.2, "web", "id"), heard("a", 120)}}}, []string{"100 p unexplained"}},
		{"a request that comes late", []moment{started, {107, []step{command("p", 100, "web", "id"), heard("a", 107)}}, {140, []step{request("r", 99, "web", "id")}}}, []string{"107 p unexplained", "140 p explained r late"}},
		{"a request without a command that comes late", []moment{started, {107, []step{command("p", 100, "web", "id"), heard("a", 107)}}, {140, []step{request("r", 99, "web")}}}, []string{"107 p unexplained", "140 p explained r late"}},
		{"no audit log at all", []moment{{100, []step{command("p", 100, "web", "id")}}, {219, nil}, {220, nil}, {300, nil}}, []string{"220 p unknown"}},
		{"an audit log that falls silent", []moment{started, {100, []step{command("p", 100, "web", "id"), heard("a", 101)}}, {250, nil}}, []string{"250 p unknown"}},
		{"and comes back", []moment{started, {100, []step{command("p", 100, "web", "id")}}, {250, nil}, {260, []step{request("r", 99, "web", "id"), heard("a", 250)}}}, []string{"250 p unknown", "260 p explained r late"}},
		{"one of two API servers is behind", []moment{{0, []step{heard("a", 0), heard("b", 0)}}, {100, []step{command("p", 100, "web", "id"), heard("a", 110)}}, {130, []step{heard("b", 110)}}}, []string{"130 p unexplained"}},
		{"one of two API servers is gone", []moment{{0, []step{heard("a", 0), heard("b", 0)}}, {100, []step{command("p", 100, "web", "id"), heard("a", 110)}}, {130, []step{gone("b")}}}, []string{"130 p unexplained"}},
		{"one of two API servers falls silent", []moment{{0, []step{heard("a", 0), heard("b", 0)}}, {100, []step{command("p", 100, "web", "id"), heard("a", 110)}}, {230, nil}}, []string{"230 p unknown"}},
		{"the log begins with the command", []moment{{100, []step{heard("a", 96), command("p", 100, "web", "id"), heard("a", 110)}}}, []string{"100 p unknown"}},
		{"the log has a gap", []moment{started, {100, []step{lost(90, 94), command("p", 100, "web", "id"), heard("a", 110)}}}, []string{"100 p unknown"}},
		{"the log has a gap elsewhere", []moment{started, {100, []step{lost(80, 92), lost(103, 104), command("p", 100, "web", "id"), heard("a", 110)}}}, []string{"100 p unexplained"}},
		{"commands arrive out of order", []moment{started, {100, []step{command("q", 100, "web", "id"), command("p", 90, "web", "id"), heard("a", 97)}}, {110, []step{heard("a", 110)}}}, []string{"100 p unexplained", "110 q unexplained"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x := correlate.New(correlate.Options{})
			var got []string
			note := func(now float64, verdicts []correlate.Verdict) {
				for _, v := range verdicts {
					line := fmt.Sprintf("%g %s %s", now, v.Exec.Process, v.Outcome)
					if v.Request != nil {
						line += " " + v.Request.ID
					}
					if v.Late {
						line += " late"
					}
					if v.Reason == "" {
						t.Errorf("%s: without a reason", line)
					}
					got = append(got, line)
				}
			}
			for _, m := range tc.moments {
				for _, s := range m.steps {
					note(m.now, s(x, at(m.now)))
				}
				note(m.now, x.Judge(at(m.now)))
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("verdicts %q, want %q", got, tc.want)
			}
		})
	}
}

func TestExpectedCommands(t *testing.T) {
	x := correlate.New(correlate.Options{Expected: func(e correlate.Exec) string {
		if e.Command == "cat /healthy" {
			return "liveness probe of container app"
		}
		return ""
	}})
	x.Heard("a", at(0))
	got := command("p", 100, "web", "cat /healthy")(x, at(100))
	if len(got) != 1 || got[0].Outcome != correlate.Explained || got[0].Reason != "liveness probe of container app" {
		t.Errorf("verdicts %+v", got)
	}
	if got := command("q", 100, "web", "cat /healthz")(x, at(100)); got != nil {
		t.Errorf("verdicts %+v", got)
	}
	x.Heard("a", at(200))
	if got := x.Judge(at(200)); len(got) != 1 || got[0].Exec.Process != "q" || got[0].Outcome != correlate.Unexplained {
		t.Errorf("verdicts %+v", got)
	}
}

// What there is no room for is said to be unknown, never unexplained.
func TestBounds(t *testing.T) {
	x := correlate.New(correlate.Options{Limit: 3})
	x.Heard("a", at(0))
	for i := range 5 {
		verdicts := command(fmt.Sprint("p", i), 100, "web", "id")(x, at(100))
		if full := i >= 3; full != (len(verdicts) == 1 && verdicts[0].Outcome == correlate.Unknown) {
			t.Errorf("command %d: %+v", i, verdicts)
		}
	}
	for i := range 5 {
		request(fmt.Sprint("r", i), 100, "db")(x, at(100))
	}
	if x.Dropped() != 4 {
		t.Errorf("dropped %d", x.Dropped())
	}
	x.Heard("a", at(200))
	verdicts := x.Judge(at(200))
	for _, v := range verdicts {
		if v.Outcome != correlate.Unknown {
			t.Errorf("a request was dropped at that time: %+v", v)
		}
	}
	if len(verdicts) != 3 {
		t.Errorf("%d verdicts", len(verdicts))
	}
	// Later there is room again.
	x.Heard("a", at(2000))
	x.Judge(at(2000))
	if verdicts := command("later", 2000, "web", "id")(x, at(2000)); verdicts != nil {
		t.Errorf("verdicts %+v", verdicts)
	}
}

// Gaps are remembered as longer ones before they are forgotten.
func TestManyGaps(t *testing.T) {
	x := correlate.New(correlate.Options{})
	x.Heard("a", at(0))
	for i := range 500 {
		x.Lost(at(float64(i)), at(float64(i)))
	}
	command("p", 250, "web", "id")(x, at(250))
	x.Heard("a", at(257))
	if got := x.Judge(at(257)); len(got) != 1 || got[0].Outcome != correlate.Unknown {
		t.Errorf("verdicts %+v", got)
	}
}

const execEvent = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"r1","stage":"ResponseStarted",
 "requestURI":"/api/v1/namespaces/shop/pods/web/exec?command=sh&command=-c&command=id+%2Bx&container=app&stdin=true","verb":"get",
 "user":{"username":"alice"},"objectRef":{"resource":"pods","subresource":"exec","namespace":"shop","name":"web"},
 "responseStatus":{"code":101},"requestReceivedTimestamp":"2026-03-01T12:00:00.5Z","stageTimestamp":"2026-03-01T12:00:01Z"}`

func TestRequestsOfTheAuditLog(t *testing.T) {
	reader, err := correlate.NewAuditReader()
	if err != nil {
		t.Fatal(err)
	}
	replaced := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(execEvent) }
	want := correlate.Request{ID: "r1", Time: at(0.5), User: "alice", Namespace: "shop", Pod: "web", Container: "app", Command: []string{"sh", "-c", "id +x"}}
	bare := want
	bare.Command, bare.Container = nil, ""
	proxied := want
	proxied.Command = []string{"id"}
	for _, tc := range []struct {
		name, event string
		want        *correlate.Request
	}{
		{"websocket", execEvent, &want},
		{"SPDY", replaced(`"get"`, `"create"`), &want},
		{"its end", replaced("ResponseStarted", "ResponseComplete"), &want},
		{"refused", replaced("101", "403"), nil},
		{"before an answer", replaced(`"responseStatus":{"code":101},`, ""), nil},
		{"attached", replaced(`"subresource":"exec"`, `"subresource":"attach"`), nil},
		{"logs", replaced(`"subresource":"exec"`, `"subresource":"log"`), nil},
		{"without a query", replaced("?command=sh&command=-c&command=id+%2Bx&container=app&stdin=true", ""), &bare},
		{"a command that is too long", replaced("command=sh", "command="+strings.Repeat("x", 70_000)), &bare},
		{"by the kubelet, through the API server", replaced("/api/v1/namespaces/shop/pods/web/exec?command=sh&command=-c&command=id+%2Bx&container=app&stdin=true",
			"/api/v1/nodes/n1/proxy/run/shop/web/app?cmd=id", `"resource":"pods","subresource":"exec","namespace":"shop","name":"web"`, `"resource":"nodes","subresource":"proxy","name":"n1"`), &proxied},
		{"metrics of the kubelet", replaced("/api/v1/namespaces/shop/pods/web/exec?command=sh&command=-c&command=id+%2Bx&container=app&stdin=true",
			"/api/v1/nodes/n1/proxy/metrics", `"resource":"pods","subresource":"exec","namespace":"shop","name":"web"`, `"resource":"nodes","subresource":"proxy","name":"n1"`), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []correlate.Request
			stats, err := k8saudit.Decode(strings.NewReader(strings.ReplaceAll(tc.event, "\n", "")), func(e *event.Event) error {
				if r, ok := reader.Request(e); ok {
					got = append(got, r)
				}
				return nil
			})
			if err != nil || stats.Events != 1 {
				t.Fatal(err, stats)
			}
			switch {
			case tc.want == nil && len(got) > 0:
				t.Errorf("request %+v", got[0])
			case tc.want != nil && (len(got) != 1 || fmt.Sprintf("%+v", got[0]) != fmt.Sprintf("%+v", *tc.want)):
				t.Errorf("requests %+v, want %+v", got, *tc.want)
			}
		})
	}
}

func TestAlerts(t *testing.T) {
	entered := alert.Alert{
		ID: "x", Time: at(1), Rule: correlate.EnteredRule, Source: event.Syscall, Hostname: "n1",
		OutputFields: map[string]any{
			"k8s.ns.name": "shop", "k8s.pod.name": "web", "container.id": "3f2a9c01d7be", "container.image.repository": "ghcr.io/shop/web",
			"proc.exeline": "sh -c id", "proc.pid": int64(77), "proc.pid.ts": uint64(1_772_366_401_000_000_000), "user.name": "root", "proc.pname": "containerd-shim",
		},
	}
	e, ok := correlate.FromAlert(entered)
	if !ok || e.Process != "n1/77/1772366401000000000" || e.Command != "sh -c id" || e.Pod != "web" {
		t.Fatalf("command %+v", e)
	}
	// Sent over the wire it is the same process.
	data, err := json.Marshal(entered)
	if err != nil {
		t.Fatal(err)
	}
	var sent alert.Alert
	if err := json.Unmarshal(data, &sent); err != nil {
		t.Fatal(err)
	}
	if again, ok := correlate.FromAlert(sent); !ok || again.Process != e.Process {
		t.Errorf("command %+v", again)
	}
	x := correlate.New(correlate.Options{})
	x.Heard("a", at(-100))
	x.Command(e, at(2))
	x.Heard("a", at(100))
	verdicts := x.Judge(at(100))
	if len(verdicts) != 1 {
		t.Fatalf("verdicts %+v", verdicts)
	}
	a := verdicts[0].Alert("prod")
	if a.Rule != correlate.Rule || a.Priority != alert.Critical || a.Cluster != "prod" || a.Subject.Name != "web" || a.ID == "" ||
		!strings.Contains(a.Output, "command=sh -c id") || !strings.Contains(a.Output, "no request for a command in pod shop/web within 5s") || a.Tactics[0] != "execution" {
		t.Errorf("alert %+v", a)
	}
	for _, other := range []func(*alert.Alert){
		func(a *alert.Alert) { a.Rule = "Known miner started" },
		func(a *alert.Alert) { a.Source = event.K8sAudit },
		func(a *alert.Alert) { a.OutputFields = map[string]any{"proc.pid": 1} }, // in no pod
	} {
		a := entered
		other(&a)
		if e, ok := correlate.FromAlert(a); ok {
			t.Errorf("command %+v", e)
		}
	}
}

// Whatever the URI, a request is one or none, and its words are bounded.
func FuzzRequest(f *testing.F) {
	f.Add("/api/v1/namespaces/shop/pods/web/exec?command=sh&command=-c&command=id+%2Bx&container=app", "pods", "exec")
	f.Add("/api/v1/nodes/n1/proxy/run/shop/web/app?cmd=id", "nodes", "proxy")
	f.Add("/api/v1/nodes/n1/proxy//exec///?%zz", "nodes", "proxy")
	reader, err := correlate.NewAuditReader()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, uri, resource, subresource string) {
		data, err := json.Marshal(map[string]any{
			"kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "r1", "stage": "ResponseStarted", "requestURI": uri, "verb": "get",
			"user": map[string]any{"username": "alice"}, "objectRef": map[string]any{"resource": resource, "subresource": subresource, "namespace": "shop", "name": "web"},
			"responseStatus": map[string]any{"code": 101}, "stageTimestamp": "2026-03-01T12:00:01Z",
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = k8saudit.Decode(strings.NewReader(string(data)), func(e *event.Event) error {
			r, ok := reader.Request(e)
			if !ok {
				return nil
			}
			if (resource != "pods" || subresource != "exec") && (resource != "nodes" || subresource != "proxy") {
				t.Errorf("%s/%s lets a command in", resource, subresource)
			}
			if len(strings.Join(r.Command, "")) > 64<<10 {
				t.Errorf("a command of %d bytes", len(strings.Join(r.Command, "")))
			}
			return nil
		})
		if err != nil && !strings.Contains(err.Error(), "event") {
			t.Errorf("%v", err)
		}
	})
}
