package vap_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/admission/plugin/policy/manifest/loader"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/vap"
)

func builtIn(t *testing.T) []policy.File {
	t.Helper()
	files, err := content.Read[policy.File](content.Policies())
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func export(t *testing.T, files []policy.File, static bool) []vap.Manifest {
	t.Helper()
	manifests, unsupported, err := vap.Export(files, vap.Validating, static)
	if err != nil || len(unsupported) > 0 {
		t.Fatalf("unsupported %v, error %v", unsupported, err)
	}
	return manifests
}

func load(t *testing.T, files []policy.File) *engine.Set {
	t.Helper()
	set, err := engine.Load(files...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// asFiles returns manifests as the files that they become.
func asFiles(manifests []vap.Manifest) (files []policy.File) {
	for _, m := range manifests {
		files = append(files, policy.File{Name: m.Name + ".yaml", Data: m.Data})
	}
	return files
}

// TestSameVerdict exports the built-in policies, and expects that they load and
// say the same of all labelled examples; and that a second export changes
// nothing.
func TestSameVerdict(t *testing.T) {
	original := load(t, builtIn(t))
	for _, static := range []bool{false, true} {
		manifests := export(t, builtIn(t), static)
		if !slices.IsSortedFunc(manifests, func(a, b vap.Manifest) int { return strings.Compare(a.Name, b.Name) }) {
			t.Error("the policies are not in order")
		}
		again := export(t, asFiles(manifests), static)
		if !slices.EqualFunc(manifests, again, func(a, b vap.Manifest) bool { return a.Name == b.Name && bytes.Equal(a.Data, b.Data) }) {
			t.Error("a second export differs from the first")
		}
		exported, denied := load(t, asFiles(manifests)), 0
		for _, req := range requests(t) {
			want, err := original.Evaluate(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			have, err := exported.Evaluate(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			for i := range have {
				have[i].Policy, have[i].Binding = strings.TrimSuffix(have[i].Policy, vap.StaticSuffix), strings.TrimSuffix(have[i].Binding, vap.StaticSuffix)
			}
			if !slices.EqualFunc(have, want, func(a, b finding.Violation) bool { return reflect.DeepEqual(a, b) }) {
				t.Errorf("%s of %s %s: exported policies say %v, want %v", req.Operation, req.Kind.Kind, req.Name, have, want)
			}
			denied += len(want)
		}
		if denied == 0 {
			t.Error("no example violates anything")
		}
	}
}

// TestAPIServerReads has the API server's own loader read static manifests.
func TestAPIServerReads(t *testing.T) {
	dir := t.TempDir()
	manifests := export(t, builtIn(t), true)
	for _, f := range asFiles(manifests) {
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	policies, bindings, _, err := loader.LoadPolicyManifests(dir, serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer(),
		accept[*admissionregistrationv1.ValidatingAdmissionPolicy], accept[*admissionregistrationv1.ValidatingAdmissionPolicyBinding],
		func(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) string { return b.Spec.PolicyName })
	if err != nil {
		t.Fatal(err)
	}
	if len(policies) != len(manifests) || len(bindings) < len(policies) {
		t.Errorf("%d policies and %d bindings, want %d of each", len(policies), len(bindings), len(manifests))
	}
}

func accept[T any](object runtime.Object) ([]T, error) {
	if o, ok := object.(T); ok {
		return []T{o}, nil
	}
	return nil, loader.ErrUnrecognizedType
}

const team = `# A comment that stays.
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: &name team
  uid: a
  creationTimestamp: 2026-01-01T00:00:00Z
  annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}", own: *name}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]}
  validations:
  - expression: >
      true ||
        false
status: {}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: z}
spec: {policyName: team, validationActions: [Deny]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: a}
spec: {policyName: team, validationActions: [Warn]}
`

func TestExport(t *testing.T) {
	got := export(t, []policy.File{{Name: "team.yaml", Data: []byte(team)}}, false)
	const want = `# A comment that stays.
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: &name team
  annotations: {own: *name}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]}
  validations:
    - expression: |
        true ||
          false
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: a}
spec: {policyName: team, validationActions: [Warn]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: z}
spec: {policyName: team, validationActions: [Deny]}
`
	if len(got) != 1 || got[0].Name != "team" || string(got[0].Data) != want {
		t.Errorf("exported\n%s\nwant\n%s", got[0].Data, want)
	}
}

func TestUnsupported(t *testing.T) {
	long := strings.Repeat("a", 245)
	files := []policy.File{{Name: "p.yaml", Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n" +
		strings.NewReplacer("&name team", long, "*name", "x", "policyName: team", "policyName: "+long).Replace(team))}}
	manifests, unsupported, err := vap.Export(files, vap.Validating, false)
	if err != nil || len(manifests) != 1 || len(unsupported) != 1 || unsupported[0].Error() != "p.yaml:2: ConfigMap cannot be exported: it is no policy" {
		t.Errorf("manifests %v, unsupported %v, error %v", manifests, unsupported, err)
	}
	manifests, unsupported, err = vap.Export(files, vap.Validating, true)
	if err != nil || len(manifests) != 0 || len(unsupported) != 2 || !strings.Contains(unsupported[1].Error(), "is too long for the suffix") {
		t.Errorf("static: manifests %v, unsupported %v, error %v", manifests, unsupported, err)
	}
	if unknown := (*vap.UnsupportedError)(nil); !errors.As(unsupported[0], &unknown) {
		t.Errorf("unsupported = %#v", unsupported[0])
	}
	if _, _, err := vap.Export([]policy.File{{Name: "p.yaml", Data: []byte(strings.Replace(team, "true ||", "tru ||", 1))}}, vap.Validating, false); err == nil || !strings.Contains(err.Error(), "undeclared reference to 'tru'") {
		t.Errorf("error = %v", err)
	}
}

// requests returns the creation, an update and the deletion of each labelled
// example of the built-in policies.
func requests(t *testing.T) (out []policy.Request) {
	t.Helper()
	err := filepath.WalkDir("../content/policies/testdata", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(data, &object.Object); err != nil || object.GetKind() == "" {
			return err // it has several documents
		}
		if policy.IsReview(object) {
			req, err := policy.NewReviewRequest(object)
			out = append(out, req)
			return err
		}
		for _, operation := range []admissionv1.Operation{admissionv1.Create, admissionv1.Update, admissionv1.Delete} {
			req, err := policy.NewRequest(operation, object, &unstructured.Unstructured{Object: map[string]any{"apiVersion": object.GetAPIVersion(), "kind": object.GetKind()}})
			if err != nil {
				return err
			}
			out = append(out, req)
		}
		return nil
	})
	if err != nil || len(out) < 100 {
		t.Fatalf("%d requests: %v", len(out), err)
	}
	return out
}
