package falco_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/falco"
	"github.com/kubeguardian/kubeguardian/finding"
)

// shell is an alert as Falco 0.44 writes it.
const shell = `{"hostname":"node-1","output":"10:20:30.123456789: Notice A shell was spawned (user=root)","output_fields":{` +
	`"container.id":"3f2a9c01d7be","container.name":"web","container.image.repository":"ghcr.io/shop/web","container.image.tag":"1.2",` +
	`"evt.time":1784801111123456789,"k8s.ns.name":"shop","k8s.pod.name":"web-0","proc.tty":34816,"user.name":"root"},` +
	`"priority":"Notice","rule":"Terminal shell in container","source":"syscall","tags":["T1059","container","mitre_execution","shell"],` +
	`"time":"2026-07-23T10:05:11.123456789Z"}`

// audit is an alert of Falco's audit plugin, as Falcosidekick passes it on.
const audit = `{"uuid":"5e6c1ef1-b4a5-4a7c-a4c0-1d6d6f3ff7b0","output":"10:05:11.000000000: Warning Role with wildcard created",` +
	`"priority":"warning","rule":"ClusterRole With Wildcard Created","time":"2026-07-23T10:05:11Z","source":"k8s_audit",` +
	`"output_fields":{"ka.user.name":"eve","ka.target.resource":"clusterroles","ka.target.name":"all","ka.sourceips":["203.0.113.7","10.0.0.9"],"ka.target.namespace":null},` +
	`"hostname":"","tags":["mitre_privilege_escalation"]}`

func TestAlertsAreDescribed(t *testing.T) {
	alerts, err := falco.Parse([]byte(shell + "\n" + audit))
	if err != nil || len(alerts) != 2 {
		t.Fatalf("Parse = %d alerts, %v", len(alerts), err)
	}
	a := alerts[0]
	if want := (finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "web-0", Container: "web"}); a.Subject != want {
		t.Errorf("subject %+v, want %+v", a.Subject, want)
	}
	if a.Rule != "Terminal shell in container" || a.Priority != alert.Notice || a.Source != "syscall" || a.Hostname != "node-1" ||
		!a.Time.Equal(time.Date(2026, 7, 23, 10, 5, 11, 123456789, time.UTC)) || !reflect.DeepEqual(a.Tactics, []string{"execution"}) {
		t.Errorf("alert %+v", a)
	}
	if n, ok := a.OutputFields["evt.time"].(json.Number); !ok || n != "1784801111123456789" {
		t.Errorf("evt.time = %v, want the number as it was sent", a.OutputFields["evt.time"])
	}
	want := []alert.Entity{{Kind: alert.Pod, Name: "shop/web-0"}, {Kind: alert.Container, Name: "3f2a9c01d7be"}, {Kind: alert.Image, Name: "ghcr.io/shop/web:1.2"}}
	if !reflect.DeepEqual(a.Entities, want) {
		t.Errorf("entities %v, want %v", a.Entities, want)
	}
	b := alerts[1]
	if want := (finding.Subject{Kind: "ClusterRole", Name: "all"}); b.Subject != want || b.Priority != alert.Warning {
		t.Errorf("subject %+v priority %v, want %+v", b.Subject, b.Priority, want)
	}
	want = []alert.Entity{{Kind: alert.User, Name: "eve"}, {Kind: alert.Object, Name: "clusterroles/all"}, {Kind: alert.Address, Name: "10.0.0.9"}}
	if !reflect.DeepEqual(b.Entities, want) {
		t.Errorf("entities %v, want %v", b.Entities, want)
	}
}

