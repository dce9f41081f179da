package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/policy"
)

// document returns a policy named p with its binding; spec is the rest of the
// specification of the policy.
func document(spec string) string {
	return `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: p}
spec:
` + indent(spec) + `
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: p}
spec: {policyName: p, validationActions: [Deny]}
`
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.Trim(s, "\n"), "\n", "\n  ")
}

// pods is the beginning of a specification that matches the creation of pods.
const pods = `
matchConstraints:
  resourceRules:
  - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}
`

const valid = pods + "validations: [{expression: 'true'}]"

func load(t testing.TB, text string) *policy.Set {
	t.Helper()
	set, err := policy.Load(policy.File{Name: "p.yaml", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestLoadErrors(t *testing.T) {
	const meta = "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata: {name: p}\n"
	tests := []struct {
		name, text string
		want       []string // each in the error
	}{
		{"not YAML", "a: b: c", []string{"p.yaml:1: parse YAML: mapping values are not allowed"}},
		{"binary", "\x00\x01\x02", []string{"p.yaml: parse YAML: control characters are not allowed"}},
		{"a list", "- 1", []string{"p.yaml:1: want an object with apiVersion and kind"}},
		{"another kind", "apiVersion: v1\nkind: Pod", []string{`p.yaml:2: kind "Pod" is not supported: want ValidatingAdmissionPolicy, MutatingAdmissionPolicy or the binding of one`}},
		{"an old version", "kind: ValidatingAdmissionPolicy\napiVersion: admissionregistration.k8s.io/v1beta1", []string{"p.yaml:2: apiVersion admissionregistration.k8s.io/v1beta1 is not supported: want admissionregistration.k8s.io/v1"}},
		{"unknown field", document(valid + "\nvalidation: []"), []string{`p.yaml:9: unknown field "spec.validation"`}},
		{"unknown field in a list", document(pods + "validations:\n- expression: 'true'\n  mesage: x"), []string{`p.yaml:10: unknown field "spec.validations[0].mesage"`}},
		{"field given twice", "kind: A\nkind: B", []string{`p.yaml:2: field "kind" is given twice`}},
		{"key that is no string", "1: a", []string{`p.yaml:1: key "1" is not a string`}},
		{"merge key", "a: &a {b: c}\nd:\n  <<: *a", []string{`p.yaml:3: key "<<" is not a string`}},
		{"wrong type", document("matchConstraints: pods"), []string{"p.yaml:5: spec.matchConstraints: want v1.MatchResources, have string"}},
		{"bare no", document(pods + "validations: [{expression: 'true', message: no}]"), []string{"p.yaml:8: spec.validations.message: want string, have bool"}},
		{"tag", "kind: !!binary aGVsbG8=", []string{"p.yaml:1: YAML tag !!binary is not supported"}},
		{"too deep", strings.Repeat("[", 200) + strings.Repeat("]", 200), []string{"p.yaml:1: document is too large or too deep"}},
		{"alias bomb", bomb(), []string{"document is too large or too deep"}},
		{"too large", strings.Repeat("#", 4<<20), []string{"p.yaml: file has 4194304 bytes, more than the limit of 3145728"}},
		{"second document is reported too", "kind: A\n---\nkind: B", []string{`p.yaml:1: kind "A"`, `p.yaml:3: kind "B"`}},

		{"no name", strings.ReplaceAll(document(valid), "{name: p}", "{}"), []string{"p.yaml:3: metadata.name: a value is required"}},
		{"bad name", strings.ReplaceAll(document(valid), "name: p}", "name: P_}"), []string{"metadata.name: a lowercase RFC 1123 subdomain"}},
		{"two policies of one name", document(valid) + "---\n" + document(valid), []string{`p.yaml:17: policy "p" is already defined at p.yaml:3`, `p.yaml:26: binding "p" is already defined at p.yaml:12`}},
		{"policy without binding", meta + "spec:\n" + indent(valid), []string{`p.yaml:3: policy "p" has no ValidatingAdmissionPolicyBinding`}},
		{"binding without policy", strings.Replace(document(valid), "policyName: p", "policyName: q", 1), []string{`binding "p" names policy "q", which is not defined`, `policy "p" has no`}},
		{"no spec", meta, []string{"p.yaml:1: spec.matchConstraints: a value is required", "spec.validations: at least one"}},
		{"no rules", document("matchConstraints: {}\nvalidations: [{expression: 'true'}]"), []string{"p.yaml:5: spec.matchConstraints.resourceRules: at least one rule is required"}},
		{"empty rule", document("matchConstraints: {resourceRules: [{}]}\nvalidations: [{expression: 'true'}]"), []string{
			"resourceRules[0].apiGroups: at least one", "resourceRules[0].apiVersions: at least one", "resourceRules[0].resources: at least one", "resourceRules[0].operations: at least one"}},
		{"wildcards beside names", document(strings.NewReplacer("v1]", "'*', v1]", "[CREATE]", "['*', CREATE]").Replace(valid)), []string{"apiVersions: * must stand alone", "operations[0]: * must stand alone"}},
		{"unknown operation", document(strings.Replace(valid, "CREATE", "PATCH", 1)), []string{`operations[0]: "PATCH" is not supported: want one of *, CONNECT, CREATE, DELETE, UPDATE`}},
		{"unknown scope", document(strings.Replace(valid, "resources: [pods]", "resources: [pods], scope: All", 1)), []string{`scope: "All" is not supported`}},
		{"empty resource", document(strings.Replace(valid, "[pods]", "['']", 1)), []string{"resources[0]: a value is required"}},
		{"bad selectors", document(strings.Replace(valid, "matchConstraints:", "matchConstraints:\n  objectSelector: {matchExpressions: [{key: a, operator: Is}]}", 1)), []string{`p.yaml:6: spec.matchConstraints.objectSelector: "Is" is not a valid label selector operator`}},
		{"unknown match policy", document(strings.Replace(valid, "matchConstraints:", "matchConstraints:\n  matchPolicy: Fuzzy", 1)), []string{`matchPolicy: "Fuzzy" is not supported`}},
		{"unknown failure policy", document(valid + "\nfailurePolicy: Open"), []string{`p.yaml:9: spec.failurePolicy: "Open" is not supported: want one of Fail, Ignore`}},
		{"parameters without a version", document(valid + "\nparamKind: {apiVersion: '', kind: ''}"), []string{"p.yaml:9: spec.paramKind.apiVersion: a value is required", "p.yaml:9: spec.paramKind.kind: a value is required"}},
		{"parameters of a strange version", document(valid + "\nparamKind: {apiVersion: a/b/c, kind: A}"), []string{"p.yaml:9: spec.paramKind.apiVersion: unexpected GroupVersion string"}},
		{"parameters by nothing", strings.Replace(document(valid), "policyName: p,", "policyName: p, paramRef: {},", 1), []string{"spec.paramRef: one of name and selector is required", "spec.paramRef.parameterNotFoundAction: a value is required: Allow or Deny"}},
		{"parameters by too much", strings.Replace(document(valid), "policyName: p,", "policyName: p, paramRef: {name: a, selector: {matchExpressions: [{key: a, operator: Is}]}, parameterNotFoundAction: Log},", 1), []string{
			"spec.paramRef: name and selector exclude each other", "spec.paramRef.selector: \"Is\" is not a valid label selector operator", `parameterNotFoundAction: "Log" is not supported: want one of Allow, Deny`}},
		{"no action", strings.Replace(document(valid), "[Deny]", "[]", 1), []string{"spec.validationActions: at least one of Deny, Warn, Audit is required"}},
		{"contradicting actions", strings.Replace(document(valid), "[Deny]", "[Deny, Warn, Deny, Log]", 1), []string{"Deny and Warn exclude each other", "validationActions[2]: Deny is given twice", `validationActions[3]: "Log" is not supported`}},
		{"conditions", document(valid + "\nmatchConditions: [{name: a, expression: 'true'}, {name: a, expression: ' '}, {name: ' ', expression: '1'}]"), []string{
			`matchConditions[1].name: "a" is given twice`, "matchConditions[1].expression: a value is required", "matchConditions[2].name: name part must consist", "must evaluate to bool but got int"}},
		{"variables", document(valid + "\nvariables: [{name: a-b, expression: '1'}, {name: c, expression: '1'}, {name: c, expression: ''}]"), []string{
			`variables[0].name: "a-b" is not a CEL identifier`, `variables[2].name: "c" is given twice`, "variables[2].expression: a value is required"}},
		{"validations", document(pods + "validations: [{expression: '', message: \"a\\nb\", reason: Because}]"), []string{
			"validations[0].expression: a value is required", "validations[0].message: a message is one line", `validations[0].reason: "Because" is not supported`}},
		{"annotations", document(pods + "auditAnnotations: [{key: a, valueExpression: ''}, {key: a, valueExpression: '1'}]"), []string{
			"auditAnnotations[0].valueExpression: a value is required", `auditAnnotations[1].key: "a" is given twice`, "must evaluate to one of"}},
		{"too many annotations", document(pods + "auditAnnotations:" + repeat(21, "\n- {key: a%d, valueExpression: '\"x\"'}")), []string{"21 annotations are more than the limit of 20"}},
		{"too many conditions", document(valid + "\nmatchConditions:" + repeat(65, "\n- {name: a%d, expression: 'true'}")), []string{"65 conditions are more than the limit of 64"}},

		{"mutating: empty", mutating("p", "matchConstraints: {}"), []string{"spec.matchConstraints.resourceRules: at least one rule", "p.yaml:4: spec.mutations: at least one mutation is required"}},
		{"mutating: reinvocation", strings.Replace(mutating("p", pods+label("a", "'b'")), "Never", "Always", 1), []string{`p.yaml:5: spec.reinvocationPolicy: "Always" is not supported: want one of Never, IfNeeded`}},
		{"mutating: operations", mutating("p", strings.Replace(pods, "CREATE", "DELETE, CONNECT", 1)+label("a", "'b'")), []string{"operations[0]: DELETE cannot be mutated", "operations[1]: CONNECT cannot be mutated: want CREATE, UPDATE or *"}},
		{"mutating: operations of a binding", strings.Replace(mutating("p", pods+label("a", "'b'")), "policyName: p}", "policyName: p, matchResources: {resourceRules: [{apiGroups: ['*'], apiVersions: ['*'], operations: [DELETE], resources: ['*']}]}}", 1), []string{"spec.matchResources.resourceRules[0].operations[0]: DELETE cannot be mutated"}},
		{"mutating: patch types", mutating("p", pods+"mutations: [{patchType: Merge}, {patchType: JSONPatch}, {patchType: JSONPatch, jsonPatch: {expression: '[JSONPatch{op: \"test\"}]'}, applyConfiguration: {expression: 'Object{}'}}, {patchType: ApplyConfiguration, applyConfiguration: {expression: 'Object{}'}, jsonPatch: {expression: ' '}}]"), []string{
			`spec.mutations[0].patchType: "Merge" is not supported: want one of ApplyConfiguration, JSONPatch`, "spec.mutations[1].jsonPatch.expression: a value is required",
			"spec.mutations[2]: patchType JSONPatch and applyConfiguration exclude each other", "spec.mutations[3]: patchType ApplyConfiguration and jsonPatch exclude each other"}},
		{"mutating: CEL type", mutating("p", pods+apply("'x'")), []string{`policy "p": spec.mutations[0].applyConfiguration.expression: must evaluate to Object but got string`}},
		{"mutating: patch of another type", mutating("p", pods+jsonPatch("['x']")), []string{"spec.mutations[0].jsonPatch.expression: must evaluate to list(JSONPatch) but got list(string)"}},
		{"mutating: variables make no objects", mutating("p", pods+"variables: [{name: a, expression: 'Object{}'}]\n"+label("a", "'b'")), []string{"spec.variables[0].expression: undeclared reference to 'Object'"}},
		{"mutating: no binding", strings.Split(mutating("p", pods+label("a", "'b'")), "---\n")[0], []string{`p.yaml:3: policy "p" has no MutatingAdmissionPolicyBinding`}},
		{"mutating: binding of the other kind", strings.Split(mutating("p", pods+label("a", "'b'")), "---\n")[0] + "---\n" + strings.Split(document(valid), "---\n")[1], []string{`policy "p" has no MutatingAdmissionPolicyBinding`, `binding "p" names policy "p", which is not defined`}},
		{"mutating: an old version", strings.Replace(mutating("p", pods+label("a", "'b'")), "k8s.io/v1", "k8s.io/v1alpha1", 1), []string{"apiVersion admissionregistration.k8s.io/v1alpha1 is not supported: want admissionregistration.k8s.io/v1 or admissionregistration.k8s.io/v1beta1"}},
		{"mutating: unknown field", mutating("p", pods+label("a", "'b'")+"validations: []"), []string{`unknown field "spec.validations"`}},

		{"CEL syntax", document(pods + "validations: [{expression: 'object.'}]"), []string{`p.yaml:8: policy "p": spec.validations[0].expression: Syntax error`}},
		{"CEL line in a block", document(pods + "validations:\n- expression: |\n    true &&\n    objct.spec"), []string{"p.yaml:11: policy \"p\": spec.validations[0].expression: undeclared reference to 'objct'"}},
		{"CEL type", document(pods + "validations: [{expression: '1 + \"a\" == 2'}]"), []string{"found no matching overload for '_+_'"}},
		{"unknown variable", document(pods + "validations: [{expression: 'variables.x'}]"), []string{"undefined field 'x'"}},
		{"variable in a match condition", document(valid + "\nvariables: [{name: a, expression: 'true'}]\nmatchConditions: [{name: a, expression: variables.a}]"), []string{"spec.matchConditions[0].expression: undefined field 'a'"}},
		{"reason that the API server refuses", document(pods + "validations: [{expression: 'true', reason: Unauthorized}]"), []string{`validations[0].reason: "Unauthorized" is not supported`}},
		{"variable used before it is declared", document(valid + "\nvariables: [{name: a, expression: variables.b}, {name: b, expression: '1'}]"), []string{"spec.variables[0].expression: undefined field 'b'"}},
		{"parameters in an expression", document(pods + "validations: [{expression: 'params == null'}]"), []string{"undeclared reference to 'params'"}},
		{"authorizer in a message", document(pods + "validations: [{expression: 'true', messageExpression: \"authorizer.path('/').check('get').reason()\"}]"), []string{"undeclared reference to 'authorizer'"}},
		{"message that is no text", document(pods + "validations: [{expression: 'true', messageExpression: '1'}]"), []string{"validations[0].messageExpression: must evaluate to string but got int"}},
		{"all errors of a file", document(pods + "validations: [{expression: 'a'}, {expression: 'b'}]"), []string{"undeclared reference to 'a'", "undeclared reference to 'b'"}},
		{"at most 100 errors", document(pods + "validations:" + repeat(120, "\n- {expression: 'x%d'}")), []string{"to 'x99'", "and 20 more errors"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := policy.Load(policy.File{Name: "p.yaml", Data: []byte(test.text)})
			if err == nil {
				t.Fatal("Load succeeds")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error does not contain %q:\n%v", want, err)
				}
			}
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "p.yaml:") && !strings.HasPrefix(line, "and ") {
					t.Errorf("line without place: %q", line)
				}
			}
		})
	}
}

