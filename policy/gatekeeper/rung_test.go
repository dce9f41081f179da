package gatekeeper

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/referential"
)

// asks runs a program as OPA does, with nothing kept.
func asks(t *testing.T, p *program, r *review, input *ast.Term) string {
	t.Helper()
	var out []verdict
	err := topdown.NewQuery(p.query).WithCompiler(p.compiler).WithStore(r.store).WithTransaction(referential.Reading{}).WithInput(input).WithTime(r.time).
		Iter(t.Context(), func(result topdown.QueryResult) error {
			if v, ok := newVerdict(result["r"]); ok && !v.in(out) {
				out = append(out, v)
			}
			return nil
		})
	return sorted(out, err)
}

func sorted(list []verdict, err error) string {
	var out []string
	for _, v := range list {
		out = append(out, fmt.Sprint(v))
	}
	slices.Sort(out)
	return strings.Join(append(out, fmt.Sprint(err)), "\n")
}

// TestRungs wants each step of the way to be faster to give what the step below
// gives: rules as OPA evaluates them, with values shared and kept, and split.
func TestRungs(t *testing.T) {
	var files []policy.File
	for _, name := range []string{"rego.yaml", "more.yaml", "constraints.yaml"} {
		data, err := os.ReadFile(filepath.Join("..", "..", "test", "gatekeeper", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, policy.File{Name: name, Data: data})
	}
	set, err := Load(files...)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(3, 5))
	split, planned, violated := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for range 150 {
		pod := randomPod(random)
		req := policy.Request{Operation: admissionv1.Create, Kind: pod.GroupVersionKind(), Namespace: "shop", Object: pod}
		r, err := newReview(t.Context(), &req, original, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range set.constraints {
			e := c.template.engine.(*regoEngine)
			input := ast.NewTerm(ast.NewObject([2]*ast.Term{ast.StringTerm("review"), r.value(e.namespace)}, [2]*ast.Term{ast.StringTerm("parameters"), c.parameters.value}))
			want := asks(t, e.plain, r, input)
			if got := sorted(e.plain.run(r, input)); got != want {
				t.Fatalf("%s %s: shared gives\n%s\nwant\n%s\nfor %v", c.template.kind, c.name, got, want, pod.Object)
			}
			if e.split != nil {
				split[c.template.kind] = true
				if got := sorted(e.split.run(r, input)); got != want {
					t.Fatalf("%s %s: split gives\n%s\nwant\n%s\nfor %v", c.template.kind, c.name, got, want, pod.Object)
				}
			}
			if e.plan != nil {
				planned[c.template.kind] = true
				if got := sorted(e.planned(r, c)); got != want && !strings.HasPrefix(want, "template:") {
					t.Fatalf("%s %s: the plan gives\n%s\nwant\n%s\nfor %v", c.template.kind, c.name, got, want, pod.Object)
				}
			}
			if strings.Contains(want, "\n") {
				violated[c.template.kind] = true
			}
		}
	}
	if len(split) < 2 || len(planned) < 11 || len(violated) < 8 {
		t.Errorf("split are %v, planned %v, violated %v", split, planned, violated)
	}
}

func randomPod(random *rand.Rand) *unstructured.Unstructured {
	pick := func(values ...any) any { return values[random.IntN(len(values))] }
	containers := func() any {
		list := []any{}
		for i := range random.IntN(4) {
			list = append(list, map[string]any{
				"name": fmt.Sprintf("c%d", i), "image": pick("nginx:1", "registry.example.com/a:1", "ghcr.io/acme/b@sha256:00"),
				"securityContext": map[string]any{"privileged": pick(true, false), "readOnlyRootFilesystem": pick(true, false), "runAsUser": pick(int64(0), int64(1000000))},
				"resources":       pick(map[string]any{}, map[string]any{"limits": map[string]any{"cpu": pick("1", "300m", "x", int64(3)), "memory": pick("1Gi", "3Gi", "", "12", "x")}}),
			})
		}
		return list
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": "a1", "namespace": "shop", "labels": map[string]any{"team": pick("web", "X1"), "owner": pick("web", "me")}},
		"spec":     map[string]any{"containers": containers(), "initContainers": containers(), "hostPID": pick(true, false), "priority": pick(int64(5), int64(5000))},
	}}
}

// TestSplitFallsBack wants the plain program to decide where only the split one
// comes across a mistake.
func TestSplitFallsBack(t *testing.T) {
	const text = `apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: x}
spec:
  crd: {spec: {names: {kind: X}, validation: {openAPIV3Schema: {type: object, properties: {n: {type: string}}}}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    rego: |
      package x
      f(k) = 1 { k != "" }
      f(k) = 2 { k == "b" }
      general[{"msg": msg, "field": field}] { field := ["a", "b"][_]; msg := sprintf("%v %v", [field, f(field)]) }
      general[{"msg": msg, "field": "a"}] { msg := input.parameters.n }
      violation[{"msg": msg}] { general[{"msg": msg, "field": "a"}] }
---
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: X
metadata: {name: c}
spec: {parameters: {n: given}}
`
	set, err := Load(policy.File{Name: "f.yaml", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	e := set.constraints[0].template.engine.(*regoEngine)
	if e.split == nil {
		t.Fatal("the template is not split")
	}
	pod := randomPod(rand.New(rand.NewPCG(1, 2)))
	req := policy.Request{Operation: admissionv1.Create, Kind: pod.GroupVersionKind(), Object: pod}
	violations, err := set.Evaluate(t.Context(), req)
	if err != nil || len(violations) != 2 || violations[0].Message != "a 1" || violations[1].Message != "given" {
		t.Errorf("Evaluate = %v, %v", violations, err)
	}
	r, err := newReview(t.Context(), &req, original, nil)
	if err != nil {
		t.Fatal(err)
	}
	input := ast.NewTerm(ast.NewObject([2]*ast.Term{ast.StringTerm("review"), r.value(false)}, [2]*ast.Term{ast.StringTerm("parameters"), set.constraints[0].parameters.value}))
	if _, err := e.split.run(r, input); err == nil {
		t.Error("the split program does not fail: this test shows nothing")
	}
}

// TestMemo wants two calls never to be taken for each other, and a bound.
func TestMemo(t *testing.T) {
	place := &ruleTree{number: 300}
	seen := map[string]string{}
	for _, args := range []ast.Ref{
		{ast.StringTerm("a"), ast.StringTerm("b")}, {ast.StringTerm("ab")}, {ast.StringTerm("asb")}, {ast.StringTerm("")},
		{ast.StringTerm("1")}, {ast.IntNumberTerm(1)}, {ast.NumberTerm("1.0")}, {ast.BooleanTerm(true)}, {ast.StringTerm("true")}, {ast.NullTerm()}, {ast.StringTerm("null")}, {},
	} {
		key := memoKey(place, args)
		if other, ok := seen[key]; ok || key == "" {
			t.Errorf("%v has the key %q of %s", args, key, other)
		}
		seen[key] = args.String()
	}
	if memoKey(place, ast.Ref{ast.ArrayTerm()}) != "" || memoKey(place, ast.Ref{ast.StringTerm(strings.Repeat("a", 300))}) != "" {
		t.Error("a list or a long text is kept")
	}
	var m memo
	for i := range 3 * maxMemoized {
		m.Put(fmt.Sprint(i), ast.IntNumberTerm(i))
	}
	if len(m.values) > maxMemoized || m.Get(fmt.Sprint(3*maxMemoized-1)) == nil {
		t.Errorf("%d values are kept", len(m.values))
	}
}
