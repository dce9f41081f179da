package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
)

// text returns a policy that denies pods unless an expression holds, and its
// binding.
func text(name, actions, expression string) string {
	return fmt.Sprintf(`apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: %[1]s}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: ["*"], resources: [pods]}]}
  validations:
  - {expression: %[3]q, message: nope}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: %[1]s}
spec: {policyName: %[1]s, validationActions: %[2]s}
`, name, actions, expression)
}

const other = `---
# parameters
apiVersion: v1
kind: ConfigMap
metadata: {name: limits}
`

func file(text string) policy.File { return policy.File{Name: "p.yaml", Data: []byte(text)} }

func pod(t testing.TB) policy.Request {
	t.Helper()
	var object unstructured.Unstructured
	if err := yaml.Unmarshal([]byte("{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}, spec: {containers: []}}"), &object.Object); err != nil {
		t.Fatal(err)
	}
	req, err := policy.NewCreateRequest(&object)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func lines(violations []finding.Violation) (out []string) {
	for _, v := range violations {
		out = append(out, v.Enforcement+" "+v.Policy)
	}
	return out
}

func TestLoad(t *testing.T) {
	set, err := Load(file(text("a", "[Deny]", "false")+"---\n"+text("b", "[Warn]", "true")), file(text("c", "[Audit, Deny]", "false")))
	if err != nil {
		t.Fatal(err)
	}
	violations, err := set.Evaluate(t.Context(), pod(t))
	if got := lines(violations); err != nil || !slices.Equal(got, []string{"deny a", "audit c", "deny c"}) {
		t.Errorf("violations = %q, %v", got, err)
	}
	empty, err := Load(file("# nothing\n---\n"))
	if err != nil {
		t.Fatal(err)
	}
	if violations, err := empty.Evaluate(t.Context(), pod(t)); len(violations) > 0 || err != nil {
		t.Errorf("an empty set finds %v, %v", violations, err)
	}
}

func TestLoadErrors(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"another kind", text("a", "[Deny]", "true") + other, "p.yaml:16: kind ConfigMap of v1 is not supported as a policy: want ValidatingAdmissionPolicy"},
		{"a template", "apiVersion: example.com/v1\nkind: ConstraintTemplate\n", "p.yaml:2: kind ConstraintTemplate of example.com/v1 is not supported"},
		{"a misspelt kind", "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolcy\n", `p.yaml:2: kind "ValidatingAdmissionPolcy" is not supported`},
		{"lines after another kind", strings.TrimPrefix(other, "---\n") + "---\n" + strings.Replace(text("a", "[Deny]", "true"), "spec:\n", "spec:\n  wrong: 1\n", 1), `p.yaml:10: unknown field "spec.wrong"`},
		{"no kind", text("a", "[Deny]", "true") + "---\nsomething: else\n", `p.yaml:14: kind "" is not supported`},
		{"no object", "--- [a]\n", "p.yaml:1: want an object"},
		{"broken YAML", other + "---\na: b: c\n", "p.yaml:7: parse YAML"},
		{"two documents without a separator", "a: b\n...\nc: d\n", `p.yaml:1: kind "" is not supported`},
		{"too large", strings.Repeat("#", maxBytes+1), "more than the limit of 3145728"},
		{"too many documents", strings.Repeat("---\n", maxDocuments+2), "p.yaml:10001: more than 10000 documents"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Load(file(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want %q", err, test.want)
			}
		})
	}
	_, err := Load(file(other))
	if unknown := (*UnknownKindError)(nil); !errors.As(err, &unknown) || unknown.Source != "p.yaml:4" || unknown.Kind.Kind != "ConfigMap" {
		t.Errorf("error = %#v, want an UnknownKindError", err)
	}
}

func TestSplit(t *testing.T) {
	mixed := text("a", "[Deny]", "false") + other
	policies, others, err := Split(file(mixed), policy.File{Name: "c.yaml", Data: []byte("apiVersion: v1\nkind: Pod\n")})
	if err != nil {
		t.Fatal(err)
	}
	if set, err := Load(policies...); err != nil || len(set.evaluators) != 1 {
		t.Errorf("Load of the policies: %v", err)
	}
	if len(others) != 2 || others[1].Name != "c.yaml" {
		t.Fatalf("others = %v", others)
	}
	if got, want := string(others[0].Data), strings.Repeat("\n", strings.Count(text("a", "", ""), "\n"))+other; got != want {
		t.Errorf("others hold %q, want %q", got, want)
	}
	if _, _, err := Split(file(strings.Repeat("---\n", maxDocuments+2))); err == nil || !strings.Contains(err.Error(), "p.yaml:10001: more than") {
		t.Errorf("error = %v", err)
	}
}

