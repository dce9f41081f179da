package content_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/exception"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
)

func loadControls(t testing.TB) *control.Catalogue {
	t.Helper()
	c, err := control.LoadCatalogue(content.Controls())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// examplesNow is the time at which examples are judged: evidence in them is
// dated.
var examplesNow = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// whole are the controls of which every subject shows all there is to know.
var whole = map[string]bool{"APP-SEC-02": true, "COD-CMP-02": true}

// TestControlExamples holds each control to its labelled examples: those in
// controls/testdata and, for a control that a policy defines, that policy's.
// The beginning of a name is the state that some subject must have; fail-* may
// have others beside it, the rest may not. An example is a file of objects, or
// a folder that has them in objects.yaml, evidence in evidence/ and exceptions in
// exceptions.yaml, if any. In *.live.yaml are the objects of a cluster.
func TestControlExamples(t *testing.T) {
	c, policies := loadControls(t), loadPolicies(t)
	for _, ctl := range c.Controls() {
		folders := []string{filepath.Join("controls/testdata", ctl.ID)}
		for _, p := range policies.Policies() {
			if p.Annotation(controlAnnotation) == ctl.ID && ctl.Evaluator == "policy" {
				folders = append(folders, filepath.Join("policies/testdata", p.Name()))
			}
		}
		t.Run(ctl.ID, func(t *testing.T) {
			seen := map[string]int{}
			for _, folder := range folders {
				files, err := filepath.Glob(filepath.Join(folder, "*-*"))
				if err != nil {
					t.Fatal(err)
				}
				for _, file := range files {
					label, _, _ := strings.Cut(filepath.Base(file), "-")
					seen[label]++
					findings, err := c.Evaluate(context.Background(), example(t, file, policies))
					if err != nil {
						t.Fatal(err)
					}
					expect(t, file, label, slices.DeleteFunc(findings, func(f finding.Finding) bool { return f.Control != ctl.ID }))
				}
			}
			if seen["pass"] == 0 || seen["fail"] == 0 {
				t.Errorf("examples %v: want at least one pass and one fail", seen)
			}
			if ctl.Evaluator != "policy" && !whole[ctl.ID] && seen["unknown"]+seen["na"] == 0 {
				t.Errorf("examples %v: want one that is unknown or not applicable", seen)
			}
		})
	}
}

// example reads an example: a file of objects, or a folder with objects and
// evidence.
func example(t *testing.T, name string, policies *policy.Set) control.Input {
	t.Helper()
	in := control.Input{Policies: policies, Now: examplesNow}
	if strings.HasSuffix(name, ".yaml") {
		in.Inventory = objects(t, name)
		return in
	}
	if files, _ := filepath.Glob(filepath.Join(name, "objects*.yaml")); len(files) == 1 {
		in.Inventory = objects(t, files[0])
	} else {
		in.Inventory = inventoryOf(t, inventory.Files)
	}
	if _, err := os.Stat(filepath.Join(name, "evidence")); err == nil {
		if in.Evidence, err = evidence.Load(t.Context(), filepath.Join(name, "evidence")); err != nil {
			t.Fatal(err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(name, "exceptions.yaml")); err == nil {
		if in.Exceptions, err = exception.Read(name+"/exceptions.yaml", data); err != nil {
			t.Fatal(err)
		}
	}
	return in
}

// objects reads the objects of a file, or of a live cluster. The example of a
// policy is one object, which may hold what strict reading refuses.
func objects(t *testing.T, file string) *inventory.Inventory {
	t.Helper()
	if strings.HasPrefix(file, "policies") {
		obj, _ := readObject(t, file)
		return inventoryOf(t, inventory.Files, &inventory.Object{Unstructured: obj, Source: file + ":1"})
	}
	inv, err := inventory.FromFiles(context.Background(), []string{file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(file, ".live.yaml") {
		return inventoryOf(t, inventory.Cluster, inv.Objects()...)
	}
	return inv
}

func inventoryOf(t *testing.T, origin inventory.Origin, objects ...*inventory.Object) *inventory.Inventory {
	t.Helper()
	inv, err := inventory.New(origin, objects, nil)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

var labels = map[string]finding.Status{
	"pass": finding.Pass, "fail": finding.Fail, "unknown": finding.Unknown, "na": finding.NotApplicable,
}

func expect(t *testing.T, file, label string, findings []finding.Finding) {
	t.Helper()
	want := labels[label]
	if want == "" {
		t.Errorf("%s: the name begins with no state", file)
	}
	got := map[finding.Status]int{}
	for _, f := range findings {
		got[f.Status]++
		if want == finding.Fail && f.Status == finding.Fail && (f.Message == "" || f.Fix == "") {
			t.Errorf("%s: message %q, fix %q", file, f.Message, f.Fix)
		}
	}
	if got[want] == 0 || want != finding.Fail && len(got) > 1 {
		t.Errorf("%s: states %v, want %s: %s", file, got, want, describe(findings))
	}
}

func describe(findings []finding.Finding) string {
	var out []string
	for _, f := range findings {
		out = append(out, fmt.Sprintf("%s %s: %s%s", f.Subject, f.Status, f.Message, f.Reason))
	}
	return strings.Join(out, "; ")
}

// TestControlsAndPolicies expects a policy for each control that is judged by
// policy, the control for each policy, and no example of anything else.
func TestControlsAndPolicies(t *testing.T) {
	judged, known := map[string]bool{}, map[string]bool{}
	for _, ctl := range loadControls(t).Controls() {
		known[ctl.ID] = true
		judged[ctl.ID] = ctl.Evaluator == "policy"
	}
	for _, p := range loadPolicies(t).Policies() {
		id := p.Annotation(controlAnnotation)
		if !known[id] {
			t.Errorf("policy %s defines control %q, which the catalogue does not have", p.Name(), id)
		}
		delete(judged, id)
	}
	for id, byPolicy := range judged {
		if byPolicy {
			t.Errorf("no policy defines control %s", id)
		}
	}
	folders, err := filepath.Glob("controls/testdata/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		if id := filepath.Base(folder); !known[id] {
			t.Errorf("examples of %s, which the catalogue does not have", id)
		}
	}
}

// TestScanAgreesWithAdmission expects of CLU-RBA-01, which sees more than one
// object, what the policy of the same control says of one.
func TestScanAgreesWithAdmission(t *testing.T) {
	c, policies := loadControls(t), loadPolicies(t)
	files, err := filepath.Glob("policies/testdata/cluster-admin-bindings/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		findings, err := c.Evaluate(context.Background(), example(t, file, policies))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range findings {
			fails := strings.HasPrefix(filepath.Base(file), "fail-")
			if f.Control == "CLU-RBA-01" && (f.Status == finding.Fail) != fails {
				t.Errorf("%s: %s %s", file, f.Status, f.Message+f.Reason)
			}
		}
	}
}

// Frameworks number their items per version: what is mapped must at least have
// the form of that framework's items.
func TestFrameworkIDs(t *testing.T) {
	owasp := strings.Fields("K01 K02 K03 K04 K05 K06 K07 K08 K09 K10")
	for _, ctl := range loadControls(t).Controls() {
		for _, id := range ctl.Frameworks["owasp-k8s-2025"] {
			if !slices.Contains(owasp, id) {
				t.Errorf("%s: OWASP %q", ctl.ID, id)
			}
		}
		for framework, prefix := range map[string]string{"mitre": "T1", "ms-matrix": "MS-TA9", "cis-1.10": "", "cis-1.12": ""} {
			for _, id := range ctl.Frameworks[framework] {
				if !strings.HasPrefix(id, prefix) || prefix == "" && !strings.HasPrefix(id, "5.") && id != "1.2.11" {
					t.Errorf("%s: %s %q", ctl.ID, framework, id)
				}
			}
		}
		// 5.7 became 5.6 in 1.12, and 5.2.9 (added capabilities) has no successor.
		for _, id := range ctl.Frameworks["cis-1.12"] {
			if strings.HasPrefix(id, "5.7") {
				t.Errorf("%s: CIS 1.12 has no %s", ctl.ID, id)
			}
		}
	}
}
