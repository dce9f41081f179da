package clusterpolicy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/gatekeeper"
)

// object returns an object of a cluster; the generation is that of the version.
func object(t testing.TB, generation int64, document string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(document), &o.Object); err != nil {
		t.Fatal(err)
	}
	o.SetGeneration(generation)
	o.SetUID(types.UID("uid of " + o.GetKind() + " " + o.GetName()))
	return o
}

// template returns a template whose rule has this body.
func template(t testing.TB, generation int64, kind, schema, body string) *unstructured.Unstructured {
	t.Helper()
	return object(t, generation, fmt.Sprintf(`apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: %s}
spec:
  crd: {spec: {names: {kind: %s}, validation: {openAPIV3Schema: %s}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    rego: |
      package p
      violation[{"msg": "no"}] {
        %s
      }
`, strings.ToLower(kind), kind, schema, body))
}

func constraint(t testing.TB, generation int64, kind, name, spec string) *unstructured.Unstructured {
	t.Helper()
	return object(t, generation, fmt.Sprintf("apiVersion: constraints.gatekeeper.sh/v1beta1\nkind: %s\nmetadata: {name: %s}\nspec: %s\n", kind, name, spec))
}

func newLedger(base ...policy.File) *ledger {
	return &ledger{base: base, loads: new(engine.Loader).Load}
}

// says returns what a ledger says of each object.
func says(l *ledger) (out []string) {
	for _, o := range l.objects() {
		line := o.String()
		switch {
		case o.Stale:
			line += " stale"
		case o.InForce:
			line += " in force"
		default:
			line += " out"
		}
		for _, p := range o.Problems {
			line += fmt.Sprintf(" [%s: %s]", p.Location, p.Message)
		}
		out = append(out, line)
	}
	return out
}

const text1 = `{type: object, properties: {a: {type: string}}}`

func TestLedger(t *testing.T) {
	good, all := template(t, 1, "Good", text1, "input.review"), constraint(t, 1, "Good", "all", "{parameters: {a: x}}")
	steps := []struct {
		name    string
		objects []*unstructured.Unstructured
		changed bool
		want    []string
	}{
		{"nothing", nil, true, nil},
		{"a template and its constraint", []*unstructured.Unstructured{all, good}, true,
			[]string{`ConstraintTemplate "good" in force`, `Good "all" in force`}},
		{"the same", []*unstructured.Unstructured{all, good.DeepCopy()}, false, nil},
		{"a mistake in the template", []*unstructured.Unstructured{all, template(t, 2, "Good", text1, "input.review )")}, true,
			[]string{`ConstraintTemplate "good" stale [spec.targets[0].rego:3: spec.targets[0].rego, line 3: rego: unexpected ) token: expected \n or ; or }]`, `Good "all" in force`}},
		{"another mistake", []*unstructured.Unstructured{all, template(t, 3, "Good", "{type: wrong}", "input.review")}, true, nil},
		{"a new template without one, beside", []*unstructured.Unstructured{all, good, template(t, 1, "Bad", text1, "input.("), constraint(t, 1, "Bad", "some", "{}")}, true, []string{
			`ConstraintTemplate "bad" out [spec.targets[0].rego:3: spec.targets[0].rego, line 3: rego: unexpected ( token]`,
			`Bad "some" out [kind: no ConstraintTemplate defines the kind "Bad"]`, `ConstraintTemplate "good" in force`, `Good "all" in force`}},
		{"a constraint that does not fit any more", []*unstructured.Unstructured{all, template(t, 4, "Good", `{type: object, properties: {b: {type: string}}}`, "input.review")}, true,
			[]string{`ConstraintTemplate "good" in force`, `Good "all" out [spec.parameters.a: spec.parameters.a: the template has no such parameter]`}},
		{"the template is gone", []*unstructured.Unstructured{all}, true, []string{`Good "all" out [kind: no ConstraintTemplate defines the kind "Good"]`}},
		{"all is good", []*unstructured.Unstructured{good, all}, true, []string{`ConstraintTemplate "good" in force`, `Good "all" in force`}},
	}
	l := newLedger()
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			changed, err := l.load(step.objects, nil)
			if err != nil || changed != step.changed {
				t.Fatalf("load = %v, %v, want %v", changed, err, step.changed)
			}
			got := says(l)
			if len(got) != len(step.objects) {
				t.Errorf("%d objects, want %d", len(got), len(step.objects))
			}
			for _, want := range step.want {
				if !slices.ContainsFunc(got, func(line string) bool { return strings.HasPrefix(line, strings.TrimSuffix(want, "]")) }) {
					t.Errorf("want %s, have\n%s", want, strings.Join(got, "\n"))
				}
			}
		})
	}
}

