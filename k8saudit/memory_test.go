package k8saudit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
	"github.com/kubeguardian/kubeguardian/rule"
)

// The memory of an event is used for the next one. An alert must not change
// with it.
func TestAlertsOutliveEvents(t *testing.T) {
	files, err := content.Read[rule.File](content.Rules())
	if err != nil {
		t.Fatal(err)
	}
	rules, err := rule.Load(files...)
	if err != nil {
		t.Fatal(err)
	}
	logs, err := filepath.Glob("../content/rules/testdata/*.alert.jsonl")
	if err != nil || len(logs) == 0 {
		t.Fatal("no events", err)
	}
	var all []byte
	for _, name := range logs {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(append(all, data...), '\n')
	}
	var kept, want []any
	if _, err := k8saudit.Decode(bytes.NewReader(all), func(e *event.Event) error {
		for _, a := range rules.Match(e, rule.All) {
			text, err := json.Marshal(a)
			if err != nil {
				return err
			}
			kept, want = append(kept, a), append(want, string(text))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for i, a := range kept {
		if text, err := json.Marshal(a); err != nil || string(text) != want[i] {
			t.Errorf("alert is now\n%s, %v\nwant\n%s", text, err, want[i])
		}
	}
	if len(kept) < len(logs) {
		t.Errorf("%d alerts of %d files", len(kept), len(logs))
	}
}

// What a rule asks of an event costs no allocation: neither texts, with or
// without escapes, nor lists, nor what is in bodies.
func TestNoAllocation(t *testing.T) {
	line := strings.Replace(oneLine(podEvent), `?command`, `?a=1\u0026command`, 1)
	var refs []event.Ref
	for _, name := range []string{
		"ka.auditid", "ka.verb", "ka.uri", "ka.user.name", "ka.user.groups", "ka.sourceips", "ka.response.code", "ka.auth.decision", "ka.target.resource",
		"ka.req.pod.host_network", "ka.req.pod.containers.privileged", "ka.req.pod.containers.image.repository", "ka.req.pod.volumes.hostpath", "ka.hostpaths", "ka.req.binding.subjects", "ka.resp.name",
		"jevt.rawtime",
	} {
		f, _ := event.Lookup(event.K8sAudit, name)
		ref, err := event.Resolve(f, nil)
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	pointer, _ := event.Lookup(event.K8sAudit, "jevt.value")
	for _, arg := range []string{"/stage", "/objectRef/apiVersion", "/requestObject/spec/volumes", "/annotations/authorization.k8s.io~1decision"} {
		ref, err := event.Resolve(pointer, &arg)
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	allocations := func(events int) float64 {
		log := strings.Repeat(line+"\n", events)
		return testing.AllocsPerRun(3, func() {
			if _, err := k8saudit.Decode(strings.NewReader(log), func(e *event.Event) error {
				for _, ref := range refs {
					if e.Value(ref).Missing() {
						return errors.New(ref.Text + " is missing")
					}
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	if few, many := allocations(10), allocations(1010); many > few+5 {
		t.Errorf("1000 more events cost %.0f more allocations", many-few)
	}
}

// An event that was parsed alone stays as it is.
func TestParse(t *testing.T) {
	data := []byte(minimal("a"))
	e, err := k8saudit.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	clear(data)
	if got := auditID(e); got != "a" {
		t.Errorf("audit id = %q", got)
	}
	for _, bad := range []string{"", "{", "3", "{}", minimal("a") + "x", minimal("")} {
		if _, err := k8saudit.Parse([]byte(bad)); err == nil || !strings.HasPrefix(err.Error(), "parse audit event: ") {
			t.Errorf("Parse(%q) = %v", bad, err)
		}
	}
}
