package content_test

import (
	"encoding/csv"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/finding"
)

// planned reads the plan of the catalogue by id: a row for each control with
// its level, severity, evidence and mappings.
func planned(t *testing.T) map[string]map[string]string {
	t.Helper()
	f, err := os.Open("testdata/catalogue.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]map[string]string{}
	for _, row := range rows[1:] {
		cells := map[string]string{}
		for i, name := range rows[0] {
			cells[name] = row[i]
		}
		out[cells["id"]] = cells
	}
	return out
}

// columns are the frameworks of the plan, by their names in the catalogue.
var columns = map[string]string{
	"cis-1.10": "cis_1_10", "cis-1.12": "cis_1_12", "mitre": "mitre", "ms-matrix": "ms_matrix",
	"nsa-cisa": "nsa_cisa", "owasp-k8s-2025": "owasp_k8s_2025", "pss": "pss",
}

// maxAttested bounds the controls that no evidence but a person's word can
// settle: 150 of the 175 are judged.
const maxAttested = 25

// TestCatalogueKeepsToThePlan holds level, severity, class of fix and mappings
// of each control to the plan: mappings that were typed by hand go wrong.
func TestCatalogueKeepsToThePlan(t *testing.T) {
	plan, attested := planned(t), 0
	for _, ctl := range loadControls(t).Controls() {
		if ctl.Evaluator == "attestation" {
			attested++
		}
		row := plan[ctl.ID]
		if row == nil {
			t.Errorf("%s: not in the plan", ctl.ID)
			continue
		}
		if string(ctl.Level) != row["level"] || ctl.Severity != finding.Severity(row["severity"]) || ctl.Fix.Class != row["fix"] {
			t.Errorf("%s: %s, %s, %s; the plan says %s, %s, %s", ctl.ID, ctl.Level, ctl.Severity, ctl.Fix.Class, row["level"], row["severity"], row["fix"])
		}
		for _, framework := range slices.Sorted(maps.Keys(columns)) {
			have, want := slices.Sorted(slices.Values(ctl.Frameworks[framework])), split(row[columns[framework]])
			if !slices.Equal(have, want) {
				t.Errorf("%s: %s %q, the plan says %q", ctl.ID, framework, have, want)
			}
		}
		delete(plan, ctl.ID)
	}
	if len(plan) > 0 {
		t.Errorf("%d of the plan are not controls: %s", len(plan), strings.Join(slices.Sorted(maps.Keys(plan)), " "))
	}
	if attested > maxAttested {
		t.Errorf("%d controls rest on a person's word alone, at most %d", attested, maxAttested)
	}
	t.Logf("%d controls, %d of them by attestation only", len(loadControls(t).Controls()), attested)
}

func split(cell string) []string {
	var out []string
	for part := range strings.SplitSeq(cell, ";") {
		if part != "" {
			out = append(out, part)
		}
	}
	slices.Sort(out)
	return out
}
