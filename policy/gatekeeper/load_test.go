package gatekeeper_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/gatekeeper"
)

// template returns a ConstraintTemplate with this Rego, indented as YAML wants.
func template(kind, schema, rego string) string {
	return `apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: ` + strings.ToLower(kind) + `}
spec:
  crd: {spec: {names: {kind: ` + kind + `}, validation: {openAPIV3Schema: ` + schema + `}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    rego: |
      ` + strings.ReplaceAll(strings.TrimSpace(rego), "\n", "\n      ") + "\n"
}

// constraint returns a constraint named c with this spec.
func constraint(kind, spec string) string {
	return "---\napiVersion: constraints.gatekeeper.sh/v1beta1\nkind: " + kind + "\nmetadata: {name: c}\nspec: " + spec + "\n"
}

const always = "package x\nviolation[{\"msg\": \"always\"}] { true }"

func load(t testing.TB, text string) *gatekeeper.Set {
	t.Helper()
	set, err := gatekeeper.Load(policy.File{Name: "f.yaml", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestLoadErrors(t *testing.T) {
	good := template("X", "{type: object, properties: {n: {type: integer}, list: {type: array, items: {type: string}}}}", always)
	cel := func(source string) string {
		return strings.Replace(good, "    rego: |\n      package x\n      violation[{\"msg\": \"always\"}] { true }", "    code:\n    - engine: K8sNativeValidation\n      source:\n"+source, 1)
	}
	for name, test := range map[string]struct{ text, want string }{
		"other kind":            {"apiVersion: v1\nkind: Pod\n", `f.yaml:2: kind "Pod" of "v1" is not supported`},
		"broken YAML":           {"a: [\n", "f.yaml:1: parse YAML"},
		"unknown field":         {strings.Replace(good, "spec:\n", "spec:\n  crds: {}\n", 1), `f.yaml:5: unknown field "spec.crds"`},
		"name is not kind":      {strings.Replace(good, "{name: x}", "{name: other}", 1), `f.yaml:3: metadata.name: "other" is not the kind "X" in lower case`},
		"unknown version":       {strings.Replace(good, "sh/v1\n", "sh/v7\n", 1), `f.yaml:1: apiVersion: version "v7"`},
		"unknown target":        {strings.Replace(good, "admission.k8s", "other", 1), `f.yaml:7: spec.targets[0].target: target "other.gatekeeper.sh" is not known`},
		"no code":               {good[:strings.Index(good, "    rego")], "f.yaml:7: spec.targets[0]: neither rego nor code"},
		"Rego syntax":           {template("X", "{type: object}", "package x\n\nviolation[{\"msg\": m}] {\n  m := \n}"), "f.yaml:13: rego: unexpected"},
		"Rego unsafe":           {template("X", "{type: object}", "package x\n\nviolation[{\"msg\": m}] {\n  true\n}"), "f.yaml:11: rego: var m is unsafe"},
		"no violation":          {template("X", "{type: object}", "package x\n\ndeny { true }"), "f.yaml:9: rego: the rule violation is missing"},
		"http.send":             {template("X", "{type: object}", always+"\nx { http.send({}) }"), "f.yaml:11: rego: undefined function http.send: it does not exist, or it reaches out"},
		"files by schema":       {template("X", "{type: object}", always+"\nx { json.match_schema({}, {}) }"), "f.yaml:11: rego: undefined function json.match_schema"},
		"external data of two":  {template("X", "{type: object}", always+"\nx { external_data({}, 1) == 2 }"), "f.yaml:11: rego: external_data: arity mismatch"},
		"other data":            {template("X", "{type: object}", always+"\nx { [1 | data.secrets[_]] }"), "f.yaml:11: rego: data.secrets"},
		"data inside of a path": {template("X", "{type: object}", always+"\nx { input.review[data.secrets] }"), "f.yaml:11: rego: data.secrets"},
		"import":                {template("X", "{type: object}", "package x\nimport data.other\nviolation[{\"msg\": \"\"}] { true }"), "f.yaml:10: rego: import of data.other is not allowed"},
		"library package": {strings.Replace(good, "    rego: |", "    libs:\n    - |\n      package other\n    rego: |", 1),
			"f.yaml:10: rego: package data.other of a library is not below data.lib"},
		"schema not structural": {template("X", "{type: object, properties: {a: {}}}", always), "f.yaml:5: spec.crd.spec.validation.openAPIV3Schema.properties[a].type: Required value"},
		"operation":             {strings.Replace(good, "    rego", "    operations: [PATCH]\n    rego", 1), `f.yaml:8: spec.targets[0].operations[0]: operation "PATCH"`},
		"engine":                {strings.Replace(good, "    rego", "    code: [{engine: Lua, source: {}}]\n    rego", 1), `f.yaml:8: engine "Lua" is not supported`},
		"CEL syntax":            {cel("        validations:\n        - expression: |\n            true &&\n            objekt.metadata == null\n"), "f.yaml:14: spec.targets[0].code[0].source.validations[0].expression: undeclared reference to 'objekt'"},
		"CEL variable":          {cel("        variables: [{name: params, expression: '1'}]\n        validations: [{expression: 'true'}]\n"), `f.yaml:11: spec.targets[0].code[0].source.variables[0].name: the name "params" is reserved`},
		"CEL failure policy":    {cel("        failurePolicy: Perhaps\n        validations: [{expression: 'true'}]\n"), `f.yaml:11: spec.targets[0].code[0].source.failurePolicy: "Perhaps"`},
		"no template":           {constraint("Z", "{}"), `f.yaml:3: no ConstraintTemplate defines the kind "Z"`},
		"two templates":         {good + "---\n" + good, `f.yaml:14: template "x" is already defined at f.yaml:3`},
		"two constraints":       {good + constraint("X", "{}") + constraint("X", "{}"), `constraint X "c" is already defined at f.yaml:14`},
		"parameter type":        {good + constraint("X", "\n  parameters:\n    n: text\n"), `f.yaml:17: spec.parameters.n: Invalid value: "string"`},
		"unknown parameter":     {good + constraint("X", "\n  parameters:\n    m: 1\n"), "f.yaml:17: spec.parameters.m: the template has no such parameter"},
		"no parameters":         {strings.Replace(good, ", validation: {openAPIV3Schema: {type: object, properties: {n: {type: integer}, list: {type: array, items: {type: string}}}}}", "", 1) + constraint("X", "{parameters: {n: 1}}"), "spec.parameters: the template takes no parameters"},
		"action":                {good + constraint("X", "{enforcementAction: kill}"), `f.yaml:15: spec.enforcementAction: "kill" is not supported`},
		"scoped without scopes": {good + constraint("X", "{enforcementAction: scoped}"), "f.yaml:15: spec.scopedEnforcementActions: a value is required"},
		"enforcement point":     {good + constraint("X", "{enforcementAction: scoped, scopedEnforcementActions: [{action: deny, enforcementPoints: [{name: x}]}]}"), `enforcementPoints[0].name: "x" is not supported`},
		"scope":                 {good + constraint("X", "{match: {scope: cluster}}"), `f.yaml:15: spec.match.scope: "cluster" is not supported`},
		"selector":              {good + constraint("X", "{match: {labelSelector: {matchExpressions: [{key: a, operator: Is}]}}}"), "f.yaml:15: spec.match.labelSelector.matchExpressions[0].operator"},
		"wildcard":              {good + constraint("X", "{match: {namespaces: [a*b]}}"), `f.yaml:15: spec.match.namespaces[0]: "a*b"`},
		"source":                {good + constraint("X", "{match: {source: Mine}}"), `f.yaml:15: spec.match.source: "Mine"`},
		"match field":           {good + constraint("X", "{match: {kind: []}}"), `unknown field "spec.match.kind"`},
		"expansion of itself":   {"apiVersion: expansion.gatekeeper.sh/v1beta1\nkind: ExpansionTemplate\nmetadata: {name: x}\nspec:\n  applyTo: [{groups: [''], versions: [v1], kinds: [Pod]}]\n  templateSource: spec\n  generatedGVK: {version: v1, kind: Pod}\n", "f.yaml:7: spec.generatedGVK: expansions would make objects of Pod without an end"},
		"empty expansion":       {"apiVersion: expansion.gatekeeper.sh/v1beta1\nkind: ExpansionTemplate\nmetadata: {name: x}\nspec: {enforcementAction: kill}\n", `f.yaml:4: spec.enforcementAction: "kill"`},
		"process":               {"apiVersion: config.gatekeeper.sh/v1alpha1\nkind: Config\nmetadata: {name: config}\nspec:\n  match:\n  - processes: [hook]\n", `f.yaml:6: process "hook" is not known`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := gatekeeper.Load(policy.File{Name: "f.yaml", Data: []byte(test.text)})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is\n\t%v\nwant\n\t%s", err, test.want)
			}
		})
	}
}

func TestLoadReportsAll(t *testing.T) {
	text := template("X", "{type: object}", always) + constraint("X", "{enforcementAction: a, match: {scope: b}}") +
		"---\napiVersion: v1\nkind: Pod\n"
	_, err := gatekeeper.Load(policy.File{Name: "f.yaml", Data: []byte(text)})
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("error is %v, want three mistakes", err)
	}
}

