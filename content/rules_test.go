package content_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
	"github.com/kubeguardian/kubeguardian/rule"
)

const ruleEvents = "rules/testdata"

func builtinRules(t *testing.T) *rule.Set {
	t.Helper()
	const name = "kubernetes_audit.yaml"
	data, err := fs.ReadFile(content.Rules(), name)
	if err != nil {
		t.Fatal(err)
	}
	set, err := rule.Load(rule.File{Name: name, Data: data})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// eachEvent calls f with each event of a file of test data.
func eachEvent(t *testing.T, name string, f func(*event.Event)) {
	t.Helper()
	file, err := os.Open(filepath.Join(ruleEvents, name))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	stats, err := k8saudit.Decode(file, func(e *event.Event) error {
		f(e)
		return nil
	})
	if err != nil || stats.Malformed > 0 || stats.Events == 0 {
		t.Fatalf("%s: %+v, %v", name, stats, err)
	}
}

func slug(rule string) string { return strings.ToLower(strings.ReplaceAll(rule, " ", "-")) }

// Each rule NAME has NAME.alert.jsonl, whose events all raise it, and
// NAME.quiet.jsonl with near misses, which do not. The events were recorded
// from a Kubernetes 1.37 API server with the audit policy next to the rules,
// some with another user, verb, status, path or patch put in.
func TestRules(t *testing.T) {
	set := builtinRules(t)
	for _, r := range set.Rules() {
		raised := func(e *event.Event) bool {
			return slices.ContainsFunc(set.Match(e, rule.All), func(a alert.Alert) bool { return a.Rule == r.Name })
		}
		t.Run(r.Name, func(t *testing.T) {
			eachEvent(t, slug(r.Name)+".alert.jsonl", func(e *event.Event) {
				if !raised(e) {
					t.Errorf("event %s raises no alert", e.ID)
				}
			})
			eachEvent(t, slug(r.Name)+".quiet.jsonl", func(e *event.Event) {
				if raised(e) {
					t.Errorf("event %s raises an alert", e.ID)
				}
			})
		})
	}
}

// What an alert says must answer who did what to what, from where, in which
// request, and name no credential.
func TestAlertsAreComplete(t *testing.T) {
	set := builtinRules(t)
	for _, r := range set.Rules() {
		t.Run(r.Name, func(t *testing.T) {
			if len(r.Tags) < 3 || !slices.Contains(r.Tags, "k8s") || r.Desc == "" {
				t.Errorf("tags %q, description %q", r.Tags, r.Desc)
			}
			eachEvent(t, slug(r.Name)+".alert.jsonl", func(e *event.Event) {
				for _, a := range set.Match(e, rule.All) {
					for _, field := range []string{"ka.user.name", "ka.verb", "ka.sourceips", "ka.auditid", "ka.target.resource"} {
						if a.OutputFields[field] == nil && a.Subject.Kind != "" {
							t.Errorf("%s of event %s is missing", field, e.ID)
						}
					}
					if user, _ := a.OutputFields["ka.user.name"].(string); !strings.Contains(a.Output, user) || len(a.Tactics) != 1 {
						t.Errorf("output %q, tactics %q: want the user and one tactic", a.Output, a.Tactics)
					}
					if text, err := json.Marshal(a); err != nil || bytes.Contains(text, []byte("hunter2")) {
						t.Errorf("alert holds a credential, or %v: %s", err, text)
					}
				}
			})
		})
	}
}

// The events of a control plane that just starts and has nothing to do, one of
// each kind, raise nothing.
func TestControlPlaneIsQuiet(t *testing.T) {
	set := builtinRules(t)
	eachEvent(t, "control-plane.quiet.jsonl", func(e *event.Event) {
		for _, a := range set.Match(e, rule.All) {
			t.Errorf("event %s: %s", e.ID, a.Output)
		}
	})
}

func TestTestDataHasARule(t *testing.T) {
	known := []string{"control-plane.quiet.jsonl"}
	for _, r := range builtinRules(t).Rules() {
		known = append(known, slug(r.Name)+".alert.jsonl", slug(r.Name)+".quiet.jsonl")
	}
	files, err := os.ReadDir(ruleEvents)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !slices.Contains(known, f.Name()) {
			t.Errorf("%s belongs to no rule", f.Name())
		}
	}
}

// The API server's own code reads the audit policy and logs each request that
// must raise an alert as fully as the rule was tested with.
func TestAuditPolicyFeedsRules(t *testing.T) {
	p, err := policy.LoadPolicyFromBytes(content.AuditPolicy())
	if err != nil {
		t.Fatal(err)
	}
	evaluator := policy.NewPolicyRuleEvaluator(p)
	files, err := filepath.Glob(filepath.Join(ruleEvents, "*.alert.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			var e audit.Event
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			config := evaluator.EvaluatePolicyRule(attributes(&e))
			if config.Level.Less(e.Level) || slices.Contains(config.OmitStages, e.Stage) {
				t.Errorf("%s: %s is logged at %s without %v, want %s and %s", name, e.AuditID, config.Level, config.OmitStages, e.Level, e.Stage)
			}
		}
	}
}

func attributes(e *audit.Event) authorizer.Attributes {
	a := authorizer.AttributesRecord{
		User: &user.DefaultInfo{Name: e.User.Username, Groups: e.User.Groups},
		Verb: e.Verb, Path: e.RequestURI,
	}
	if ref := e.ObjectRef; ref != nil {
		a.ResourceRequest = true
		a.Namespace, a.Name, a.APIGroup, a.APIVersion = ref.Namespace, ref.Name, ref.APIGroup, ref.APIVersion
		a.Resource, a.Subresource = ref.Resource, ref.Subresource
	}
	return a
}
