package policy

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/policy/normal"
)

// manifests returns the objects of built-in kinds in all examples.
func manifests(t testing.TB) (out []*unstructured.Unstructured) {
	t.Helper()
	for _, root := range []string{"../content", "../examples"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".yaml" {
				return err
			}
			data, err := os.ReadFile(path)
			for text := range strings.SplitSeq(string(data), "\n---") {
				var content map[string]any
				if yaml.Unmarshal([]byte(text), &content) != nil || content["kind"] == nil {
					continue
				}
				o := &unstructured.Unstructured{Object: numbers(content).(map[string]any)}
				if scheme.Scheme.Recognizes(o.GroupVersionKind()) {
					out = append(out, o)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(out) < 500 {
		t.Fatalf("%d objects", len(out))
	}
	return out
}

// checkNormal expects an object to be written as the converter writes it.
func checkNormal(t *testing.T, o *unstructured.Unstructured) {
	t.Helper()
	typed, err := scheme.Scheme.New(o.GroupVersionKind())
	if err != nil {
		return
	}
	before := o.DeepCopy()
	got, _, failed := normal.Object(o, o.GroupVersionKind())
	if !reflect.DeepEqual(before, o) {
		t.Fatalf("%v was changed", before.Object)
	}
	err = runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, typed)
	if (err != nil) != (failed != nil) {
		t.Fatalf("%v: %v, want %v", o.Object, failed, err)
	}
	if err != nil {
		return
	}
	want, err := runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
	if err != nil {
		t.Fatal(err)
	}
	normal.DropNulls(want)
	if !reflect.DeepEqual(got.Object, want) {
		t.Fatalf("%v\nis written as %v\nwant           %v", o.Object, got.Object, want)
	}
}

// TestNormal expects all examples, and what becomes of them by random changes,
// to be written as the converter writes them.
func TestNormal(t *testing.T) {
	objects, seed := manifests(t), rand.Uint64()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for _, o := range objects {
		checkNormal(t, o)
		for range 5 {
			o = &unstructured.Unstructured{Object: runtime.DeepCopyJSON(o.Object)}
			for _, part := range []string{"spec", "metadata", "rules", "subjects"} {
				if value, ok := o.Object[part]; ok {
					o.Object[part] = change(r, value)
				}
			}
			checkNormal(t, o)
		}
	}
}

func FuzzNormal(f *testing.F) {
	f.Add("apps/v1", "Deployment", `{"spec": {"replicas": 1.5, "template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "0.1"}}}]}}}}`)
	f.Add("v1", "Service", `{"spec": {"ports": [{"targetPort": "web", "port": 99999999999}]}, "status": null}`)
	f.Fuzz(func(t *testing.T, apiVersion, kind, text string) {
		o := &unstructured.Unstructured{}
		if o.UnmarshalJSON(fmt.Appendf(nil, `{"apiVersion": %q, "kind": %q, "metadata": {"name": "x"}}`, apiVersion, kind)) != nil {
			return
		}
		var more map[string]any
		if yaml.Unmarshal([]byte(text), &more) != nil {
			return
		}
		for key, value := range more {
			if key != "apiVersion" && key != "kind" {
				o.Object[key] = numbers(value)
			}
		}
		checkNormal(t, o)
	})
}