func TestWhereItHappened(t *testing.T) {
	for _, tc := range []struct {
		name, fields string
		subject      string
		entities     []alert.Entity
	}{
		{"on the host", `"container.id":"host"`, "Node/node-1", []alert.Entity{{Kind: alert.Node, Name: "node-1"}}},
		{"container without a pod", `"container.id":"abc","k8s.ns.name":null,"k8s.pod.name":null`, "Node/node-1", []alert.Entity{{Kind: alert.Container, Name: "abc"}}},
		{"not known", `"container.id":"abc","k8s.ns.name":"<NA>"`, "Node/node-1", []alert.Entity{{Kind: alert.Container, Name: "abc"}}},
		{"namespace only", `"k8s.ns.name":"shop","container.image":"a:1"`, "Namespace/shop", []alert.Entity{{Kind: alert.Node, Name: "node-1"}, {Kind: alert.Image, Name: "a:1"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			alerts, err := falco.Parse(edit(shell, func(m map[string]any) { m["output_fields"] = json.RawMessage("{" + tc.fields + "}") }))
			if err != nil {
				t.Fatal(err)
			}
			if got := alerts[0].Subject.String(); got != tc.subject || !reflect.DeepEqual(alerts[0].Entities, tc.entities) {
				t.Errorf("subject %s, entities %v; want %s, %v", got, alerts[0].Entities, tc.subject, tc.entities)
			}
		})
	}
}

// edit returns a text of JSON with a change.
func edit(text string, change func(map[string]any)) []byte {
	var m map[string]any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&m); err != nil {
		panic(err)
	}
	change(m)
	out, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return out
}

func TestDockerNamesItsContainers(t *testing.T) {
	alerts, err := falco.Parse([]byte(strings.Replace(shell, `"container.name":"web"`, `"container.name":"k8s_front_web-0_shop_uid_0"`, 1)))
	if err != nil || alerts[0].Subject.Container != "front" {
		t.Errorf("container %q, %v", alerts[0].Subject.Container, err)
	}
}

func TestDefaults(t *testing.T) {
	alerts, err := falco.Parse([]byte(`[{"rule":"R","priority":"INFO","time":"2026-07-23T10:05:11+02:00","output_fields":{"a":1},"unknown":{}}]`))
	if err != nil {
		t.Fatal(err)
	}
	a := alerts[0]
	if a.Source != "syscall" || a.Output != "R" || a.Priority != alert.Informational || a.Time.Hour() != 8 {
		t.Errorf("alert %+v", a)
	}
}

// TestAgainIsTheSame: what is sent again, by Falco or through Falcosidekick, has
// one id, and what differs in anything has another.
func TestAgainIsTheSame(t *testing.T) {
	id := func(text []byte) string {
		t.Helper()
		alerts, err := falco.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return alerts[0].ID
	}
	first := id([]byte(shell))
	for name, again := range map[string][]byte{
		"other order of keys":   edit(shell, func(map[string]any) {}),
		"through Falcosidekick": edit(shell, func(m map[string]any) { m["uuid"] = "another" }),
		"another spelling":      edit(shell, func(m map[string]any) { m["priority"] = "notice" }),
	} {
		if id(again) != first {
			t.Errorf("%s: another id", name)
		}
	}
	for _, key := range []string{"rule", "output", "source", "hostname"} {
		if id(edit(shell, func(m map[string]any) { m[key] = "other" })) == first {
			t.Errorf("another %s has the same id", key)
		}
	}
	if id(edit(shell, func(m map[string]any) { m["time"] = "2026-07-23T10:05:11.123456780Z" })) == first {
		t.Error("another time has the same id")
	}
	if id(edit(shell, func(m map[string]any) { m["output_fields"].(map[string]any)["proc.tty"] = 1 })) == first {
		t.Error("another field has the same id")
	}
}

