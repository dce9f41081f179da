package expression

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/cel-go/cel"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"
)

func builtInPolicies(t *testing.T) (out []*admissionregistrationv1.ValidatingAdmissionPolicy) {
	t.Helper()
	for _, doc := range documents(t, "../../content/policies/*.yaml", 50) {
		p := &admissionregistrationv1.ValidatingAdmissionPolicy{}
		if err := yaml.Unmarshal([]byte(doc), p); err != nil {
			t.Fatal(err)
		}
		if p.Kind == "ValidatingAdmissionPolicy" {
			out = append(out, p)
		}
	}
	return out
}

// documents returns the YAML documents of at least so many files.
func documents(t *testing.T, pattern string, least int) (out []string) {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) < least {
		t.Fatal(len(names), err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.Split(string(data), "\n---\n")...)
	}
	return out
}

// A pair is the same expressions for our evaluator and for the API server's.
type pair struct {
	name   string
	ours   *Condition
	theirs plugincel.ConditionEvaluator
	cel    *plugincel.CompositedCompiler
}

func pairs(t *testing.T, p *admissionregistrationv1.ValidatingAdmissionPolicy, lang *Language) (out []pair) {
	t.Helper()
	c := lang.Compiler()
	theirs, err := plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		t.Fatal(err)
	}
	var none plugincel.OptionalVariableDeclarations
	for _, v := range p.Spec.Variables {
		c.Compile(&validating.Variable{Name: v.Name, Expression: v.Expression}, none)
		theirs.CompileAndStoreVariable(&validating.Variable{Name: v.Name, Expression: v.Expression}, none, environment.StoredExpressions)
	}
	add := func(what string, expressions ...string) {
		var a, b []plugincel.CompilationResult
		for _, e := range expressions {
			a = append(a, c.Compile(anything(e), none))
			b = append(b, theirs.CompileCELExpression(anything(e), none, environment.StoredExpressions))
		}
		out = append(out, pair{p.Name + " " + what, c.Condition(a), plugincel.NewCondition(b), theirs})
	}
	var conditions, validations, messages, annotations []string
	for _, m := range p.Spec.MatchConditions {
		conditions = append(conditions, m.Expression)
	}
	for _, v := range p.Spec.Validations {
		validations = append(validations, v.Expression)
		if v.MessageExpression != "" {
			messages = append(messages, v.MessageExpression)
		}
	}
	for _, a := range p.Spec.AuditAnnotations {
		annotations = append(annotations, a.ValueExpression)
	}
	add("conditions", conditions...)
	add("validations", validations...)
	add("messages", messages...)
	add("annotations", annotations...)
	return out
}

// anything is an expression of any type.
type anything string

func (a anything) GetExpression() string    { return string(a) }
func (a anything) ReturnTypes() []*cel.Type { return []*cel.Type{cel.AnyType} }

// examples returns objects of all kinds that policies judge.
func examples(t *testing.T) (out []*unstructured.Unstructured) {
	t.Helper()
	for _, doc := range documents(t, "../../content/policies/testdata/*/*.yaml", 50) {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
			t.Fatal(err)
		}
		if u.GetKind() != "" {
			out = append(out, u)
		}
	}
	return out
}

// created returns an object as it comes to policies that judge its creation.
func created(o *unstructured.Unstructured) *admission.VersionedAttributes {
	kind := o.GroupVersionKind()
	resource, _ := meta.UnsafeGuessKindToResource(kind)
	return &admission.VersionedAttributes{
		Attributes: admission.NewAttributesRecord(o, nil, kind, o.GetNamespace(), o.GetName(), resource, "",
			admission.Create, nil, false, &user.DefaultInfo{Name: "ada"}),
		VersionedObject:    admission.NewLazyObject(o),
		VersionedOldObject: admission.NewLazyObject(nil),
		VersionedKind:      kind,
	}
}

