package clusterpolicies

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/policy/source"
)

// A counter counts the requests of a client.
type counter struct {
	next http.RoundTripper
	n    atomic.Int64
}

// RoundTrip is http.RoundTripper.
func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.next.RoundTrip(r)
}

const limits = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: limits, namespace: default}\ndata: {team: %s}\n"

// TestWatchedParams asks for parameters again and again: they are as the cluster
// has them, and only the first times it is asked.
func TestWatchedParams(t *testing.T) {
	w := newWorld(t)
	count := &counter{}
	config := rest.CopyConfig(w.admin)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { count.next = next; return count })
	watched := source.NewWatched(dynamic.NewForConfigOrDie(config), restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(w.client.Discovery())))
	defer watched.Stop()
	kind := schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}
	team := func() (string, error) {
		found, err := watched.Params(t.Context(), kind, "default", "limits", nil)
		if err != nil || len(found) == 0 {
			return "", err
		}
		team, _, err := unstructured.NestedString(found[0].Object, "data", "team")
		return team, err
	}
	becomes := func(want string) {
		t.Helper()
		w.eventually("the parameter is "+want, func() error {
			if got, err := team(); err != nil || got != want {
				return fmt.Errorf("it is %q, %v", got, err)
			}
			return nil
		})
	}
	becomes("")
	w.apply(fmt.Sprintf(limits, "red"))
	becomes("red")
	w.eventually("it is watched", func() error {
		before := count.n.Load()
		if _, err := team(); err != nil || count.n.Load() != before {
			return fmt.Errorf("it is read: %v", err)
		}
		return nil
	})
	before := count.n.Load()
	for range 1000 {
		if got, err := team(); got != "red" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if after := count.n.Load(); after != before {
		t.Errorf("1000 questions are %d requests", after-before)
	}
	w.apply(fmt.Sprintf(limits, "blue"))
	becomes("blue")
	w.removeIn("v1", "ConfigMap", "default", "limits")
	becomes("")

	if err := watched.Stop(); err != nil {
		t.Fatal(err)
	}
	w.apply(fmt.Sprintf(limits, "green"))
	becomes("green") // read, although nothing is watched
}

func (w *world) removeIn(apiVersion, kind, namespace, name string) {
	w.Helper()
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(apiVersion)
	o.SetKind(kind)
	o.SetNamespace(namespace)
	if err := w.at(o).Delete(w.Context(), name, metav1.DeleteOptions{}); err != nil {
		w.Fatal(err)
	}
}

const shops = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: shops.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Shop, plural: shops, singular: shop}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              doors:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items: {type: object, required: [name], properties: {name: {type: string}, open: {type: boolean}}}
`

// TestSchemas merges lists of a custom kind by its definition.
func TestSchemas(t *testing.T) {
	w := newWorld(t)
	w.apply(string(content.RBAC()))
	w.apply(shops)
	policies := filepath.Join(t.TempDir(), "policies.yaml")
	if err := os.WriteFile(policies, []byte(`apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: doors}
spec:
  reinvocationPolicy: Never
  matchConstraints: {resourceRules: [{apiGroups: [example.com], apiVersions: [v1], operations: [CREATE], resources: [shops]}]}
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration: {expression: "Object{spec: Object.spec{doors: [Object.spec.doors{name: 'back', open: false}]}}"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: doors}
spec: {policyName: doors}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	w.serve(t.TempDir(), fmt.Sprintf("policies: [%q]", policies))
	shop := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/v1", "kind": "Shop", "metadata": map[string]any{"name": "corner", "namespace": "default"},
		"spec": map[string]any{"doors": []any{map[string]any{"name": "front", "open": true}, map[string]any{"name": "back", "open": true}}},
	}}
	w.eventually("doors are merged by their names", func() error {
		made, err := w.at(shop).Create(t.Context(), shop, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return err
		}
		doors, _, _ := unstructured.NestedSlice(made.Object, "spec", "doors")
		if got := fmt.Sprint(doors); len(doors) != 2 || !strings.Contains(got, "map[name:back open:false]") || !strings.Contains(got, "map[name:front open:true]") {
			return fmt.Errorf("doors = %s", got)
		}
		return nil
	})
}
