package native

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// A generator makes policies at random. The same seed makes the same.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) generator { return generator{rand.New(rand.NewPCG(seed, 0))} }

func pick[T any](g generator, list ...T) T { return list[g.IntN(len(list))] }

// chance is true once in n times.
func (g generator) chance(n int) bool { return g.IntN(n) == 0 }

// A generated policy is selected by a label of the objects, or where requests
// carry none by the name of the object that they are about.
type generated struct {
	name     string
	resource string // "pods", or "pods/exec"
	policy   *unstructured.Unstructured
	bindings []*unstructured.Unstructured
}

func (p generated) base() string {
	base, _, _ := strings.Cut(p.resource, "/")
	return base
}

func (p generated) named() bool { return strings.Contains(p.resource, "/") }

// A draft is what expressions of a policy may use.
type draft struct {
	resource  string
	params    bool
	variables []string // of type bool, named v0, v1, …
}

var general = []string{
	"true", "true", "false", "object.metadata.name.startsWith('obj')", "object != null && object.metadata.namespace == 'ns-a'",
	"request.operation == 'CREATE'", "request.operation != 'DELETE'", "request.userInfo.username == 'ann'", "'devs' in request.userInfo.groups",
	"has(object.metadata.annotations)", "object.metadata.labels['color'] == 'red'", "object.metadata.?labels['color'].orValue('') != 'blue'",
	"oldObject == null || object == null || oldObject.metadata.name == object.metadata.name", "request.dryRun",
	"namespaceObject != null && namespaceObject.metadata.labels['team'] == 'a'", "namespaceObject.metadata.annotations['tier'] == 'gold'",
	"request.namespace == 'ns-b'", "request.kind.kind != 'Pod' && request.requestKind == request.kind", "object.spec.nodeName == 'x'",
	"authorizer.group('').resource('secrets').namespace('ns-a').name('one').check('get').allowed()",
	"authorizer.path('/metrics').check('get').allowed() && !authorizer.path('/metrics').check('post').allowed()",
	"!authorizer.serviceAccount('ns-b', 'bot').group('').resource('secrets').namespace('ns-a').name('one').check('get').allowed()",
	"authorizer.requestResource.check('delete').allowed()", "authorizer.group('').resource('nodes').check('list').reason() == ''",
	"object == null || size(object.metadata.name) < 100", "1 / (size(request.name) - size(request.name)) == 1",
	"[1, 2, 3].exists(x, x == size(request.userInfo.groups))", "dyn(object) == null || oldObject == null",
}

var special = map[string][]string{
	"configmaps":               {"int(object.data.max) < 4", "object.data.word == 'alpha'", "int(object.data.word) > 1", "object.data.all(k, size(object.data[k]) < 9)"},
	"pods":                     {"object.spec.containers.all(c, c.image.startsWith('registry.example.com/'))", "!object.spec.hostNetwork", "!has(object.spec.hostPID)", "object.spec.containers.map(c, c.name).join(',') == 'main,side'"},
	"deployments":              {"object.spec.replicas <= 2", "object.spec.template.spec.containers.exists_one(c, c.name == 'main')", "quantity(object.spec.template.spec.containers[0].resources.limits.cpu).isLessThan(quantity('1'))"},
	"things":                   {"object.spec.parts.exists(p, p.name == 'b')", "object.spec.size > 2", "object.spec.parts[0].port == 'http'", "object.spec.words == ['a', 'b']"},
	"horizontalpodautoscalers": {"object.spec.metrics[0].resource.target.averageUtilization == 70", "request.kind.version == 'v2' && request.requestKind.version == 'v1'", "has(object.spec.targetCPUUtilizationPercentage)", "object.apiVersion == 'autoscaling/v2' && object.spec.maxReplicas < 5", "oldObject.apiVersion == request.resource.group + '/' + request.resource.version"},
	"clusterroles":             {"object.rules.all(r, !('*' in r.verbs))", "size(object.rules) == 0"},
	"pods/exec":                {"object.command[0] == 'ls'", "object.kind == 'PodExecOptions'", "request.subResource == 'exec'", "!has(object.container)"},
	"deployments/scale":        {"object.spec.replicas < 5", "oldObject.spec.replicas == 3", "request.kind.group == 'autoscaling'"},
}