func TestHandles(t *testing.T) {
	for apiVersion, kinds := range map[string]map[string]bool{
		"templates.gatekeeper.sh/v1":        {"ConstraintTemplate": true, "Other": false},
		"constraints.gatekeeper.sh/v1beta1": {"Anything": true},
		"config.gatekeeper.sh/v1alpha1":     {"Config": true},
		"syncset.gatekeeper.sh/v1alpha1":    {"SyncSet": true},
		"admissionregistration.k8s.io/v1":   {"ValidatingAdmissionPolicy": false},
	} {
		for kind, want := range kinds {
			if got := gatekeeper.Handles(schema.FromAPIVersionAndKind(apiVersion, kind)); got != want {
				t.Errorf("Handles(%s %s) = %v", apiVersion, kind, got)
			}
		}
	}
}

func TestSynced(t *testing.T) {
	set := load(t, `apiVersion: config.gatekeeper.sh/v1alpha1
kind: Config
metadata: {name: config}
spec: {sync: {syncOnly: [{group: "", version: v1, kind: Namespace}]}}
---
apiVersion: syncset.gatekeeper.sh/v1alpha1
kind: SyncSet
metadata: {name: s}
spec: {gvks: [{group: "", version: v1, kind: Namespace}, {group: apps, version: v1, kind: Deployment}]}
`)
	want := []schema.GroupVersionKind{{Version: "v1", Kind: "Namespace"}, {Group: "apps", Version: "v1", Kind: "Deployment"}}
	if got := set.Synced(); len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("Synced() = %v, want %v", got, want)
	}
}

// FuzzLoad wants no input to crash or hang the loader.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(template("X", "{type: object}", always) + constraint("X", "{match: {namespaces: [a, 'b*']}}")))
	f.Add([]byte("apiVersion: templates.gatekeeper.sh/v1\nkind: ConstraintTemplate\nmetadata: {name: x}\nspec: {crd: {spec: {names: {kind: X}}}, targets: [{target: admission.k8s.gatekeeper.sh, code: [{engine: K8sNativeValidation, source: {validations: [{expression: 'true'}]}}]}]}\n"))
	f.Add([]byte("apiVersion: config.gatekeeper.sh/v1alpha1\nkind: Config\nspec: {match: [{processes: ['*'], excludedNamespaces: [a]}]}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := gatekeeper.Load(policy.File{Name: "f.yaml", Data: data})
		if (set == nil) != (err != nil) {
			t.Errorf("Load = %v, %v", set, err)
		}
	})
}
