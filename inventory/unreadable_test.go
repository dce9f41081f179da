package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func describeUnreadable(inv *Inventory) string {
	var b strings.Builder
	for _, u := range inv.Unreadable {
		fmt.Fprintln(&b, strings.TrimSpace(u.Subject.Source+" "+u.Subject.String()), u.Reason)
	}
	return b.String()
}

func TestReadKeepsWhatItCan(t *testing.T) {
	const good = "-- good.yaml --\napiVersion: v1\nkind: Pod\nmetadata: {name: good}\nspec: {containers: [{name: a, image: a}]}\n"
	tests := []struct{ name, archive, paths, want, problems string }{
		{"broken YAML", "-- a.yaml --\napiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\na: [\n", ".",
			"a.yaml:5 File could not be read: a.yaml:6: did not find expected node content\n", "a.yaml:6: did not find expected node content"},
		{"an object of which the kind is known", "-- a.yaml --\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {one: 1, two: 2}\n", ".",
			"a.yaml:1 Pod/a could not be read: a.yaml:4: unknown field spec.one\n", "a.yaml:4: unknown field spec.one\na.yaml:4: unknown field spec.two"},
		{"a kind that there is not, twice", "-- a.yaml --\napiVersion: v1\nkind: Podd\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Podd\nmetadata: {name: b}\n", ".",
			"a.yaml:1 File could not be read: a.yaml:2: v1 has no kind Podd: did you mean Pod?\na.yaml:5 File could not be read: a.yaml:6: v1 has no kind Podd: did you mean Pod?\n", "a.yaml:2: v1 has no kind Podd: did you mean Pod?\na.yaml:6: v1 has no kind Podd: did you mean Pod?"},
		{"a chart", "-- c/Chart.yaml --\napiVersion: v2\nname: c\nversion: 1.0.0\n-- c/templates/a.yaml --\n{{ fail \"no\" }}\n", ".",
			"c File could not be read: c/templates/a.yaml:1: no\n", "c/templates/a.yaml:1: no"},
		{"a kustomization, whose parts are not taken for whole", "-- k/kustomization.yaml --\nresources: [a.yaml, b.yaml]\n-- k/a.yaml --\n{apiVersion: v1, kind: Pod, metadata: {name: a}}\n", ".",
			"k File could not be read: k/b.yaml: no such file or directory\n", "k/b.yaml: no such file or directory"},
		{"a workload without containers", "-- a.yaml --\n\n{apiVersion: v1, kind: Pod, metadata: {name: a}}\n", ".",
			"a.yaml:2 Pod/a could not be read: a.yaml:2: Pod/a makes pods without containers\n", "a.yaml:2: Pod/a makes pods without containers"},
		{"a file that is not there", "", ". nowhere.yaml",
			"nowhere.yaml File could not be read: nowhere.yaml: no such file or directory\n", "nowhere.yaml: no such file or directory"},
		{"a file that holds nothing hides nothing", "-- .v/values.yaml --\na: b\n", ". .v/values.yaml",
			"", ".v/values.yaml:1: no Kubernetes objects: no apiVersion and kind"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			read(t, good+test.archive, nil, "")
			inv, err := Read(t.Context(), FileInput{Paths: strings.Fields(test.paths)})
			if err != nil {
				t.Fatal(err)
			}
			if inv.Get("", "Pod", "", "good") == nil {
				t.Error("the good pod is not there")
			}
			if got := describeUnreadable(inv); got != test.want {
				t.Errorf("unreadable\n%swant\n%s", got, test.want)
			}
			if inv.Problems == nil || inv.Problems.Error() != test.problems {
				t.Errorf("problems\n%v\nwant\n%s", inv.Problems, test.problems)
			}
		})
	}
}

func TestUnreadableIsBounded(t *testing.T) {
	text := "{apiVersion: v1, kind: Pod, metadata: {name: good}, spec: {containers: [{name: a, image: a}]}}\n"
	for i := range maxUnreadable + 10 {
		text += fmt.Sprintf("---\n{apiVersion: v1, kind: Pod, metadata: {name: a-%d}, x: 1}\n", i)
	}
	inv, err := Read(t.Context(), FileInput{Paths: []string{"-"}, Stdin: strings.NewReader(text)})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(inv.Unreadable); n != maxUnreadable+1 || inv.Unreadable[n-1].Reason != "could not be read: more than 1000 parts of the input" {
		t.Errorf("%d unreadable parts, the last %v", n, inv.Unreadable[n-1])
	}
}