var ofParams = []string{
	"int(params.data.max) > 2", "params.data.word != 'beta'", "params == null || params.metadata.name == 'limits'", "params.kind == 'ConfigMap'",
	"params.?data[?'max'].orValue('9') in ['1', '3', '9']", "namespaceObject == null || params.metadata.?namespace.orValue('ns-a') == namespaceObject.metadata.name",
}

func (g generator) boolean(d draft) string {
	switch n := g.IntN(10); {
	case n < 3:
		return pick(g, special[d.resource]...)
	case n < 6 && d.params:
		return pick(g, ofParams...)
	case n < 8 && len(d.variables) > 0:
		v := pick(g, d.variables...)
		return pick(g, v, "!"+v, v+" && "+pick(g, d.variables...), v+" || "+pick(g, d.variables...))
	}
	return pick(g, general...)
}

func (g generator) text(d draft) string {
	texts := []string{
		"'fixed'", "'about ' + object.metadata.name", "request.operation + ' by ' + request.userInfo.username", "'  padded  '", "'two\\nlines'", "' '",
		"string(object.spec.nodeName)", "namespaceObject.metadata.name", "string(size(request.userInfo.groups))", "string(oldObject.metadata.name)",
	}
	if d.params {
		texts = append(texts, "'word ' + params.data.word", "'limit ' + params.metadata.name + ' ' + params.data.max")
	}
	if len(d.variables) > 0 {
		texts = append(texts, "'variable ' + string("+pick(g, d.variables...)+")")
	}
	return pick(g, texts...)
}

// common returns what policies of both kinds have.
func (g generator) common(name, resource string) (d draft, spec map[string]any, paramKind string) {
	d, spec = draft{resource: resource}, map[string]any{}
	if paramKind = pick(g, "", "", "ConfigMap", "ConfigMap", "Limit", "Missing"); paramKind != "" && (paramKind != "Missing" || g.chance(3)) {
		version := map[string]string{"ConfigMap": "v1", "Limit": "example.org/v1", "Missing": "example.org/v1"}[paramKind]
		spec["paramKind"] = map[string]any{"apiVersion": version, "kind": paramKind}
		d.params = true
	} else {
		paramKind = ""
	}
	if g.chance(3) {
		spec["failurePolicy"] = "Ignore"
	}
	if g.chance(3) {
		var conditions []any
		for i := range 1 + g.IntN(2) {
			e := g.boolean(d)
			if g.chance(2) { // so that most policies are evaluated
				e = "(" + e + ") || true"
			}
			conditions = append(conditions, map[string]any{"name": fmt.Sprintf("c%d", i), "expression": e})
		}
		spec["matchConditions"] = conditions
	}
	var variables []any
	for i := range g.IntN(4) {
		variables = append(variables, map[string]any{"name": fmt.Sprintf("v%d", i), "expression": g.boolean(d)})
		d.variables = append(d.variables, fmt.Sprintf("variables.v%d", i))
	}
	if variables != nil {
		spec["variables"] = variables
	}
	return d, spec, paramKind
}

// constraints returns the match constraints of a policy.
func (g generator) constraints(p generated, operations ...any) map[string]any {
	r := resources[p.base()]
	rule := map[string]any{"apiGroups": []any{r.Group}, "apiVersions": []any{pick(g, r.Version, "*")}, "resources": []any{p.resource}, "operations": operations}
	if p.base() == "horizontalpodautoscalers" { // requests are made in v1
		rule["apiVersions"] = []any{"v2"}
	}
	out := map[string]any{"resourceRules": []any{rule}}
	if p.named() {
		rule["resourceNames"] = []any{"obj-" + p.name}
	} else {
		out["objectSelector"] = map[string]any{"matchLabels": map[string]any{p.name: "1"}}
	}
	if g.chance(3) {
		out["matchPolicy"] = "Exact"
	}
	if g.chance(4) {
		out["namespaceSelector"] = g.selector()
	}
	return out
}

