package manifest_test

import (
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/manifest"
	"github.com/kubeguardian/kubeguardian/policy"
)

const text = `# A comment that stays.
apiVersion: apps/v1
kind: Deployment
metadata: &m {name: web, uid: a, annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}", own: b}}
spec:
  replicas: 1 # few
  empty:
  folded: >-
    one
      two
  list: [a]
status: {}
other: *m
---
- not
- a mapping
---
kind: Pod
`

func read(t *testing.T, text string) []*manifest.Object {
	t.Helper()
	objects, err := manifest.Read(policy.File{Name: "f.yaml", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestObject(t *testing.T) {
	objects := read(t, text)
	if len(objects) != 2 || objects[1].Kind() != "Pod" || objects[1].Group() != "" || objects[1].Name() != "" || objects[1].Source != "f.yaml:18" {
		t.Fatalf("%+v", objects)
	}
	o := objects[0]
	if o.Kind() != "Deployment" || o.Group() != "apps" || o.Name() != "web" || o.Place("kind") != "f.yaml:3" || o.Place("none") != "f.yaml:2" {
		t.Errorf("%s %s %s at %s", o.Group(), o.Kind(), o.Name(), o.Place("kind"))
	}
	if o.Text("other", "name") != "web" || o.Text("spec", "none") != "" || o.Find("spec", "replicas", "x") != nil {
		t.Errorf("other is %q", o.Text("other", "name"))
	}
	for _, set := range []struct {
		value any
		path  []string
	}{
		{2, []string{"spec", "replicas"}}, {[]string{"a", "b"}, []string{"spec", "list"}}, {true, []string{"spec", "empty", "deep"}}, {"x", []string{"spec", "new", "text"}},
	} {
		if err := o.Set(set.value, set.path...); err != nil {
			t.Error(err)
		}
	}
	for want, path := range map[string][]string{
		"set metadata.name: metadata is shared by an alias": {"metadata", "name"},
		"set other.name: other is shared by an alias":       {"other", "name"},
		"set spec.replicas.x: spec.replicas is no mapping":  {"spec", "replicas", "x"},
		"set spec.list.x.y: spec.list is no mapping":        {"spec", "list", "x", "y"},
	} {
		if err := o.Set("x", path...); err == nil || !strings.HasPrefix(err.Error(), "f.yaml:2: "+want) {
			t.Errorf("set %v: %v, want %s", path, err, want)
		}
	}
	o.Drop()
	have, err := o.Write()
	if err != nil {
		t.Fatal(err)
	}
	const want = `# A comment that stays.
apiVersion: apps/v1
kind: Deployment
metadata: &m {name: web, annotations: {own: b}}
spec:
  replicas: 2
  empty:
    deep: true
  folded: |-
    one
      two
  list: [a, b]
  new:
    text: x
other: *m
`
	if string(have) != want {
		t.Errorf("written\n%s\nwant\n%s", have, want)
	}
	if _, err := manifest.Read(policy.File{Name: "f.yaml", Data: []byte("a: [")}); err == nil || !strings.HasPrefix(err.Error(), "f.yaml: ") {
		t.Errorf("broken: %v", err)
	}
}

func TestLarge(t *testing.T) {
	if _, err := manifest.Read(policy.File{Name: "f.yaml", Data: make([]byte, 3<<20+1)}); err == nil || !strings.Contains(err.Error(), "more than the limit") {
		t.Errorf("Read = %v", err)
	}
}

// FuzzWrite: what is written says what was read, or is refused.
func FuzzWrite(f *testing.F) {
	f.Add([]byte(text))
	f.Add([]byte("a: >\n  b\n\n   c\n"))
	f.Add([]byte("a: &x [1, {b: c}]\nb: *x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, err := manifest.Read(policy.File{Name: "f", Data: data})
		if err != nil {
			return
		}
		for _, o := range objects {
			var want map[string]any
			if n := o.Find(); n == nil || n.Decode(&want) != nil {
				continue
			}
			text, err := o.Write()
			if err != nil {
				continue
			}
			var have map[string]any
			if err := yaml.Unmarshal(text, &have); err != nil || !reflect.DeepEqual(have, want) {
				t.Errorf("%q is written as %q: %v", data, text, err)
			}
		}
	})
}
