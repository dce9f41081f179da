package edit_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/fix/edit"
)

func TestApply(t *testing.T) {
	context := func(field string) []any { return []any{"spec", "containers", 0, "securityContext", field} }
	tests := []struct {
		name, doc string
		ops       []edit.Op
		want      string
	}{
		{
			"a value is replaced, its comment stays", "spec:\n  hostPID: true # needed?\n  x: 1\n",
			[]edit.Op{edit.Set(false, "spec", "hostPID")}, "spec:\n  hostPID: false # needed?\n  x: 1\n",
		},
		{
			"line endings of Windows", "spec:\r\n  hostPID: true\r\n  x: {}\r\n",
			[]edit.Op{edit.Set(false, "spec", "hostPID"), edit.Set(true, "spec", "w", "z")},
			"spec:\r\n  hostPID: false\r\n  x: {}\r\n  w:\r\n    z: true\r\n",
		},
		{
			"a new mapping in a list that is not indented", "spec:\n  containers:\n  - name: a # the app\n    image: b\n  # end\n  volumes: []\n",
			[]edit.Op{edit.Set(false, context("privileged")...)},
			"spec:\n  containers:\n  - name: a # the app\n    image: b\n    securityContext:\n      privileged: false\n  # end\n  volumes: []\n",
		},
		{
			"four spaces, and a list that is indented", "spec:\n    containers:\n      - name: a\n        image: b\n",
			[]edit.Op{edit.Set(false, context("privileged")...), edit.Append("ALL", context("drop")...)},
			"spec:\n    containers:\n      - name: a\n        image: b\n        securityContext:\n            privileged: false\n            drop:\n              - ALL\n",
		},
		{
			"lists on one line are followed", "spec:\n  args: [a]\n  x: y\n",
			[]edit.Op{edit.Append("ALL", "spec", "drop")}, "spec:\n  args: [a]\n  x: y\n  drop: [ALL]\n",
		},
		{
			"behind a key", "spec:\n  image: a:1\n  # ports\n  ports:\n  - 1\n",
			[]edit.Op{{Verb: edit.VerbSet, Path: []any{"spec", "imagePullPolicy"}, Value: "Always", After: "image"}},
			"spec:\n  image: a:1\n  imagePullPolicy: Always\n  # ports\n  ports:\n  - 1\n",
		},
		{
			"braces", "spec: {containers: [{name: a, image: b}]}\n",
			[]edit.Op{edit.Set(false, context("privileged")...), edit.Append("ALL", append(context("capabilities"), "drop")...)},
			"spec: {containers: [{name: a, image: b, securityContext: {privileged: false, capabilities: {drop: [ALL]}}}]}\n",
		},
		{"empty braces", "a: {}\nb: 1\n", []edit.Op{edit.Set(true, "a", "x")}, "a: {x: true}\nb: 1\n"},
		{"a trailing comma", "a: {x: 1,}\n", []edit.Op{edit.Set(true, "a", "w")}, "a: {x: 1, w: true}\n"},
		{
			"braces over lines", "a: {\n  x: 1, # one\n  y: 2 # two\n}\n",
			[]edit.Op{edit.Set(true, "a", "z")}, "a: {\n  x: 1, # one\n  y: 2, # two\n  z: true\n}\n",
		},
		{
			"JSON", "{\n  \"a\": {\n    \"x\": 1\n  }\n}\n",
			[]edit.Op{edit.Set("Always", "a", "y", "z")}, "{\n  \"a\": {\n    \"x\": 1,\n    \"y\": {\"z\": \"Always\"}\n  }\n}\n",
		},
		{"JSON without spaces", `{"a":{"x":[]}}`, []edit.Op{edit.Set(true, "a", "y"), edit.Append("A", "a", "x"), edit.Append("B", "a", "x")}, `{"a":{"x":["A","B"],"y":true}}`},
		{"no end of line", "a:\n  b: 1", []edit.Op{edit.Set(true, "a", "c")}, "a:\n  b: 1\n  c: true"},
		{"a value left out", "a:\n  b: # later\nc: 1\n", []edit.Op{edit.Set(true, "a", "b", "c")}, "a:\n  b: # later\n    c: true\nc: 1\n"},
		{"a value left out at the end", "a:\n  b:", []edit.Op{edit.Set(true, "a", "b", "c")}, "a:\n  b:\n    c: true"},
		{"null", "a:\n  b: null\n", []edit.Op{edit.Set(true, "a", "b", "c")}, "a:\n  b: {c: true}\n"},
		{"behind a text over lines", "a:\n  b: |\n    # x\n\n    y\n\n# end\nc: 1\n", []edit.Op{edit.Set(true, "a", "c")}, "a:\n  b: |\n    # x\n\n    y\n  c: true\n\n# end\nc: 1\n"},
		{"behind a text that keeps its empty lines", "a:\n  b: |+\n    y\n\nc: 1\n", []edit.Op{edit.Set(true, "a", "c")}, "a:\n  b: |+\n    y\n\n  c: true\nc: 1\n"},
		{"behind a plain text over lines", "a:\n  b: one\n    two: 1\n", nil, ""},
		{"behind a folded plain text", "a:\n  b: one\n    two\nc: 1\n", []edit.Op{edit.Set(true, "a", "c")}, "a:\n  b: one\n    two\n  c: true\nc: 1\n"},
		{"behind quotes over lines", "a:\n  b: \"one \\\" #\n    two\" # x\n  c: 'it''s\n    it'\nd: 1\n", []edit.Op{edit.Set(true, "a", "e")}, "a:\n  b: \"one \\\" #\n    two\" # x\n  c: 'it''s\n    it'\n  e: true\nd: 1\n"},
		{"quotes are kept", "a: 'x'\nb: \"x\"\nc: x\n", []edit.Op{edit.Set("y", "a"), edit.Set("y", "b"), edit.Set("1", "c")}, "a: 'y'\nb: \"y\"\nc: \"1\"\n"},
		{"letters of several bytes", "\"ä\": {ö: ü, hostPID: true}\n", []edit.Op{edit.Set(false, "ä", "hostPID"), edit.Set(true, "ä", "é")}, "\"ä\": {ö: ü, hostPID: false, \"é\": true}\n"},
		{"a line that only YAML sees", "a: \"x\u2028y\"\nb: true\n", []edit.Op{edit.Set(false, "b")}, "a: \"x\u2028y\"\nb: false\n"},
		{"an old boolean", "a: yes\n", []edit.Op{edit.Set(false, "a")}, "a: false\n"},

		{"an item goes", "add:\n- A\n- B # why\n- C\n", []edit.Op{edit.Remove("B", "add")}, "add:\n- A\n- C\n"},
		{"an item of a line goes", "add: [A, B, C]\n", []edit.Op{edit.Remove("B", "add")}, "add: [A, C]\n"},
		{"the first of a line", "add: [A, B]\n", []edit.Op{edit.Remove("A", "add")}, "add: [B]\n"},
		{"the last of a line", "add: [A, B]\n", []edit.Op{edit.Remove("B", "add")}, "add: [A]\n"},
		{"the only item, and what it leaves empty", "c:\n  capabilities:\n    add: [A]\n  x: 1\n", []edit.Op{edit.Remove("A", "c", "capabilities", "add")}, "c:\n  x: 1\n"},
		{"a key goes", "a:\n  # first\n  x:\n    y: 1\n    z: 2\n  # second\n  w: 1\n", []edit.Op{edit.Delete("a", "x")}, "a:\n  # first\n  # second\n  w: 1\n"},
		{"the first key of an item", "a:\n- x: 1\n  y: 2\n", []edit.Op{edit.Delete("a", 0, "x")}, "a:\n- y: 2\n"},
		{"a key of braces", "a: {x: 1, y: 2, z: 3}\n", []edit.Op{edit.Delete("a", "z"), edit.Delete("a", "x")}, "a: {y: 2}\n"},
		{"what is not there", "a: {x: [B]}\nb:\n", []edit.Op{edit.Delete("a", "z", "y"), edit.Remove("A", "a", "x"), edit.Remove("A", "b", "c"), edit.Append("B", "a", "x")}, "a: {x: [B]}\nb:\n"},

		{"an alias of a value is replaced alone", "a: &no true\nb: *no\n", []edit.Op{edit.Set(false, "b")}, "a: &no true\nb: false\n"},
		{"a merged key is overridden", "a: &a\n  x: 1\nb:\n  <<: *a\n  y: 2\n", []edit.Op{edit.Set(true, "b", "x")}, "a: &a\n  x: 1\nb:\n  <<: *a\n  y: 2\n  x: true\n"},
		{"all who share a value want it", "a: &a\n  x: true\nb: *a\n", []edit.Op{edit.Set(false, "a", "x"), edit.Set(false, "b", "x")}, "a: &a\n  x: false\nb: *a\n"},
		{"behind an alias", "a: &a {x: 1}\nb:\n  c: *a\nd: 1\n", []edit.Op{edit.Set(true, "b", "w")}, "a: &a {x: 1}\nb:\n  c: *a\n  w: true\nd: 1\n"},
		{"an anchor before a mapping", "a: &a # x\n  x: 1\nb: 1\n", []edit.Op{edit.Set(true, "a", "w")}, "a: &a # x\n  x: 1\n  w: true\nb: 1\n"},
		{"the document's own marks", "--- # first\na: true\n...\n", []edit.Op{edit.Set(true, "b")}, "--- # first\na: true\nb: true\n...\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := edit.Apply([]byte(tt.doc), tt.ops...)
			if tt.want == "" {
				if err == nil && len(tt.ops) > 0 || err == nil && !yamlBroken(tt.doc) {
					t.Errorf("got %q", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			again, err := edit.Apply(got, tt.ops...)
			if err != nil || !bytes.Equal(again, got) {
				t.Errorf("a second time: %v\n%s", err, again)
			}
		})
	}
}

func yamlBroken(doc string) bool { return yaml.Unmarshal([]byte(doc), new(any)) != nil }

func TestApplyRefuses(t *testing.T) {
	tests := []struct {
		name, doc string
		op        edit.Op
		want      string
	}{
		{"a shared mapping", "a: &sc\n  x: true\nb: *sc\n", edit.Set(false, "b", "x"), "the value is shared through the anchor &sc of line 1"},
		{"below a merged key", "a: &sc\n  x: {y: 1}\nb:\n  <<: *sc\n", edit.Set(false, "b", "x", "y"), "shared through the anchor &sc of line 1"},
		{"an anchored value", "a: &yes true\nb: *yes\n", edit.Set(false, "a"), "shared through the anchor &yes of line 1"},
		{"a merged key that should go", "a: &sc\n  x: 1\nb:\n  <<: *sc\n", edit.Delete("b", "x"), "changed"},
		{"not a mapping", "a: text\n", edit.Set(false, "a", "x"), "what is there is not a mapping"},
		{"not a list", "a: text\n", edit.Append("x", "a"), "what is there is not a list"},
		{"no such item", "a: []\n", edit.Set(false, "a", 0, "x"), "no such item"},
		{"two documents", "a: 1\n---\nb: 1\n", edit.Set(false, "a"), "there is more than one"},
		{"no YAML", "a: [", edit.Set(false, "a"), "read document"},
		{"text over lines", "a: |\n  x\n", edit.Set("y", "a"), "the value is not on one line"},
		{"all of a document", "a: 1\n", edit.Delete("a"), "nothing would be left"},
		{"a comment would move", "- a: 1\n  # about b\n  b: 2\n", edit.Delete(0, "a"), "a comment stands"},
		{"no path", "a: 1\n", edit.Set(false), "no path"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := edit.Apply([]byte(tt.doc), tt.op)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, error %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestScalar(t *testing.T) {
	for value, want := range map[any]string{
		"Always": "Always", "a:1": "a:1", "": `""`, "on": `"on"`, "1": `"1"`, "true": `"true"`, "a: b": `"a: b"`, "~": `"~"`,
		"<>": `"<>"`, true: "true", 53: "53", "r/a:1@sha256:0ab": "r/a:1@sha256:0ab",
	} {
		if got := edit.Scalar(value); got != want {
			t.Errorf("%v: %s, want %s", value, got, want)
		}
	}
}

// FuzzApply looks for a change that does more or less than it says.
func FuzzApply(f *testing.F) {
	for _, doc := range []string{
		"a:\n  b: [x, {c: 1}]\n  # c\n  d: |\n    e\n", "a: &x {b: 1}\nb: *x\n", "{\"a\":{\"b\":[1]}}", "a:\n- b: 1\n- b: \"2\"\r\n", "a:\n  <<: {b: 1}\n", "a: ? b\n",
	} {
		for verb := range 4 {
			f.Add(doc, verb, "a", "b", 0, true)
		}
	}
	f.Fuzz(func(t *testing.T, doc string, verb int, first, second string, item int, onItem bool) {
		if len(doc) > 4096 {
			return
		}
		path := []any{first, second}
		if onItem {
			path = []any{first, item, second}
		}
		verbs := []edit.Verb{edit.VerbSet, edit.VerbDelete, edit.VerbAppend, edit.VerbRemove}
		op := edit.Op{Verb: verbs[(verb%4+4)%4], Path: path, Value: "x"}
		got, err := edit.Apply([]byte(doc), op)
		if err != nil {
			return
		}
		var before, after any
		if err := yaml.Unmarshal([]byte(doc), &before); err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(got, &after); err != nil {
			t.Fatalf("%s\n%s\nno longer reads: %v", op, got, err)
		}
		want, err := op.Apply(before)
		if err != nil || !reflect.DeepEqual(want, after) {
			t.Fatalf("%s\n%q\n%q\n%v", op, doc, got, err)
		}
		again, err := edit.Apply(got, op)
		if err != nil && op.Verb != edit.VerbDelete || err == nil && !bytes.Equal(again, got) {
			t.Fatalf("%s, a second time\n%q\n%q\n%v", op, got, again, err)
		}
	})
}
