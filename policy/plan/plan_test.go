package plan_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/kubeguardian/kubeguardian/policy/plan"
)

// A memo keeps everything.
type memo struct{ sync.Map }

func (m *memo) Get(key string) *ast.Term {
	if v, ok := m.Load(key); ok {
		return v.(*ast.Term)
	}
	return nil
}

func (m *memo) Put(key string, value *ast.Term) { m.Store(key, value) }

// compile compiles a module with rules for violation.
func compile(text string) (*ast.Compiler, error) {
	module, err := ast.ParseModuleWithOpts("m", "package template\n"+text, ast.ParserOptions{RegoVersion: ast.RegoV0})
	if err != nil {
		return nil, err
	}
	if module == nil {
		return nil, fmt.Errorf("no module")
	}
	c := ast.NewCompiler()
	c.Compile(map[string]*ast.Module{"m": module})
	if c.Failed() {
		return nil, c.Errors
	}
	return c, nil
}

var entry = ast.MustParseRef("data.template.violation")

// share lets rules that name nothing of the input but the review, themselves or in
// what they call, share their values: by their text, which is enough for tests.
func share(c *ast.Compiler) func(*ast.Rule) plan.Share {
	var of func(r *ast.Rule) plan.Share
	of = func(r *ast.Rule) plan.Share {
		text, out := r.String(), plan.Everybody
		switch {
		case strings.Contains(strings.ReplaceAll(text, "input.review", ""), "input"):
			return plan.Nobody
		case strings.Contains(text, "input"):
			out = plan.Session
		}
		for other := range c.Graph.Dependencies(r) {
			if rule, ok := other.(*ast.Rule); ok {
				out = min(out, of(rule))
			}
		}
		return out
	}
	return of
}

// asked returns what the Open Policy Agent says.
func asked(ctx context.Context, c *ast.Compiler, review, parameters *ast.Term) (string, error) {
	query, err := c.QueryCompiler().Compile(ast.MustParseBody("data.template.violation[r]"))
	if err != nil {
		return "", err
	}
	store := inmem.New()
	txn, err := store.NewTransaction(ctx, storage.TransactionParams{})
	if err != nil {
		return "", err
	}
	cancel := topdown.NewCancel()
	defer time.AfterFunc(2*time.Second, cancel.Cancel).Stop()
	input := ast.NewTerm(ast.NewObject([2]*ast.Term{ast.StringTerm("review"), review}, [2]*ast.Term{ast.StringTerm("parameters"), parameters}))
	var out []string
	err = topdown.NewQuery(query).WithCompiler(c).WithStore(store).WithTransaction(txn).WithInput(input).WithCancel(cancel).Iter(ctx, func(r topdown.QueryResult) error {
		out = append(out, r["r"].String())
		return nil
	})
	slices.Sort(out)
	return strings.Join(slices.Compact(out), "\n"), err
}

func planned(session *plan.Run, parameters *ast.Term) (string, error) {
	found, err := session.Values(parameters)
	if err != nil {
		return "", err
	}
	var out []string
	found.Foreach(func(t *ast.Term) { out = append(out, t.String()) })
	slices.Sort(out)
	return strings.Join(out, "\n"), nil
}

func session(t testing.TB, p *plan.Plan, review *ast.Term) *plan.Run {
	return p.Session(t.Context(), review, time.Now(), nil)
}

// reviews and parameters are what programs see.
var reviews = []string{
	`{}`, `null`,
	`{"operation": "CREATE", "object": {"metadata": {"name": "a", "labels": {"app": "web", "n": 1}}, "spec": {"containers": [{"name": "a", "image": "x/y:1", "ports": [80, 80.0, 443]}, {"name": "b", "image": "z", "ports": [], "on": false}, {"name": "b", "image": "z", "ports": [], "on": false}]}}}`,
	`{"operation": "DELETE", "object": {"metadata": {"name": ["a"], "labels": null}, "spec": {"containers": {"x": {"name": "x", "image": null, "ports": {"a": 1}}}, "initContainers": [{"name": "i", "image": "x/y", "on": true}, 7, "text", null, [1, [2]]]}}}`,
}

var allParameters = []string{`{}`, `{"names": ["a", "x"], "most": 100, "same": {"name": "b"}, "pair": ["name", "b"]}`, `{"names": {"i": "b"}, "most": "1", "on": false, "deep": [{"k": 1}, {"k": 2, "v": [3, 4]}]}`}

