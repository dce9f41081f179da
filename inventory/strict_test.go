package inventory

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	kjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/client-go/kubernetes/scheme"
)

// TestStrictAsKubernetes changes each value of valid objects into each of other
// types, and adds a field to each mapping; the verdict must be that of the API
// server's own strict decoder.
func TestStrictAsKubernetes(t *testing.T) {
	strict := kjson.NewSerializerWithOptions(kjson.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, kjson.SerializerOptions{Strict: true})
	files, err := filepath.Glob("testdata/strict/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			var object map[string]any
			if err := yaml.Unmarshal(data, &object); err != nil {
				t.Fatal(err)
			}
			tried := 0
			mutate(object, func(change string) {
				text, err := json.Marshal(object)
				if err != nil {
					t.Fatal(err)
				}
				_, _, theirs := strict.Decode(text, nil, nil)
				_, ours := FromFiles(t.Context(), []string{"-"}, strings.NewReader(string(text)))
				if tried++; (theirs == nil) != (ours == nil) {
					t.Errorf("%s:\n ours   %v\n theirs %v", change, ours, theirs)
				}
			})
			if tried < 50 {
				t.Errorf("only %d changes tried", tried)
			}
		})
	}
}

// mutate calls try after each change to object, and undoes the change. What
// says which object it is stays, and so do lists' items as such.
func mutate(object map[string]any, try func(change string)) {
	others := []any{"text", "12", int64(12), 1.5, int64(1) << 40, int64(-1), true, nil, []any{}, []any{"text"}, map[string]any{}, map[string]any{"a": "b"}}
	var walk func(v any, path string)
	visit := func(set func(any), old any, path string) {
		for _, other := range others {
			set(other)
			try(fmt.Sprintf("%s = %T %v", path, other, other))
		}
		set(old)
		walk(old, path)
	}
	walk = func(v any, path string) {
		switch v := v.(type) {
		case map[string]any:
			v["unknownField"] = "x"
			try(path + " has another field")
			delete(v, "unknownField")
			for _, key := range slices.Sorted(maps.Keys(v)) {
				if at := path + "." + key; !slices.Contains([]string{".apiVersion", ".kind", ".metadata", ".metadata.name"}, at) {
					visit(func(x any) { v[key] = x }, v[key], at)
				}
			}
		case []any:
			for i := range v {
				visit(func(x any) { v[i] = x }, v[i], fmt.Sprintf("%s[%d]", path, i))
			}
		}
	}
	walk(object, "")
}

// TestBuiltInKindsAreCovered keeps the checker from meeting a Go type that it
// does not know: every type that the API's kinds are made of.
func TestBuiltInKindsAreCovered(t *testing.T) {
	c := checker{fields: map[reflect.Type]map[string]reflect.Type{}}
	seen := map[reflect.Type]bool{}
	var walk func(t reflect.Type)
	walk = func(typ reflect.Type) {
		if seen[typ] || reflect.PointerTo(typ).Implements(reflect.TypeFor[json.Unmarshaler]()) {
			return
		}
		seen[typ] = true
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(typ.Elem())
		case reflect.Struct:
			for _, field := range c.fieldsOf(typ) {
				walk(field)
			}
		case reflect.Interface:
		default:
			if scalarProblem(typ, struct{}{}) == "" {
				t.Errorf("type %s of kind %s takes anything", typ, typ.Kind())
			}
		}
	}
	for gvk, typ := range scheme.Scheme.AllKnownTypes() {
		if gvk.Version != "__internal" {
			walk(typ)
		}
	}
	if len(seen) < 500 {
		t.Errorf("only %d types seen", len(seen))
	}
}

func TestDidYouMean(t *testing.T) {
	names := []string{"image", "imagePullPolicy", "name", "tty", "env", "envFrom"}
	for word, want := range map[string]string{
		"imagePullPolcy": ": did you mean imagePullPolicy?", "imagepullpolicy": ": did you mean imagePullPolicy?",
		"Image": ": did you mean image?", "nmae": ": did you mean name?", "security": "", "x": "", "": "", strings.Repeat("a", 1<<20): "",
	} {
		if got := didYouMean(word, names); got != want {
			t.Errorf("didYouMean(%.20q) = %q, want %q", word, got, want)
		}
	}
}

// FuzzFromFiles reads any input. What it accepts must mean what kubectl would
// send: the same as the YAML to JSON conversion that kubectl uses.
func FuzzFromFiles(f *testing.F) {
	for _, seed := range []string{
		fmt.Sprintf(deployment, 1, 1, 1),
		"{apiVersion: a.io/v1, kind: A, metadata: {name: a}, x: [yes, No, 0o17, 017, 1_000, .5, 1e3, -0.0, ~, 2001-01-01, !!str 1, !!binary YQ==]}",
		"{apiVersion: a.io/v1, kind: A, metadata: {name: a}, x: &a {y: 1}, z: {<<: [*a, {q: 2}], 7: *a, true: b}}",
		`{"apiVersion": "a.io/v1", "kind": "A", "metadata": {"name": "a"}, "x": "\ud83d\ude00\\ud83d\u00e9\/", "y": 18446744073709551615, "z": 1e400}`,
		"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n",
		"a: &a [*a]", "{{ x }}", "\xff", "- - - a", "%YAML 1.1\n--- |\n a\n...\n", "? - a\n: b",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		inv, err := FromFiles(t.Context(), []string{"-"}, strings.NewReader(string(data)))
		if err != nil {
			if inv != nil || strings.TrimSpace(err.Error()) == "" {
				t.Errorf("inventory %v with error %q", inv, err)
			}
			return
		}
		if len(inv.Objects()) != 1 || strings.HasSuffix(inv.Objects()[0].GetKind(), "List") {
			return
		}
		text, err := yaml.YAMLToJSON(data)
		var want map[string]any
		if err != nil || utiljson.Unmarshal(text, &want) != nil || want["kind"] != inv.Objects()[0].GetKind() {
			return // several documents, or a list
		}
		if got := inv.Objects()[0].Object; !reflect.DeepEqual(got, want) {
			t.Errorf("got  %#v\nwant %#v", got, want)
		}
	})
}
