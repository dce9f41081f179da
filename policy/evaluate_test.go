package policy_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
)

func object(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var obj unstructured.Unstructured
	if err := obj.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return &obj
}

func create(t testing.TB, text string) policy.Request {
	t.Helper()
	req, err := policy.NewCreateRequest(object(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// namespaces holds the labels of the namespaces that exist.
type namespaces map[string]map[string]string

func (n namespaces) Namespace(_ context.Context, name string) (*corev1.Namespace, error) {
	labels, ok := n[name]
	if !ok {
		return nil, errors.New("no such namespace")
	}
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, nil
}

const webPod = `
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {hostNetwork: true, containers: [{name: web, image: web}]}
`

// lines prints violations as "enforcement policy/binding: message".
func lines(violations []finding.Violation) []string {
	var out []string
	for _, v := range violations {
		out = append(out, fmt.Sprintf("%s %s/%s: %s", v.Enforcement, v.Policy, v.Binding, v.Message))
	}
	return out
}

func TestEvaluate(t *testing.T) {
	const never = pods + "validations: [{expression: 'false', message: nope}]"
	second := func(text, actions string) string {
		_, binding, _ := strings.Cut(text, "---\n")
		return text + "---\n" + strings.NewReplacer("{name: p}", "{name: q}", "[Deny]", actions).Replace(binding)
	}
	selecting := func(selector string) string {
		return strings.Replace(document(never), "[Deny]", "[Deny], matchResources: "+selector, 1)
	}
	tests := []struct {
		name, text string
		want       []string
	}{
		{"holds", document(pods + "validations: [{expression: object.spec.hostNetwork == true}]"), nil},
		{"message", document(never), []string{"deny p/p: nope"}},
		{"message expression", document(pods + `validations: [{expression: 'false', message: nope, messageExpression: "object.metadata.name + ' is bad'"}]`), []string{"deny p/p: web is bad"}},
		{"message expression that fails", document(pods + `validations: [{expression: 'false', message: nope, messageExpression: string(object.spec.nodeName)}]`), []string{"deny p/p: nope"}},
		{"expression as message", document(pods + "validations: [{expression: ' 1 > 2 '}]"), []string{"deny p/p: failed expression: 1 > 2"}},
		{"all validations", document(pods + "validations: [{expression: 'false', message: a}, {expression: 'true'}, {expression: 'false', message: b}]"), []string{"deny p/p: a", "deny p/p: b"}},
		{"all bindings and actions", second(document(never), "[Warn, Audit]"), []string{"deny p/p: nope", "warn p/q: nope", "audit p/q: nope"}},
		{"runtime error, Fail", document(pods + "validations: [{expression: object.spec.nodeName == 'a'}]"), []string{"deny p/p: expression 'object.spec.nodeName == 'a'' resulted in error: no such key: nodeName"}},
		{"runtime error, Fail, Warn", strings.Replace(document(pods+"validations: [{expression: object.spec.nodeName == 'a'}]"), "[Deny]", "[Warn]", 1), []string{"warn p/p: expression 'object.spec.nodeName == 'a'' resulted in error: no such key: nodeName"}},
		{"runtime error, Ignore", document(pods + "failurePolicy: Ignore\nvalidations: [{expression: object.spec.nodeName == 'a'}, {expression: 'false', message: nope}]"), []string{"deny p/p: nope"}},
		{"cost", document(pods + "variables: [{name: l, expression: '[1,2,3,4,5,6,7,8,9,10]'}]\nvalidations: [{expression: 'variables.l.all(a, variables.l.all(b, variables.l.all(c, variables.l.all(d, variables.l.all(e, variables.l.all(f, a+b+c+d+e+f > 0))))))'}]"), []string{"deny p/p: expression 'variables.l.all(a, variables.l.all(b, variables.l.all(c, variables.l.all(d, variables.l.all(e, variables.l.all(f, a+b+c+d+e+f > 0))))))' resulted in error: operation cancelled: actual cost limit exceeded"}},
		{"variables", document(pods + "variables: [{name: a, expression: object.spec.hostNetwork}, {name: b, expression: '!variables.a'}]\nvalidations: [{expression: variables.b, message: nope}]"), []string{"deny p/p: nope"}},
		{"condition holds", document(never + "\nmatchConditions: [{name: a, expression: object.spec.hostNetwork == true}]"), []string{"deny p/p: nope"}},
		{"condition does not hold", document(never + "\nmatchConditions: [{name: a, expression: 'true'}, {name: b, expression: '!object.spec.hostNetwork'}]"), nil},
		{"condition fails", document(never + "\nmatchConditions: [{name: a, expression: object.spec.nodeName == 'a'}]"), []string{"deny p/p: expression 'object.spec.nodeName == 'a'' resulted in error: no such key: nodeName"}},
		{"condition fails, Ignore", document(never + "\nfailurePolicy: Ignore\nmatchConditions: [{name: a, expression: object.spec.nodeName == 'a'}]"), nil},
		{"namespace object", document(pods + "validations: [{expression: namespaceObject.metadata.labels.team == 'b', message: nope}]"), []string{"deny p/p: nope"}},
		{"request", document(pods + `validations: [{expression: 'false', messageExpression: "[request.operation, request.kind.kind, request.resource.resource, request.namespace, request.name, request.userInfo.username, request.userInfo.groups[0], string(request.dryRun)].join(' ')"}]`), []string{"deny p/p: CREATE Pod pods shop web ann devs true"}},
		{"old object is null", document(pods + "validations: [{expression: oldObject != null, message: nope}]"), []string{"deny p/p: nope"}},
		{"audit annotation that fails", strings.Replace(document(pods+"auditAnnotations: [{key: a, valueExpression: string(object.spec.nodeName)}]"), "[Deny]", "[Audit]", 1), []string{"deny p/p: expression 'string(object.spec.nodeName)' resulted in error: no such key: nodeName"}},

		{"operation", document(strings.Replace(never, "CREATE", "DELETE", 1)), nil},
		{"any operation", document(strings.Replace(never, "CREATE", "'*'", 1)), []string{"deny p/p: nope"}},
		{"group", document(strings.Replace(never, `[""]`, "[apps]", 1)), nil},
		{"version", document(strings.Replace(never, "v1", "v2", 1)), nil},
		{"any resource", document(strings.NewReplacer(`[""]`, "['*']", "[v1]", "['*']", "[pods]", "['*']").Replace(never)), []string{"deny p/p: nope"}},
		{"subresource", document(strings.Replace(never, "[pods]", "[pods/status]", 1)), nil},
		{"any subresource", document(strings.Replace(never, "[pods]", "['pods/*']", 1)), []string{"deny p/p: nope"}},
		{"scope", document(strings.Replace(never, "[pods]", "[pods], scope: Cluster", 1)), nil},
		{"resource name", document(strings.Replace(never, "[pods]", "[pods], resourceNames: [web]", 1)), []string{"deny p/p: nope"}},
		{"other resource name", document(strings.Replace(never, "[pods]", "[pods], resourceNames: [db]", 1)), nil},
		{"excluded", document(strings.Replace(never, "matchConstraints:", "matchConstraints:\n  excludeResourceRules: [{apiGroups: [''], apiVersions: [v1], operations: ['*'], resources: [pods]}]", 1)), nil},
		{"object selector", document(strings.Replace(never, "matchConstraints:", "matchConstraints:\n  objectSelector: {matchLabels: {app: db}}", 1)), nil},
		{"binding: namespace", selecting("{namespaceSelector: {matchLabels: {team: a}}}"), []string{"deny p/p: nope"}},
		{"binding: other namespace", selecting("{namespaceSelector: {matchLabels: {team: b}}}"), nil},
		{"binding: objects", selecting("{objectSelector: {matchLabels: {app: db}}}"), nil},
		{"binding: rules", selecting("{resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments]}]}"), nil},
		{"one binding of two", second(selecting("{objectSelector: {matchLabels: {app: db}}}"), "[Audit]"), nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			req := create(t, webPod)
			req.User = authenticationv1.UserInfo{Username: "ann", Groups: []string{"devs"}}
			req.DryRun = true
			req.Namespaces = namespaces{"shop": {"team": "a"}}
			violations, err := load(t, test.text).Evaluate(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if got := lines(violations); !slices.Equal(got, test.want) {
				t.Errorf("violations = %q, want %q", got, test.want)
			}
		})
	}
}

func TestAuditAnnotations(t *testing.T) {
	set := load(t, document(pods+`
validations: [{expression: 'false', message: nope}]
auditAnnotations:
- {key: who, valueExpression: string(object.metadata.name)}
- {key: empty, valueExpression: "' '"}
- {key: none, valueExpression: 'null'}`))
	violations, err := set.Evaluate(t.Context(), create(t, webPod))
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"who": "web"}; len(violations) != 1 || !maps.Equal(violations[0].Details, want) {
		t.Errorf("violations = %+v, want one with details %v", violations, want)
	}
}

// TestUnknownNamespace covers a namespace that a policy needs and nobody knows.
func TestUnknownNamespace(t *testing.T) {
	selecting := strings.Replace(valid, "matchConstraints:", "matchConstraints:\n  namespaceSelector: {matchLabels: {team: a}}", 1)
	bound := strings.Replace(document(valid), "[Deny]", "[Audit], matchResources: {namespaceSelector: {matchLabels: {team: a}}}", 1)
	tests := []struct {
		name, text string
		source     policy.Namespaces
		want       string
	}{
		{"selector of the policy", document(selecting), namespaces{}, `deny p/: failed to configure policy: Internal error occurred: look up namespace "shop": no such namespace`},
		{"selector of the binding", bound, namespaces{}, `deny p/p: failed to configure binding: Internal error occurred: look up namespace "shop": no such namespace`},
		{"expression", document(pods + "validations: [{expression: namespaceObject != null}]"), namespaces{}, `deny p/p: failed to configure binding: look up namespace "shop": no such namespace`},
		{"nothing is known", document(selecting), nil, `deny p/: failed to configure policy: Internal error occurred: look up namespace "shop": no namespaces are known`},
		{"found nothing", document(selecting), policy.NamespacesFunc(func(context.Context, string) (*corev1.Namespace, error) { return nil, nil }), `deny p/: failed to configure policy: Internal error occurred: look up namespace "shop": not found`},
		{"Ignore", document(selecting + "\nfailurePolicy: Ignore"), namespaces{}, ""},
		{"not needed", document(valid), nil, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			req := create(t, webPod)
			req.Namespaces = test.source
			violations, err := load(t, test.text).Evaluate(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(lines(violations), "\n"); got != test.want {
				t.Errorf("violations = %q, want %q", got, test.want)
			}
		})
	}
}

func TestOperations(t *testing.T) {
	rules := strings.NewReplacer("CREATE", "'*'", "[pods]", "[pods, 'pods/*', namespaces, nodes]").Replace(pods)
	set := load(t, document(rules+`validations: [{expression: 'false', messageExpression: "request.operation + ' ' +
(object == null ? 'null' : object.kind) + ' ' + (oldObject == null ? 'null' : oldObject.kind) + ' ' + (namespaceObject == null ? 'null' : namespaceObject.metadata.name)"}]`))
	pod := object(t, webPod)
	tests := []struct {
		name string
		edit func(*policy.Request)
		want string
	}{
		{"create", func(*policy.Request) {}, "CREATE Pod null shop"},
		{"update", func(r *policy.Request) { r.Operation, r.OldObject = admissionv1.Update, pod }, "UPDATE Pod Pod shop"},
		{"delete", func(r *policy.Request) { r.Operation, r.Object, r.OldObject = admissionv1.Delete, nil, pod }, "DELETE null Pod shop"},
		{"connect", func(r *policy.Request) {
			r.Operation, r.Subresource, r.Object = admissionv1.Connect, "exec", object(t, "{apiVersion: v1, kind: PodExecOptions, command: [sh]}")
		}, "CONNECT PodExecOptions null shop"},
		{"namespace", func(r *policy.Request) { *r = create(t, "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}") }, "CREATE Namespace null null"},
		{"cluster-scoped", func(r *policy.Request) { *r = create(t, "{apiVersion: v1, kind: Node, metadata: {name: node}}") }, "CREATE Node null null"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			req := create(t, webPod)
			test.edit(&req)
			req.Namespaces = namespaces{"shop": nil}
			violations, err := set.Evaluate(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(lines(violations), "\n"); got != "deny p/p: "+test.want {
				t.Errorf("violations = %q, want %q", got, test.want)
			}
		})
	}
}

// TestReserved expects that no policy, however wide, sees what would break a
// cluster or could not be taken back.
func TestReserved(t *testing.T) {
	set := load(t, document(strings.NewReplacer(`[""]`, "['*']", "[v1]", "['*']", "[pods]", "['*']").Replace(pods)+"validations: [{expression: 'false'}]"))
	for resource, want := range map[schema.GroupVersionResource]bool{
		{Group: "authentication.k8s.io", Version: "v1", Resource: "tokenreviews"}:                           false,
		{Group: "authorization.k8s.io", Version: "v1", Resource: "subjectaccessreviews"}:                    false,
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"}:     false,
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingadmissionpolicybindings"}: false,
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"}: true,
		{Group: "example.org", Version: "v1", Resource: "validatingadmissionpolicies"}:                      true,
	} {
		req := policy.Request{Operation: admissionv1.Create, Resource: resource, Object: object(t, "{apiVersion: v1, kind: X}")}
		violations, err := set.Evaluate(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		applies, _, err := set.Policy("p").Check(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(violations) > 0; got != want || applies != want {
			t.Errorf("%v: violated %v, applies %v, want %v", resource, got, applies, want)
		}
	}
}

func TestCheck(t *testing.T) {
	selecting := func(text string) string {
		return strings.Replace(text, "[Deny]", "[Audit], matchResources: {objectSelector: {matchLabels: {app: none}}}", 1)
	}
	tests := []struct {
		name, text string
		applies    bool
		want       []string
		wantErr    string
	}{
		{"bindings do not count", selecting(document(pods + "validations: [{expression: 'false', message: nope}]")), true, []string{" p/: nope"}, ""},
		{"holds", document(valid), true, nil, ""},
		{"other resource", document(strings.Replace(valid, "[pods]", "[nodes]", 1)), false, nil, ""},
		{"condition", document(valid + "\nmatchConditions: [{name: a, expression: 'false'}]"), false, nil, ""},
		{"annotations only", document(pods + "auditAnnotations: [{key: a, valueExpression: \"'x'\"}]"), true, nil, ""},
		{"error, Fail", document(pods + "validations: [{expression: object.spec.nodeName == 'a'}]"), false, nil, `evaluate policy "p": expression 'object.spec.nodeName == 'a'' resulted in error: no such key: nodeName`},
		{"error, Ignore", document(pods + "failurePolicy: Ignore\nvalidations: [{expression: object.spec.nodeName == 'a'}]"), false, nil, "no such key"},
		{"error of an annotation", document(valid + "\nauditAnnotations: [{key: a, valueExpression: string(object.spec.nodeName)}]"), false, nil, "no such key"},
		{"unknown namespace", document(pods + "validations: [{expression: namespaceObject != null}]"), false, nil, "no namespaces are known"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			applies, violations, err := load(t, test.text).Policy("p").Check(t.Context(), create(t, webPod))
			if test.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantErr) {
					t.Errorf("error = %v, want %q", err, test.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := lines(violations); applies != test.applies || !slices.Equal(got, test.want) {
				t.Errorf("applies = %v, violations = %q, want %v, %q", applies, got, test.applies, test.want)
			}
		})
	}
}

func TestNewCreateRequest(t *testing.T) {
	tests := []struct {
		name, text         string
		resource           string
		namespace, content string // content is JSON of the object that policies see, without metadata
		wantErr            string
	}{
		{"nulls go, fields that are always there come", "{apiVersion: v1, kind: Pod, metadata: {namespace: shop}, spec: {containers: [{name: a, securityContext: null}], typo: 1}}",
			"pods", "shop", `map[containers:[map[name:a resources:map[]]]]`, ""},
		{"no containers", "{apiVersion: v1, kind: Pod, spec: {}}", "pods", "default", "map[]", ""},
		{"irregular plural", "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, spec: {podSelector: {}}}", "networkpolicies", "default", "map[podSelector:map[]]", ""},
		{"cluster-scoped", "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {namespace: shop}}", "clusterroles", "", "<nil>", ""},
		{"namespace", "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}", "namespaces", "shop", "map[]", ""},
		{"custom kind stays as it is", "{apiVersion: example.org/v1, kind: Thing, spec: {a: null}}", "things", "", "map[a:<nil>]", ""},
		{"value that the kind cannot hold", "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {hostNetwork: 'true'}}", "", "", "", `read Pod "web": `},
		{"no kind", "{apiVersion: v1, kind: '', metadata: {name: web}}", "", "", "", `read object "web": apiVersion and kind are required`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			obj := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(test.text), &obj.Object); err != nil {
				t.Fatal(err)
			}
			before := obj.DeepCopy()
			req, err := policy.NewCreateRequest(obj)
			if !reflect.DeepEqual(obj, before) {
				t.Error("the object is changed")
			}
			if test.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantErr) {
					t.Fatalf("error = %v, want %q", err, test.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if req.Resource.Resource != test.resource || req.Namespace != test.namespace {
				t.Errorf("resource %s, namespace %q, want %s, %q", req.Resource.Resource, req.Namespace, test.resource, test.namespace)
			}
			if got := fmt.Sprint(req.Object.Object["spec"]); got != test.content {
				t.Errorf("object = %s, want %s", got, test.content)
			}
		})
	}
}

// TestEvaluateIsPure expects that policies share nothing: the violations of
// all together are those of each alone, and the request stays as it was.
func TestEvaluateIsPure(t *testing.T) {
	one := document(pods + "variables: [{name: a, expression: object.metadata.name}]\nvalidations: [{expression: variables.a == 'x', messageExpression: string(variables.a)}]")
	two := strings.NewReplacer("name: p}", "name: q}", "policyName: p", "policyName: q", "name == ", "labels.app == ", "metadata.name", "metadata.labels.app + '!'").Replace(one)
	req := create(t, webPod)
	before := req.Object.DeepCopy()
	var want []string
	for _, text := range []string{one, two} {
		violations, err := load(t, text).Evaluate(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, lines(violations)...)
	}
	violations, err := load(t, two+"---\n"+one).Evaluate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if got := lines(violations); !slices.Equal(got, want) || len(got) != 2 {
		t.Errorf("together %q, alone %q", got, want)
	}
	if !reflect.DeepEqual(req.Object, before) {
		t.Error("the object is changed")
	}
}

func TestEvaluateStopsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := load(t, document(valid)).Evaluate(ctx, create(t, webPod)); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want context.Canceled", err)
	}
}

func TestWebhookRules(t *testing.T) {
	set := load(t, document(`
matchConstraints:
  resourceRules:
  - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments, statefulsets]}
  - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [daemonsets]}
  - {apiGroups: [""], apiVersions: [v1], operations: ['*'], resources: [pods], scope: Namespaced, resourceNames: [web]}
validations: [{expression: 'true'}]`)+"---\n"+strings.NewReplacer("name: p}", "name: q}", "policyName: p", "policyName: q").Replace(document(`
matchConstraints:
  resourceRules:
  - {apiGroups: [apps], apiVersions: [v1], operations: [UPDATE], resources: [daemonsets]}
validations: [{expression: 'true'}]`)))
	var got []string
	for _, r := range set.WebhookRules() {
		got = append(got, fmt.Sprintf("%v %v %v %v %v", r.APIGroups, r.APIVersions, r.Resources, *r.Scope, r.Operations))
	}
	want := []string{
		"[] [v1] [pods] Namespaced [CONNECT CREATE DELETE UPDATE]",
		"[apps] [v1] [daemonsets deployments statefulsets] * [CREATE UPDATE]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("rules = %q, want %q", got, want)
	}
}