// TestTogether judges every labelled example of the built-in policies by each
// policy alone and by all together, for every operation. The verdicts are the
// same, and nobody changes the request.
func TestTogether(t *testing.T) {
	all, alone := pack(t)
	judged := map[string]int{}
	for _, req := range requests(t) {
		before := clone(req)
		together, err := all.Evaluate(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for name, set := range alone {
			want, err := set.Evaluate(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			judged[name] += len(want)
			got := slices.DeleteFunc(slices.Clone(together), func(v finding.Violation) bool { return v.Policy != name })
			if !slices.EqualFunc(got, want, func(a, b finding.Violation) bool { return reflect.DeepEqual(a, b) }) {
				t.Errorf("%s of %s %s: together %v, alone %v", req.Operation, req.Kind.Kind, req.Name, got, want)
			}
		}
		if !reflect.DeepEqual(before, clone(req)) {
			t.Fatalf("%s of %s %s: the request was changed", req.Operation, req.Kind.Kind, req.Name)
		}
	}
	for name := range alone {
		if judged[name] == 0 {
			t.Errorf("no example violates %s", name)
		}
	}
}

// pack returns the built-in policies and templates together and alone, by the
// name of the policy in violations.
func pack(t *testing.T) (*Set, map[string]*Set) {
	t.Helper()
	paths, err := filepath.Glob("../content/policies/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("built-in policies: %v", err)
	}
	paths = append(paths, "testdata/rego.yaml", "testdata/cel.yaml")
	var files []policy.File
	alone := map[string]*Set{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// No registry is refused by default; here some are, so that there is something to say.
		data = bytes.Replace(data, []byte("name: allowedRegistries\n    expression: \"[]\""), []byte("name: allowedRegistries\n    expression: \"['docker.io/library']\""), 1)
		files = append(files, policy.File{Name: path, Data: data})
		set, err := Load(files[len(files)-1])
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		if kind := map[string]string{"rego": "MemoryLimit", "cel": "Replicas"}[name]; kind != "" {
			name = kind
		}
		alone[name] = set
	}
	all, err := Load(files...)
	if err != nil {
		t.Fatal(err)
	}
	return all, alone
}

// requests returns the creation, an update and the deletion of each object
// among the examples of the built-in policies.
func requests(t *testing.T) (out []policy.Request) {
	t.Helper()
	err := filepath.WalkDir("../content/policies/testdata", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(data, &object.Object); err != nil || object.GetKind() == "" {
			return err // it has several documents
		}
		if policy.IsReview(object) {
			req, err := policy.NewReviewRequest(object)
			req.Namespaces = policy.NamespacesFunc(protected)
			out = append(out, req)
			return err
		}
		old := object.DeepCopy()
		unstructured.RemoveNestedField(old.Object, "spec")
		for _, operation := range []admissionv1.Operation{admissionv1.Create, admissionv1.Update, admissionv1.Delete} {
			req, err := policy.NewRequest(operation, object, old)
			if err != nil {
				return err
			}
			out = append(out, req)
		}
		return nil
	})
	if err != nil || len(out) < 100 {
		t.Fatalf("%d requests: %v", len(out), err)
	}
	return out
}

// protected returns a namespace that is labelled as its name says.
func protected(_ context.Context, name string) (*corev1.Namespace, error) {
	ns := &corev1.Namespace{}
	ns.Name, ns.Labels = name, map[string]string{corev1.LabelMetadataName: name, "kubeguardian.dev/" + name: "true"}
	return ns, nil
}

// clone returns a copy of what a request holds, for comparison: functions cannot
// be compared.
func clone(req policy.Request) policy.Request {
	req.Namespaces = nil
	for _, o := range []**unstructured.Unstructured{&req.Object, &req.OldObject, &req.Options} {
		if *o != nil {
			*o = (*o).DeepCopy()
		}
	}
	return req
}

// TestTimeRunsOut lets the time end in the first of two engines, or in the
// second.
func TestTimeRunsOut(t *testing.T) {
	part := func(documents ...string) evaluator {
		set, err := policy.Load(file(strings.Join(documents, "---\n")))
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	asks := text("asks", "[Deny]", "namespaceObject == null")
	denies, warns := text("denies", "[Deny]", "false"), text("warns", "[Warn]", "false")
	tests := []struct {
		name          string
		first, second evaluator
		violations    []string
		left          []string
		decided       bool
	}{
		{"in the first", part(asks, denies), part(warns), nil, []string{"asks", "denies", "warns"}, false},
		{"in the second, after a denial", part(denies), part(asks), []string{"deny denies"}, []string{"asks"}, true},
		{"in the second, after a warning", part(warns), part(asks), []string{"warn warns"}, []string{"asks"}, false},
		{"only warnings are left", part(warns), part(strings.ReplaceAll(asks, "[Deny]", "[Warn]"), warns), []string{"warn warns"}, []string{"asks", "warns"}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req := pod(t)
			req.Namespaces = policy.NamespacesFunc(func(context.Context, string) (*corev1.Namespace, error) {
				cancel()
				return &corev1.Namespace{}, nil
			})
			set := &Set{evaluators: []evaluator{test.first, test.second}}
			violations, err := set.Evaluate(ctx, req)
			incomplete := (*policy.IncompleteError)(nil)
			if !errors.As(err, &incomplete) || !errors.Is(err, context.Canceled) {
				t.Fatalf("error = %v, want an IncompleteError", err)
			}
			if got := lines(violations); !slices.Equal(got, test.violations) || !slices.Equal(incomplete.Policies, test.left) || incomplete.Decided != test.decided {
				t.Errorf("violations %q, left %q, decided %v; want %q, %q, %v", got, incomplete.Policies, incomplete.Decided, test.violations, test.left, test.decided)
			}
		})
	}
}

// FuzzLoad takes files apart, and holds that against the loader of the first
// engine, which reads the same file in one piece, where it has anything to load.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{text("a", "[Deny]", "true"), other, text("a", "[Deny]", "true") + other, "--- {a: b}\n", "a: |\n  ---\n---x\n", "\ufeffa: b\r\n---\r\n", "%YAML 1.2\n---\na: b\n...\n", "a: &a [*a]\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		docs, err := documents([]byte(text))
		if err != nil {
			return
		}
		var joined strings.Builder
		own := false
		for _, d := range docs {
			own = own || native(d.kind)
			if want := 1 + strings.Count(joined.String(), "\n"); d.line != want {
				t.Fatalf("document at line %d, want %d", d.line, want)
			}
			joined.Write(d.text)
		}
		if joined.String() != text {
			t.Fatalf("the documents are %q", joined.String())
		}
		if !own {
			return // Load prepares CEL, which takes long
		}
		_, whole := policy.Load(file(text))
		if _, err := Load(file(text)); (err == nil) != (whole == nil) {
			t.Errorf("Load = %v, of the whole file %v", err, whole)
		}
	})
}

