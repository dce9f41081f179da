package content_test

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/suite"
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
var whole = map[string]bool{"APP-SEC-02": true, "CLU-AUT-02": true, "COD-CMP-02": true}

// TestControlExamples holds each control to its labelled examples, as package
// suite describes them.
func TestControlExamples(t *testing.T) {
	r := suite.Runner{Catalogue: loadControls(t), Policies: loadPolicies(t), Now: examplesNow}
	seen := map[string]map[string]int{}
	for _, root := range []string{"controls/testdata", "policies/testdata"} {
		results, err := r.Run(t.Context(), root)
		if err != nil {
			t.Fatal(err)
		}
		for _, result := range results {
			if result.Err != nil {
				t.Errorf("%s: %v", result.Example, result.Err)
			}
			if seen[result.Control] == nil {
				seen[result.Control] = map[string]int{}
			}
			seen[result.Control][result.Label]++
		}
	}
	for _, ctl := range r.Catalogue.Controls() {
		have := seen[ctl.ID]
		if ctl.Evaluator != "attestation" && (have["pass"] == 0 || have["fail"] == 0) {
			t.Errorf("%s: examples %v: want at least one pass and one fail", ctl.ID, have)
		}
		if ctl.Evaluator != "policy" && !whole[ctl.ID] && have["unknown"]+have["na"] == 0 {
			t.Errorf("%s: examples %v: want one that is unknown or not applicable", ctl.ID, have)
		}
	}
}

// TestControlsAndPolicies expects a policy for each control that is judged by
// policy, the control that a policy names, and no example of anything else.
func TestControlsAndPolicies(t *testing.T) {
	judged, known := map[string]bool{}, map[string]bool{}
	for _, ctl := range loadControls(t).Controls() {
		known[ctl.ID] = true
		judged[ctl.ID] = ctl.Evaluator == "policy"
	}
	for _, p := range loadPolicies(t).Policies() {
		id := p.Annotation(controlAnnotation)
		if id != "" && !known[id] {
			t.Errorf("policy %s defines control %q, which the catalogue does not have", p.Name(), id)
		}
		delete(judged, id)
	}
	for id, byPolicy := range judged {
		if byPolicy {
			t.Errorf("no policy defines control %s", id)
		}
	}
	folders, err := filepath.Glob("controls/testdata/*-*-*")
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		if id := filepath.Base(folder); !known[id] {
			t.Errorf("examples of %s, which the catalogue does not have", id)
		}
	}
}

func example(t *testing.T, file string) control.Input {
	t.Helper()
	in, err := suite.Runner{Catalogue: loadControls(t), Policies: loadPolicies(t), Now: examplesNow}.Input(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// TestScanAgreesWithAdmission expects of CLU-RBA-01, which sees more than one
// object, what the policy of the same control says of one.
func TestScanAgreesWithAdmission(t *testing.T) {
	c := loadControls(t)
	files, err := filepath.Glob("policies/testdata/cluster-admin-bindings/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		findings, err := c.Evaluate(t.Context(), example(t, file))
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

// cisItem is an item of the CIS benchmark: its chapters are 1 to 5.
var cisItem = regexp.MustCompile(`^[1-5](\.[0-9]{1,2}){1,2}$`)

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
				if !strings.HasPrefix(id, prefix) || prefix == "" && !cisItem.MatchString(id) {
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

func inventoryOf(t *testing.T, origin inventory.Origin, objects ...*inventory.Object) *inventory.Inventory {
	t.Helper()
	inv, err := inventory.New(origin, objects, nil)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}