// TestCodes: programs are told of which kind a mistake is.
func TestCodes(t *testing.T) {
	mutator := func(name, location string) *unstructured.Unstructured {
		return object(t, 1, fmt.Sprintf("apiVersion: mutations.gatekeeper.sh/v1\nkind: Assign\nmetadata: {name: %s}\nspec: {applyTo: [{groups: [''], versions: [v1], kinds: [Pod]}], location: '%s', parameters: {assign: {value: a}}}\n", name, location))
	}
	document, err := yaml.Marshal(template(t, 1, "Filed", text1, "input.review").Object)
	if err != nil {
		t.Fatal(err)
	}
	good := template(t, 1, "Good", text1, "input.review")
	for want, objects := range map[string][]*unstructured.Unstructured{
		"rego_parse_error":      {template(t, 1, "Bad", text1, "input.review )")},
		"rego_type_error":       {template(t, 1, "Bad", text1, `count(1, "a", 2) > 0`)},
		"rego_unsafe_var_error": {template(t, 1, "Bad", text1, "x > y")},
		policy.CodeUndefined:    {constraint(t, 1, "Nothing", "all", "{}")},
		policy.CodeDefined:      {template(t, 1, "Filed", text1, "input.review")},
		policy.CodeConflict:     {mutator("one", "spec.x.y"), mutator("other", "spec.x[name: a].y")},
		policy.CodeTooLarge:     {template(t, 1, "Bad", text1, "true # "+strings.Repeat("x", 3<<20))},
		policy.CodeIngest:       {good, constraint(t, 1, "Good", "all", "{parameters: {none: x}}")},
	} {
		l := newLedger(policy.File{Name: "own.yaml", Data: document})
		if _, err := l.load(objects, nil); err != nil {
			t.Errorf("%s: %v", want, err)
			continue
		}
		for _, o := range l.objects() {
			if o.Name == "good" {
				continue
			}
			if len(o.Problems) == 0 || o.Problems[0].Code != want || !slices.Contains(policy.Codes(), want) {
				t.Errorf("%s: %s has %+v", want, o.String(), o.Problems)
			}
		}
	}
}

// TestRebase: other policies of files come into force beside those of the cluster,
// or nothing changes.
func TestRebase(t *testing.T) {
	file := func(generation int64, kind, body string) policy.File {
		document, err := yaml.Marshal(template(t, generation, kind, text1, body).Object)
		if err != nil {
			t.Fatal(err)
		}
		return policy.File{Name: "own.yaml", Data: document}
	}
	loads := new(engine.Loader).Load
	l := newLedger(file(1, "Before", "input.review"))
	if err := l.rebase([]policy.File{file(1, "First", "input.review")}, loads); err != nil {
		t.Fatal(err) // nothing was loaded yet
	}
	objects := []*unstructured.Unstructured{constraint(t, 1, "First", "all", "{}"), constraint(t, 1, "Second", "all", "{}")}
	steps := []struct {
		base  policy.File
		fails bool
		want  []string
	}{
		{file(1, "First", "input.review"), false, []string{`First "all" in force`, `Second "all" out [kind: no ConstraintTemplate defines the kind "Second"]`}},
		{file(2, "Second", "input.review )"), true, []string{`First "all" in force`, `Second "all" out [kind: no ConstraintTemplate defines the kind "Second"]`}},
		{file(3, "Second", "input.review"), false, []string{`First "all" out [kind: no ConstraintTemplate defines the kind "First"]`, `Second "all" in force`}},
	}
	if _, err := l.load(objects, nil); err != nil {
		t.Fatal(err)
	}
	for i, step := range steps {
		before := l.set
		err := l.rebase([]policy.File{step.base}, loads)
		if (err != nil) != step.fails || (l.set == before) != step.fails {
			t.Errorf("%d: %v, and the set is the one before: %v", i, err, l.set == before)
		}
		if got := says(l); !slices.Equal(got, step.want) {
			t.Errorf("%d: %s, want %s", i, got, step.want)
		}
		if changed, err := l.load(objects, nil); changed || err != nil {
			t.Errorf("%d: objects that are the same: %v, %v", i, changed, err)
		}
	}
}