func repeat(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// bomb is a small document that is huge once its aliases are followed.
func bomb() string {
	text := "a0: &a0 [x]\n"
	for i := range 20 {
		text += fmt.Sprintf("a%d: &a%d [*a%d, *a%d, *a%d]\n", i+1, i+1, i, i, i)
	}
	return text
}

func TestLoad(t *testing.T) {
	policyOnly, bindingOnly, _ := strings.Cut(document(valid), "---\n")
	tests := []struct {
		name  string
		files []policy.File
		want  int
	}{
		{"no files", nil, 0},
		{"empty documents and comments", []policy.File{{Name: "a", Data: []byte("# nothing\n---\n---\n" + document(valid))}}, 1},
		{"binding in another file", []policy.File{{Name: "b", Data: []byte(bindingOnly)}, {Name: "a", Data: []byte(policyOnly)}}, 1},
		{"anchors", []policy.File{{Name: "a", Data: []byte(document(pods + "validations: [{expression: &e 'true'}, {expression: *e}]"))}}, 1},
		{"JSON", []policy.File{{Name: "a", Data: []byte(policyOnly)}, {Name: "b", Data: []byte(`{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingAdmissionPolicyBinding","metadata":{"name":"p"},"spec":{"policyName":"p","validationActions":["Audit"]}}`)}}, 1},
		{"a date is text", []policy.File{{Name: "a", Data: []byte(strings.Replace(document(valid), "{name: p}", "{name: p, annotations: {since: 2026-11-01}}", 1))}}, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			set, err := policy.Load(test.files...)
			if err != nil {
				t.Fatal(err)
			}
			if set.Len() != test.want || len(set.Policies()) != test.want {
				t.Errorf("%d policies, want %d", set.Len(), test.want)
			}
		})
	}
}

