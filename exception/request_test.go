package exception

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func resource(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

// An object asks for itself: whatever it writes, the exception is about it.
func TestRequests(t *testing.T) {
	pod := func(annotation string) *unstructured.Unstructured {
		o := resource(t, "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}}")
		o.SetAnnotations(map[string]string{Annotation: annotation})
		return o
	}
	found, err := Requests("p.yaml:1", pod("- {controls: [A], owner: o, reason: r, scope: {container: c}}"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	x := found[0]
	if x.Namespace != "shop" || x.Spec.Scope.Name != "web" || x.Spec.Scope.Kind != "Pod" || x.Spec.Scope.Container != "c" || x.Source != "p.yaml:1" {
		t.Errorf("%+v", x)
	}
	for text, want := range map[string]string{
		"- {controls: [A], scope: {name: other}}":    "an object asks for itself",
		"- {controls: [A], scope: {labels: {a: b}}}": "an object asks for itself",
		"- {control: A}": "unknown key control",
		"{":              "p.yaml:1: annotation kubeguardian.dev/exceptions",
	} {
		if _, err := Requests("p.yaml:1", pod(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if none, err := Requests("p.yaml:1", resource(t, "{apiVersion: v1, kind: Pod, metadata: {name: web}}")); none != nil || err != nil {
		t.Errorf("%v, %v", none, err)
	}
}

func TestFromObject(t *testing.T) {
	const text = `{apiVersion: kubeguardian.dev/v1alpha1, kind: SecurityException, metadata: {name: x, namespace: shop, uid: u, resourceVersion: "1"}, spec: {controls: [A], owner: o, reason: r, created: "2026-11-01", expires: "2026-12-01"}}`
	x, err := FromObject(resource(t, text))
	if err != nil || x.Namespace != "shop" || x.Source != "" || x.Spec.Expires.String() != "2026-12-01" {
		t.Errorf("%+v, %v", x, err)
	}
	if _, err := FromObject(resource(t, strings.Replace(text, "owner", "owners", 1))); err == nil || !strings.Contains(err.Error(), "SecurityException x:") {
		t.Error(err)
	}
}