func TestMayHold(t *testing.T) {
	inv, err := Read(t.Context(), FileInput{Paths: []string{"-"}, Stdin: strings.NewReader(
		"{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: a}]}}\n---\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: b}, x: 1}\n---\na: [")})
	if err != nil || len(inv.Unreadable) != 2 {
		t.Fatal(inv, err)
	}
	deployment, pod := schema.GroupKind{Group: "apps", Kind: "Deployment"}, schema.GroupKind{Kind: "Pod"}
	object, file := inv.Unreadable[0], inv.Unreadable[1]
	if !object.MayHold(deployment) || object.MayHold(pod) || !file.MayHold(deployment) || !file.MayHold(pod) {
		t.Errorf("%v and %v do not know what they may hold", object, file)
	}
}

func TestValuesOfCharts(t *testing.T) {
	const archive = `-- c/Chart.yaml --
apiVersion: v2
name: c
version: 1.0.0
-- c/values.yaml --
a: default
b: default
c: default
-- c/templates/a.yaml --
{apiVersion: v1, kind: Pod, metadata: {name: "{{ .Values.a }}-{{ .Values.b }}-{{ .Values.c }}"}, spec: {containers: [{name: a, image: a}]}}
-- one.yaml --
a: one
b: one
-- two.yaml --
b: two
-- bad.yaml --
a: [
-- pod.yaml --
{apiVersion: v1, kind: Pod, metadata: {name: pod}, spec: {containers: [{name: a, image: a}]}}
`
	tests := []struct {
		paths, values, set []string
		pod, err           string
	}{
		{[]string{"c"}, nil, nil, "default-default-default", ""},
		{[]string{"c"}, []string{"one.yaml", "two.yaml"}, []string{"c=set"}, "one-two-set", ""},
		{[]string{"c", "pod.yaml"}, []string{"bad.yaml"}, nil, "pod", "bad.yaml:2: did not find expected node content\nc: not rendered without the values"},
		{[]string{"c", "pod.yaml"}, nil, []string{"a[99999999]=1"}, "pod", "read value \"a[99999999]=1\": index of 99999999 is greater than maximum supported index of 65536\nc: not rendered without the values"},
		{[]string{"pod.yaml"}, nil, []string{"a=b"}, "pod", "values are given, but there is no chart that takes them"},
	}
	read(t, archive, nil, "")
	for _, test := range tests {
		inv, err := Read(t.Context(), FileInput{Paths: test.paths, Values: test.values, Set: test.set})
		if err != nil {
			t.Fatal(err)
		}
		if inv.Get("", "Pod", "", test.pod) == nil {
			t.Errorf("%v %v: %s", test.values, test.set, describeInventory(inv))
		}
		if got := ""; inv.Problems != nil {
			got = inv.Problems.Error()
			if got != test.err {
				t.Errorf("%v %v: problems %s, want %s", test.values, test.set, got, test.err)
			}
		} else if test.err != "" {
			t.Errorf("no problem, want %s", test.err)
		}
	}
}

func TestChartFolders(t *testing.T) {
	read(t, "-- c/Chart.yaml --\napiVersion: v2\nname: c\nversion: 1.0.0\n-- c/templates/a.yaml --\n{apiVersion: v1, kind: Pod, metadata: {name: a}}\n-- shared/_h.tpl --\n{{ define \"x\" }}{{ end }}\n", nil, "")
	if err := os.Symlink("../../shared", "c/templates/shared"); err != nil {
		t.Fatal(err)
	}
	if inv, err := FromFiles(t.Context(), []string{"c"}, nil); err != nil || len(inv.Objects()) != 1 {
		t.Errorf("a link out of the chart, as Helm follows it: %v", err)
	}
	if err := os.Symlink("..", "c/templates/loop"); err != nil {
		t.Fatal(err)
	}
	if _, err := FromFiles(t.Context(), []string{"c"}, nil); err == nil || err.Error() != "c/templates/loop: a link that leads to a folder around it" {
		t.Error(err)
	}
}

func FuzzValues(f *testing.F) {
	f.Add("a: {b: [1, 2]}\n", "a.b[0]=3")
	f.Add("a: &x [*x]\n---\nb: 1\n", "a={x,y},b.c=null")
	f.Fuzz(func(t *testing.T, file, set string) {
		if values, err := readValues("values.yaml", []byte(file)); err == nil && values == nil {
			t.Fatal("neither values nor an error")
		}
		if values, err := userValues(nil, []string{set}); (values == nil) == (err == nil) {
			t.Fatalf("values %v, error %v", values, err)
		}
	})
}

