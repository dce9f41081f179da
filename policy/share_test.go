package policy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/cel-go/cel"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"
)

func builtInDocuments(t *testing.T) (docs []*document) {
	t.Helper()
	names, err := filepath.Glob("../content/policies/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found, err := documents(File{name, data})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range found {
			if d.policy != nil {
				defaultPolicy(d.policy)
				docs = append(docs, d)
			}
		}
	}
	return docs
}

// A pair is the same expressions for our evaluator and for the API server's.
type pair struct {
	name   string
	ours   *condition
	theirs plugincel.ConditionEvaluator
	cel    *plugincel.CompositedCompiler
}

func pairs(t *testing.T, d *document, lang *language) (out []pair) {
	t.Helper()
	clear(lang.fields)
	c := &compiler{document: d, language: lang}
	theirs, err := plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		t.Fatal(err)
	}
	var none plugincel.OptionalVariableDeclarations
	spec := &d.policy.Spec
	for _, v := range spec.Variables {
		e := named{v.Name, v.Expression}
		c.variables = append(c.variables, variable{v.Name, newShared(v.Name, v.Expression, c.CompileCELExpression(e, none, environment.StoredExpressions), c.variables)})
		c.declare(v.Name, c.variables[len(c.variables)-1].compiled.OutputType)
		theirs.CompileAndStoreVariable(e, none, environment.StoredExpressions)
	}
	add := func(what string, expressions ...string) {
		var a, b []plugincel.CompilationResult
		for _, e := range expressions {
			a = append(a, c.CompileCELExpression(named{"", e}, none, environment.StoredExpressions))
			b = append(b, theirs.CompileCELExpression(named{"", e}, none, environment.StoredExpressions))
		}
		out = append(out, pair{d.policy.Name + " " + what, c.condition(a), plugincel.NewCondition(b), theirs})
	}
	var conditions, validations, messages, annotations []string
	for _, m := range spec.MatchConditions {
		conditions = append(conditions, m.Expression)
	}
	for _, v := range spec.Validations {
		validations = append(validations, v.Expression)
		if v.MessageExpression != "" {
			messages = append(messages, v.MessageExpression)
		}
	}
	for _, a := range spec.AuditAnnotations {
		annotations = append(annotations, a.ValueExpression)
	}
	add("conditions", conditions...)
	add("validations", validations...)
	add("messages", messages...)
	add("annotations", annotations...)
	return out
}

// named is an expression of any type.
type named struct{ name, expression string }

func (n named) GetName() string          { return n.name }
func (n named) GetExpression() string    { return n.expression }
func (n named) ReturnTypes() []*cel.Type { return []*cel.Type{cel.AnyType} }

// examples returns objects of all kinds that policies judge.
func examples(t *testing.T) (out []*unstructured.Unstructured) {
	t.Helper()
	names, err := filepath.Glob("../content/policies/testdata/*/*.yaml")
	if err != nil || len(names) < 50 {
		t.Fatal(len(names), err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range strings.Split(string(data), "\n---\n") {
			u := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
				t.Fatal(name, err)
			}
			if u.GetKind() != "" {
				out = append(out, u)
			}
		}
	}
	return out
}

// TestSharingChangesNothing evaluates all expressions of all built-in policies
// for all examples: the values, the errors and what is left of the budget are
// those of the API server's evaluator, which shares nothing.
func TestSharingChangesNothing(t *testing.T) {
	lang, err := newLanguage()
	if err != nil {
		t.Fatal(err)
	}
	var all []pair
	for _, d := range builtInDocuments(t) {
		all = append(all, pairs(t, d, lang)...)
	}
	objects := examples(t)
	if testing.Short() {
		objects = objects[:len(objects)/16]
	}
	shared := 0
	for _, o := range objects {
		req, err := NewCreateRequest(o)
		if err != nil {
			t.Fatal(err)
		}
		in := newInput(t.Context(), &req)
		for _, p := range all {
			before := len(in.memos)
			for _, budget := range []int64{celconfig.RuntimeCELCostBudget, 20} {
				compareEvaluators(t, in, p, budget)
			}
			if before == len(in.memos) && len(p.ours.expressions) > 0 {
				shared++
			}
		}
	}
	if shared == 0 {
		t.Error("nothing is shared")
	}
}

func compareEvaluators(t *testing.T, in *input, p pair, budget int64) {
	t.Helper()
	request := plugincel.CreateAdmissionRequest(in.attr.Attributes, metav1.GroupVersionResource(in.req.Resource), metav1.GroupVersionKind(in.req.Kind))
	ours, left, err := p.ours.ForInput(in, in.attr, request, plugincel.OptionalVariableBindings{}, nil, budget)
	theirs, theirLeft, theirErr := p.theirs.ForInput(p.cel.CreateContext(t.Context()), in.attr, request, plugincel.OptionalVariableBindings{}, nil, budget)
	// What a macro over the keys of a mapping costs depends on their order, which
	// changes from one evaluation to the next.
	for tries := 0; left != theirLeft && tries < 100; tries++ {
		theirs, theirLeft, theirErr = p.theirs.ForInput(p.cel.CreateContext(t.Context()), in.attr, request, plugincel.OptionalVariableBindings{}, nil, budget)
	}
	if left != theirLeft || fmt.Sprint(err) != fmt.Sprint(theirErr) {
		t.Fatalf("%s of %s: left %d, error %v; the API server has %d, %v", p.name, in.req.Name, left, err, theirLeft, theirErr)
	}
	for i := range theirs {
		a, b := ours[i], theirs[i]
		if !reflect.DeepEqual(value(a), value(b)) {
			t.Fatalf("%s %d of %s: %v; the API server has %v", p.name, i, in.req.Name, value(a), value(b))
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
