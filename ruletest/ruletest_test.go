package ruletest

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/event"
)

func TestMerge(t *testing.T) {
	below := fields{"a": fields{"b": 1, "c": []any{1, 2}}, "d": "x"}
	got := merge(below, fields{"a": fields{"b": nil, "c": []any{3}, "e": fields{"f": nil, "g": 1}}, "d": fields{"h": 2}, "i": nil})
	want := fields{"a": fields{"c": []any{3}, "e": fields{"g": 1}}, "d": fields{"h": 2}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("merge = %v, want %v", got, want)
	}
	if !reflect.DeepEqual(below, fields{"a": fields{"b": 1, "c": []any{1, 2}}, "d": "x"}) {
		t.Errorf("merge changed what is below: %v", below)
	}
}

func TestInlineEventsDiffer(t *testing.T) {
	first, err := inline(event.K8sAudit, 0, fields{"verb": "get"})
	if err != nil {
		t.Fatal(err)
	}
	second, err := inline(event.K8sAudit, 1, fields{"verb": "get"}, fields{"stage": "ResponseStarted"})
	if err != nil {
		t.Fatal(err)
	}
	var a, b map[string]any
	if err := errors.Join(json.Unmarshal(first, &a), json.Unmarshal(second, &b)); err != nil {
		t.Fatal(err)
	}
	if a["auditID"] == b["auditID"] || a["stageTimestamp"].(string) >= b["stageTimestamp"].(string) || b["stage"] != "ResponseStarted" {
		t.Errorf("%s\n%s", first, second)
	}
	if _, err := inline(event.K8sAudit, 0, fields{"verb": func() {}}); err == nil {
		t.Error("an event that is no JSON is written")
	}
}

// An API server with the policy would have written the rest of each event.
func TestRecorder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	policy := `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, nonResourceURLs: ["/healthz"]}
- {level: Request, verbs: [create], resources: [{group: "", resources: [pods/exec]}]}
- {level: RequestResponse, userGroups: [team], resources: [{group: apps}]}
- {level: Metadata}
`
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := newRecorder(file)
	if err != nil {
		t.Fatal(err)
	}
	const bodies = `,"requestObject":{"a":1},"responseObject":{"b":2}}`
	for _, tc := range []struct{ name, event, want string }{
		{"health", `{"stage":"ResponseComplete","requestURI":"/healthz?verbose"` + bodies, "none"},
		{"stage", `{"stage":"RequestReceived"` + bodies, "none"},
		{"request", `{"level":"RequestResponse","verb":"create","objectRef":{"resource":"pods","subresource":"exec"}` + bodies, "Request {\"a\":1}"},
		{"metadata", `{"level":"RequestResponse","verb":"get","objectRef":{"resource":"pods","subresource":"exec"}` + bodies, "Metadata"},
		{"all", `{"level":"RequestResponse","user":{"groups":["team"]},"objectRef":{"resource":"deployments","apiGroup":"apps"}` + bodies, "RequestResponse {\"a\":1} {\"b\":2}"},
		{"never more than there is", `{"level":"Metadata","user":{"groups":["team"]},"objectRef":{"resource":"deployments","apiGroup":"apps"}}`, "Metadata"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := "none"
			data, err := r.cut([]byte(tc.event))
			if err == nil {
				var e struct {
					Level                         string
					RequestObject, ResponseObject json.RawMessage
				}
				if err := json.Unmarshal(data, &e); err != nil {
					t.Fatal(err)
				}
				got = strings.TrimSpace(e.Level + " " + string(e.RequestObject) + " " + string(e.ResponseObject))
			} else if !errors.Is(err, errNotRecorded) {
				t.Fatal(err)
			}
			if got != tc.want {
				t.Errorf("recorded %s, want %s", got, tc.want)
			}
		})
	}
	if _, err := r.cut([]byte("{")); err == nil {
		t.Error("no JSON is recorded")
	}
	if _, err := newRecorder(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no policy is read")
	}
}

func TestEventFileIsBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "events.jsonl")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, maxEventFile+1)); err != nil {
		t.Fatal(err)
	}
	if _, err := recorded(file); err == nil || !strings.Contains(err.Error(), "over the limit of 64 MiB") {
		t.Errorf("recorded = %v", err)
	}
}

func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "apiVersion: kubeguardian.dev/v1alpha1\nkind: RuleTest\ntests: [null]",
		"apiVersion: kubeguardian.dev/v1alpha1\nkind: RuleTest\ntests:\n- rule: X\n  alerts: [null, {name: a, event: {verb: get}, fields: {a: [1]}}]\n  quiet: [{name: b, before: [{}, null]}]",
		"apiVersion: kubeguardian.dev/v1alpha1\nkind: RuleTest\ntests: &a\n- rule: X\n  event: {x: *a}\n",
		"apiVersion: kubeguardian.dev/v1alpha1\nkind: RuleTest\nevent: {1: 2}\ntests: [{quiet: [{name: a, event: {true: {2: 3}}}]}]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Read("f", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f:") {
				t.Errorf("error without the file: %v", err)
			}
			return
		}
		for _, test := range file.Tests {
			for _, c := range test.cases() {
				if _, err := inline(event.K8sAudit, 0, file.Event, test.Event, c.Event); err != nil && !strings.Contains(err.Error(), "unsupported type") {
					t.Error(err)
				}
			}
		}
	})
}