func (g generator) selector() map[string]any {
	return pick(g,
		map[string]any{"matchLabels": map[string]any{"team": "a"}},
		map[string]any{"matchExpressions": []any{map[string]any{"key": "team", "operator": "NotIn", "values": []any{"b"}}}},
		map[string]any{"matchExpressions": []any{map[string]any{"key": "team", "operator": "Exists"}}})
}

func (g generator) paramRef(kind string) map[string]any {
	ref := map[string]any{"parameterNotFoundAction": pick(g, "Allow", "Deny")}
	switch g.IntN(4) {
	case 0:
		ref["selector"] = pick(g, map[string]any{}, map[string]any{"matchLabels": map[string]any{"use": "limit"}})
	case 1:
		ref["name"] = "none"
	default:
		ref["name"] = map[string]string{"ConfigMap": pick(g, "limits", "more"), "Limit": "all", "Missing": "x"}[kind]
	}
	if g.chance(4) || kind == "ConfigMap" && g.chance(3) {
		ref["namespace"] = pick(g, "default", "ns-a")
	}
	if ref["selector"] != nil && len(ref["selector"].(map[string]any)) == 0 && kind == "ConfigMap" {
		ref["selector"] = map[string]any{"matchLabels": map[string]any{"use": "limit"}} // others make ConfigMaps of their own
	}
	return ref
}

func document(kind, name string, spec map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": map[string]any{"name": name}, "spec": spec,
	}}
}

// bind adds one or two bindings; actions makes those of a validating policy.
func (g generator) bind(p *generated, kind, paramKind string, actions func() []any) {
	for i := range 1 + g.IntN(2) {
		spec := map[string]any{"policyName": p.name}
		if actions != nil {
			spec["validationActions"] = actions()
		}
		if paramKind != "" && !g.chance(6) {
			spec["paramRef"] = g.paramRef(paramKind)
		}
		if g.chance(5) {
			spec["matchResources"] = map[string]any{"namespaceSelector": g.selector()}
		}
		p.bindings = append(p.bindings, document(kind, fmt.Sprintf("%s-b%d", p.name, i), spec))
	}
}

func (g generator) validating(name, resource string) generated {
	p := generated{name: name, resource: resource}
	d, spec, paramKind := g.common(name, resource)
	spec["matchConstraints"] = g.constraints(p, pick(g, []any{"CREATE", "UPDATE", "DELETE", "CONNECT"}, []any{"*"})...)
	var validations, annotations []any
	for range g.IntN(4) {
		v := map[string]any{"expression": g.boolean(d)}
		if !g.chance(3) {
			v["message"] = pick(g, "no", " not so ", "stop: here")
		}
		if g.chance(2) {
			v["messageExpression"] = g.text(d)
		}
		if g.chance(3) {
			v["reason"] = pick(g, "Forbidden", "Invalid", "RequestEntityTooLarge")
		}
		validations = append(validations, v)
	}
	for i := range g.IntN(3) {
		annotations = append(annotations, map[string]any{"key": fmt.Sprintf("a%d", i), "valueExpression": pick(g, g.text(d), g.text(d), "null")})
	}
	if validations == nil && annotations == nil {
		validations = []any{map[string]any{"expression": "false"}}
	}
	spec["validations"], spec["auditAnnotations"] = validations, annotations
	if validations == nil {
		delete(spec, "validations")
	}
	if annotations == nil {
		delete(spec, "auditAnnotations")
	}
	p.policy = document("ValidatingAdmissionPolicy", name, spec)
	g.bind(&p, "ValidatingAdmissionPolicyBinding", paramKind, func() []any {
		return pick(g, []any{"Deny"}, []any{"Deny"}, []any{"Warn"}, []any{"Audit"}, []any{"Deny", "Audit"}, []any{"Warn", "Audit"})
	})
	return p
}

