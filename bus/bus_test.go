package bus

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
)

func TestEndpoints(t *testing.T) {
	for url, want := range map[string]string{
		"tls://kubeguardian.kubeguardian.svc:4222": "", "tls://a:4222,tls://b:4222": "", "nats://127.0.0.1:4222": "", "nats://[::1]:4222": "", "nats://localhost:4222": "",
		"": "want tls://", "kubeguardian:4222": "want tls://", "https://a": "want tls://", "nats://10.0.0.1:4222": "without TLS", "nats://localhost.example.org:4222": "without TLS",
		"tls://user:secret@a:4222": "credentials",
	} {
		err := Endpoint{URL: url}.Check()
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func TestNodeNames(t *testing.T) {
	for node, good := range map[string]bool{
		"n1": true, "ip-10-0-0-1.ec2.internal": true, "a_b": true,
		"": false, ".": false, "a.": false, "a..b": false, "*": false, ">": false, "a.>": false, "a b": false, "a\n": false, strings.Repeat("a", 254): false,
	} {
		if err := CheckNode(node); good != (err == nil) {
			t.Errorf("%.20q: %v", node, err)
		}
	}
}

func TestDelays(t *testing.T) {
	for attempt := -1; attempt < 100; attempt++ {
		if d := delay(attempt); d < firstWait/2 || d > 2*maxWait {
			t.Errorf("attempt %d waits %s", attempt, d)
		}
	}
	if short, long := delay(0), delay(50); short > time.Second || long < maxWait/2 {
		t.Errorf("%s, then %s", short, long)
	}
}

// Rules come back as they were sent, and what did not come so is refused.
func FuzzRules(f *testing.F) {
	r := &Rules{Files: []RuleFile{{"a.yaml", []byte("- rule: x")}}, Match: "all", Priority: "notice", Select: []RuleSelection{{Rule: "x", On: true}}}
	data, err := r.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeRules(data)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil {
			return // too large
		}
		r2, err := DecodeRules(again)
		if err != nil || !reflect.DeepEqual(r, r2) || r.Hash() != r2.Hash() {
			t.Errorf("%+v, %+v, %v", r, r2, err)
		}
	})
}

// Whatever an agent sends, an alert that is taken is of its node, and can be
// stored.
func FuzzAlert(f *testing.F) {
	data, err := json.Marshal(alert.Alert{ID: "x", Time: time.Now(), Rule: "r", Source: "syscall", Hostname: "n1", OutputFields: map[string]any{"a": []any{1, "b"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"id":"x","rule":"r","time":"2026-03-01T12:00:00Z","source":"syscall","hostname":"n2"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var a alert.Alert
		cause, err := readAlert(data, "n1", &a)
		if (err == nil) != (cause == "") {
			t.Errorf("cause %q, %v", cause, err)
		}
		if err != nil {
			return
		}
		if a.Hostname != "n1" || a.Source != "syscall" && a.Source != "internal" || a.ID == "" || a.Rule == "" {
			t.Errorf("%+v", a)
		}
		if _, err := json.Marshal(a); err != nil {
			t.Error(err)
		}
	})
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"node":"n1","interval":1000000000}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := decodeState("kubeguardian.states.n1", data); err == nil && (s.Node != "n1" || s.Interval < time.Second || s.Interval > time.Hour) {
			t.Errorf("%+v", s)
		}
	})
}
