package server

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/audit"
	"github.com/kubeguardian/kubeguardian/inventory"
)

func podsIn(t *testing.T, namespaces ...string) *inventory.Inventory {
	t.Helper()
	var objects []*inventory.Object
	for _, namespace := range namespaces {
		objects = append(objects, &inventory.Object{Unstructured: &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "web", "namespace": namespace},
		}}})
	}
	inv, err := inventory.New(inventory.Cluster, objects, nil)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// TestAudit judges what is in the cluster at Gatekeeper's point of the audit:
// where admission only warns, it denies.
func TestAudit(t *testing.T) {
	scoped := "enforcementAction: scoped, scopedEnforcementActions: [{action: deny, enforcementPoints: [{name: audit.gatekeeper.sh}]}, {action: warn, enforcementPoints: [{name: validation.gatekeeper.sh}]}], match:"
	r := startWith(t, strings.Replace(template, "match:", scoped, 1)+
		native("Validating", "allowed", `validations: [{expression: "authorizer.path('/').check('get').allowed()"}]`, "validationActions: [Deny]"))
	inv := podsIn(t, "shop", "bank", "kube-system")
	r.read(inv)
	r.audit(t.Context(), inv, true)
	code, body := r.page("/api/v1/audit")
	var page struct {
		ObservedAt string
		Objects    int
		Summaries  []audit.Summary
		Items      []audit.Violation
		Failures   []audit.Failure
	}
	if err := json.Unmarshal([]byte(body), &page); err != nil || code != 200 {
		t.Fatalf("%d %s: %v", code, body, err)
	}
	if len(page.Summaries) != 1 || page.Summaries[0] != (audit.Summary{Policy: "OwnedPod", Binding: "all", Enforcement: "deny", Objects: 2}) || len(page.Items) != 2 || page.ObservedAt == "" {
		t.Errorf("audit = %s", body)
	}
	if len(page.Failures) != 2 || !strings.Contains(page.Failures[0].Reason, `policy "allowed" cannot judge`) {
		t.Errorf("failures = %v, want what nobody asks for", page.Failures)
	}
	_, metrics := r.page("/metrics")
	for _, want := range []string{"kubeguardian_audit_violations{enforcement=\"deny\",policy=\"OwnedPod\"} 2\n", "kubeguardian_audit_failures 2\n"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics do not have %s", want)
		}
	}
	if _, body := r.webhook("/admit", podReview("alice", `"labels":{}`, "nginx")); !strings.Contains(body, `"warnings":["[OwnedPod] say whose it is"`) {
		t.Errorf("admission: %s", body)
	}

	fewer := podsIn(t, "kube-system")
	r.read(fewer)
	r.audit(t.Context(), fewer, false)
	if _, metrics := r.page("/metrics"); strings.Contains(metrics, "kubeguardian_audit_violations{") {
		t.Error("what is gone still violates")
	}
}