// changes are the expressions of mutations, by resource.
var changes = map[string][]string{
	"configmaps": {
		"apply Object{data: {'added': object.data.word}}", "apply Object{data: {'max': string(int(object.data.max) + 1)}}", "apply Object{data: {'n': object.data.none}}",
		"patch [JSONPatch{op: 'replace', path: '/data/word', value: 'beta'}]", "patch [JSONPatch{op: 'test', path: '/data/word', value: 'beta'}, JSONPatch{op: 'remove', path: '/data/max'}]",
		"patch [JSONPatch{op: 'remove', path: '/data/none'}]", "patch [JSONPatch{op: 'copy', from: '/data/word', path: '/data/copy'}]", "patch [JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('a~b'), value: '1'}]",
		"patch [JSONPatch{op: 'add', path: '/typo', value: '1'}]", "patch [JSONPatch{op: 'remove', path: '/data'}].filter(p, size(object.data) > 5)",
	},
	"pods": {
		"apply Object{spec: Object.spec{containers: object.spec.containers.map(c, Object.spec.containers{name: c.name, imagePullPolicy: 'Always'})}}",
		"apply Object{spec: Object.spec{containers: [Object.spec.containers{name: 'extra', image: 'x'}]}}", "apply Object{spec: Object.spec{hostNetwork: false}}",
		"apply Object{spec: Object.spec{securityContext: Object.spec.securityContext{runAsNonRoot: true, seccompProfile: Object.spec.securityContext.seccompProfile{type: 'RuntimeDefault'}}}}",
		"apply Object{spec: Object.spec{containers: [Object.spec.containers{name: 'main', args: ['a']}]}}", "apply Object{spec: Object.spec{typo: 'a'}}",
		"apply Object{spec: Object.spec{tolerations: [Object.spec.tolerations{key: 'a'}]}}", "apply Object{spec: Object.metadata{name: 'a'}}",
		"patch [JSONPatch{op: 'add', path: '/spec/containers/-', value: Object.spec.containers{name: 'extra', image: 'x'}}]", "patch [JSONPatch{op: 'remove', path: '/spec/hostNetwork'}]",
		"patch object.spec.containers.map(c, JSONPatch{op: 'test', path: '/spec/containers/0/name', value: c.name})", "patch [JSONPatch{op: 'add', path: '/spec/typo', value: 'a'}]",
		"patch [JSONPatch{op: 'move', from: '/spec/containers/1', path: '/spec/containers/0'}]",
	},
	"deployments": {
		"apply Object{spec: Object.spec{replicas: object.spec.replicas + 1}}", "apply Object{spec: Object.spec{template: Object.spec.template{metadata: Object.spec.template.metadata{labels: {'x': 'y'}}}}}",
		"apply Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{automountServiceAccountToken: false}}}}",
		"patch [JSONPatch{op: 'replace', path: '/spec/template/spec/containers/0/image', value: 'registry.example.com/b:2'}]", "patch [JSONPatch{op: 'replace', path: '/spec/replicas', value: 7}]",
	},
	"things": {
		"apply Object{spec: Object.spec{parts: [Object.spec.parts{name: 'a', size: 5}, Object.spec.parts{name: 'c', port: 9}]}}", "apply Object{spec: Object.spec{words: ['c', 'a']}}",
		"apply Object{spec: Object.spec{size: object.spec.size * 2}}", "apply Object{spec: Object.spec{loose: ['y']}}", "apply Object{spec: Object.spec{parts: [Object.spec.parts{size: 5}]}}", "apply Object{spec: Object.spec{size: 'x'}}",
		"patch [JSONPatch{op: 'add', path: '/spec/loose/0', value: 'y'}]", "patch [JSONPatch{op: 'replace', path: '/spec/parts/0', value: {'name': 'z'}}]",
	},
}