func TestWhatIsNoAlert(t *testing.T) {
	nested := strings.Repeat(`{"a":`, 9) + "1" + strings.Repeat("}", 9)
	many := map[string]any{}
	for i := range 1001 {
		many[fmt.Sprint(i)] = i
	}
	for name, tc := range map[string]struct {
		body []byte
		want string
	}{
		"empty":            {[]byte(" \n"), "body is empty"},
		"text":             {[]byte("10:20:30.1: Notice A shell"), "set json_output to true"},
		"cut":              {[]byte(shell[:40]), "not JSON"},
		"number":           {[]byte("7"), "alert 1: want a JSON object"},
		"null":             {[]byte("null"), "alert 1: want a JSON object"},
		"second is wrong":  {[]byte(shell + `{"rule":""}`), "alert 2: rule is missing"},
		"in an array":      {[]byte(`[` + shell + `,[]]`), "alert 2: want a JSON object"},
		"no rule":          {edit(shell, func(m map[string]any) { delete(m, "rule") }), "rule is missing"},
		"other case":       {edit(shell, func(m map[string]any) { m["Rule"] = m["rule"]; delete(m, "rule") }), "rule is missing"},
		"no priority":      {edit(shell, func(m map[string]any) { delete(m, "priority") }), "priority is missing"},
		"unknown priority": {edit(shell, func(m map[string]any) { m["priority"] = "urgent" }), `unknown priority "urgent"`},
		"no time":          {edit(shell, func(m map[string]any) { delete(m, "time") }), "time is missing"},
		"no such time":     {edit(shell, func(m map[string]any) { m["time"] = "today" }), "time is not of RFC 3339"},
		"no such year":     {edit(shell, func(m map[string]any) { m["time"] = "9999-01-01T00:00:00Z" }), "time is not of our age"},
		"no fields":        {edit(shell, func(m map[string]any) { m["output_fields"] = map[string]any{} }), "json_include_output_fields_property"},
		"fields are list":  {edit(shell, func(m map[string]any) { m["output_fields"] = []int{1} }), "output_fields is not an object"},
		"many fields":      {edit(shell, func(m map[string]any) { m["output_fields"] = many }), "1001 output fields"},
		"deep field":       {edit(shell, func(m map[string]any) { m["output_fields"] = map[string]any{"x": json.RawMessage(nested)} }), "nested deeper"},
		"pod is a number":  {edit(shell, func(m map[string]any) { m["output_fields"].(map[string]any)["k8s.pod.name"] = 3 }), `"k8s.pod.name" is not text`},
		"rule is a number": {edit(shell, func(m map[string]any) { m["rule"] = 3 }), "rule is not text"},
		"forged line":      {edit(shell, func(m map[string]any) { m["rule"] = "a\nb" }), "rule has control characters"},
		"long host":        {edit(shell, func(m map[string]any) { m["hostname"] = strings.Repeat("h", 600) }), "hostname has 600 bytes"},
		"tags are text":    {edit(shell, func(m map[string]any) { m["tags"] = "a" }), "tags are not a list"},
		"many tags":        {edit(shell, func(m map[string]any) { m["tags"] = make([]string, 101) }), "101 tags"},
		"forged tag":       {edit(shell, func(m map[string]any) { m["tags"] = []string{"\x1b[0m"} }), "tag has control characters"},
		"many alerts":      {bytes.Repeat([]byte(shell), 5001), "more than 5000 alerts"},
	} {
		t.Run(name, func(t *testing.T) {
			alerts, err := falco.Parse(tc.body)
			if err == nil || !strings.Contains(err.Error(), tc.want) || alerts != nil {
				t.Errorf("Parse = %d alerts, %v; want an error with %q", len(alerts), err, tc.want)
			}
		})
	}
}

func TestOutputCannotForgeLines(t *testing.T) {
	alerts, err := falco.Parse(edit(shell, func(m map[string]any) { m["output"] = "a\nb\x1b[31m" }))
	if err != nil || alerts[0].Output != `a\x0ab\x1b[31m` {
		t.Errorf("output %q, %v", alerts[0].Output, err)
	}
}

// kept is a handler that keeps what it is given.
type kept struct {
	mu     sync.Mutex
	alerts []alert.Alert
	err    error
}

func (k *kept) handle(_ context.Context, alerts []alert.Alert) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		k.alerts = append(k.alerts, alerts...)
	}
	return k.err
}

func post(t *testing.T, url string, body io.Reader, header ...string) (code int, text string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(out)
}

const token = "a-token-of-the-test"

