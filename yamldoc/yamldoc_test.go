package yamldoc

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type shape struct {
	Name string
	Size int
}

func TestAll(t *testing.T) {
	items, err := All[shape]("f", []byte("# first\nname: a\n---\n---\nname: b\nsize: 2\n"), 10)
	if err != nil || len(items) != 2 || items[0].Line != 2 || items[1].Line != 5 || items[1].Value != (shape{"b", 2}) {
		t.Errorf("%+v, %v", items, err)
	}
	for text, want := range map[string]string{
		"name: a\n---\nnom: b\n---\nsize: x\n": "f:3: unknown key nom\nf:5: cannot unmarshal !!str `x`",
		"name: a\n---\nname: [\n":              "f:3:",
		"name: a\n---\nname: b\n---\nname: c":  "f:5: more than 2 documents",
		"name: a\nname: b\n":                   "f:2: mapping key \"name\" already defined at line 1",
	} {
		if _, err := All[shape]("f", []byte(text), 2); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestOne(t *testing.T) {
	for text, want := range map[string]string{
		"":                  "f: file is empty",
		"name: a\n---\n{}":  "f: want one YAML document",
		"name: a\nwho: b\n": "f:2: unknown key who",
		"{":                 "f:",
	} {
		if err := One("f", []byte(text), new(shape)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestLine(t *testing.T) {
	items, err := All[any]("f", []byte("name: a\nspec:\n  list:\n  - x: 1\n    y: 2\n  - &b\n    x: 3\n  again: *b\n"), 10)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"": 1, "name": 1, "spec": 2, "spec.list": 3, "spec.list[0].y": 5, "spec.list[1].x": 7, "spec.again.x": 7,
		"none": 1, "spec.none.x": 2, "spec.list[2].x": 3, "spec.list.x": 3, "name.x": 1,
	} {
		if have := Line(items[0].Root, path); have != want {
			t.Errorf("line of %q is %d, want %d", path, have, want)
		}
	}
}

func TestKnown(t *testing.T) {
	var n yaml.Node
	if err := yaml.Unmarshal([]byte("a: 1\nb: 2\n"), &n); err != nil {
		t.Fatal(err)
	}
	if err := Known(n.Content[0], "a", "b"); err != nil {
		t.Error(err)
	}
	if err := Plain("f", Known(n.Content[0], "a")); err.Error() != "f:2: unknown key b" {
		t.Error(err)
	}
}

func FuzzAll(f *testing.F) {
	f.Add([]byte("name: a\n---\nsize: 1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		items, err := All[shape]("f", data, 100)
		if len(items) > 100 && err == nil {
			t.Error("too many documents")
		}
	})
}
