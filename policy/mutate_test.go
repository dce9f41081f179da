package policy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubeguardian/kubeguardian/policy"
)

// mutating returns a mutating policy of this name with its binding.
func mutating(name, spec string) string {
	return `apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: ` + name + `}
spec:
  reinvocationPolicy: Never
` + indent(spec) + `
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: ` + name + `}
spec: {policyName: ` + name + `}
`
}

func apply(expression string) string {
	return "mutations:\n- patchType: ApplyConfiguration\n  applyConfiguration:\n    expression: >-\n      " + expression + "\n"
}

func jsonPatch(expression string) string {
	return "mutations:\n- patchType: JSONPatch\n  jsonPatch:\n    expression: >-\n      " + expression + "\n"
}

func label(key, value string) string {
	return apply("Object{metadata: Object.metadata{labels: {'" + key + "': " + value + "}}}")
}

func again(text string) string {
	return strings.Replace(text, "reinvocationPolicy: Never", "reinvocationPolicy: IfNeeded", 1)
}

// outcome says what becomes of a request: the changes, and what is left at a
// path of the object, or the error.
func outcome(t *testing.T, set *policy.Set, req policy.Request, path ...string) string {
	t.Helper()
	before := req.Object.DeepCopy()
	patched, changes, err := set.Mutate(t.Context(), req)
	if !reflect.DeepEqual(req.Object, before) {
		t.Error("the object of the request is changed")
	}
	if err != nil {
		return err.Error()
	}
	if len(changes) == 0 && patched != req.Object {
		t.Error("another object without a change")
	}
	var value any = patched.Object
	for _, step := range path {
		fields, _ := value.(map[string]any)
		value = fields[step]
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range changes {
		names = append(names, c.Policy+"/"+c.Binding)
	}
	return fmt.Sprintf("%s %s", names, text)
}

func TestMutate(t *testing.T) {
	labels := []string{"metadata", "labels"}
	containers := []string{"spec", "containers"}
	tests := []struct {
		name, text string
		path       []string
		want       string
	}{
		{"merge", mutating("p", pods+label("a", "'b'")), labels, `[p/p] {"a":"b","app":"web"}`},
		{"merge by key", mutating("p", pods+apply("Object{spec: Object.spec{containers: object.spec.containers.map(c, Object.spec.containers{name: c.name, imagePullPolicy: 'Always'})}}")), containers,
			`[p/p] [{"image":"web","imagePullPolicy":"Always","name":"web","resources":{}}]`},
		{"add to a list", mutating("p", pods+apply("Object{spec: Object.spec{containers: [Object.spec.containers{name: 'x', image: 'y'}]}}")), containers,
			`[p/p] [{"image":"web","name":"web","resources":{}},{"image":"y","name":"x","resources":{}}]`},
		{"patch", mutating("p", pods+jsonPatch("[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'c'}, JSONPatch{op: 'remove', path: '/spec/hostNetwork'}]")), labels, `[p/p] {"a/b":"c","app":"web"}`},
		{"patch with an object", mutating("p", pods+jsonPatch("[JSONPatch{op: 'replace', path: '/spec/containers/0/securityContext', value: Object.spec.containers.securityContext{privileged: false}}]")), containers,
			`[p/p] [{"image":"web","name":"web","resources":{},"securityContext":{"privileged":false}}]`},
		{"patch that does not apply", mutating("p", pods+jsonPatch("[JSONPatch{op: 'remove', path: '/spec/nodeName'}]")), containers,
			`policy 'p' with binding 'p' denied request: JSON Patch: error in remove for path: '/spec/nodeName': Unable to remove nonexistent key: nodeName: missing value`},
		{"test that fails", mutating("p", pods+jsonPatch("[JSONPatch{op: 'test', path: '/metadata/labels/app', value: 'db'}, JSONPatch{op: 'remove', path: '/metadata/labels/app'}]")), labels, `[] {"app":"web"}`},
		{"nothing changes", mutating("p", pods+label("app", "'web'")), labels, `[] {"app":"web"}`},
		{"several mutations", mutating("p", pods+label("a", "'b'")+strings.TrimPrefix(label("c", "object.metadata.labels['a']"), "mutations:\n")), labels, `[p/p] {"a":"b","app":"web","c":"b"}`},
		{"variables", mutating("p", pods+"variables: [{name: v, expression: \"object.metadata.labels['app'] + '1'\"}]\n"+label("a", "variables.v")), labels, `[p/p] {"a":"web1","app":"web"}`},
		{"condition", mutating("p", pods+"matchConditions: [{name: a, expression: \"object.metadata.labels['app'] == 'db'\"}]\n"+label("a", "'b'")), labels, `[] {"app":"web"}`},
		{"condition that fails", mutating("p", pods+"matchConditions: [{name: a, expression: object.spec.nodeName == 'a'}]\n"+label("a", "'b'")), labels, `policy 'p' with binding 'p' denied request: expression 'object.spec.nodeName == 'a'' resulted in error: no such key: nodeName`},
		{"expression that fails", mutating("p", pods+label("a", "object.spec.nodeName")), labels, `policy 'p' with binding 'p' denied request: expression 'Object{metadata: Object.metadata{labels: {'a': object.spec.nodeName}}}' resulted in error: no such key: nodeName`},
		{"expression that fails, Ignore", mutating("p", pods+"failurePolicy: Ignore\n"+label("a", "object.spec.nodeName")), labels, `[] {"app":"web"}`},
		{"any resource", mutating("p", strings.NewReplacer("[pods]", "['*']", "[\"\"]", "['*']").Replace(pods)+label("a", "'b'")), labels, `[p/p] {"a":"b","app":"web"}`},
		{"other operation", mutating("p", strings.Replace(pods, "CREATE", "UPDATE", 1)+label("a", "'b'")), labels, `[] {"app":"web"}`},
		{"in the order of names, each sees what those before it did", mutating("b", pods+label("b", "string(size(object.metadata.labels))")) + "---\n" + mutating("a", pods+label("a", "string(size(object.metadata.labels))")), labels, `[a/a b/b] {"a":"1","app":"web","b":"2"}`},
		{"once more when another changes the object", again(mutating("a", pods+label("a", "string(size(object.metadata.labels))"))) + "---\n" + mutating("b", pods+label("b", "'c'")), labels, `[a/a b/b a/a] {"a":"3","app":"web","b":"c"}`},
		{"never again", mutating("a", pods+label("a", "string(size(object.metadata.labels))")) + "---\n" + again(mutating("b", pods+label("b", "'c'"))), labels, `[a/a b/b] {"a":"1","app":"web","b":"c"}`},
		{"namespace object", mutating("p", pods+label("a", "namespaceObject.metadata.labels['team']")), labels, `[p/p] {"a":"a","app":"web"}`},
		{"user", mutating("p", pods+label("a", "request.userInfo.username")), labels, `[p/p] {"a":"ann","app":"web"}`},
		{"authorizer", mutating("p", pods+label("a", "string(authorizer.path('/healthz').check('get').allowed())")), labels, `[p/p] {"a":"true","app":"web"}`},
		{"unknown field", mutating("p", pods+apply("Object{spec: Object.spec{typo: 'a'}}")), labels, `policy 'p' with binding 'p' denied request: error applying patch: failed to convert patch object to typed object: .spec.typo: field not declared in schema`},
		{"wrong type name", mutating("p", pods+apply("Object{spec: Object.metadata{labels: {'a': 'b'}}}")), labels, `policy 'p' with binding 'p' denied request: type mismatch: unexpected type name "Object.metadata", expected "Object.spec", which matches field name path from root Object type`},
		{"list that is replaced as a whole", mutating("p", pods+apply("Object{spec: Object.spec{containers: [Object.spec.containers{name: 'web', args: ['a']}]}}")), labels, `policy 'p' with binding 'p' denied request: error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.containers[0].args`},
		{"patch that is no pod, whatever the policy", mutating("p", pods+"failurePolicy: Ignore\n"+jsonPatch("[JSONPatch{op: 'add', path: '/spec/typo', value: 'a'}]")), labels, `policy 'p' with binding 'p' denied request: Internal error occurred: strict decoding error: unknown field "spec.typo"`},
		{"patch of a wrong type", mutating("p", pods+jsonPatch("[JSONPatch{op: 'add', path: '/spec/hostNetwork', value: 'a'}]")), labels, `policy 'p' with binding 'p' denied request: Internal error occurred: unrecognized type: bool`},
		{"all failures count", mutating("a", pods+label("a", "object.spec.nodeName")) + "---\n" + mutating("b", pods+label("b", "'c'")), labels, `policy 'a' with binding 'a' denied request: expression 'Object{metadata: Object.metadata{labels: {'a': object.spec.nodeName}}}' resulted in error: no such key: nodeName`},
		{"v1beta1", strings.ReplaceAll(mutating("p", pods+label("a", "'b'")), "k8s.io/v1", "k8s.io/v1beta1"), labels, `[p/p] {"a":"b","app":"web"}`},
		{"validating policies do not change anything", document(valid), labels, `[] {"app":"web"}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			req := create(t, webPod)
			req.User.Username, req.User.Groups = "ann", []string{"devs"}
			o := objects(t, "")
			req.Namespaces, req.Params, req.Authorizer = o, o, o
			if got := outcome(t, load(t, test.text), req, test.path...); got != test.want {
				t.Errorf("outcome\n%s, want\n%s", got, test.want)
			}
		})
	}
}

func TestMutateWithParams(t *testing.T) {
	const both = "paramKind: " + configMaps + "\n"
	text := mutating("p", pods+both+label("a", "params.data.who + string(size(object.metadata.labels))"))
	refer := func(ref string) string {
		return strings.Replace(text, "{policyName: p}", "{policyName: p, paramRef: "+ref+"}", 1)
	}
	tests := []struct{ name, text, want string }{
		{"by name", refer("{name: more, parameterNotFoundAction: Deny}"), `[p/p] {"a":"more1","app":"web"}`},
		{"once with each", refer("{selector: {}, parameterNotFoundAction: Deny}"), `[p/p p/p] {"a":"more2","app":"web"}`},
		{"without kind and version", strings.Replace(refer("{name: more, parameterNotFoundAction: Deny}"), "params.data.who +", "string(has(params.kind) || has(params.apiVersion)) +", 1), `[p/p] {"a":"false1","app":"web"}`},
		{"custom kinds have both", strings.NewReplacer(configMaps, limits, "params.data.who +", "string(has(params.kind) && has(params.apiVersion)) +").Replace(refer("{name: all, parameterNotFoundAction: Deny}")), `[p/p] {"a":"true1","app":"web"}`},
		{"not found", refer("{name: none, parameterNotFoundAction: Deny}"), "policy 'p' with binding 'p' denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"},
		{"not found, Allow", refer("{name: none, parameterNotFoundAction: Allow}"), `[] {"app":"web"}`},
		{"unknown kind", strings.Replace(refer("{name: a, parameterNotFoundAction: Allow}"), "kind: ConfigMap", "kind: Other", 1), `policy "p" denied request: failed to configure policy: failed to find resource referenced by paramKind: '/v1, Kind=Other': Other is not built in, and neither its CustomResourceDefinition nor an object is given`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			req := create(t, webPod)
			req.Params = objects(t, "")
			if got := outcome(t, load(t, test.text), req, "metadata", "labels"); got != test.want {
				t.Errorf("outcome\n%s, want\n%s", got, test.want)
			}
		})
	}
}

func TestMutateOtherKinds(t *testing.T) {
	const things = `
matchConstraints:
  resourceRules:
  - {apiGroups: ['*'], apiVersions: ['*'], operations: ['*'], resources: ['*']}
`
	only := func(group, version, resource string) string {
		return "matchConstraints: {resourceRules: [{apiGroups: [" + group + "], apiVersions: [" + version + "], operations: [CREATE], resources: [" + resource + "]}]}\n"
	}
	const definition = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {kind: Thing, plural: things}
  versions:
  - name: v1
    schema:
      openAPIV3Schema:
        type: object
        properties:
          parts:
            type: array
            x-kubernetes-list-type: map
            x-kubernetes-list-map-keys: [name]
            items: {type: object, properties: {name: {type: string}, size: {type: integer}, port: {x-kubernetes-int-or-string: true}}}
`
	const thing = "{apiVersion: example.org/v1, kind: Thing, metadata: {name: a, namespace: shop}, parts: [{name: a, size: 1, port: http}, {name: b, port: 80}]}"
	grow := mutating("p", things+apply("Object{metadata: Object.metadata{labels: {'a': 'b'}}, parts: [Object.parts{name: 'a', size: 2}]}"))
	tests := []struct {
		name, text, object, definitions, want string
	}{
		{"by the schema", grow, thing, definition, `[p/p] [{"name":"a","port":"http","size":2},{"name":"b","port":80}]`},
		{"without a schema", grow, thing, "", "policy 'p' with binding 'p' denied request: error applying patch: failed to convert patch object to typed object: how the list parts of a Thing is merged is not known: its CustomResourceDefinition is not given"},
		{"without a schema, no list", mutating("p", things+apply("Object{spec: Object.spec{a: 1}}")), thing, "", `[p/p] [{"name":"a","port":"http","size":1},{"name":"b","port":80}]`},
		{"patch", mutating("p", things+jsonPatch("[JSONPatch{op: 'replace', path: '/parts/1', value: 3}]")), thing, "", `[p/p] [{"name":"a","port":"http","size":1},3]`},
		{"another version", mutating("p", only("apps", "v1", "deployments")+label("a", "object.apiVersion.replace('/', '.')")),
			"{apiVersion: apps/v1beta1, kind: Deployment, metadata: {name: a}}", "", `[p/p] {"a":"apps.v1"} "apps/v1beta1"`},
		{"another version, of which there is no way back", mutating("p", only("autoscaling", "v2", "horizontalpodautoscalers")+label("a", "object.apiVersion")),
			"{apiVersion: autoscaling/v1, kind: HorizontalPodAutoscaler, metadata: {name: a}}", "", "policy 'p' with binding 'p' denied request: failed to convert object version: HorizontalPodAutoscaler \"a\": only the API server converts autoscaling/v2 to autoscaling/v1"},
		{"reserved", mutating("p", things+label("a", "'b'")), "{apiVersion: authentication.k8s.io/v1, kind: TokenReview, metadata: {name: a}}", "", `[] null`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			req := create(t, test.object)
			if test.definitions != "" {
				req.Schemas = objects(t, test.definitions)
			}
			got := outcome(t, load(t, test.text), req, "parts")
			if req.Kind.Group == "apps" && strings.HasPrefix(got, "[p/p]") { // of what else is there to look at
				got = outcome(t, load(t, test.text), req, "metadata", "labels") + strings.TrimPrefix(outcome(t, load(t, test.text), req, "apiVersion"), "[p/p]")
			}
			if got != test.want {
				t.Errorf("outcome\n%s, want\n%s", got, test.want)
			}
		})
	}
	t.Run("a newer field stays", func(t *testing.T) {
		req := create(t, webPod)
		req.Object.Object["spec"].(map[string]any)["newer"] = "x"
		got := outcome(t, load(t, mutating("p", pods+jsonPatch("[JSONPatch{op: 'add', path: '/metadata/labels/a', value: 'b'}]"))), req, "spec", "newer")
		if got != `[p/p] "x"` {
			t.Errorf("outcome %s", got)
		}
	})
	t.Run("deletion", func(t *testing.T) {
		req := create(t, thing)
		req.Operation, req.Object, req.OldObject = admissionv1.Delete, nil, req.Object
		if patched, changes, err := load(t, grow).Mutate(t.Context(), req); patched != nil || changes != nil || err != nil {
			t.Errorf("Mutate = %v, %v, %v", patched, changes, err)
		}
	})
}

func TestMutateStopsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	req := create(t, webPod)
	req.Namespaces = policy.NamespacesFunc(func(context.Context, string) (*corev1.Namespace, error) {
		cancel()
		return &corev1.Namespace{}, nil
	})
	_, _, err := load(t, mutating("p", pods+label("a", "string(namespaceObject != null)"))).Mutate(ctx, req)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want context.Canceled", err)
	}
}

