package audit_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/audit"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
)

// policies deny pods that share the network of the node, where the namespace
// asks for it, and warn of every Service that is no ClusterIP.
const policies = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: host-network}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]}
  validations: [{expression: "!object.spec.?hostNetwork.orValue(false)", message: host network}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: strict}
spec:
  policyName: host-network
  validationActions: [Deny]
  matchResources: {namespaceSelector: {matchLabels: {strict: "yes"}}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: node-port}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [services]}]}
  validations:
  - {expression: "object.spec.type == 'ClusterIP'", message: type}
  - {expression: "size(object.spec.?ports.orValue([])) == 1", message: ports}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: node-port}
spec: {policyName: node-port, validationActions: [Warn]}
`

func object(t *testing.T, text string, values ...any) *inventory.Object {
	t.Helper()
	data, err := yaml.YAMLToJSON(fmt.Appendf(nil, text, values...))
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return &inventory.Object{Unstructured: u}
}

func namespaceOf(t *testing.T, name, strict string) *inventory.Object {
	t.Helper()
	return object(t, `{apiVersion: v1, kind: Namespace, metadata: {name: %s, labels: {strict: "%s"}}}`, name, strict)
}

func pod(t *testing.T, namespace string, hostNetwork bool) *inventory.Object {
	t.Helper()
	return object(t, `{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: %s}, spec: {hostNetwork: %v, containers: [{name: web, image: web}]}}`, namespace, hostNetwork)
}

func service(t *testing.T) *inventory.Object {
	t.Helper()
	return object(t, `{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {type: NodePort, ports: []}}`)
}

func newAuditor(t *testing.T) *audit.Auditor {
	t.Helper()
	set, err := policy.Load(policy.File{Name: "policies.yaml", Data: []byte(policies)})
	if err != nil {
		t.Fatal(err)
	}
	return audit.New(set)
}

func pass(t *testing.T, a *audit.Auditor, full bool, objects ...*inventory.Object) audit.Result {
	t.Helper()
	inv, err := inventory.New(inventory.Cluster, objects, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := a.Pass(t.Context(), inv, full)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// expect compares a result with "judged of objects", and one word for each
// violation.
func expect(t *testing.T, r audit.Result, judged string, violations ...string) {
	t.Helper()
	if got := fmt.Sprintf("%d of %d", r.Judged, r.Objects); got != judged {
		t.Errorf("judged %s, want %s", got, judged)
	}
	var got []string
	for _, v := range r.Violations() {
		got = append(got, fmt.Sprintf("%s %s %s", v.Subject, v.Enforcement, v.Message))
	}
	if !slices.Equal(got, violations) {
		t.Errorf("violations %q, want %q", got, violations)
	}
	if len(r.Failures) > 0 {
		t.Errorf("failures %v", r.Failures)
	}
}

// TestPass expects a pass to judge what has changed, and what is in a namespace
// that has, and to know the rest.
func TestPass(t *testing.T) {
	a := newAuditor(t)
	shop, lab := namespaceOf(t, "shop", "yes"), namespaceOf(t, "lab", "no")
	inShop, inLab, entry := pod(t, "shop", true), pod(t, "lab", true), service(t)
	services := []string{"Service/shop/web warn type", "Service/shop/web warn ports"}
	denied := "Pod/shop/web deny host network"

	expect(t, pass(t, a, false, shop, lab, inShop, inLab, entry), "5 of 5", append([]string{denied}, services...)...)
	expect(t, pass(t, a, false, shop, lab, inShop, inLab, entry), "0 of 5", append([]string{denied}, services...)...)
	expect(t, pass(t, a, true, shop, lab, inShop, inLab, entry), "5 of 5", append([]string{denied}, services...)...)

	mended := pod(t, "shop", false)
	expect(t, pass(t, a, false, shop, lab, mended, inLab, entry), "1 of 5", services...)

	strict := namespaceOf(t, "lab", "yes") // relabelled
	r := pass(t, a, false, shop, strict, mended, inLab, entry)
	expect(t, r, "2 of 5", append([]string{"Pod/lab/web deny host network"}, services...)...)
	want := []audit.Summary{{Policy: "host-network", Binding: "strict", Enforcement: "deny", Objects: 1}, {Policy: "node-port", Binding: "node-port", Enforcement: "warn", Objects: 1}}
	if !slices.Equal(r.Summaries, want) {
		t.Errorf("summaries %v, want %v", r.Summaries, want)
	}
	expect(t, pass(t, a, false, shop, mended), "0 of 2")
}

// TestFailure expects an object that cannot be judged to be named.
func TestFailure(t *testing.T) {
	broken := object(t, `{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {ports: 7}}`)
	r := pass(t, newAuditor(t), false, namespaceOf(t, "shop", "yes"), broken)
	if len(r.Failures) != 1 || r.Failures[0].Subject.Name != "web" || !strings.Contains(r.Failures[0].Reason, "read Service") {
		t.Errorf("failures %v", r.Failures)
	}
}

// TestCancelled expects an audit that is cut to say so, and to go on later.
func TestCancelled(t *testing.T) {
	a := newAuditor(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	inv, err := inventory.New(inventory.Cluster, []*inventory.Object{namespaceOf(t, "shop", "yes"), pod(t, "shop", true)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Pass(ctx, inv, false); err == nil {
		t.Error("no error")
	}
	r, err := a.Pass(t.Context(), inv, false)
	if err != nil || r.Judged != 2 {
		t.Errorf("judged %d, %v", r.Judged, err)
	}
}