// programs are all that has a plan, each with what is special about it.
var programs = map[string]string{
	"test":               `violation[x] { input.review.object.spec[_][i].on; x := i }`,
	"false is no value":  `violation[1] { input.parameters.on } violation[2] { not input.parameters.on } violation[3] { input.parameters.most }`,
	"enumerate":          `violation[[i, j, x]] { x := input.review.object.spec[i][j] }`,
	"bound key":          `violation[x] { k := "spec"; x := input.review.object[k].containers[0].name }`,
	"key of input":       `violation[x] { x := input.review.object[input.parameters.pair[0]] } violation[x] { x := input.review.object.spec.containers[_][input.parameters.pair[0]] }`,
	"numbers are equal":  `violation[[i, j]] { input.review.object.spec.containers[0].ports[i] == input.review.object.spec.containers[0].ports[j] }`,
	"patterns":           `violation[[a, b]] { [a, b] = input.parameters.pair } violation[x] { {"k": x} = input.parameters.deep[_] } violation[[x, y]] { {"k": x, "v": [y, 4]} = input.parameters.deep[_] }`,
	"the same variable":  `violation[x] { [x, x] = [1, input.parameters.most] } violation[x] { x := 1; x = input.review.object.metadata.labels[_] }`,
	"objects":            `violation[x] { input.review.object.spec.containers[_] = {"name": x, "image": _, "ports": _, "on": _} }`,
	"sets":               `s = {1, 2, x} { x := input.parameters.most } violation[x] { s[x] } violation["in"] { s[100] } violation[y] { y := {1, 2, 100}; y == s }`,
	"set of objects":     `all[c] { c := input.review.object.spec.containers[_] } all[c] { c := input.review.object.spec.initContainers[_] } violation[{"n": n, "c": count(all)}] { n := all[_].name }`,
	"pattern of a set":   `g[{"field": f, "msg": m}] { m := input.review.object.spec[f][_].name } violation[m] { g[{"field": "containers", "msg": m}] } violation[x] { x := g[{"field": "initContainers", "msg": "i"}] }`,
	"complete":           `most = x { x := input.parameters.most } violation[x] { x := most } violation[most] { true }`,
	"default":            `default most = 5 most = x { x := input.parameters.most } violation[x] { x := most }`,
	"else":               `size = "big" { input.parameters.most > 50 } else = "text" { is_string(input.parameters.most) } else = "none" { true } violation[x] { x := size }`,
	"else of a function": `f(x) = "s" { is_string(x) } else = "n" { is_number(x) } else = x { true } violation[[i, y]] { y := f(input.review.object.spec.initContainers[i]) }`,
	"functions":          `scale("a") = 1 scale("b") = 2 scale(x) = 3 { x == "x" } violation[[n, s]] { n := input.review.object.spec.containers[_].name; s := scale(n) } violation[n] { n := input.parameters.names[_]; not scale(n) }`,
	"function patterns":  `f([a, b], {"k": c}) = [c, b, a] violation[x] { x := f(["p", "q"], input.parameters.deep[_]) }`,
	"false function":     `f(x) = false { x == "a" } f(x) = true { x != "a" } violation[x] { x := input.parameters.names[_]; f(x) } violation[[x]] { x := input.parameters.names[_]; not f(x) } violation[{x}] { x := input.parameters.names[_]; f(x) == false }`,
	"constant output":    `f(x) = 1 { x == "a" } f(x) = 2 { x == "b" } violation[x] { x := input.review.object.spec.containers[_].name; f(x) == 2 }`,
	"conflict":           `f(x) = y { y := x[_] } violation[x] { x := f(input.parameters.names) }`,
	"conflict of rules":  `p = 1 { input.parameters.most } p = 2 { input.parameters.names } violation[p] { true }`,
	"comprehensions":     `violation[x] { x := [n | n := input.review.object.spec.containers[_].name] } violation[x] { x := {n | n := input.review.object.spec.containers[_].name} } violation[x] { x := {i: n | n := input.review.object.spec.containers[i].name} }`,
	"nested":             `violation[x] { x := [[i, {p | p := c.ports[_]}] | c := input.review.object.spec.containers[i]] } violation[x] { x := [y | y := [z | z := input.parameters.names[_]][_]] }`,
	"object conflict":    `violation[x] { x := {c.name: i | c := input.review.object.spec.containers[i]} }`,
	"keys":               `violation[x] { x := {k | input.review.object.metadata.labels[k]} } violation[missing] { missing := {k | k := input.parameters.names[_]} - {k | input.review.object.metadata.labels[k]} }`,
	"negation":           `violation[i] { input.review.object.spec.containers[i]; not input.review.object.spec.containers[i].on } violation["none"] { c := input.review.object.spec; not has(c) } has(c) { c.initContainers[_] } violation[1] { not false } violation[2] { not true }`,
	"negated equality":   `violation[i] { c := input.review.object.spec.containers[i]; not c.name == "a" } violation[[i]] { c := input.review.object.spec.containers[i]; not named(c) } named(c) { c.name = input.parameters.names[_] }`,
	"whole input":        `violation[x] { x := object.get(object.get(input, "parameters", {}), "most", "none") } violation[x] { x := input.parameters } violation[x] { x := [k | input[k]] } violation[1] { input.other }`,
	"whole review":       `name(r) = n { n := r.object.metadata.name } violation[x] { x := name(input.review) }`,
	"walk":               `violation[[p, v]] { [p, v] := walk(input.review.object); is_number(v) } violation[v] { [_, v] := walk(input.parameters); is_string(v) } violation[p] { walk(input.parameters, [p, 2]) }`,
	"errors of Rego":     `violation[x] { x := to_number(input.review.object.metadata.name) } violation["e"] { not to_number(input.parameters.most) } violation[x] { x := sprintf("%v %d", [input.parameters.most, input.parameters.most]) } violation[x] { x := 1 / (input.parameters.most - 100) }`,
	"regular expression": `violation[c.name] { c := input.review.object.spec.containers[_]; regex.match("^[a-z]/", c.image) } violation[x] { x := split(input.review.object.spec.containers[_].image, "/")[0] }`,
	"array of patterns":  `violation[x] { [x, "b"] = input.parameters.pair } violation[x] { ["name", x, _] = array.concat(input.parameters.pair, [1]) }`,
	"order of a set":     `s[x] { x := input.review.object.spec[_][_].name } violation[x] { x := [y | y := s[_]] } violation[x] { x := concat(",", s) }`,
	"empty":              `violation[x] { x := input.review.object.spec.containers[_].ports[_] } nothing { false } violation[1] { nothing } violation[2] { not nothing }`,
	"in":                 `import future.keywords.in violation[x] { some x in input.parameters.names } violation[[k, x]] { some k, x in input.review.object.spec.containers } violation["b"] { "b" in input.parameters.names }`,
	"every": `import future.keywords violation[1] { every x in input.review.object.spec.containers { x.image } } violation[2] { every k, x in input.parameters.names { x != "x"; k != "i" } }
		violation[c.name] { some c in input.review.object.spec.containers; every p in c.ports { p < 100; some other in input.review.object.spec.containers; other.ports[_] > p } } violation[3] { every x in input.parameters.most { x == "no" } } violation[4] { every _ in [1] { true } }
		violation[5] { every x in input.parameters.nothing { x == "no" } } violation[6] { every x in [] { x } }`,
	"unused arguments": `f(_, x) = x violation[y] { y := f(1, input.parameters.most) }`,
	"deep function":    `f(x) = g(x) + 1 g(x) = h(x) * 2 h(x) = x { is_number(x) } violation[y] { y := f(input.review.object.metadata.labels[_]) } violation[y] { y := f(f(f(3))) }`,
	"null and false":   `violation[[i, x]] { x := input.review.object.spec.initContainers[i]; x == null } violation[i] { input.review.object.spec.initContainers[i] == null } violation[x] { x := input.review.object.metadata.labels }`,
}

