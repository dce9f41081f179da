package policy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/policy/expression"
	"github.com/kubeguardian/kubeguardian/policy/memory"
)

// askings are validations that ask for values in all the ways that CEL has.
// Their messages say what they saw.
var askings = []string{
	"has(object.spec.hostNetwork) && object.spec.hostNetwork",
	"object.?spec.?hostNetwork.orValue(true) == true",
	"dyn(object.spec.hostNetwork) == true || object.spec.hostNetwork == 'yes'",
	"size(object.spec.containers) > 1",
	"object.spec.containers.all(c, c.image.contains('/'))",
	"object.spec.containers.exists_one(c, c.name == 'web')",
	"object.spec.containers.filter(c, has(c.securityContext)).map(c, c.securityContext).exists(s, s.?privileged.orValue(false))",
	"(object.spec.containers + object.spec.?initContainers.orValue([])).map(c, c.name).exists(n, n == 'init')",
	"([{'name': 'x', 'image': 'y'}] + object.spec.containers).size() == 2",
	"'ALL' in object.spec.containers[0].securityContext.capabilities.drop",
	"object.spec.containers[0].securityContext.capabilities.drop == ['ALL']",
	"['ALL'] == object.spec.containers[0].?securityContext.?capabilities.?drop.orValue([])",
	"object.spec.containers[0] == object.spec.containers[1]",
	"object.spec.containers[0] in object.spec.containers.filter(c, c.name != 'web')",
	"object.spec == {'hostNetwork': true}",
	"{'app': 'web'} == object.metadata.labels",
	"object.metadata.labels.exists(k, k.startsWith('app') && object.metadata.labels[k] == 'web')",
	"object.metadata.labels.all(k, v, k != v)",
	"'app' in object.metadata.labels",
	"object.metadata.labels.transformList(k, v, k + v).exists(x, x == 'appweb')",
	"object.spec.containers.map(c, c.image).join(',') == 'a/web,a/init'",
	"object.spec.containers.map(c, c.name).isSorted()",
	"sets.contains(object.spec.containers.map(c, c.name), ['web'])",
	"object.spec.containers.map(c, c.name).distinct().size() == object.spec.containers.size()",
	"type(object.spec.containers[0].ports[0]) == map || type(object.spec.hostNetwork) == bool",
	"string(object.spec.replicas) == '1' || int(object.spec.replicas) > 2",
	"object.spec.replicas > 1.5",
	"object.spec.containers[0].ports.map(p, p.port).sum() < 100",
	"optional.ofNonZeroValue(object.metadata.labels).hasValue()",
	"object.spec.containers.slice(0, 1).size() == 1",
	"request.operation == 'UPDATE' ? object.spec != oldObject.spec : true",
	"request.operation != 'UPDATE' || object.spec.containers == oldObject.spec.containers",
	"request.operation != 'UPDATE' || oldObject.spec.containers[0] in object.spec.containers",
	"object == null || oldObject == null || object.metadata == oldObject.metadata",
	"request.userInfo.username == 'ada' && 'dev' in request.userInfo.groups",
	"request.?subResource.orValue('none') == 'none'",
	"request.kind.kind == 'Thing' && request.resource.resource != ''",
	"has(request.userInfo.extra) || request.dryRun || request.namespace == 'shop'",
	"request.requestKind.kind == 'Pod'",
	"namespaceObject.metadata.labels['app'] == 'web'",
	"namespaceObject == null || has(namespaceObject.metadata.annotations)",
	"namespaceObject.metadata.?labels.orValue({}) == object.metadata.labels",
	"namespaceObject.metadata.labels.exists(k, k in object.metadata.labels) && namespaceObject.metadata.name == 'shop'",
	"has(namespaceObject.spec) || namespaceObject.?status.phase.orValue('') == 'Active'",
	"object.spec.containers[size(object.spec.containers) - 1].?name == optional.of('web')",
	"variables.names.exists(n, n == 'web') && variables.first.?image.orValue('') != ''",
}

// memoryPolicies returns policies that ask, and the built-in ones.
func memoryPolicies(t testing.TB) []*Policy {
	t.Helper()
	var files []File
	for i, e := range askings {
		files = append(files, File{fmt.Sprintf("ask-%d.yaml", i), fmt.Appendf(nil, `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: ask-%[1]d}
spec:
  matchConstraints: {resourceRules: [{apiGroups: ["*"], apiVersions: ["*"], operations: ["*"], resources: ["*"]}]}
  matchConditions: [{name: c, expression: "!has(object.spec.skip) || object.spec.skip != 'ask-%[1]d'"}]
  variables:
  - {name: names, expression: "object.spec.containers.map(c, c.name)"}
  - {name: first, expression: "object.spec.containers[0]"}
  validations:
  - expression: >-
      %[2]s
    messageExpression: "'the first is ' + string(variables.first.name) + ' of ' + string(variables.names.size())"
  auditAnnotations: [{key: names, valueExpression: "variables.names.join(',')"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: ask-%[1]d}
spec: {policyName: ask-%[1]d, validationActions: [Deny]}
`, i, e)})
	}
	names, err := filepath.Glob("../content/policies/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, File{name, data})
	}
	set, err := Load(files...)
	if err != nil {
		t.Fatal(err)
	}
	return set.Policies()
}