func TestDeniedError(t *testing.T) {
	set := load(t, mutating("b", pods+label("a", "object.spec.nodeName"))+"---\n"+mutating("a", strings.Replace(pods, "matchConstraints:", "matchConstraints:\n  namespaceSelector: {matchLabels: {a: b}}", 1)+label("b", "'c'")))
	_, _, err := set.Mutate(t.Context(), create(t, webPod))
	var denied *policy.DeniedError
	if !errors.As(err, &denied) {
		t.Fatalf("error = %v, want a DeniedError", err)
	}
	want := []string{
		`deny a/: failed to configure policy: Internal error occurred: look up namespace "shop": no namespaces are known`,
		"deny b/b: expression 'Object{metadata: Object.metadata{labels: {'a': object.spec.nodeName}}}' resulted in error: no such key: nodeName",
	}
	if got := lines(denied.Violations); !slices.Equal(got, want) {
		t.Errorf("violations = %q, want %q", got, want)
	}
}

func TestMutatingWebhookRules(t *testing.T) {
	all := strings.NewReplacer("[CREATE]", "['*']").Replace(pods)
	set := load(t, mutating("q", all+label("a", "'b'"))+"---\n"+mutating("p", strings.Replace(pods, "[pods]", "[nodes]", 1)+label("a", "'b'"))+"---\n"+document(strings.Replace(valid, "[pods]", "[secrets]", 1)))
	var got []string
	for _, r := range set.MutatingWebhookRules() {
		got = append(got, fmt.Sprintf("%v %v", r.Resources, r.Operations))
	}
	if want := []string{"[nodes] [CREATE]", "[pods] [CONNECT CREATE UPDATE]"}; !slices.Equal(got, want) {
		t.Errorf("rules = %q, want %q", got, want)
	}
	if got := set.WebhookRules(); len(got) != 1 || got[0].Resources[0] != "secrets" {
		t.Errorf("rules of validating policies = %v", got)
	}
	if got := set.Mutating(); !slices.Equal(got, []string{"p", "q"}) || set.Len() != 1 {
		t.Errorf("Mutating = %q, Len = %d", got, set.Len())
	}
}

func TestAsks(t *testing.T) {
	const asking = "paramKind: " + configMaps + "\n"
	for text, want := range map[string]string{
		document(valid): "[] false",
		document(valid + "\nparamKind: " + configMaps):                               "[/v1, Kind=ConfigMap] false",
		mutating("p", pods+asking+label("a", "'b'")) + "---\n" + document(valid):     "[/v1, Kind=ConfigMap] false",
		document(asks("authorizer.path('/').check('get').allowed()")):                "[] true",
		mutating("p", pods+label("a", "authorizer.path('/').check('get').reason()")): "[] true",
	} {
		params, authorizer := load(t, text).Asks()
		if got := fmt.Sprint(params, authorizer); got != want {
			t.Errorf("Asks = %s, want %s\n%s", got, want, text)
		}
	}
}
