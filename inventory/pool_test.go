package inventory

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func value(t testing.TB, text string) map[string]any {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var u unstructured.Unstructured
	if err := u.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return u.Object
}

// identity is where a mapping or a list is in memory.
func identity(v any) uintptr { return reflect.ValueOf(v).Pointer() }

// TestPool expects equal parts of two objects to be one, and others to stay what
// they are.
func TestPool(t *testing.T) {
	const text = `{apiVersion: v1, kind: Pod, metadata: {name: %s, labels: {app: web}}, spec: {nodeName: %s, volumes: [{name: tmp, emptyDir: {}}], list: [%s]}}`
	p := &pool{}
	var objects []map[string]any
	for _, words := range [][]any{{"a", "one", "1"}, {"b", "one", "1.5"}, {"c", "one", `"1"`}, {"d", "one", "true"}, {"e", "one", "null"}, {"f", "one", "[]"}, {"g", "one", "{}"}, {"h", "one", `""`}} {
		o, want := value(t, fmt.Sprintf(text, words...)), value(t, fmt.Sprintf(text, words...))
		p.share(o)
		if !reflect.DeepEqual(o, want) {
			t.Errorf("%v became %v", want, o)
		}
		objects = append(objects, o)
	}
	part := func(i int, path ...string) uintptr {
		v, _, _ := unstructured.NestedFieldNoCopy(objects[i], path...)
		return identity(v)
	}
	for i := 1; i < len(objects); i++ {
		for _, shared := range [][]string{{"metadata", "labels"}, {"spec", "volumes"}} {
			if part(0, shared...) != part(i, shared...) {
				t.Errorf("%v of object %d is a copy", shared, i)
			}
		}
		if part(0, "spec") == part(i, "spec") || part(0, "spec", "list") == part(i, "spec", "list") {
			t.Errorf("object %d lost what sets it apart", i)
		}
	}
	if again := value(t, fmt.Sprintf(text, "z", "one", "1")); true {
		p.share(again)
		if identity(again["spec"]) != part(0, "spec") {
			t.Error("an equal spec is a copy")
		}
	}
}

// TestPoolBounds expects what is long to be no part of the pool, and old parts to
// go.
func TestPoolBounds(t *testing.T) {
	p := &pool{}
	long := strings.Repeat("x", 3*maxPooledText)
	for i := range 5 * maxPooled {
		o := map[string]any{"data": map[string]any{"i": int64(i), "words": []any{"same", long}}}
		p.share(o)
		if o["data"].(map[string]any)["words"].([]any)[1] != long {
			t.Fatal("a long text was cut")
		}
	}
	if young, old := len(p.parts.young), len(p.parts.old); young > maxPooled || old > maxPooled {
		t.Errorf("the pool holds %d and %d parts", young, old)
	}
	if cap(p.text) > 16*maxPooledText {
		t.Errorf("the text takes %d bytes", cap(p.text))
	}
}

// TestPoolIsSafe shares from several goroutines; the race detector looks on.
func TestPoolIsSafe(t *testing.T) {
	p := &pool{}
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for i := range 200 {
				p.share(map[string]any{"labels": map[string]any{"app": fmt.Sprint("web-", i%10)}})
			}
		})
	}
	wait.Wait()
}

// FuzzPool expects any two values to be after sharing what they were before.
func FuzzPool(f *testing.F) {
	f.Add(`{"a":{"b":[1,"1",true,null,1.5,{}]}}`, `{"a":{"b":[1,"1",true,null,1.5,[]]}}`)
	f.Add(`{"a":["x","yz"]}`, `{"a":["xy","z"]}`)
	f.Add(`{"a":{"x":"y"}}`, `{"a":["x","y"]}`)
	f.Add(`{"a":[[1],[2]],"b":[[1,2]]}`, `{"a":{"":{"":""}}}`)
	f.Fuzz(func(t *testing.T, one, two string) {
		p := &pool{}
		for _, text := range []string{one, two, one} {
			var have, want map[string]any
			if json.Unmarshal([]byte(text), &have) != nil || json.Unmarshal([]byte(text), &want) != nil {
				return
			}
			p.share(have)
			if !reflect.DeepEqual(have, want) {
				t.Errorf("%v became %v", want, have)
			}
		}
	})
}

// TestTemplatesAreShared expects what two templates have alike to be one, and the
// template of an object that has not changed to be the same in the next inventory.
func TestTemplatesAreShared(t *testing.T) {
	const text = `{apiVersion: v1, kind: Pod, metadata: {name: %s}, spec: {volumes: [{name: tmp, emptyDir: {}}], containers: [{name: %[1]s, image: web, resources: {limits: {cpu: %s}}, securityContext: {runAsUser: 7}}]}}`
	object := func(name, cpu string) *Object {
		return &Object{Unstructured: &unstructured.Unstructured{Object: value(t, fmt.Sprintf(text, name, cpu))}}
	}
	known := newTemplates()
	build := func(objects ...*Object) []*Workload {
		inv, err := index(Cluster, objects, nil, known)
		if err != nil {
			t.Fatal(err)
		}
		return inv.Workloads()
	}
	a, b, c := object("a", "1"), object("b", "1"), object("c", "2")
	before := build(a, b, c)
	one, two, three := &before[0].Template.Spec.Containers[0], &before[1].Template.Spec.Containers[0], &before[2].Template.Spec.Containers[0]
	if one.SecurityContext != two.SecurityContext || one.SecurityContext != three.SecurityContext || identity(one.Resources.Limits) != identity(two.Resources.Limits) {
		t.Error("equal parts of containers are copies")
	}
	if &before[0].Template.Spec.Volumes[0] != &before[2].Template.Spec.Volumes[0] {
		t.Error("equal volumes are copies")
	}
	if one.Name != "a" || two.Name != "b" || three.Resources.Limits.Cpu().Value() != 2 {
		t.Errorf("containers %v, %v, %v", one, two, three)
	}
	after := build(a, object("b", "1"), c)
	if after[0].Template != before[0].Template || after[1].Template == before[1].Template || after[2].Template != before[2].Template {
		t.Error("not what has changed was read again")
	}
	if len(known.read) != 3 {
		t.Errorf("%d templates are known", len(known.read))
	}
}
