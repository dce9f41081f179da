package clusterpolicy

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "sigs.k8s.io/json"

	"github.com/kubeguardian/kubeguardian/policy"
)

// FuzzText writes objects and reads them as policies are read.
func FuzzText(f *testing.F) {
	for _, seed := range []string{
		`{"apiVersion":"v1","kind":"A","metadata":{"name":"a"},"spec":{"rego":"package p\n\nviolation[x] {\n\tx  \n}\n"}}`,
		`{"apiVersion":"v1","kind":"A","metadata":{"name":"a"},"spec":{"a":"  first\nsecond","b":"x\n\n\n","c":"\n\n","d":"\nx","e":"#\n- a: b\n--- \n...\n"}}`,
		`{"apiVersion":"v1","kind":"A","metadata":{"name":"a"},"spec":[[],[[1,-2.5,1e30]],{},{"":null,"y":true,"no":"no","1":"1"},"\u0085\n","\r\n","\ufeff\n"," \n x\n"]}`,
		`{"apiVersion":"v1","kind":"A","metadata":{"name":"a"},"spec":[["x\ny",["z\n"]],{"<<":"a","~":"~","? ":": "}]}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data string) {
		var object map[string]any
		if kjson.UnmarshalCaseSensitivePreserveInts([]byte(data), &object) != nil {
			return
		}
		delete(object, "metadata")
		delete(object, "status")
		written, err := text(&unstructured.Unstructured{Object: object})
		if err != nil {
			t.Fatal(err)
		}
		docs, err := policy.Documents(policy.File{Name: "a", Data: written})
		if err != nil && (strings.Contains(err.Error(), "limit") || strings.Contains(err.Error(), "depth")) {
			return
		}
		if err != nil || len(docs) != 1 {
			t.Fatalf("%d documents, %v:\n%s", len(docs), err, written)
		}
		object["metadata"] = map[string]any{"name": ""}
		want, _ := json.Marshal(object)
		got, err := json.Marshal(docs[0].Object())
		if string(got) != string(want) || err != nil {
			t.Fatalf("read %s, %v\nwant %s:\n%s", got, err, want, written)
		}
	})
}

func TestPlace(t *testing.T) {
	written, err := text(&unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "A", "metadata": map[string]any{"name": "a", "uid": "u"},
		"spec":   map[string]any{"targets": []any{map[string]any{"libs": []any{"lib\none", "lib\ntwo"}, "rego": "one\n\nthree"}}, "x": "y"},
		"status": map[string]any{"created": true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(written), "\n")
	for i, want := range map[string]struct {
		path string
		row  int
	}{
		`"name": "a"`: {"metadata.name", 0}, "three": {"spec.targets[0].rego", 3}, "two": {"spec.targets[0].libs[1]", 2}, `"x": "y"`: {"spec.x", 0},
	} {
		for n, line := range lines {
			if strings.TrimSpace(line) != i {
				continue
			}
			if path, row := place(written, n+1); path != want.path || row != want.row {
				t.Errorf("line %d is %s:%d, want %v of\n%s", n+1, path, row, want, written)
			}
		}
	}
	for _, left := range []string{"uid", "created"} {
		if strings.Contains(string(written), left) {
			t.Errorf("the text has %s", left)
		}
	}
}