// everywhere are mutations for all resources.
var everywhere = []string{
	"apply Object{metadata: Object.metadata{labels: {'by': request.userInfo.username}}}", "apply Object{metadata: Object.metadata{annotations: {'op': request.operation + ' ' + namespaceObject.metadata.name}}}",
	"apply Object{metadata: Object.metadata{labels: {'n': string(size(object.metadata.labels.filter(k, k != 'n' && k != 'm')))}}}", "patch [JSONPatch{op: 'add', path: '/metadata/labels/m', value: string(size(object.metadata.labels.filter(k, k != 'm' && k != 'n')))}]",
	"apply Object{metadata: Object.metadata{labels: {'may': string(authorizer.path('/metrics').check('get').allowed())}}}", "patch [JSONPatch{op: 'replace', path: '/metadata/labels/color', value: 'green'}]",
}

func (g generator) change(d draft) map[string]any {
	list := slices.Concat(changes[d.resource], everywhere)
	if d.params {
		list = append(list, "apply Object{metadata: Object.metadata{labels: {'word': params.data.word}}}", "patch [JSONPatch{op: 'add', path: '/metadata/labels/max', value: params.data.max}]")
	}
	if len(d.variables) > 0 {
		list = append(list, "apply Object{metadata: Object.metadata{labels: {'var': string("+pick(g, d.variables...)+")}}}")
	}
	form, expression, _ := strings.Cut(pick(g, list...), " ")
	if form == "patch" {
		return map[string]any{"patchType": "JSONPatch", "jsonPatch": map[string]any{"expression": expression}}
	}
	return map[string]any{"patchType": "ApplyConfiguration", "applyConfiguration": map[string]any{"expression": expression}}
}

func (g generator) mutating(name, resource string) generated {
	p := generated{name: name, resource: resource}
	d, spec, paramKind := g.common(name, resource)
	spec["matchConstraints"] = g.constraints(p, pick(g, []any{"CREATE", "UPDATE"}, []any{"*"})...)
	var mutations []any
	for range 1 + g.IntN(3) {
		mutations = append(mutations, g.change(d))
	}
	spec["mutations"], spec["reinvocationPolicy"] = mutations, pick(g, "Never", "IfNeeded")
	p.policy = document("MutatingAdmissionPolicy", name, spec)
	g.bind(&p, "MutatingAdmissionPolicyBinding", paramKind, nil)
	if paramKind != "" { // the order of bindings and of parameters is not promised, and would matter
		p.bindings = p.bindings[:1]
		if ref, ok := p.bindings[0].Object["spec"].(map[string]any)["paramRef"].(map[string]any); ok && ref["selector"] != nil && paramKind == "ConfigMap" {
			ref["selector"] = map[string]any{"matchLabels": map[string]any{"only": "one"}}
		}
	}
	return p
}

// pair returns two policies of which one counts what the other adds: whichever
// comes first, the count is right, because the one that counts may be applied
// again.
func pair(resource string) (counts, adds generated) {
	make := func(name, reinvocation, expression string) generated {
		g := newGenerator(0)
		p := generated{name: name, resource: resource}
		constraints := g.constraints(p, "CREATE", "UPDATE")
		delete(constraints, "namespaceSelector")
		p.policy = document("MutatingAdmissionPolicy", name, map[string]any{
			"matchConstraints": constraints, "reinvocationPolicy": reinvocation,
			"mutations": []any{map[string]any{"patchType": "ApplyConfiguration", "applyConfiguration": map[string]any{"expression": expression}}},
		})
		p.bindings = append(p.bindings, document("MutatingAdmissionPolicyBinding", name, map[string]any{"policyName": name}))
		return p
	}
	return make("map-counts", "IfNeeded", "Object{metadata: Object.metadata{labels: {'n': string(size(object.metadata.labels.filter(k, k != 'n')))}}}"),
		make("map-adds", "Never", "Object{metadata: Object.metadata{labels: {'x': 'y'}}}")
}
