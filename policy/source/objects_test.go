package source_test

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/source"
)

// cluster is what a cluster is said to consist of.
func cluster(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("testdata/cluster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func object(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return u
}

func objects(t testing.TB, text string) *source.Objects {
	t.Helper()
	var all []*unstructured.Unstructured
	for doc := range strings.SplitSeq(text, "---\n") {
		all = append(all, object(t, doc))
	}
	o, err := source.NewObjects(all...)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestNewObjectsErrors(t *testing.T) {
	const definition = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: a}\nspec: "
	for text, want := range map[string]string{
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: 1}": `read ConfigMap "a"`,
		definition + "1": `read CustomResourceDefinition "a"`,
		definition + "{versions: [{name: v1, schema: {openAPIV3Schema: {type: object, properties: {a: {type: array}}}}}]}": `schema of version "v1"`,
	} {
		if _, err := source.NewObjects(object(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error = %v, want %q", text, err, want)
		}
	}
}

func TestObjects(t *testing.T) {
	o := objects(t, cluster(t))
	if ns, err := o.Namespace(t.Context(), "shop"); err != nil || ns.Labels["kubernetes.io/metadata.name"] != "shop" || ns.Labels["team"] != "a" {
		t.Errorf("Namespace = %+v, %v", ns, err)
	}
	if _, err := o.Namespace(t.Context(), "other"); err == nil || !strings.Contains(err.Error(), "not among the 1 namespaces that are given") {
		t.Errorf("error = %v", err)
	}
	for kind, want := range map[schema.GroupVersionKind]bool{
		{Version: "v1", Kind: "ConfigMap"}: true, {Version: "v1", Kind: "Node"}: false, {Group: "example.org", Version: "v1", Kind: "Limit"}: false,
	} {
		if got, err := o.Namespaced(t.Context(), kind); err != nil || got != want {
			t.Errorf("Namespaced(%v) = %v, %v, want %v", kind, got, err, want)
		}
	}
	given := objects(t, "{apiVersion: example.org/v1, kind: Thing, metadata: {name: a, namespace: shop}}")
	thing := schema.GroupVersionKind{Group: "example.org", Version: "v1", Kind: "Thing"}
	if got, err := given.Namespaced(t.Context(), thing); err != nil || !got {
		t.Errorf("Namespaced of a kind without definition = %v, %v, want what its objects say", got, err)
	}
	if found, err := given.Params(t.Context(), thing, "shop", "", labels.Everything()); err != nil || len(found) != 1 {
		t.Errorf("Params = %v, %v, want one", found, err)
	}
	if given.Schema(thing) != nil || o.Schema(schema.GroupVersionKind{Group: "example.org", Version: "v1", Kind: "Limit"}) == nil {
		t.Error("schemas are not those of the definitions")
	}
}

// asking are policies that ask for all that a source may have.
const asking = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: v}
spec:
  paramKind: {apiVersion: example.org/v1, kind: Limit}
  matchConstraints: {resourceRules: [{apiGroups: ['*'], apiVersions: ['*'], operations: [CREATE], resources: ['*']}]}
  validations:
  - {expression: params.max < 3}
  - {expression: namespaceObject == null || has(namespaceObject.metadata.labels)}
  - {expression: "authorizer.group('').resource('pods').namespace('shop').check('get').allowed()"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: v}
spec: {policyName: v, validationActions: [Deny], paramRef: {selector: {}, parameterNotFoundAction: Deny}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: m}
spec:
  reinvocationPolicy: IfNeeded
  matchConstraints: {resourceRules: [{apiGroups: ['*'], apiVersions: ['*'], operations: [CREATE], resources: ['*']}]}
  mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: 'Object{spec: Object.spec{a: 1}}'}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: m}
spec: {policyName: m}
`

// FuzzObjects feeds what a cluster is said to consist of, and judges a request
// by policies that ask for all of it.
func FuzzObjects(f *testing.F) {
	for doc := range strings.SplitSeq(cluster(f), "---\n") {
		data, err := object(f, doc).MarshalJSON()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	set, err := policy.Load(policy.File{Name: "asking.yaml", Data: []byte(asking)})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		u := &unstructured.Unstructured{}
		if u.UnmarshalJSON(data) != nil {
			return
		}
		o, err := source.NewObjects(u)
		if err != nil {
			return
		}
		req, err := policy.NewCreateRequest(u)
		if err != nil {
			t.Fatalf("an object that is given is no request: %v", err)
		}
		req.Namespaces, req.Params, req.Authorizer, req.Schemas = o, o, o, o
		before := req.Object.DeepCopy()
		if _, err := set.Review(t.Context(), req); err != nil {
			t.Error(err)
		}
		_, _, _ = set.Mutate(t.Context(), req)
		if !reflect.DeepEqual(before, req.Object) {
			t.Error("the object is changed")
		}
	})
}