func TestHolds(t *testing.T) {
	for text, want := range map[string]int{
		"":     1,
		"a: [": 1,
		"kind: Pod\nmetadata: {name: a}\nspec: [":                              1,
		"kind: RoleBinding\nmetadata: {}\nroleRef: {kind: Role}\n:[":           2,
		`{"kind": "PodList", "items": [{"metadata" : {}}, {"metadata": {}}, {`: 2,
		"items: [{kind: A}, {kind: B}, {kind: C}":                              3,
		"mankind: 1\nkinds: 2\n[":                                              1,
		"items: [&a {kind: A}, *a, *a, {":                                      0,
	} {
		if have := holds([]byte(text)); have != want {
			t.Errorf("%q: %d, want %d", text, have, want)
		}
	}
}

func TestSplit(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "",
		"a: 1\n":                                "0+1 a: 1\n",
		"---\na: 1\n---\n# x\n\nb: 1\n":         "0+2 ---\na: 1\n|2+4 ---\n# x\n\nb: 1\n",
		"%YAML 1.2\n---\na: 1\n...\n--- {b: 1}": "0+3 %YAML 1.2\n---\na: 1\n...\n|4+1 --- {b: 1}",
		"a: |\n ---\n x\n----\nb: '\n --- '\r\n---\r\nc: 1": "0+1 a: |\n ---\n x\n----\nb: '\n --- '\r\n|6+2 ---\r\nc: 1",
		"---\n---\n": "0+0 ---\n|1+0 ---\n",
	} {
		var have []string
		for d := range split([]byte(text)) {
			have = append(have, fmt.Sprintf("%d+%d %s", d.before, d.first, d.text))
		}
		if got := strings.Join(have, "|"); got != want {
			t.Errorf("%q:\n%q, want\n%q", text, got, want)
		}
	}
}

// TestOneDocumentHidesNoOther reads what stands around a document that cannot be
// parsed, under its own lines.
func TestOneDocumentHidesNoOther(t *testing.T) {
	const text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\n# comment\nkind: Pod\nmetadata: [\n---\napiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {x: 1}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: c}\n"
	inv, err := Read(t.Context(), FileInput{Paths: []string{"-"}, Stdin: strings.NewReader(text)})
	if err != nil {
		t.Fatal(err)
	}
	if a, c := inv.Get("", "Service", "", "a"), inv.Get("", "Service", "", "c"); a == nil || c == nil || a.Source != "stdin:1" || c.Source != "stdin:14" {
		t.Error(describeInventory(inv))
	}
	want := "stdin:6 File could not be read: stdin:8: did not find expected node content\nstdin:9 Service/b could not be read: stdin:12: unknown field spec.x\n"
	if got := describeUnreadable(inv); got != want {
		t.Errorf("unreadable\n%swant\n%s", got, want)
	}
	for _, u := range inv.Unreadable {
		if u.AtMost != 1 {
			t.Errorf("%v may hold %d objects, want 1", u.Subject, u.AtMost)
		}
	}
}

// FuzzSplit loses no text, and nothing of what a stream means that can be parsed.
func FuzzSplit(f *testing.F) {
	f.Add([]byte("%YAML 1.1\n---\na: |\n  ---\n--- {b: 1}\n...\n# c\n---\n\"d\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var all []byte
		var parts []any
		whole, err := decodeAll(data)
		for d := range split(data) {
			all = append(all, d.text...)
			more, broken := decodeAll(d.text)
			if err == nil && broken != nil {
				t.Fatalf("%q cannot be parsed, but %q can: %v", d.text, data, broken)
			}
			parts = append(parts, more...)
		}
		if !bytes.Equal(all, data) {
			t.Fatalf("%q became %q", data, all)
		}
		if err == nil && !reflect.DeepEqual(whole, parts) {
			t.Fatalf("%q: %v became %v", data, whole, parts)
		}
	})
}

func decodeAll(data []byte) (out []any, err error) {
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var n yaml.Node
		switch err := dec.Decode(&n); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, err
		case n.Content[0].Kind != yaml.ScalarNode || n.Content[0].Value != "":
			out = append(out, shape(&n))
		}
	}
}

// shape is what a node means, without its place.
func shape(n *yaml.Node) any {
	if n.Kind == yaml.AliasNode {
		return "*" + n.Value
	}
	out := []any{n.Kind, n.Tag, n.Value}
	for _, c := range n.Content {
		out = append(out, shape(c))
	}
	return out
}