// TestManyMistakes has more mistakes than one load tells: all are found, and what
// is good is in force.
func TestManyMistakes(t *testing.T) {
	objects := []*unstructured.Unstructured{template(t, 1, "Good", text1, "input.review")}
	for i := range 350 {
		spec := "{parameters: {a: x}}"
		if i%7 > 0 {
			spec = "{parameters: {a: 1}}"
		}
		objects = append(objects, constraint(t, 1, "Good", fmt.Sprint("c", i), spec))
	}
	l := newLedger()
	if _, err := l.load(objects, nil); err != nil {
		t.Fatal(err)
	}
	if l.set.Len() != 50 {
		t.Errorf("%d constraints are in force, want 50", l.set.Len())
	}
	for _, o := range l.objects() {
		if o.InForce == (len(o.Problems) > 0) {
			t.Errorf("%s is in force: %v, with %v", o.String(), o.InForce, o.Problems)
		}
	}
}

// TestBase has policies of files beside: what they define already is a mistake of
// the object.
func TestBase(t *testing.T) {
	good := template(t, 1, "Good", text1, "input.review")
	data, err := yaml.Marshal(good.Object)
	if err != nil {
		t.Fatal(err)
	}
	l := newLedger(policy.File{Name: "good.yaml", Data: data})
	if _, err := l.load([]*unstructured.Unstructured{good, constraint(t, 1, "Good", "all", "{}")}, nil); err != nil {
		t.Fatal(err)
	}
	got := says(l)
	if !strings.Contains(got[0], `out [metadata.name: template "good" is already defined at good.yaml`) || got[1] != `Good "all" in force` {
		t.Errorf("have %q", got)
	}
}

// TestNobodyToBlame keeps the set before when an error is of no object.
func TestNobodyToBlame(t *testing.T) {
	good := template(t, 1, "Good", text1, "input.review")
	l := newLedger()
	if _, err := l.load([]*unstructured.Unstructured{good}, nil); err != nil {
		t.Fatal(err)
	}
	before := l.set
	l.base = []policy.File{{Name: "broken.yaml", Data: []byte("a: b: c")}}
	if _, err := l.load(nil, nil); err == nil || l.set != before {
		t.Errorf("error = %v, want one, and the set before", err)
	}
}