// TestSameAsOPA runs every program by its plan and by the Open Policy Agent, with
// several requests, and in one session with several parameters.
func TestSameAsOPA(t *testing.T) {
	for name, text := range programs {
		t.Run(name, func(t *testing.T) {
			c, err := compile(text)
			if err != nil {
				t.Fatal(err)
			}
			p, err := plan.New(c, entry, share(c), &memo{})
			if err != nil {
				t.Fatal(err)
			}
			values := compare(t, c, p)
			if values == 0 {
				t.Error("the program has no value: this test shows nothing")
			}
		})
	}
}

// compare returns how many runs gave a value.
func compare(t testing.TB, c *ast.Compiler, p *plan.Plan) (values int) {
	for range 2 { // with what is remembered of the first time
		for _, review := range reviews {
			input := ast.MustParseTerm(review)
			s := session(t, p, input)
			for _, text := range allParameters {
				parameters := ast.MustParseTerm(text)
				want, wantErr := asked(t.Context(), c, input, parameters)
				got, err := planned(s, parameters)
				if err != nil && wantErr == nil {
					t.Logf("the plan alone fails: %v", err) // its caller asks the Open Policy Agent
					continue
				}
				if got != want && wantErr == nil || (err == nil) != (wantErr == nil) {
					t.Fatalf("review %s, parameters %s: the plan gives\n%s, %v; want\n%s, %v", review, text, got, err, want, wantErr)
				}
				if got != "" || err != nil {
					values++
				}
			}
		}
	}
	return values
}

