package review_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/review"
)

const clusterPolicies = `
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
metadata: {name: rights}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]}
  validations: [{expression: "authorizer.group('').resource('configmaps').check('create').allowed()", message: not allowed}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: rights}
spec: {policyName: rights, validationActions: [Warn]}
`

func live(t *testing.T, gaps []inventory.Gap, objects ...string) *inventory.Inventory {
	t.Helper()
	var all []*inventory.Object
	for _, text := range objects {
		u := &unstructured.Unstructured{}
		if err := json.Unmarshal([]byte(text), u); err != nil {
			t.Fatal(err)
		}
		all = append(all, &inventory.Object{Unstructured: u})
	}
	inv, err := inventory.New(inventory.Cluster, all, gaps)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// TestCluster expects what is in a cluster to be judged by the labels of its
// namespaces, and what cannot be judged to be named.
func TestCluster(t *testing.T) {
	set, err := engine.Load(policy.File{Name: "policies.yaml", Data: []byte(clusterPolicies)})
	if err != nil {
		t.Fatal(err)
	}
	const pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"%s"},"spec":{"hostNetwork":true,"containers":[{"name":"web","image":"web"}]}}`
	objects := []string{
		`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop","labels":{"strict":"yes"}}}`,
		`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"lab","labels":{"strict":"no"}}}`,
		fmt.Sprintf(pod, "shop"), fmt.Sprintf(pod, "lab"),
	}
	secrets := inventory.Gap{Kind: schema.GroupKind{Kind: "Secret"}, Reason: "secret contents are not read"}
	inv := live(t, []inventory.Gap{secrets}, objects...)
	found, err := review.Cluster(t.Context(), set, inv, inv, authenticationv1.UserInfo{})
	if err != nil || len(found) != 1 || found[0].Subject.String() != "Pod/shop/web" || !found[0].Denies() || found[0].Constraint != "strict" || found[0].Details == nil {
		t.Errorf("found %+v, %v", found, err)
	}

	lost := inventory.Gap{Kind: schema.GroupKind{Group: "apps", Kind: "Deployment"}, Reason: "not permitted to list deployments"}
	inv = live(t, []inventory.Gap{secrets, lost}, append(objects, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"web","namespace":"shop"}}`)...)
	found, err = review.Cluster(t.Context(), set, inv, inv, authenticationv1.UserInfo{})
	if err == nil || len(found) != 1 {
		t.Fatalf("found %+v, %v", found, err)
	}
	for _, want := range []string{`judge ConfigMap/shop/web: policy "rights" cannot judge`, "judge objects of kind Deployment.apps: not permitted to list deployments"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	inv = live(t, nil, objects[0], `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"read"},"rules":[{"apiGroups":[""],"resources":["configmaps"],"verbs":["get"]}]}`,
		`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"read"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"read"},"subjects":[{"kind":"User","name":"alice","apiGroup":"rbac.authorization.k8s.io"}]}`,
		`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"web","namespace":"shop"}}`)
	found, err = review.Cluster(t.Context(), set, inv, inv, authenticationv1.UserInfo{Username: "alice"})
	if err != nil || len(found) != 1 || found[0].Message != "not allowed" {
		t.Errorf("for alice: %+v, %v", found, err)
	}
}