// TestKept takes the last good version over from the start before, but not from
// another object of the same name.
func TestKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policies.json")
	good, bad := template(t, 1, "Good", text1, "input.review"), template(t, 2, "Good", text1, "input.review )")
	first := newLedger()
	for _, o := range []*unstructured.Unstructured{good, bad} {
		if _, err := first.load([]*unstructured.Unstructured{o}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeKept(file, first.stale()); err != nil {
		t.Fatal(err)
	}
	kept, err := readKept(file)
	if err != nil || !reflect.DeepEqual(kept, first.stale()) || len(kept) != 1 {
		t.Fatalf("kept = %v, %v", kept, err)
	}
	other := bad.DeepCopy()
	other.SetUID("another")
	for _, test := range []struct {
		object *unstructured.Unstructured
		want   bool
	}{{bad, true}, {other, false}} {
		next := newLedger()
		if _, err := next.load([]*unstructured.Unstructured{test.object}, kept); err != nil {
			t.Fatal(err)
		}
		if o := next.objects()[0]; o.Stale != test.want || o.InForce != test.want {
			t.Errorf("%s is %+v", test.object.GetUID(), o)
		}
	}
	if err := writeKept(file, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is there: %v", err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readKept(file); err == nil || !strings.Contains(err.Error(), "policies.json") {
		t.Errorf("error = %v", err)
	}
}

// TestRedefine compares a definition as the API server stores it with what it
// should be.
func TestRedefine(t *testing.T) {
	want, err := gatekeeper.Definition(template(t, 1, "Good", `{type: object, required: [], properties: {a: {type: string, description: "", default: x}, b: {type: integer, minimum: 1}}}`, "input.review"))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := asObject(want)
	if err != nil {
		t.Fatal(err)
	}
	stored.SetLabels(map[string]string{"mine": "too", "gatekeeper.sh/constraint": "yes", managedBy: ourselves})
	if err := unstructured.SetNestedField(stored.Object, "None", "spec", "conversion", "strategy"); err != nil {
		t.Fatal(err)
	}
	if changed, err := redefine(stored, want); changed != nil || err != nil {
		t.Errorf("the same is written: %v, %v", changed, err)
	}
	changes := map[string]func(o *unstructured.Unstructured) error{
		"label": func(o *unstructured.Unstructured) error { o.SetLabels(map[string]string{"mine": "too"}); return nil },
		"owner": func(o *unstructured.Unstructured) error { o.SetOwnerReferences(nil); return nil },
		"names": func(o *unstructured.Unstructured) error {
			return unstructured.SetNestedStringSlice(o.Object, []string{"other"}, "spec", "names", "categories")
		},
	}
	for name, change := range changes {
		other := stored.DeepCopy()
		if err := change(other); err != nil {
			t.Fatal(err)
		}
		changed, err := redefine(other, want)
		if err != nil || changed == nil {
			t.Errorf("%s: %v, %v, want a change", name, changed, err)
			continue
		}
		if changed.GetLabels()["mine"] != "too" || changed.GetLabels()["gatekeeper.sh/constraint"] != "yes" {
			t.Errorf("%s: labels = %v", name, changed.GetLabels())
		}
	}
}

func TestPairs(t *testing.T) {
	var native []*unstructured.Unstructured
	for _, side := range [][3]string{
		{"ValidatingAdmissionPolicy", "a", ""}, {"ValidatingAdmissionPolicyBinding", "x", "a"}, {"MutatingAdmissionPolicy", "a", ""},
		{"ValidatingAdmissionPolicyBinding", "y", "b"}, {"MutatingAdmissionPolicyBinding", "z", "c"}, {"ValidatingAdmissionPolicyBinding", "w", "a"},
	} {
		o := &unstructured.Unstructured{Object: map[string]any{"kind": side[0], "metadata": map[string]any{"name": side[1]}}}
		if side[2] != "" {
			o.Object["spec"] = map[string]any{"policyName": side[2]}
		}
		native = append(native, o)
	}
	bound, loose := pairs(native)
	var got []string
	for _, o := range bound {
		got = append(got, o.GetKind()+" "+o.GetName())
	}
	if want := []string{"ValidatingAdmissionPolicy a", "ValidatingAdmissionPolicyBinding x", "ValidatingAdmissionPolicyBinding w"}; !slices.Equal(got, want) || len(loose) != 3 {
		t.Errorf("bound = %v, %d loose", got, len(loose))
	}
}

func TestMerge(t *testing.T) {
	own := map[string]any{"id": "b", "enforced": true}
	before := []any{map[string]any{"id": "c"}, map[string]any{"id": "b"}, map[string]any{"id": "a"}, map[string]any{"id": "c", "twice": true}, "odd"}
	for _, test := range []struct {
		living map[string]bool
		want   string
	}{
		{map[string]bool{"b": true}, "[map[enforced:true id:b]]"},
		{map[string]bool{"b": true, "c": true}, "[map[enforced:true id:b] map[id:c]]"},
		{nil, "[map[id:a] map[enforced:true id:b] map[id:c]]"},
	} {
		if got := fmt.Sprint(merge(before, own, test.living)); got != test.want {
			t.Errorf("living %v: %s, want %s", test.living, got, test.want)
		}
	}
}

// TestPlaces: a mistake in CEL and one in a field are told with their places.
func TestPlaces(t *testing.T) {
	cel := object(t, 1, `apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: inCel}
spec:
  crd: {spec: {names: {kind: InCel}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    code:
    - engine: K8sNativeValidation
      source:
        validations:
        - expression: |
            has(object.spec) &&
            object.spec.replicas <
          message: "no"
`)
	cel.SetName("incel")
	l := newLedger()
	if _, err := l.load([]*unstructured.Unstructured{cel, template(t, 1, "Good", text1, "input.review"), constraint(t, 1, "Good", "all", "{match: {scope: Everything}}")}, nil); err != nil {
		t.Fatal(err)
	}
	got := map[string]Problem{}
	for _, o := range l.objects() {
		for _, p := range o.Problems {
			got[o.Name] = p
		}
	}
	if p := got["incel"]; !strings.HasPrefix(p.Location, "spec.targets[0].code[0].source.validations[0].expression") || !strings.Contains(p.Message, "Syntax error") {
		t.Errorf("in CEL: %+v", p)
	}
	if p := got["all"]; p.Location != "spec.match.scope" || strings.Contains(p.Message, "constraints.gatekeeper.sh/") {
		t.Errorf("in a field: %+v", p)
	}
}
