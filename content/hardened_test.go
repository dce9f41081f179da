package content_test

import (
	"context"
	"testing"

	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// TestHardenedApplication judges an application that is run well, as files and
// as a live cluster, by the whole catalogue: a critical or high failure is a
// false alarm.
func TestHardenedApplication(t *testing.T) {
	files, err := inventory.FromFiles(context.Background(), []string{"testdata/hardened"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, w := range files.Workloads() {
		kinds[w.GetKind()]++
	}
	if n := len(files.Workloads()); n < 10 || len(kinds) < 5 {
		t.Fatalf("%d workloads, %v: want more", n, kinds)
	}
	for _, inv := range []*inventory.Inventory{files, inventoryOf(t, inventory.Cluster, files.Objects()...)} {
		findings, err := loadControls(t).Evaluate(t.Context(), control.Input{Inventory: inv, Policies: loadPolicies(t), Now: examplesNow})
		if err != nil {
			t.Fatal(err)
		}
		states := map[finding.Status]int{}
		for _, f := range findings {
			states[f.Status]++
			if f.Status != finding.Fail {
				continue
			}
			t.Logf("%s: %s (%s) fails for %s: %s", inv.Origin, f.Control, f.Severity, f.Subject, f.Message)
			if f.Severity == finding.Critical || f.Severity == finding.High {
				t.Errorf("%s: false alarm of %s for %s", inv.Origin, f.Control, f.Subject)
			}
		}
		t.Logf("%s: %d workloads %v, %v", inv.Origin, len(inv.Workloads()), kinds, states)
	}
}
