package podsecurity_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/check/podsecurity"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

func TestEnforced(t *testing.T) {
	labelled := func(name, labels string) string {
		return fmt.Sprintf("---\n{apiVersion: v1, kind: Namespace, metadata: {name: %s, labels: {%s}}}\n", name, labels)
	}
	pod := "---\n{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}, spec: {containers: [{name: c, image: i}]}}\n"
	const key = "pod-security.kubernetes.io/"
	tests := []struct {
		name, manifests string
		want            finding.Status
		says            string
	}{
		{"restricted", labelled("shop", key+"enforce: restricted"), finding.Pass, "restricted"},
		{"baseline", labelled("shop", key+"enforce: baseline, "+key+"enforce-version: v1.30"), finding.Pass, "baseline"},
		{"privileged", labelled("shop", key+"enforce: privileged"), finding.Fail, "allows everything"},
		{"no label", labelled("shop", ""), finding.Fail, "enforces no Pod Security level"},
		{"warn and audit alone", labelled("shop", key+"warn: restricted, "+key+"audit: restricted"), finding.Fail, "enforces no Pod Security level"},
		{"misspelled level", labelled("shop", key+"enforce: Restricted"), finding.Fail, "its label names none"},
		{"empty level", labelled("shop", key+"enforce: ''"), finding.Fail, "its label names none"},
		{"system namespace", labelled("kube-system", ""), finding.NotApplicable, "components of Kubernetes"},
		{"namespace elsewhere", pod, finding.Unknown, "not among the files"},
		{"namespace here", pod + labelled("shop", key+"enforce: baseline"), finding.Pass, "baseline"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(tt.manifests))
			if err != nil {
				t.Fatal(err)
			}
			got := podsecurity.Enforced(inv)
			if len(got) != 1 || got[0].Status != tt.want || !strings.Contains(got[0].Message+got[0].Reason+got[0].Evidence, tt.says) {
				t.Errorf("%+v, want one %s with %q", got, tt.want, tt.says)
			}
			if got[0].Subject.Kind != "Namespace" || got[0].Subject.Source == "" {
				t.Errorf("subject %+v", got[0].Subject)
			}
			inv, err = inventory.New(inventory.Cluster, inv.Objects(), []inventory.Gap{{Kind: schema.GroupKind{Kind: "Namespace"}, Reason: "forbidden"}})
			if err != nil {
				t.Fatal(err)
			}
			if got := podsecurity.Enforced(inv); tt.want == finding.Unknown && !strings.Contains(got[0].Reason, "forbidden") {
				t.Errorf("reason %q", got[0].Reason)
			}
		})
	}
}
