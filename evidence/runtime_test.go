package evidence

import (
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/fact"
	"github.com/kubeguardian/kubeguardian/finding"
)

const runtimeText = `apiVersion: kubeguardian.dev/runtime/v1
tool: Falco 0.42
at: 2026-11-26T11:55:00Z
respondWithin: 4h
heartbeats:
- {stream: sensor, node: worker-1, at: 2026-11-26T11:54:00Z, problems: [7 events were dropped.], drift: false}
- {stream: audit, since: 2026-11-26T10:00:00Z}
criticalAlerts:
- {rule: Drift, at: 2026-11-26T01:00:00Z, kind: Pod, namespace: shop, name: web, drift: true}
`

func TestRuntime(t *testing.T) {
	set, err := Read("f", []byte(runtimeText))
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Heartbeats) != 2 || set.Heartbeats[0].Node != "worker-1" || !set.Heartbeats[1].At.IsZero() || set.Heartbeats[0].Kind != Runtime || set.Heartbeats[0].Drift != fact.No ||
		set.Heartbeats[1].Drift != fact.Unknown || len(set.Heartbeats[0].Problems) != 1 {
		t.Errorf("heartbeats %+v", set.Heartbeats)
	}
	if a := set.Alerts[0]; a.Respond != 4*time.Hour || !a.Drift || !a.Critical || a.Subject != (finding.Subject{Kind: "Pod", Namespace: "shop", Name: "web"}) {
		t.Errorf("alert %+v", a)
	}
	for name, tt := range map[string]struct{ old, new, want string }{
		"no time":                 {"at: 2026-11-26T11:55:00Z\n", "", "want at, the time"},
		"unknown stream":          {"stream: audit", "stream: kernel", "heartbeat 2: want stream"},
		"sensor without its node": {", node: worker-1", "", "heartbeat 1: want stream"},
		"alert without rule":      {"rule: Drift, ", "", "critical alert 1: want rule"},
		"unknown key":             {"tool:", "toll:", "unknown key toll"},
		"negative time":           {"4h", "-4h", "of 0 or more"},
	} {
		if _, err := Read("f", []byte(strings.Replace(runtimeText, tt.old, tt.new, 1))); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}

const bundleText = "apiVersion: kubeguardian.dev/bundle/v1\nat: 2026-11-25T00:00:00Z\ndigest: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n"

func TestBundle(t *testing.T) {
	set, err := Read("f", []byte(bundleText))
	if err != nil || len(set.Bundles) != 1 || set.Bundles[0].Kind != Repo || !strings.HasPrefix(set.Bundles[0].Digest, "sha256:0123") {
		t.Errorf("%+v, %v", set, err)
	}
	if _, err := Read("f", []byte(strings.Replace(bundleText, "sha256:", "md5:", 1))); err == nil || !strings.Contains(err.Error(), "want at") {
		t.Errorf("another digest: %v", err)
	}
}

// event writes an audit event.
func event(user, verb, resource, more string) string {
	return `{"kind":"Event","apiVersion":"audit.k8s.io/v1","stage":"ResponseComplete","requestReceivedTimestamp":"2026-11-26T11:00:00.000001Z",` +
		`"verb":"` + verb + `","user":{"username":"` + user + `","extra":{"authentication.kubernetes.io/credential-id":["X509SHA256=ab"]}},"objectRef":{"resource":"` + resource + `","namespace":"shop"}` + more + `}`
}

func TestAuditLog(t *testing.T) {
	lines := []string{
		event("jane", "get", "pods", ""),
		event("jane", "get", "pods", ""),
		event("jane", "create", "pods", `,"objectRef":{"resource":"pods","subresource":"exec","apiGroup":""}`),
		event("jane", "list", "secrets", `,"responseStatus":{"code":403}`),
		event("jane", "list", "nodes", `,"stage":"RequestReceived"`),
		event("jane", "list", "events", `,"impersonatedUser":{"username":"root"},"requestReceivedTimestamp":"2026-11-20T11:00:00Z"`),
	}
	for name, text := range map[string]string{
		"log":  strings.Join(lines, "\n") + "\n\n",
		"list": `{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[` + strings.Join(lines, ",") + `]}`,
	} {
		set, err := Read("f", []byte(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got []string
		for _, u := range set.Uses {
			got = append(got, strings.Join([]string{u.User, u.Verb, u.Resource, u.Credential}, " "))
		}
		if want := "jane get pods X509SHA256, jane create pods/exec X509SHA256, root list events "; strings.Join(got, ", ") != want {
			t.Errorf("%s: %q", name, got)
		}
		if u := set.Uses[0]; u.From.Day() != 20 || u.SeenAt.Day() != 26 {
			t.Errorf("%s: window %v to %v", name, u.From, u.SeenAt)
		}
	}
	for name, text := range map[string]string{
		"f:2: not an audit event":  lines[0] + "\n{broken",
		"audit event 2: want user": lines[0] + "\n{}",
	} {
		if _, err := Read("f", []byte(text)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %s", err, name)
		}
	}
}

func FuzzAudit(f *testing.F) {
	f.Add([]byte(event("jane", "get", "pods", "")))
	f.Add([]byte(runtimeText))
	f.Add([]byte(bundleText))
	f.Fuzz(func(t *testing.T, data []byte) {
		if set, err := Read("f", data); err == nil && set == nil {
			t.Error("neither evidence nor an error")
		}
	})
}