// TestSharingChangesNothing evaluates all expressions of all built-in policies
// for all examples: the values, the errors and what is left of the budget are
// those of the API server's evaluator, which shares nothing.
func TestSharingChangesNothing(t *testing.T) {
	lang, err := NewLanguage()
	if err != nil {
		t.Fatal(err)
	}
	var all []pair
	for _, p := range builtInPolicies(t) {
		all = append(all, pairs(t, p, lang)...)
	}
	objects := examples(t)
	if testing.Short() {
		objects = objects[:len(objects)/16]
	}
	shared := 0
	for _, o := range objects {
		attr, view := created(o), NewView(t.Context(), nil)
		for _, p := range all {
			before := len(view.memos)
			for _, budget := range []int64{celconfig.RuntimeCELCostBudget, 20} {
				compareEvaluators(t, attr, view, p, budget)
			}
			if before == len(view.memos) && len(p.ours.expressions) > 0 {
				shared++
			}
		}
	}
	if shared == 0 {
		t.Error("nothing is shared")
	}
}

func compareEvaluators(t *testing.T, attr *admission.VersionedAttributes, view *View, p pair, budget int64) {
	t.Helper()
	request := plugincel.CreateAdmissionRequest(attr.Attributes, metav1.GroupVersionResource(attr.GetResource()), metav1.GroupVersionKind(attr.GetKind()))
	var nothing plugincel.OptionalVariableBindings
	ours, left, err := p.ours.ForInput(view, attr, request, nothing, nil, budget)
	theirs, theirLeft, theirErr := p.theirs.ForInput(p.cel.CreateContext(t.Context()), attr, request, nothing, nil, budget)
	// What a macro over the keys of a mapping costs depends on their order, which
	// changes from one evaluation to the next.
	for tries := 0; left != theirLeft && tries < 100; tries++ {
		theirs, theirLeft, theirErr = p.theirs.ForInput(p.cel.CreateContext(t.Context()), attr, request, nothing, nil, budget)
	}
	if left != theirLeft || fmt.Sprint(err) != fmt.Sprint(theirErr) {
		t.Fatalf("%s of %s: left %d, error %v; the API server has %d, %v", p.name, attr.GetName(), left, err, theirLeft, theirErr)
	}
	for i := range theirs {
		a, b := ours[i], theirs[i]
		if !reflect.DeepEqual(value(a), value(b)) {
			t.Fatalf("%s %d of %s: %v; the API server has %v", p.name, i, attr.GetName(), value(a), value(b))
		}
	}
}

func value(r plugincel.EvaluationResult) any {
	if r.Error != nil {
		return errors.Unwrap(fmt.Errorf("%w", r.Error)).Error()
	}
	return r.EvalResult.Value()
}

func TestIdentify(t *testing.T) {
	variables := func(expressions ...string) (out []variable) {
		for i := 0; i < len(expressions); i += 2 {
			name, e := expressions[i], expressions[i+1]
			out = append(out, variable{name, sharedExpression{identity: identify(name, e, out)}})
		}
		return out
	}
	a := variables("x", "object.a", "y", "variables.x + 1", "z", "2")
	b := variables("x", "object.b", "y", "variables.x + 1", "z", "2")
	if a[0].identity == b[0].identity || a[1].identity == b[1].identity {
		t.Error("variables that differ, in themselves or in what they use, are shared")
	}
	if a[2].identity != b[2].identity {
		t.Error("a variable that uses no other is not shared")
	}
	same := func(e string) bool { return identify("", e, a) == identify("", e, b) }
	for e, want := range map[string]bool{
		"variables.z": true, "variables.?z": true, "variables . z": true, "variables.y": false, "variables.x": false,
		"variables == null": false, "variables[variables.z]": false, "object.variablesOf": true,
	} {
		if same(e) != want {
			t.Errorf("%s: shared %v, want %v", e, !want, want)
		}
	}
	if identify("", "authorizer.path('/').check('get').allowed()", nil) != (identity{}) {
		t.Error("what asks the authorizer is shared")
	}
	reading := []variable{{"x", newShared("x", "params.a", plugincel.CompilationResult{}, nil)}}
	for e, want := range map[string]bool{"params == null": true, "variables.x": true, "variables['x']": true, "object.params2": false, "variables.y": false} {
		if got := newShared("", e, plugincel.CompilationResult{}, reading).params; got != want {
			t.Errorf("%s: reads params %v, want %v", e, got, want)
		}
	}
	if identify("", "namespaceObject == null", nil) != (identity{}) || identify("", "variables.n", variables("n", "namespaceObject")) != (identity{}) {
		t.Error("what reads the namespace is shared")
	}
}
