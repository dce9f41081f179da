package control

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
)

func builtIn(t testing.TB) (*Catalogue, *policy.Set) {
	t.Helper()
	c, err := LoadCatalogue(content.Controls())
	if err != nil {
		t.Fatal(err)
	}
	files, err := content.Read[policy.File](content.Policies())
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Load(files...)
	if err != nil {
		t.Fatal(err)
	}
	return c, set
}

const manifestsToJudge = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: web}]}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: debug, namespace: shop}, spec: {containers: [{name: debug, image: "web:1", securityContext: {privileged: true}}]}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: shop}, data: {a: b}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: all}, rules: [{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}]}
`

// TestJudgeAgreesWithEvaluate judges each object alone, and finds what a scan of
// all of them does.
func TestJudgeAgreesWithEvaluate(t *testing.T) {
	c, set := builtIn(t)
	inv, err := inventory.FromFiles(t.Context(), []string{"-"}, strings.NewReader(manifestsToJudge))
	if err != nil {
		t.Fatal(err)
	}
	in := Input{Inventory: inv, Policies: set}
	all, err := c.Evaluate(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, f := range all {
		want[f.Control+" "+f.Subject.String()] = describe(f)
	}
	judge, err := c.Judge(in)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, o := range inv.Objects() {
		found, err := judge.Object(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			n++
			if key := f.Control + " " + f.Subject.String(); want[key] != describe(f) {
				t.Errorf("%s: manifestsToJudge alone %s, with all %s", key, describe(f), want[key])
			}
		}
	}
	if n < 40 {
		t.Errorf("only %d verdicts", n)
	}
}

func describe(f finding.Finding) string {
	return fmt.Sprintln(f.Status, f.Reason, f.Message, f.Evidence, f.Exposure, f.Subject.Container, f.Severity, f.Fix)
}

// TestJudgeAChange judges another version of an object, one that is new, and a
// pod that is part of a workload.
func TestJudgeAChange(t *testing.T) {
	c, set := builtIn(t)
	inv, err := inventory.FromFiles(t.Context(), []string{"-"}, strings.NewReader(manifestsToJudge))
	if err != nil {
		t.Fatal(err)
	}
	judge, err := c.Judge(Input{Inventory: inv, Policies: set})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]finding.Status{
		"{apiVersion: v1, kind: Pod, metadata: {name: debug, namespace: shop}, spec: {containers: [{name: debug, image: web}]}}":                                  finding.Pass,
		"{apiVersion: v1, kind: Pod, metadata: {name: new, namespace: shop}, spec: {containers: [{name: new, image: web, securityContext: {privileged: true}}]}}": finding.Fail,
	} {
		changed, err := inventory.FromFiles(t.Context(), []string{"-"}, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		found, err := judge.Object(t.Context(), changed.Objects()[0])
		if err != nil {
			t.Fatal(err)
		}
		got := finding.Status("")
		for _, f := range found {
			if f.Control == "CON-SEC-01" {
				got = f.Status
			}
		}
		if got != want {
			t.Errorf("%s: CON-SEC-01 %q, want %s", text, got, want)
		}
	}
}

// TestUnreadableIsUnknown gives every control that may judge an unreadable part
// one unknown state for it, and no other control.
func TestUnreadableIsUnknown(t *testing.T) {
	c, set := builtIn(t)
	text := manifestsToJudge + "---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: r}, x: 1}\n---\na: ["
	inv, err := inventory.Read(t.Context(), inventory.FileInput{Paths: []string{"-"}, Stdin: strings.NewReader(text)})
	if err != nil {
		t.Fatal(err)
	}
	found, err := c.Evaluate(t.Context(), Input{Inventory: inv, Policies: set})
	if err != nil {
		t.Fatal(err)
	}
	files, roles := map[string]int{}, map[string]int{}
	for _, f := range found {
		switch f.Subject.Kind {
		case "File":
			files[f.Control]++
		case "Role":
			roles[f.Control]++
		default:
			continue
		}
		if f.Status != finding.Unknown || !strings.HasPrefix(f.Reason, "could not be read: stdin:") {
			t.Errorf("%s is %s: %s", f.Control, f.Status, f.Reason)
		}
	}
	for _, ctl := range c.Controls() {
		file, role := 0, 0
		for _, s := range ctl.Subjects {
			if !outside[s] {
				file = 1
			}
			if s == "Role.rbac.authorization.k8s.io" {
				role = 1
			}
		}
		if files[ctl.ID] != file || roles[ctl.ID] != role {
			t.Errorf("%s: %d states for the file, %d for the role, want %d and %d", ctl.ID, files[ctl.ID], roles[ctl.ID], file, role)
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	c, set := builtIn(b)
	inv, err := inventory.FromFiles(b.Context(), []string{"-"}, strings.NewReader(manifestsToJudge))
	if err != nil {
		b.Fatal(err)
	}
	judge, err := c.Judge(Input{Inventory: inv, Policies: set})
	if err != nil {
		b.Fatal(err)
	}
	web := inv.Get("apps", "Deployment", "shop", "web")
	for b.Loop() {
		if found, err := judge.Object(b.Context(), web); err != nil || len(found) == 0 {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
}
