package policy_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/source"
)

// clusterFile is what policies ask for in these tests.
const clusterFile = "source/testdata/cluster.yaml"

// objects returns the source of objects; no text stands for those of the file.
func objects(t testing.TB, text string) *source.Objects {
	t.Helper()
	if text == "" {
		data, err := os.ReadFile(clusterFile)
		if err != nil {
			t.Fatal(err)
		}
		text = string(data)
	}
	var all []*unstructured.Unstructured
	for doc := range strings.SplitSeq(text, "---\n") {
		all = append(all, object(t, doc))
	}
	o, err := source.NewObjects(all...)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// bound returns a policy with a parameter kind and one binding for each
// reference.
func bound(kind, spec string, refs ...string) string {
	policy, binding, _ := strings.Cut(document(spec+"\nparamKind: "+kind), "---\n")
	for i, ref := range refs {
		name := "b" + string(rune('1'+i))
		policy += "---\n" + strings.NewReplacer("{name: p}", "{name: "+name+"}", "policyName: p,", "policyName: p, paramRef: "+ref+",").Replace(binding)
	}
	return policy
}

const (
	configMaps = "{apiVersion: v1, kind: ConfigMap}"
	limits     = "{apiVersion: example.org/v1, kind: Limit}"
	says       = pods + `validations: [{expression: 'false', messageExpression: "params == null ? 'none' : params.kind + ' ' + params.metadata.name + ' ' + (has(params.data) ? params.data.who : string(params.max))"}]`
)

func TestParams(t *testing.T) {
	const allow, deny = ", parameterNotFoundAction: Allow}", ", parameterNotFoundAction: Deny}"
	tests := []struct {
		name, text string
		want       []string
	}{
		{"by name, in the namespace of the object", bound(configMaps, says, "{name: limits"+deny), []string{"deny p/b1: ConfigMap limits shop"}},
		{"by name, in another namespace", bound(configMaps, says, "{name: limits, namespace: default"+deny), []string{"deny p/b1: ConfigMap limits default"}},
		{"by selector", bound(configMaps, says, "{selector: {matchLabels: {use: limit}}"+deny), []string{"deny p/b1: ConfigMap limits shop", "deny p/b1: ConfigMap more more"}},
		{"all", bound(configMaps, says, "{selector: {}, namespace: default"+deny), []string{"deny p/b1: ConfigMap limits default"}},
		{"cluster-scoped", bound(limits, says, "{name: all"+deny), []string{"deny p/b1: Limit all 7"}},
		{"cluster-scoped in a namespace", bound(limits, says, "{name: all, namespace: shop"+deny), []string{"deny p/b1: failed to configure binding: paramRef.namespace must not be provided for a cluster-scoped `paramKind`"}},
		{"not found, Deny", bound(configMaps, says, "{name: none"+deny), []string{"deny p/b1: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"}},
		{"not found, Allow", bound(configMaps, says, "{name: none"+allow), nil},
		{"none selected, Allow", bound(configMaps, says, "{selector: {matchLabels: {use: none}}"+allow), nil},
		{"not found, Deny, Ignore", bound(configMaps, says+"\nfailurePolicy: Ignore", "{name: none"+deny), nil},
		{"binding without reference", strings.Replace(bound(configMaps, says, "{name: limits"+deny), "paramRef: {name: limits"+deny+",", "", 1), []string{"deny p/b1: none"}},
		{"several bindings", bound(configMaps, says, "{name: more"+deny, "{name: limits"+deny, "{name: more"+deny), []string{"deny p/b1: ConfigMap more more", "deny p/b2: ConfigMap limits shop", "deny p/b3: ConfigMap more more"}},
		{"unknown kind", bound("{apiVersion: example.org/v1, kind: Other}", says, "{name: x"+deny), []string{"deny p/: failed to configure policy: failed to find resource referenced by paramKind: 'example.org/v1, Kind=Other': Other is not built in, and neither its CustomResourceDefinition nor an object is given"}},
		{"some pass", bound(configMaps, pods+"variables: [{name: max, expression: int(params.data.max)}]\nvalidations: [{expression: variables.max > 1, messageExpression: \"'not ' + params.data.max\"}, {expression: size(object.spec.containers) == 1}]", "{selector: {}"+deny), []string{"deny p/b1: not 1"}},
		{"condition", bound(configMaps, says+"\nmatchConditions: [{name: a, expression: params.data.max == '2'}]", "{selector: {}"+deny), []string{"deny p/b1: ConfigMap more more"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			req := create(t, webPod)
			req.Params = objects(t, "")
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

func TestParamsOfClusterScopedObject(t *testing.T) {
	set := load(t, bound(configMaps, strings.Replace(says, "[pods]", "[nodes]", 1), "{name: limits, parameterNotFoundAction: Deny}"))
	req := create(t, "{apiVersion: v1, kind: Node, metadata: {name: node}}")
	req.Params = objects(t, "")
	violations, err := set.Evaluate(t.Context(), req)
	want := []string{"deny p/b1: failed to configure binding: cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"}
	if got := lines(violations); err != nil || !slices.Equal(got, want) {
		t.Errorf("violations = %q, error %v, want %q", got, err, want)
	}
}

// TestParamsAreNotMixedUp expects that policies with the same expressions and
// other parameters share nothing that reads them.
func TestParamsAreNotMixedUp(t *testing.T) {
	one := bound(configMaps, says, "{name: limits, parameterNotFoundAction: Deny}")
	two := strings.NewReplacer("name: p}", "name: q}", "policyName: p,", "policyName: q,", "b1", "b2", "name: limits", "name: more").Replace(one)
	req := create(t, webPod)
	req.Params = objects(t, "")
	violations, err := load(t, one+"---\n"+two).Evaluate(t.Context(), req)
	want := []string{"deny p/b1: ConfigMap limits shop", "deny q/b2: ConfigMap more more"}
	if got := lines(violations); err != nil || !slices.Equal(got, want) {
		t.Errorf("violations = %q, error %v, want %q", got, err, want)
	}
}

func TestCheckWithParams(t *testing.T) {
	text := bound(configMaps, says, "{name: more, parameterNotFoundAction: Deny}", "{selector: {}, parameterNotFoundAction: Deny}")
	req := create(t, webPod)
	if _, _, err := load(t, text).Policy("p").Check(t.Context(), req); err == nil || !strings.Contains(err.Error(), "no parameters are known") {
		t.Errorf("error = %v, want that no parameters are known", err)
	}
	req.Params = objects(t, "")
	applies, violations, err := load(t, text).Policy("p").Check(t.Context(), req)
	want := []string{" p/: ConfigMap more more", " p/: ConfigMap limits shop"}
	if got := lines(violations); err != nil || !applies || !slices.Equal(got, want) {
		t.Errorf("applies %v, violations = %q, error %v, want %q", applies, got, err, want)
	}
}

// authorizerFunc is an authorizer that counts what it is asked.
type authorizerFunc func(a authorizer.Attributes) (authorizer.Decision, error)

func (f authorizerFunc) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	decision, err := f(a)
	return decision, "", err
}

func asks(expression string) string {
	return pods + "validations: [{expression: \"" + expression + "\", message: nope}]"
}

func TestAuthorizer(t *testing.T) {
	const mayGet = "authorizer.group('').resource('pods').namespace('shop').check('get').allowed()"
	tests := []struct {
		name, expression string
		user             authenticationv1.UserInfo
		want             string
	}{
		{"aggregated group", mayGet, authenticationv1.UserInfo{Username: "ann", Groups: []string{"devs"}}, ""},
		{"nobody", mayGet, authenticationv1.UserInfo{Username: "ann"}, "deny p/p: nope"},
		{"other verb", "authorizer.group('').resource('pods').check('list').allowed()", authenticationv1.UserInfo{Groups: []string{"devs"}}, "deny p/p: nope"},
		{"subresource", "authorizer.group('').resource('pods').subresource('log').check('get').allowed()", authenticationv1.UserInfo{Groups: []string{"devs"}}, ""},
		{"path", "authorizer.path('/healthz/x').check('get').allowed() && !authorizer.path('/metrics').check('get').allowed()", authenticationv1.UserInfo{Groups: []string{"devs"}}, ""},
		{"resource name", "authorizer.group('apps').resource('deployments').namespace('shop').name('web').check('patch').allowed()", authenticationv1.UserInfo{Username: "bob"}, ""},
		{"other name", "authorizer.group('apps').resource('deployments').namespace('shop').name('db').check('patch').allowed()", authenticationv1.UserInfo{Username: "bob"}, "deny p/p: nope"},
		{"other namespace", "authorizer.group('apps').resource('deployments').namespace('x').name('web').check('patch').allowed()", authenticationv1.UserInfo{Username: "bob"}, "deny p/p: nope"},
		{"service account", "authorizer.serviceAccount('shop', 'bot').group('apps').resource('deployments').namespace('shop').name('web').check('get').allowed()", authenticationv1.UserInfo{Username: "x"}, ""},
		{"requested resource", "authorizer.requestResource.check('get').allowed()", authenticationv1.UserInfo{Groups: []string{"devs"}}, ""},
		{"masters", mayGet, authenticationv1.UserInfo{Groups: []string{"system:masters"}}, ""},
		{"built-in administrator", mayGet, authenticationv1.UserInfo{Username: "root"}, ""},
		{"role that is not given", mayGet, authenticationv1.UserInfo{Username: "eve"}, `deny p/p: failed to configure binding: ask the authorizer whether "eve" may get pods: binding "lost" gives a role that is not given: "lost"`},
		{"allowed by another", mayGet, authenticationv1.UserInfo{Username: "eve", Groups: []string{"devs"}}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			req := create(t, webPod)
			req.User, req.Authorizer = test.user, objects(t, "")
			violations, err := load(t, document(asks(test.expression))).Evaluate(t.Context(), req)
			if got := strings.Join(lines(violations), "\n"); err != nil || got != test.want {
				t.Errorf("violations = %q, error %v, want %q", got, err, test.want)
			}
		})
	}
}

// TestAuthorizerUnknown expects that nothing passes for a no when rights are
// not known, and that errors of the source are those of every policy that asks.
func TestAuthorizerUnknown(t *testing.T) {
	const denied = "!authorizer.path('/').check('get').allowed()"
	broken := authorizerFunc(func(authorizer.Attributes) (authorizer.Decision, error) {
		return authorizer.DecisionNoOpinion, errors.New("connection refused")
	})
	tests := []struct {
		name, text string
		source     policy.Authorizer
		want       []string
	}{
		{"none", document(asks(denied)), nil, []string{"deny p/p: failed to configure binding: ask the authorizer: no rights are known here"}},
		{"none, Ignore", document(asks(denied) + "\nfailurePolicy: Ignore"), nil, nil},
		{"none, not asked", document(asks("true || " + denied)), nil, nil},
		{"no RBAC", document(asks(denied)), objects(t, "{apiVersion: v1, kind: Node, metadata: {name: a}}"), []string{`deny p/p: failed to configure binding: ask the authorizer whether "ann" may get /: no RBAC bindings are given`}},
		{"broken, twice", document(asks(denied)) + "---\n" + strings.NewReplacer("name: p}", "name: q}", "policyName: p", "policyName: q").Replace(document(asks(denied))), broken, []string{
			`deny p/p: failed to configure binding: ask the authorizer whether "ann" may get /: connection refused`,
			`deny q/q: failed to configure binding: ask the authorizer whether "ann" may get /: connection refused`}},
		{"in an annotation, where there is none", strings.Replace(document(pods+"auditAnnotations: [{key: a, valueExpression: \"authorizer.path('/').check('get').reason()\"}]"), "[Deny]", "[Audit]", 1), objects(t, ""), []string{
			"deny p/p: expression 'authorizer.path('/').check('get').reason()' resulted in error: no such attribute(s): authorizer"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			req := create(t, webPod)
			req.User.Username, req.Authorizer = "ann", test.source
			violations, err := load(t, test.text).Evaluate(t.Context(), req)
			if got := lines(violations); err != nil || !slices.Equal(got, test.want) {
				t.Errorf("violations = %q, error %v, want %q", got, err, test.want)
			}
		})
	}
}

func TestAuthorizerIsAskedOnce(t *testing.T) {
	asked := 0
	text := document(pods + `
variables: [{name: may, expression: "authorizer.path('/').check('get').allowed()"}]
matchConditions: [{name: a, expression: "authorizer.path('/').check('get').allowed()"}]
validations: [{expression: variables.may}, {expression: "authorizer.path('/').check('get').allowed()"}]`)
	req := create(t, webPod)
	req.Authorizer = authorizerFunc(func(authorizer.Attributes) (authorizer.Decision, error) {
		asked++
		return authorizer.DecisionAllow, nil
	})
	violations, err := load(t, text).Evaluate(t.Context(), req)
	if err != nil || len(violations) > 0 || asked != 1 {
		t.Errorf("violations %v, error %v, asked %d times, want once", violations, err, asked)
	}
}

// TestEquivalent judges objects of versions that the policy does not name.
func TestEquivalent(t *testing.T) {
	rule := func(group, version, resource, more string) string {
		return "matchConstraints:\n" + more + "  resourceRules:\n  - {apiGroups: ['" + group + "'], apiVersions: [" + version + "], operations: [CREATE], resources: [" + resource + "]}\n"
	}
	const says = `validations: [{expression: 'false', messageExpression: "request.kind.group + '/' + request.kind.version + ' ' + request.requestKind.group + '/' + request.requestKind.version + ' ' + object.apiVersion + ' ' + request.resource.version"}]`
	const old = "{apiVersion: extensions/v1beta1, kind: Deployment, metadata: {name: web}, spec: {rollbackTo: {revision: 1}, template: {spec: {containers: [{name: a, image: b}]}}}}"
	tests := []struct{ name, spec, object, want string }{
		{"Deployment", rule("apps", "v1", "deployments", "") + says, old, "deny p/p: apps/v1 extensions/v1beta1 apps/v1 v1"},
		{"fields that are gone", rule("apps", "v1", "deployments", "") + "validations: [{expression: '!has(object.spec.rollbackTo) && object.spec.template.spec.containers[0].name == \"a\"'}]", old, ""},
		{"match conditions see the resource of the request", rule("apps", "v1", "deployments", "") + "matchConditions: [{name: a, expression: \"request.resource.version == 'v1beta1' && request.kind.version == 'v1'\"}]\nvalidations: [{expression: \"request.resource.version == 'v1beta1'\", message: nope}]", old, "deny p/p: nope"},
		{"Exact", rule("apps", "v1", "deployments", "  matchPolicy: Exact\n") + says, old, ""},
		{"the version itself comes first", rule("extensions", "v1beta1", "deployments", "") + says, old, "deny p/p: extensions/v1beta1 extensions/v1beta1 extensions/v1beta1 v1beta1"},
		{"another resource", rule("apps", "v1", "statefulsets", "") + says, old, ""},
		{"excluded", strings.Replace(rule("apps", "v1", "deployments", ""), "  resourceRules", "  excludeResourceRules: [{apiGroups: [apps], apiVersions: [v1beta1], operations: ['*'], resources: ['*']}]\n  resourceRules", 1) + says, old, ""},
		{"CronJob", rule("batch", "v1", "cronjobs", "") + says, "{apiVersion: batch/v1beta1, kind: CronJob, metadata: {name: web}}", "deny p/p: batch/v1 batch/v1beta1 batch/v1 v1"},
		{"Ingress", rule("networking.k8s.io", "v1", "ingresses", "") + `validations: [{expression: "object.spec.defaultBackend.service.port.name == 'http' && object.spec.rules[0].http.paths[0].backend.service.port.number == 80 && object.spec.rules[0].http.paths[0].pathType == 'ImplementationSpecific' && !has(object.spec.backend)"}]`,
			"{apiVersion: extensions/v1beta1, kind: Ingress, metadata: {name: web}, spec: {backend: {serviceName: a, servicePort: http}, rules: [{http: {paths: [{backend: {serviceName: b, servicePort: 80}}]}}]}}", ""},
		{"Ingress that routes nothing", rule("networking.k8s.io", "v1", "ingresses", "") + says, "{apiVersion: networking.k8s.io/v1beta1, kind: Ingress, metadata: {name: web}}", "deny p/p: networking.k8s.io/v1 networking.k8s.io/v1beta1 networking.k8s.io/v1 v1"},
		{"HorizontalPodAutoscaler", rule("autoscaling", "v2", "horizontalpodautoscalers", "") + "validations: [{expression: 'object.spec.metrics[0].resource.target.averageUtilization == 80 && object.spec.maxReplicas == 3'}]",
			"{apiVersion: autoscaling/v1, kind: HorizontalPodAutoscaler, metadata: {name: web}, spec: {maxReplicas: 3, targetCPUUtilizationPercentage: 80}}", ""},
		{"HorizontalPodAutoscaler with conditions", rule("autoscaling", "v2", "horizontalpodautoscalers", "") + "validations: [{expression: 'object.status.conditions[0].type == \"A\" && object.status.currentMetrics[0].resource.current.averageUtilization == 7 && !has(object.metadata.annotations)'}]",
			`{apiVersion: autoscaling/v1, kind: HorizontalPodAutoscaler, metadata: {name: web, annotations: {autoscaling.alpha.kubernetes.io/conditions: '[{"type": "A", "status": "True"}]'}}, status: {currentCPUUtilizationPercentage: 7}}`, ""},
		{"HorizontalPodAutoscaler with broken conditions", rule("autoscaling", "v2", "horizontalpodautoscalers", "") + says,
			"{apiVersion: autoscaling/v1, kind: HorizontalPodAutoscaler, metadata: {name: web, annotations: {autoscaling.alpha.kubernetes.io/conditions: '[{'}}}",
			`deny p/p: failed to configure binding: failed to convert object version: HorizontalPodAutoscaler "web": convert autoscaling/v1 to autoscaling/v2: read the annotation autoscaling.alpha.kubernetes.io/conditions: unexpected end of JSON input`},
		{"HorizontalPodAutoscaler with annotations", rule("autoscaling", "v2", "horizontalpodautoscalers", "") + says,
			"{apiVersion: autoscaling/v1, kind: HorizontalPodAutoscaler, metadata: {name: web, annotations: {autoscaling.alpha.kubernetes.io/metrics: '[]'}}}",
			`deny p/p: failed to configure binding: failed to convert object version: HorizontalPodAutoscaler "web": convert autoscaling/v1 to autoscaling/v2: only the API server reads the annotation autoscaling.alpha.kubernetes.io/metrics`},
		{"what cannot be converted", rule("autoscaling", "v1", "horizontalpodautoscalers", "") + says, "{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: web}}",
			`deny p/p: failed to configure binding: failed to convert object version: HorizontalPodAutoscaler "web": only the API server converts autoscaling/v2 to autoscaling/v1`},
		{"what cannot be converted, Ignore", rule("", "v1", "events", "") + says + "\nfailurePolicy: Ignore", "{apiVersion: events.k8s.io/v1, kind: Event, metadata: {name: web}}", ""},
		{"custom kinds have no other version", rule("example.org", "v1", "things", "") + says, "{apiVersion: example.org/v2, kind: Thing, metadata: {name: web}}", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			violations, err := load(t, document(test.spec)).Evaluate(t.Context(), create(t, test.object))
			if got := strings.Join(lines(violations), "\n"); err != nil || got != test.want {
				t.Errorf("violations = %q, error %v, want %q", got, err, test.want)
			}
		})
	}
	t.Run("converted before", func(t *testing.T) {
		req := create(t, "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}}")
		req.RequestKind = schema.GroupVersionKind{Group: "extensions", Version: "v1beta1", Kind: "Deployment"}
		req.RequestResource = req.RequestKind.GroupVersion().WithResource("deployments")
		set := load(t, document(rule("apps", "v1", "deployments", "")+"validations: [{expression: 'false', messageExpression: \"request.requestKind.version + ' ' + request.requestResource.group + ' ' + request.kind.version\"}]"))
		violations, err := set.Evaluate(t.Context(), req)
		if got := strings.Join(lines(violations), "\n"); err != nil || got != "deny p/p: v1beta1 extensions v1" {
			t.Errorf("violations = %q, error %v", got, err)
		}
	})
	t.Run("scale", func(t *testing.T) {
		req := create(t, "{apiVersion: extensions/v1beta1, kind: Scale, metadata: {name: web, namespace: shop}, spec: {replicas: 3}, status: {replicas: 1, selector: {app: web}}}")
		req.Operation, req.OldObject, req.Resource.Resource, req.Subresource = admissionv1.Update, req.Object, "deployments", "scale"
		set := load(t, document(strings.Replace(rule("apps", "v1", "deployments/scale", ""), "CREATE", "UPDATE", 1)+
			"validations: [{expression: object.spec.replicas < 3, messageExpression: \"request.kind.group + ' ' + request.subResource + ' ' + oldObject.apiVersion\"}]"))
		violations, err := set.Evaluate(t.Context(), req)
		if got := strings.Join(lines(violations), "\n"); err != nil || got != "deny p/p: autoscaling scale autoscaling/v1" {
			t.Errorf("violations = %q, error %v", got, err)
		}
	})
}