func TestReceiver(t *testing.T) {
	var k kept
	r := falco.NewReceiver(falco.ReceiverOptions{Handle: k.handle, Token: token, Requests: 2})
	srv := httptest.NewServer(r)
	defer srv.Close()
	withPassword, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	withPassword.User = url.UserPassword("falco", token)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	io.WriteString(z, audit)
	z.Close()

	bearer := []string{"Authorization", "Bearer " + token}
	for _, tc := range []struct {
		name, url string
		body      io.Reader
		header    []string
		code      int
	}{
		{"bearer token", srv.URL, strings.NewReader(shell), bearer, 200},
		{"password in the URL, as Falco can", withPassword.String() + "/", strings.NewReader(shell), nil, 200},
		{"gzip", srv.URL, &zipped, append(bearer, "Content-Encoding", "gzip"), 200},
		{"no token", srv.URL, strings.NewReader(shell), nil, 401},
		{"another token", srv.URL, strings.NewReader(shell), []string{"Authorization", "Bearer " + token + "x"}, 401},
		{"another path", srv.URL + "/other", strings.NewReader(shell), bearer, 404},
		{"no alert", srv.URL, strings.NewReader("{}"), bearer, 400},
		{"not gzip", srv.URL, strings.NewReader(shell), append(bearer, "Content-Encoding", "gzip"), 400},
		{"unknown encoding", srv.URL, strings.NewReader(shell), append(bearer, "Content-Encoding", "br"), 415},
		{"large", srv.URL, strings.NewReader(shell + strings.Repeat(" ", 4<<20)), bearer, 413},
	} {
		if code, text := post(t, tc.url, tc.body, tc.header...); code != tc.code {
			t.Errorf("%s: %d %s, want %d", tc.name, code, text, tc.code)
		} else if strings.Contains(text, token) {
			t.Errorf("%s: the answer has the token: %s", tc.name, text)
		}
	}
	if len(k.alerts) != 3 || k.alerts[2].Rule != "ClusterRole With Wildcard Created" {
		t.Errorf("%d alerts were handled, want 3", len(k.alerts))
	}
	if got, want := r.Counters(), (falco.Counters{Accepted: 3, Rejected: 7}); got != want {
		t.Errorf("counters %+v, want %+v", got, want)
	}
	want := map[string]float64{"unauthorized": 2, "not_found": 1, "invalid": 2, "media_type": 1, "too_large": 1, "method": 0, "incomplete": 0, "abandoned": 0, "failed": 0}
	if got := refused(t, r); !maps.Equal(got, want) {
		t.Errorf("refused by cause %v, want %v", got, want)
	}
}

// refused returns how many requests were refused, by cause.
func refused(t *testing.T, r *falco.Receiver) map[string]float64 {
	t.Helper()
	registry, out := prometheus.NewPedanticRegistry(), map[string]float64{}
	registry.MustRegister(r.Collector())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "kubeguardian_falco_requests_refused_total" {
			for _, m := range f.GetMetric() {
				out[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	return out
}

func TestReceiverSaysThatItIsThere(t *testing.T) {
	srv := httptest.NewServer(falco.NewReceiver(falco.ReceiverOptions{Handle: new(kept).handle, Token: token}))
	defer srv.Close()
	for path, want := range map[string]string{"/ping": "pong\n", "/healthz": "{\"status\": \"ok\"}\n"} {
		resp, err := http.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || string(got) != want {
			t.Errorf("%s: %d %q %v", path, resp.StatusCode, got, err)
		}
	}
	if resp, err := http.Get(srv.URL); err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("GET / = %v %v", resp, err)
	}
}

// TestAnswersAfterStoring: a sender must not be told that an alert is safe that
// is not.
func TestAnswersAfterStoring(t *testing.T) {
	k := kept{err: errors.New("the disk is full of secrets")}
	r := falco.NewReceiver(falco.ReceiverOptions{Handle: k.handle})
	srv := httptest.NewServer(r)
	defer srv.Close()
	code, text := post(t, srv.URL, strings.NewReader(shell))
	if code != http.StatusServiceUnavailable || strings.Contains(text, "disk") {
		t.Errorf("%d %q", code, text)
	}
	if got, want := r.Counters(), (falco.Counters{Failed: 1}); got != want || refused(t, r)["failed"] != 1 {
		t.Errorf("counters %+v, want %+v", got, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(shell))
	f.Add([]byte(audit + shell))
	f.Add([]byte(`[{"rule":"R","priority":"info","time":"2026-07-23T10:05:11Z","output_fields":{"a":[1,{"b":null}]}}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		alerts, err := falco.Parse(body)
		if (err == nil) != (len(alerts) > 0) {
			t.Fatalf("Parse = %d alerts, %v", len(alerts), err)
		}
		for _, a := range alerts {
			if a.ID == "" || a.Rule == "" || a.Time.IsZero() || len(a.OutputFields) == 0 || a.Source == "" {
				t.Fatalf("alert %+v", a)
			}
			text, err := json.Marshal(a)
			if err != nil {
				t.Fatalf("alert %+v: %v", a, err)
			}
			again, err := falco.Parse(text)
			if err != nil || again[0].ID != a.ID {
				t.Fatalf("%s: %v", text, err)
			}
		}
	})
}
