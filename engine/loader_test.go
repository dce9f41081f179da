package engine

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/policy"
)

// named returns a template that denies pods, and a constraint of it.
func named(t testing.TB, kind, message string) (template, constraint policy.File) {
	t.Helper()
	text := fmt.Sprintf(`apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: %[1]s}
spec:
  crd: {spec: {names: {kind: %[2]s}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    rego: |
      package p
      violation[{"msg": %[3]q}] { input.review.kind.kind == "Pod" }
`, strings.ToLower(kind), kind, message)
	return policy.File{Name: kind, Data: []byte(text)}, policy.File{Name: kind + "/all", Data: fmt.Appendf(nil,
		"apiVersion: constraints.gatekeeper.sh/v1beta1\nkind: %s\nmetadata: {name: all}\n", kind)}
}

// TestLoader loads again and again: what one load says does not depend on those
// before it.
func TestLoader(t *testing.T) {
	var l Loader
	load := func(want string, files ...policy.File) {
		t.Helper()
		set, err := l.Load(files...)
		if err != nil {
			t.Fatal(err)
		}
		violations, err := set.Evaluate(t.Context(), pod(t))
		var got []string
		for _, v := range violations {
			got = append(got, v.Policy+": "+v.Message)
		}
		if strings.Join(got, ", ") != want || err != nil {
			t.Errorf("violations = %q, %v, want %q", got, err, want)
		}
	}
	a, allA := named(t, "First", "one")
	b, allB := named(t, "Second", "two")
	changed, _ := named(t, "Second", "three")
	broken := policy.File{Name: b.Name, Data: []byte(strings.Replace(string(b.Data), "violation", "violation[", 1))}
	native := file(text("native", "[Deny]", "false"))
	load("native: nope, First: one, Second: two", native, a, allA, b, allB)
	before := l.parts[0].loaded
	load("native: nope, First: one, Second: three", native, a, allA, changed, allB)
	if l.parts[0].loaded != before {
		t.Error("what did not change was compiled again")
	}
	if _, err := l.Load(native, a, allA, broken, allB); err == nil || !strings.Contains(err.Error(), "Second:10: ") {
		t.Errorf("error = %v", err)
	}
	load("native: nope, Second: two", native, b, allB)
	load("", a, b)
	load("First: one, Second: two", a, b, allA, allB)
}

// BenchmarkReload changes one of 300 constraints.
func BenchmarkReload(b *testing.B) {
	data, err := os.ReadFile("testdata/rego.yaml")
	if err != nil {
		b.Fatal(err)
	}
	files := []policy.File{{Name: "rego.yaml", Data: data}}
	for i := range 30 {
		template, constraint := named(b, fmt.Sprintf("Kind%c%c", 'a'+i/26, 'a'+i%26), "no")
		files = append(files, template)
		for j := range 10 {
			files = append(files, policy.File{Name: fmt.Sprint(constraint.Name, j), Data: []byte(strings.Replace(string(constraint.Data), "all", fmt.Sprint("all", j), 1))})
		}
	}
	var l Loader
	if _, err := l.Load(files...); err != nil {
		b.Fatal(err)
	}
	last, text := len(files)-1, files[len(files)-1].Data
	for i := 0; b.Loop(); i++ {
		files[last].Data = fmt.Appendf(nil, "%s# %d\n", text, i)
		if _, err := l.Load(files...); err != nil {
			b.Fatal(err)
		}
	}
}