// TestMutate changes a copy: the request stays as it is.
func TestMutate(t *testing.T) {
	const owner = `apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: owner}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]}
  reinvocationPolicy: Never
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration: {expression: "Object{metadata: Object.metadata{labels: {'owner': 'dev'}}}"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: owner}
spec: {policyName: owner}
`
	set, err := Load(file(owner))
	if err != nil {
		t.Fatal(err)
	}
	req := pod(t)
	before := clone(req)
	object, changes, err := set.Mutate(t.Context(), req)
	if err != nil || object.GetLabels()["owner"] != "dev" || !slices.Equal(changes, []policy.Change{{Policy: "owner", Binding: "owner"}}) {
		t.Errorf("object %v, changes %v, error %v", object, changes, err)
	}
	if !reflect.DeepEqual(before, req) {
		t.Error("the request was changed")
	}
	set, err = Load(file(strings.Replace(owner, "'dev'", "object.metadata.labels.none", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err = set.Mutate(t.Context(), req); !errors.As(err, new(*policy.DeniedError)) {
		t.Errorf("error = %v, want a DeniedError", err)
	}
}

// TestMutators applies those of Gatekeeper beside policies of other kinds, whose
// verdict they have no part in.
func TestMutators(t *testing.T) {
	const tag = `---
apiVersion: mutations.gatekeeper.sh/v1
kind: Assign
metadata: {name: no-token}
spec:
  applyTo: [{groups: [""], versions: [v1], kinds: [Pod]}]
  location: spec.automountServiceAccountToken
  parameters: {assign: {value: false}}
`
	set, err := Load(file(text("deny", "[Deny]", "false") + tag))
	if err != nil {
		t.Fatal(err)
	}
	req := pod(t)
	object, changes, err := set.Mutate(t.Context(), req)
	if err != nil || !slices.Equal(changes, []policy.Change{{Policy: "Assign", Binding: "no-token"}}) {
		t.Errorf("object %v, changes %v, error %v", object, changes, err)
	}
	if v, found, err := unstructured.NestedBool(object.Object, "spec", "automountServiceAccountToken"); v || !found || err != nil {
		t.Errorf("object is %v", object)
	}
	if found, err := set.Evaluate(t.Context(), req); err != nil || len(found) != 1 {
		t.Errorf("Evaluate = %v, %v", found, err)
	}
	set, err = Load(file(tag + "---\napiVersion: config.gatekeeper.sh/v1alpha1\nkind: Config\nmetadata: {name: config}\nspec: {match: [{processes: [mutation-webhook], excludedNamespaces: [" + req.Namespace + "]}]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if object, changes, err := set.Mutate(t.Context(), req); object != req.Object || changes != nil || err != nil {
		t.Errorf("in an exempt namespace: object %v, changes %v, error %v", object, changes, err)
	}
	if set, err = set.At("gator.gatekeeper.sh"); err != nil {
		t.Fatal(err)
	}
	if _, changes, err := set.Mutate(t.Context(), req); len(changes) != 1 || err != nil {
		t.Errorf("where no namespace is exempt: changes %v, error %v", changes, err)
	}
	if _, err := Load(file(strings.Replace(tag, "Token\n", "Token.\n", 1))); err == nil || !strings.Contains(err.Error(), ":7: spec.location:") {
		t.Errorf("error = %v", err)
	}
}