// TestNoPlan wants what has no plan to be said.
func TestNoPlan(t *testing.T) {
	for text, want := range map[string]string{
		`violation[x] { x := data.inventory }`:                                       "data.inventory is no rule",
		`p { input.review } violation[1] { p with input.review as 1 }`:               "with has no plan",
		`violation[x] { x := time.now_ns() }`:                                        "time.now_ns has no plan",
		`p[k] = v { v := input.review[k] } violation[x] { x := p.a }`:                "is no rule",
		`p[x] { x := input.review } violation = p`:                                   "is no set",
		`default f(x) = 1 f(x) = 2 { x == 1 } violation[x] { x := f(input.review) }`: "default",
		`violation[x] { x := data.template }`:                                        "recursive",
	} {
		c, err := compile(text)
		if err == nil {
			_, err = plan.New(c, entry, share(c), &memo{})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error = %v, want %q", text, err, want)
		}
	}
}

// TestEnds wants a run to end by itself, and when it is cancelled.
func TestEnds(t *testing.T) {
	c, err := compile(`violation[[a, b, c]] { a := input.review[_]; b := input.review[_]; c := input.review[_]; a + b == c + 1000000 }`)
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.New(c, entry, share(c), &memo{})
	if err != nil {
		t.Fatal(err)
	}
	var numbers []*ast.Term
	for i := range 1000 {
		numbers = append(numbers, ast.IntNumberTerm(i))
	}
	review := ast.ArrayTerm(numbers...)
	if _, err := session(t, p, review).Values(ast.ObjectTerm()); err == nil || !strings.Contains(err.Error(), "steps") {
		t.Errorf("error = %v, want that of too many steps", err)
	}
	cancel := topdown.NewCancel()
	cancel.Cancel()
	if _, err := p.Session(t.Context(), review, time.Now(), cancel).Values(ast.ObjectTerm()); err == nil || !strings.Contains(err.Error(), "cancelled") {
		t.Errorf("error = %v, want that of the end", err)
	}
}

// TestCallKey wants two calls never to be taken for each other.
func TestCallKey(t *testing.T) {
	seen := map[string]string{}
	for function := range 2 {
		for _, args := range [][]*ast.Term{
			{ast.StringTerm("a"), ast.StringTerm("b")}, {ast.StringTerm("ab")}, {ast.StringTerm("asb")}, {ast.StringTerm("")}, {},
			{ast.StringTerm("1")}, {ast.IntNumberTerm(1)}, {ast.NumberTerm("1.0")}, {ast.BooleanTerm(true)}, {ast.StringTerm("true")}, {ast.NullTerm()}, {ast.StringTerm("null")},
		} {
			key, call := plan.CallKey(function, args), fmt.Sprint(function, args)
			if other, ok := seen[key]; ok || key == "" {
				t.Errorf("%s has the key %q of %s", call, key, other)
			}
			seen[key] = call
		}
	}
	if plan.CallKey(1, []*ast.Term{ast.ArrayTerm()}) != "" || plan.CallKey(1, []*ast.Term{ast.StringTerm(strings.Repeat("a", 300))}) != "" {
		t.Error("a list or a long text has a key")
	}
}

// FuzzPlan wants the same of whatever compiles and has a plan.
func FuzzPlan(f *testing.F) {
	for _, text := range programs {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 2000 {
			return
		}
		c, err := compile(text)
		if err != nil {
			return
		}
		p, err := plan.New(c, entry, share(c), &memo{})
		if err != nil {
			return
		}
		compare(t, c, p)
	})
}