func TestPolicyByName(t *testing.T) {
	set := load(t, strings.Replace(document(valid), "{name: p}", "{name: p, annotations: {since: 2026-11-01}}", 1))
	p := set.Policy("p")
	if p == nil || p.Name() != "p" || p.Annotation("since") != "2026-11-01" || p.Annotation("x") != "" {
		t.Errorf("Policy(p) = %+v", p)
	}
	if set.Policy("q") != nil {
		t.Error("Policy(q) is not nil")
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(document(valid)))
	f.Add([]byte(document(valid + "\nvariables: [{name: a, expression: 'object.spec'}]\nmatchConditions: [{name: a, expression: 'true'}]")))
	f.Add([]byte(mutating("p", pods+label("a", "'b'")+strings.TrimPrefix(jsonPatch("[JSONPatch{op: 'remove', path: '/a'}]"), "mutations:\n"))))
	f.Add([]byte(strings.ReplaceAll(mutating("p", pods+"paramKind: {apiVersion: v1, kind: ConfigMap}\n"+label("a", "params.data.b")), "k8s.io/v1", "k8s.io/v1beta1")))
	f.Add([]byte(bound(configMaps, valid, "{selector: {matchExpressions: [{key: a, operator: Exists}]}, namespace: b, parameterNotFoundAction: Allow}")))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("? {a: b}\n: c"))
	f.Add([]byte("kind: 0x1p-2\napiVersion: .inf"))
	f.Add([]byte(bomb()))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := policy.Load(policy.File{Name: "f", Data: data})
		if (set == nil) == (err == nil) {
			t.Errorf("Load = %v, %v", set, err)
		}
	})
}
