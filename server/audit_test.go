package server

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/audit"
	"github.com/kubeguardian/kubeguardian/finding"
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

// TestReadiness expects a policy that does not deny to be listed with what it would
// have denied, and not what denies.
func TestReadiness(t *testing.T) {
	r := startWith(t, strings.Replace(template, "match:", "enforcementAction: dryrun, match:", 1)+
		native("Validating", "quiet", "validations: [{expression: 'true'}]", "validationActions: [Warn, Audit]")+
		native("Validating", "strict", "validations: [{expression: 'true'}]", "validationActions: [Deny]"))
	inv := podsIn(t, "shop")
	r.read(inv)
	if _, body := r.webhook("/admit", podReview("alice", `"labels":{}`, "nginx")); !strings.Contains(body, `"allowed":true`) {
		t.Fatalf("admission: %s", body)
	}
	var page struct {
		Since time.Time
		Items []finding.Readiness
	}
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		code, body := r.page("/api/v1/admission/readiness")
		if err := json.Unmarshal([]byte(body), &page); err != nil || code != 200 {
			t.Fatalf("%d %s: %v", code, body, err)
		}
		if page.Items[0].Requests > 0 {
			break
		}
	}
	if len(page.Items) != 2 || page.Since.IsZero() {
		t.Fatalf("readiness = %+v", page)
	}
	owned, quiet := page.Items[0], page.Items[1]
	if owned.Enforced != (finding.Enforced{Policy: "OwnedPod", Binding: "all", Enforcement: "dryrun"}) || owned.Requests != 1 || owned.Users[0].User != "alice" || owned.Samples[0].Message != "say whose it is" {
		t.Errorf("would have denied %+v", owned)
	}
	if quiet.Enforced != (finding.Enforced{Policy: "quiet", Binding: "quiet", Enforcement: "warn"}) || quiet.Requests != 0 {
		t.Errorf("would have denied %+v", quiet)
	}
}
