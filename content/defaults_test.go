package content_test

import (
	"bytes"
	"context"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/policy"
)

// TestDefaults expects each mutating policy to make the control pass that it
// names, in namespaces that ask for it, and to leave what is said as it is.
func TestDefaults(t *testing.T) {
	files, err := content.Read[policy.File](content.Defaults())
	if err != nil || len(files) < 6 {
		t.Fatal(len(files), err)
	}
	validating := map[string]*policy.Policy{} // by control
	for _, p := range loadPolicies(t).Policies() {
		validating[p.Annotation(controlAnnotation)] = p
	}
	for _, f := range files {
		t.Run(f.Name, func(t *testing.T) {
			set, err := policy.Load(f)
			if err != nil {
				t.Fatal(err)
			}
			silent := parse(t, []byte(`
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec:
  initContainers: [{name: setup, image: "web:1"}]
  containers: [{name: web, image: "web:1"}, {name: proxy, image: "proxy:1", securityContext: {runAsUser: 10001}}]
`))
			mended := mutate(t, set, silent, "true")
			if reflect.DeepEqual(mended, normal(t, silent)) {
				t.Fatal("nothing is set")
			}
			id := mutatingControl(t, f)
			if p := validating[id]; p != nil {
				if _, violations := check(t, p, create(t, silent)); len(violations) == 0 {
					t.Errorf("%s passes without it", id)
				}
				if applies, violations := check(t, p, create(t, mended)); !applies || len(violations) > 0 {
					t.Errorf("%s: applies %v, %v", id, applies, violations)
				}
			} else if token, _, _ := unstructured.NestedBool(mended.Object, "spec", "automountServiceAccountToken"); id != "CLU-RBA-19" || token {
				t.Errorf("%s is not proven", id)
			}
			if again := mutate(t, set, mended, "true"); !reflect.DeepEqual(again, mended) {
				t.Error("a second time changes more")
			}
			if other := mutate(t, set, silent, "false"); !reflect.DeepEqual(other, normal(t, silent)) {
				t.Error("a namespace that does not ask is changed")
			}
			said := parse(t, []byte(`
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec:
  automountServiceAccountToken: true
  securityContext: {runAsNonRoot: false, seccompProfile: {type: Unconfined}}
  containers:
  - name: web
    image: web:1
    securityContext: {allowPrivilegeEscalation: true, readOnlyRootFilesystem: false, capabilities: {add: [NET_ADMIN]}}
`))
			if kept := mutate(t, set, said, "true"); !reflect.DeepEqual(kept, normal(t, said)) {
				t.Errorf("what is said becomes %v", kept.Object["spec"])
			}
		})
	}
}

// mutatingControl returns the control that a policy names.
func mutatingControl(t *testing.T, f policy.File) string {
	t.Helper()
	first, _, _ := bytes.Cut(f.Data, []byte("\n---\n"))
	return parse(t, first).GetAnnotations()[controlAnnotation]
}

// mutate returns what becomes of a pod in a namespace with this label.
func mutate(t *testing.T, set *policy.Set, pod *unstructured.Unstructured, defaults string) *unstructured.Unstructured {
	t.Helper()
	req, err := policy.NewCreateRequest(pod)
	if err != nil {
		t.Fatal(err)
	}
	req.Namespaces = policy.NamespacesFunc(func(_ context.Context, name string) (*corev1.Namespace, error) {
		ns := &corev1.Namespace{}
		ns.Name, ns.Labels = name, map[string]string{"kubeguardian.dev/defaults": defaults}
		return ns, nil
	})
	out, _, err := set.Mutate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if out == nil {
		return req.Object
	}
	return out
}

// normal returns a pod as policies see it.
func normal(t *testing.T, pod *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	return create(t, pod).Object
}