const memoryObject = `
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
spec:
  hostNetwork: true
  replicas: 2
  initContainers: [{name: init, image: a/init}]
  containers:
  - {name: web, image: a/web, ports: [{port: 80}], securityContext: {privileged: true, capabilities: {drop: [ALL]}}}
  - {name: init, image: a/init, securityContext: {runAsUser: 0, runAsNonRoot: true, allowPrivilegeEscalation: false}}
`

// others are what fields are changed to.
var others = []any{nil, true, false, int64(0), int64(1), int64(3), 1.0, 2.5, "", "web", "ALL", "a/init", []any{}, []any{"ALL"}, []any{"web", int64(1)},
	map[string]any{}, map[string]any{"app": "web"}, map[string]any{"name": "web", "image": "web"}}

// change changes something anywhere in a value.
func change(r *rand.Rand, value any) any {
	if r.IntN(6) == 0 {
		return runtime.DeepCopyJSONValue(others[r.IntN(len(others))])
	}
	switch v := value.(type) {
	case map[string]any:
		keys := slices.Sorted(maps.Keys(v))
		if len(keys) == 0 {
			return value
		}
		key := keys[r.IntN(len(keys))]
		if r.IntN(5) == 0 {
			delete(v, key)
		} else {
			v[key] = change(r, v[key])
		}
	case []any:
		if len(v) == 0 {
			return value
		}
		i := r.IntN(len(v))
		switch r.IntN(5) {
		case 0:
			return slices.Delete(v, i, i+1)
		case 1:
			return append(v, runtime.DeepCopyJSONValue(v[i]))
		}
		v[i] = change(r, v[i])
	}
	return value
}

// randomRequest returns a request about an object that is a few changes away
// from memoryObject.
func randomRequest(t testing.TB, r *rand.Rand) Request {
	t.Helper()
	object := func() *unstructured.Unstructured {
		var content map[string]any
		if err := yaml.Unmarshal([]byte(memoryObject), &content); err != nil {
			t.Fatal(err)
		}
		content = runtime.DeepCopyJSON(numbers(content).(map[string]any))
		for range r.IntN(4) {
			for _, part := range []string{"spec", "metadata"} {
				content[part] = change(r, content[part])
			}
		}
		return &unstructured.Unstructured{Object: content}
	}
	resources := []string{"pods", "things"}
	req := Request{
		Operation: admissionv1.Create, Kind: schema.GroupVersionKind{Version: "v1", Kind: "Pod"},
		Resource:  schema.GroupVersionResource{Version: "v1", Resource: resources[r.IntN(2)]},
		Namespace: "shop", Name: fmt.Sprint("web-", r.IntN(1000)), Object: object(), DryRun: r.IntN(2) == 0,
		Namespaces: randomNamespace(r),
	}
	if r.IntN(4) == 0 {
		req.Namespace = ""
	}
	if r.IntN(3) == 0 {
		req.Subresource = "ephemeralcontainers"
	}
	if r.IntN(2) == 0 {
		req.User.Username, req.User.Groups = "ada", []string{"dev"}
	}
	switch r.IntN(4) {
	case 0:
		req.Operation, req.OldObject = admissionv1.Update, object()
	case 1:
		req.Operation, req.OldObject = admissionv1.Update, req.Object.DeepCopy()
	case 2:
		if r.IntN(4) == 0 {
			req.Operation, req.OldObject, req.Object = admissionv1.Delete, req.Object, nil
		}
	}
	return req
}

// randomNamespace is what is known of every namespace.
func randomNamespace(r *rand.Rand) Namespaces {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	for key, values := range map[string][]string{"app": {"web", "db"}, "tier": {"front"}} {
		if r.IntN(2) == 0 {
			metav1.SetMetaDataLabel(&ns.ObjectMeta, key, values[r.IntN(len(values))])
		}
	}
	if r.IntN(2) == 0 {
		metav1.SetMetaDataAnnotation(&ns.ObjectMeta, "owner", "ada")
	}
	if r.IntN(2) == 0 {
		ns.Status.Phase = corev1.NamespaceActive
	}
	return NamespacesFunc(func(context.Context, string) (*corev1.Namespace, error) { return ns, nil })
}

