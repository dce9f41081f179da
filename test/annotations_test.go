package test

import (
	"os"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/check/network"
	"github.com/kubeguardian/kubeguardian/check/secret"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// TestAnnotations holds docs/annotations.md to the annotations that checks read:
// it names each, and its example does what it says.
func TestAnnotations(t *testing.T) {
	const doc = "../docs/annotations.md"
	text, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, mark := range []string{network.PublicMark, secret.RotatedMark, secret.RotationMark} {
		if !strings.Contains(string(text), "`"+mark+": ") {
			t.Errorf("%s does not explain %s", doc, mark)
		}
	}
	for _, b := range blocks(t, doc) {
		inv, err := inventory.FromFiles(t.Context(), []string{"-"}, strings.NewReader(b.text))
		if err != nil {
			t.Fatalf("%s:%d: %v", doc, b.line, err)
		}
		n, err := network.New(inv)
		if err != nil {
			t.Fatal(err)
		}
		if got := n.Unlisted(); len(got) != 1 || got[0].Status != finding.Pass {
			t.Errorf("%s:%d: %+v", doc, b.line, got)
		}
	}
}