// numbers turns whole numbers into int64, as decoders of Kubernetes do.
func numbers(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case float64:
		return int64(v)
	}
	return value
}

// plain leaves out what differs from one evaluation to the next.
func plain(r *validating.ValidateResult) validating.ValidateResult {
	out := *r
	out.Decisions = slices.Clone(r.Decisions)
	for i := range out.Decisions {
		out.Decisions[i].Elapsed = 0
		out.Decisions[i].Message = ordered(out.Decisions[i].Message)
	}
	out.AuditAnnotations = slices.Clone(r.AuditAnnotations)
	for i := range out.AuditAnnotations {
		out.AuditAnnotations[i].Elapsed = 0
		out.AuditAnnotations[i].Error = ordered(out.AuditAnnotations[i].Error)
	}
	return out
}

// ordered cuts an error where it writes out a map, whose keys have no order.
func ordered(message string) string {
	before, _, _ := strings.Cut(message, "{")
	return before
}

// checkMemory expects the outcome of a memory to be that of an evaluation, and
// returns how often there was one.
func checkMemory(t *testing.T, policies []*Policy, req Request) (known int) {
	t.Helper()
	in := newInput(t.Context(), &req)
	for _, p := range policies {
		fresh := newInput(t.Context(), &req)
		var namespace *corev1.Namespace
		if name := fresh.namespaceName(); name != "" && p.reads.Namespace {
			namespace, _ = fresh.namespaces.Get(name)
		}
		want, err := p.run(fresh.View, fresh, namespace, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, unknown := expression.Recall(in.View, p.memory, func(*expression.View) (*validating.ValidateResult, error) {
			return nil, errors.New("it is to be evaluated")
		})
		if unknown == nil {
			known++
		}
		for range 2 { // the second one remembers the first
			got, err := p.validate(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := plain(got), plain(want); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s says %+v, and without memory %+v\nof %+v\nbefore %+v\n%+v", p.name, got, want, req.Object, req.OldObject, req)
			}
		}
	}
	return known
}

// TestMemory expects a memory to say what evaluation would.
func TestMemory(t *testing.T) {
	policies := memoryPolicies(t)
	n, known, seed := 250, 0, rand.Uint64()
	t.Log("seed", seed)
	if testing.Short() {
		n = 60
	}
	r := rand.New(rand.NewPCG(seed, 0))
	for range n {
		known += checkMemory(t, policies, randomRequest(t, r))
	}
	if share := float64(known) / float64(n*len(policies)); share < 0.2 {
		t.Errorf("only %.0f %% of the outcomes were known before", share*100)
	}
	for _, p := range policies {
		if p.memory.State().Failures > 0 && !strings.Contains(p.name, "ask") {
			t.Errorf("%s cannot be learned", p.name)
		}
	}
}

func FuzzMemory(f *testing.F) {
	policies := memoryPolicies(f)
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		r := rand.New(rand.NewPCG(a, b))
		for range 20 {
			checkMemory(t, policies, randomRequest(t, r))
		}
	})
}

// TestMemoryIsShared expects that many may ask and learn at once.
func TestMemoryIsShared(t *testing.T) {
	policies := memoryPolicies(t)
	var wait sync.WaitGroup
	for g := range uint64(4) {
		wait.Go(func() {
			r := rand.New(rand.NewPCG(g%2, 7)) // two and two ask the same
			for range 20 {
				req := randomRequest(t, r)
				in := newInput(t.Context(), &req)
				for _, p := range policies {
					if _, err := p.validate(in, nil); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wait.Wait()
}

// TestMemoryIsBounded expects that no flood of unlike requests makes a memory
// grow, and that it learns again afterwards.
func TestMemoryIsBounded(t *testing.T) {
	policies := memoryPolicies(t)
	p := policies[slices.IndexFunc(policies, func(p *Policy) bool { return p.name == "ask-0" })]
	validate := func(skip, name string) {
		container := map[string]any{"name": name, "image": name}
		req := Request{Operation: admissionv1.Create, Object: &unstructured.Unstructured{Object: map[string]any{
			"kind": "Pod", "spec": map[string]any{"skip": skip, "containers": []any{container, container}}}}}
		if _, err := p.validate(newInput(t.Context(), &req), nil); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3000 {
		validate(fmt.Sprint(i%20), fmt.Sprint(i))
	}
	if p.memory.State().Nodes > memory.MaxNodes+memory.MaxQuestions {
		t.Errorf("%d nodes", p.memory.State().Nodes)
	}
	if !p.memory.State().Resting {
		t.Fatalf("with %d nodes it still learns", p.memory.State().Nodes)
	}
	for range memory.Patience {
		validate("another", "name")
	}
	if p.memory.State().Resting {
		t.Error("it never learns again")
	}
}
