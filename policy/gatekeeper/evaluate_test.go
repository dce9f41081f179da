package gatekeeper_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/deadline"
	"github.com/kubeguardian/kubeguardian/policy/gatekeeper"
	"github.com/kubeguardian/kubeguardian/policy/referential"
)

func object(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var o unstructured.Unstructured
	if err := o.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return &o
}

// create returns the request to create an object; the namespaces shop (env:
// prod) and empty are known.
func create(t testing.TB, text string) policy.Request {
	t.Helper()
	o := object(t, text)
	return policy.Request{
		Operation: admissionv1.Create, Kind: o.GroupVersionKind(), Namespace: o.GetNamespace(), Name: o.GetName(),
		Object: o, User: authenticationv1.UserInfo{Username: "jane"}, Namespaces: policy.NamespacesFunc(namespaces),
	}
}

func namespaces(_ context.Context, name string) (*corev1.Namespace, error) {
	switch name {
	case "shop":
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"env": "prod"}}}, nil
	case "empty":
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, nil
	}
	return nil, nil
}

func evaluate(t testing.TB, set *gatekeeper.Set, req policy.Request) []string {
	t.Helper()
	violations, err := set.Evaluate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return lines(violations)
}

func lines(violations []finding.Violation) []string {
	var out []string
	for _, v := range violations {
		out = append(out, fmt.Sprintf("%s/%s %s: %s", v.Policy, v.Binding, v.Enforcement, v.Message))
	}
	return out
}

func TestMatch(t *testing.T) {
	const (
		pod       = "{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop, labels: {app: web}}}"
		lost      = "{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: lost}}"
		unnamed   = "{apiVersion: v1, kind: Pod, metadata: {generateName: web-, namespace: empty}}"
		deploy    = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}}"
		node      = "{apiVersion: v1, kind: Node, metadata: {name: n, labels: {app: web}}}"
		namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {env: prod}}}"
		other     = "{apiVersion: example.com/v1, kind: Namespace, metadata: {name: shop}}"
	)
	all := []string{pod, lost, unnamed, deploy, node, namespace, other}
	for match, want := range map[string][]string{
		"{}": all,
		"{kinds: [{apiGroups: [''], kinds: [Pod]}]}":                         {pod, lost, unnamed},
		"{kinds: [{kinds: [Deployment]}, {apiGroups: [''], kinds: [Node]}]}": {deploy, node},
		"{kinds: [{apiGroups: [apps], kinds: ['*']}]}":                       {deploy},
		"{kinds: [{apiGroups: [apps], kinds: [Pod]}]}":                       nil,
		"{kinds: [{apiGroups: ['*'], kinds: [Namespace]}]}":                  {namespace, other},
		"{scope: Cluster}":                           {node, namespace, other},
		"{scope: Namespaced}":                        {pod, lost, unnamed, deploy},
		"{scope: '*'}":                               all,
		"{namespaces: [shop]}":                       {pod, deploy, node, namespace, other},
		"{namespaces: ['*o*', empty]}":               {pod, lost, unnamed, deploy, node, namespace, other},
		"{namespaces: ['sh*']}":                      {pod, deploy, node, namespace, other},
		"{namespaces: ['*pty']}":                     {unnamed, node, other},
		"{excludedNamespaces: [shop]}":               {lost, unnamed, node, other},
		"{excludedNamespaces: ['*']}":                {node, other},
		"{labelSelector: {matchLabels: {app: web}}}": {pod, node},
		"{labelSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}}": {lost, unnamed, deploy, namespace, other},
		"{namespaceSelector: {matchLabels: {env: prod}}}":                           {pod, lost, deploy, node, namespace, other},
		"{kinds: [{kinds: [Pod]}], namespaceSelector: {matchLabels: {env: dev}}}":   {lost},
		"{name: web-1}":       {pod, lost},
		"{name: 'web-*'}":     {pod, lost, unnamed},
		"{name: '*eb*'}":      {pod, lost, unnamed, deploy},
		"{name: '*-1'}":       {pod, lost},
		"{source: Original}":  all,
		"{source: All}":       all,
		"{source: Generated}": nil,
		"{namespaces: [shop], kinds: [{kinds: [Pod]}]}":                                {pod},
		"{namespaces: [shop, shop], kinds: [{kinds: [Pod, Pod]}, {kinds: [Pod]}]}":     {pod},
		"{namespaces: [lost], excludedNamespaces: [lost], kinds: [{kinds: [Pod]}]}":    nil,
		"{namespaceSelector: {}, kinds: [{kinds: [Pod]}], excludedNamespaces: [lost]}": {pod, unnamed},
	} {
		t.Run(match, func(t *testing.T) {
			set := load(t, template("X", "{type: object}", always)+constraint("X", "{match: "+match+"}"))
			for _, text := range all {
				found := len(evaluate(t, set, create(t, text))) == 1
				if found != slices.Contains(want, text) {
					t.Errorf("matches is %v for %s", found, text)
				}
			}
		})
	}
}

// TestUnknownNamespace wants a constraint that cannot be matched to be violated.
func TestUnknownNamespace(t *testing.T) {
	set := load(t, template("X", "{type: object}", always)+constraint("X", "{enforcementAction: warn, match: {namespaceSelector: {}}}"))
	req := create(t, "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: lost}}")
	violations, err := set.Evaluate(t.Context(), req)
	if err != nil || len(violations) != 1 {
		t.Fatalf("Evaluate = %v, %v", violations, err)
	}
	v := violations[0]
	if v.Enforcement != "warn" || !strings.Contains(v.Message, "missing Namespace") || !strings.Contains(v.Details["cause"], `"lost": not found`) {
		t.Errorf("violation is %+v", v)
	}
	req.Namespaces = nil
	if violations, _ = set.Evaluate(t.Context(), req); len(violations) != 1 || !strings.Contains(violations[0].Details["cause"], "no namespaces are known") {
		t.Errorf("violations are %+v", violations)
	}
}

func TestEnforcement(t *testing.T) {
	pod := "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop}}"
	scoped := `
  enforcementAction: scoped
  scopedEnforcementActions:
  - {action: warn, enforcementPoints: [{name: "*"}]}
  - {action: deny, enforcementPoints: [{name: validation.gatekeeper.sh}, {name: vap.k8s.io}]}
  - {action: dryrun, enforcementPoints: [{name: audit.gatekeeper.sh}]}
`
	for spec, want := range map[string]map[gatekeeper.Point][]string{
		"{}":                          {gatekeeper.Webhook: {"deny"}, gatekeeper.Audit: {"deny"}, gatekeeper.Gator: {"deny"}},
		"{enforcementAction: warn}":   {gatekeeper.Webhook: {"warn"}, gatekeeper.Audit: {"warn"}, gatekeeper.Gator: {"warn"}},
		"{enforcementAction: dryrun}": {gatekeeper.Webhook: {"dryrun"}, gatekeeper.Audit: {"dryrun"}, gatekeeper.Gator: {"dryrun"}},
		scoped:                        {gatekeeper.Webhook: {"deny", "warn"}, gatekeeper.Audit: {"dryrun", "warn"}, gatekeeper.Gator: {"warn"}},
		"{enforcementAction: scoped, scopedEnforcementActions: [{action: deny, enforcementPoints: [{name: vap.k8s.io}]}]}": {
			gatekeeper.Webhook: nil, gatekeeper.Audit: nil, gatekeeper.Gator: nil},
	} {
		set := load(t, template("X", "{type: object}", always)+constraint("X", spec))
		for point, actions := range want {
			violations, err := set.At(point).Evaluate(t.Context(), create(t, pod))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, v := range violations {
				got = append(got, v.Enforcement)
			}
			if !slices.Equal(got, actions) {
				t.Errorf("at %s: actions are %v, want %v, by %s", point, got, actions, spec)
			}
		}
	}
}

func TestConfigExempts(t *testing.T) {
	set := load(t, template("X", "{type: object}", always)+constraint("X", "{}")+`---
apiVersion: config.gatekeeper.sh/v1alpha1
kind: Config
metadata: {name: config}
spec:
  match:
  - {processes: [webhook], excludedNamespaces: ["kube-*"]}
  - {processes: [audit, sync], excludedNamespaces: [shop]}
`)
	for point, exempt := range map[gatekeeper.Point]string{gatekeeper.Webhook: "kube-system", gatekeeper.Audit: "shop", gatekeeper.Gator: ""} {
		for _, ns := range []string{"kube-system", "shop", "other"} {
			for _, text := range []string{"{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: " + ns + "}}", "{apiVersion: v1, kind: Namespace, metadata: {name: " + ns + "}}"} {
				violations, err := set.At(point).Evaluate(t.Context(), create(t, text))
				if err != nil || (len(violations) == 0) != (ns == exempt) {
					t.Errorf("at %s: %s has %v, %v", point, text, violations, err)
				}
			}
		}
	}
}

func TestOperations(t *testing.T) {
	rego := `package x
violation[{"msg": msg}] {
  msg := sprintf("%v object=%v old=%v", [input.review.operation, object.get(input.review.object, "kind", "none"), input.review.oldObject != null])
}`
	set := load(t, template("X", "{type: object}", rego)+constraint("X", "{match: {kinds: [{kinds: [Pod, PodExecOptions]}]}}"))
	created := create(t, "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop}}")
	updated, deleted := created, created
	updated.Operation, updated.OldObject = admissionv1.Update, created.Object
	deleted.Operation, deleted.Object, deleted.OldObject = admissionv1.Delete, nil, created.Object
	connected := create(t, "{apiVersion: v1, kind: PodExecOptions, command: [sh]}")
	connected.Operation, connected.Namespace, connected.Name = admissionv1.Connect, "shop", "a"
	for _, test := range []struct {
		req  policy.Request
		want string
	}{
		{created, "CREATE object=Pod old=false"},
		{updated, "UPDATE object=Pod old=true"},
		{deleted, "DELETE object=Pod old=true"},
		{connected, "CONNECT object=PodExecOptions old=false"},
	} {
		if got := evaluate(t, set, test.req); len(got) != 1 || got[0] != "X/c deny: "+test.want {
			t.Errorf("%s: violations are %q", test.want, got)
		}
	}
	deleted.OldObject = nil
	if _, err := set.Evaluate(t.Context(), deleted); err == nil || !strings.Contains(err.Error(), "no oldObject") {
		t.Errorf("DELETE without an object: error is %v", err)
	}
	connected.Object = nil
	if got := evaluate(t, set, connected); len(got) != 1 || !strings.Contains(got[0], "neither object nor old object") {
		t.Errorf("CONNECT without an object: %q", got)
	}
	only := strings.Replace(template("X", "{type: object}", rego), "    rego", "    operations: [UPDATE]\n    rego", 1)
	set = load(t, only+constraint("X", "{}"))
	if got := evaluate(t, set, created); got != nil {
		t.Errorf("a template for UPDATE judges a CREATE: %q", got)
	}
	if got := evaluate(t, set.At(gatekeeper.Audit), created); len(got) != 1 {
		t.Errorf("operations hold at the webhook alone, audit finds %q", got)
	}
}

func TestParameters(t *testing.T) {
	schema := "{type: object, properties: {n: {type: integer, default: 5}, big: {type: integer}, deep: {type: object, default: {}, properties: {s: {type: string, default: s}}}}}"
	rego := "package x\nviolation[{\"msg\": sprintf(\"%v\", [input.parameters])}] { true }"
	for spec, want := range map[string]string{
		"{}":                                 `{}`,
		"{parameters: {}}":                   `{"deep": {"s": "s"}, "n": 5}`,
		"{parameters: {n: 1, big: 1000000}}": `{"big": 1000000, "deep": {"s": "s"}, "n": 1}`,
		"{parameters: {deep: {s: yes}}}":     "error",
	} {
		text := template("X", schema, rego) + constraint("X", spec)
		if want == "error" {
			if _, err := gatekeeper.Load(policy.File{Name: "f.yaml", Data: []byte(text)}); err == nil {
				t.Errorf("%s: no error", spec)
			}
			continue
		}
		got := evaluate(t, load(t, text), create(t, "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop}}"))
		if len(got) != 1 || got[0] != "X/c deny: "+want {
			t.Errorf("%s: parameters are %q, want %s", spec, got, want)
		}
	}
}

// TestRuntimeError wants a template that fails to be violated by all of its
// constraints, and no other.
func TestRuntimeError(t *testing.T) {
	rego := `package x
f(o) = v { v := o.metadata.labels.a }
f(o) = v { v := o.metadata.labels.b }
violation[{"msg": msg}] { input.parameters.ask; msg := f(input.review.object) }
violation[{"msg": "sees"}] { input.review.object.metadata.labels.a }`
	set := load(t, template("X", "{type: object, properties: {ask: {type: boolean}}}", rego)+
		strings.Replace(constraint("X", "{}"), "{name: c}", "{name: calm}", 1)+
		constraint("X", "{enforcementAction: warn, parameters: {ask: true}}")+
		"---\n"+template("Z", "{type: object}", always)+constraint("Z", "{}"))
	got := evaluate(t, set, create(t, "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop, labels: {a: x, b: z}}}"))
	message := "template:3: eval_conflict_error: function data.template.f produced conflicting values"
	want := []string{"X/c warn: " + message, "X/calm deny: " + message, "Z/c deny: always"}
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("violations are %q", got)
	}
}

// TestRuntimeErrorStays wants a mistake of a function to come back with each
// request, whatever was kept of the one before.
func TestRuntimeErrorStays(t *testing.T) {
	set := load(t, template("X", "{type: object}", `package x
f(k) = 1 { k != "" }
f(k) = 2 { k == "b" }
violation[{"msg": msg}] { msg := sprintf("%v", [f(input.review.object.metadata.labels.a)]) }`)+constraint("X", "{}"))
	req := create(t, "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop, labels: {a: b}}}")
	for range 3 {
		if got := evaluate(t, set, req); len(got) != 1 || !strings.Contains(got[0], "eval_conflict_error") {
			t.Errorf("violations are %q", got)
		}
	}
}

// TestEndlessEvaluation wants a clear answer in time from a rule that takes for
// ever, one built-in that does, and one that takes all the memory.
func TestEndlessEvaluation(t *testing.T) {
	for name, test := range map[string]struct{ rego, want string }{
		"steps":  {`violation[{"msg": "m"}] { x := numbers.range(1, 100000); x[i] + x[j] + x[k] == -1 }`, "deadline"},
		"regex":  {`violation[{"msg": "m"}] { s := concat("", [x | numbers.range(1, 200000)[_]; x := "aaaaaaaaaaaaaaaaaaaa"]); regex.match("(x+x+)+y|(a{1,500}){2}b", s) }`, "deadline"},
		"memory": {`violation[{"msg": "m"}] { x := [s | a := numbers.range(1, 10000)[_]; b := numbers.range(1, 10000)[_]; s := sprintf("%0900000d", [a * b])]; count(x) == 0 }`, "memory grew"},
	} {
		t.Run(name, func(t *testing.T) {
			limit := 300 * time.Millisecond
			if test.want != "deadline" {
				limit = time.Minute
			}
			set := load(t, template("X", "{type: object}", "package x\n"+test.rego)+constraint("X", "{}"))
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			violations, err := set.Evaluate(ctx, create(t, "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop}}"))
			if test.want != "deadline" {
				if err != nil || len(violations) != 1 || !strings.Contains(violations[0].Message, test.want) {
					t.Errorf("Evaluate = %v, %v", violations, err)
				}
				return
			}
			var incomplete *policy.IncompleteError
			if !errors.As(err, &incomplete) || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("Evaluate = %v, %v", violations, err)
			}
			if !slices.Equal(incomplete.Policies, []string{"X/c"}) || incomplete.Decided {
				t.Errorf("incomplete is %+v", incomplete)
			}
		})
	}
}

// TestRunaways wants built-ins that cannot be stopped to be few, and the answer to
// be that nothing is judged until they end.
func TestRunaways(t *testing.T) {
	slow := `violation[{"msg": "m"}] { input.review.object.metadata.labels.slow; s := concat("", [x | numbers.range(1, 500)[_]; x := "aaaaaaaaaaaaaaaaaaaa"]); regex.match("(a{1,500}){2}b", s) }`
	set := load(t, template("X", "{type: object}", "package x\n"+slow)+constraint("X", "{}"))
	pod := create(t, "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop, labels: {slow: please}}}")
	evaluate := func(req policy.Request, limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		_, err := set.Evaluate(ctx, req)
		return err
	}
	// More at once than may be: on a fast machine those of one round have ended
	// before the next one is over.
	const atOnce = deadline.MaxRunaways + 4
	most := 0
	var incomplete *policy.IncompleteError
	for i := 0; ; i++ {
		var group sync.WaitGroup
		for range atOnce {
			group.Go(func() {
				if err := evaluate(pod, 20*time.Millisecond); !errors.As(err, new(*policy.IncompleteError)) {
					t.Errorf("Evaluate = %v", err)
				}
			})
		}
		group.Wait()
		most = max(most, set.Runaways())
		if err := evaluate(pod, 10*time.Millisecond); errors.As(err, &incomplete) && !errors.Is(err, context.DeadlineExceeded) {
			break // refused
		}
		if i == 20 {
			t.Fatalf("with %d runaways nothing is refused", set.Runaways())
		}
	}
	if most < deadline.MaxRunaways/2 || most > deadline.MaxRunaways+atOnce || incomplete.Decided || !strings.Contains(incomplete.Error(), "have not ended") {
		t.Errorf("%d runaways, error %v", most, incomplete)
	}
	for start := time.Now(); set.Runaways() > 0 && time.Since(start) < 5*time.Minute; {
		time.Sleep(10 * time.Millisecond)
	}
	quick := create(t, "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop}}")
	if err := evaluate(quick, time.Minute); err != nil {
		t.Errorf("after %d runaways: %v", set.Runaways(), err)
	}
}

// TestDeadlineDecides wants what denies to be judged before what does not.
func TestDeadlineDecides(t *testing.T) {
	endless := `package x
violation[{"msg": "m"}] { x := numbers.range(1, 100000); x[i] + x[j] + x[k] == -1 }`
	set := load(t, template("A", "{type: object}", endless)+constraint("A", "{enforcementAction: warn}")+
		"---\n"+template("B", "{type: object}", always)+constraint("B", "{}"))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	violations, err := set.Evaluate(ctx, create(t, "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop}}"))
	var incomplete *policy.IncompleteError
	if !errors.As(err, &incomplete) || !incomplete.Decided || !slices.Equal(lines(violations), []string{"B/c deny: always"}) {
		t.Errorf("Evaluate = %v, %v", violations, err)
	}
}

func TestInventory(t *testing.T) {
	rego := `package x
violation[{"msg": msg}] {
  all := {o.metadata.name | o := data.inventory.namespace[_]["v1"]["Pod"][_]}
  cluster := {name | data.inventory.cluster["v1"].Node[name]}
  msg := sprintf("%v %v", [sort(all), sort(cluster)])
}`
	set := load(t, template("X", "{type: object}", rego)+constraint("X", "{}"))
	req := create(t, "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop}}")
	want := func(set *gatekeeper.Set, want string) {
		t.Helper()
		if got := evaluate(t, set, req); len(got) != 1 || got[0] != "X/c deny: "+want {
			t.Errorf("violations are %q, want %s", got, want)
		}
	}
	want(set, "[] []")
	pod := func(ns, name string) *unstructured.Unstructured {
		return object(t, "{apiVersion: v1, kind: Pod, metadata: {name: "+name+", namespace: "+ns+"}}")
	}
	node := object(t, "{apiVersion: v1, kind: Node, metadata: {name: node1}}")
	first, err := referential.New(slices.Values([]*unstructured.Unstructured{pod("a", "p"), pod("b", "q"), node}))
	if err != nil {
		t.Fatal(err)
	}
	want(set.WithInventory(first), `["p", "q"] ["node1"]`)
	second, err := first.With(slices.Values([]*unstructured.Unstructured{pod("a", "r"), pod("a", "p")}), slices.Values([]*unstructured.Unstructured{pod("b", "q"), node, pod("c", "unknown")}))
	if err != nil {
		t.Fatal(err)
	}
	want(set.WithInventory(second), `["p", "r"] []`)
	want(set.WithInventory(first), `["p", "q"] ["node1"]`) // has not changed
	if _, err := referential.New(slices.Values([]*unstructured.Unstructured{{Object: map[string]any{"kind": "Pod"}}})); err == nil {
		t.Error("an object without a name is taken")
	}
}

// TestEnginesOnlyRead wants the request to stay as it is, and the verdict of
// each policy to be the same alone and with all others.
func TestEnginesOnlyRead(t *testing.T) {
	cel := `apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: cel}
spec:
  crd: {spec: {names: {kind: Cel}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    code:
    - engine: K8sNativeValidation
      source:
        validations:
        - expression: "object != null && variables.anyObject.metadata.name == 'x'"
          messageExpression: "'object is ' + (object == null ? 'null' : object.kind) + ', any is ' + variables.anyObject.kind + ', old is ' + (oldObject == null ? 'null' : oldObject.kind)"
` + constraint("Cel", "{}") + "---\n"
	rego := template("X", "{type: object}", `package x
violation[{"msg": msg}] { msg := sprintf("%v %v", [input.review.object.kind, input.review.oldObject]) }`) + constraint("X", "{}")
	pod := object(t, "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop}}")
	for _, op := range []admissionv1.Operation{admissionv1.Create, admissionv1.Update, admissionv1.Delete, admissionv1.Connect} {
		req := policy.Request{Operation: op, Kind: schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, Namespace: "shop", Name: "a", Object: pod.DeepCopy()}
		switch op {
		case admissionv1.Update:
			req.OldObject = pod.DeepCopy()
		case admissionv1.Delete:
			req.Object, req.OldObject = nil, pod.DeepCopy()
		}
		before := policy.Request{Object: req.Object.DeepCopy(), OldObject: req.OldObject.DeepCopy()}
		together := evaluate(t, load(t, cel+rego), req)
		alone := append(evaluate(t, load(t, cel), req), evaluate(t, load(t, rego), req)...)
		if !slices.Equal(together, alone) || len(alone) != 2 {
			t.Errorf("%s: together %q, alone %q", op, together, alone)
		}
		if !reflect.DeepEqual(before.Object, req.Object) || !reflect.DeepEqual(before.OldObject, req.OldObject) {
			t.Errorf("%s: the request has changed", op)
		}
	}
}

// TestSharedRules wants what constraints share to be right for each of them.
func TestSharedRules(t *testing.T) {
	rego := `package x
import data.lib.a
names[n] { n := input.review.object.metadata.labels[_] }                         # the request alone
wanted[n] { n := input.parameters.names[_] }                                     # parameters
both[n] { names[n]; wanted[n] }                                                  # both
changed = n { n := count(names) with input.review.object.metadata.labels as {} } # other input
f(x) = y { y := concat("-", [x, input.parameters.suffix]) }                      # a function of parameters
g(x) = y { y := concat("-", [x, "end"]) }
indirect = y { y := input[input.review.object.metadata.name].suffix }
h(x) = 1 { x == "a" } else = input.parameters.suffix { true }
violation[{"msg": msg}] {
  msg := sprintf("%v %v %v %v %v %v %v %v %v", [sort(names), sort(both), changed, f("f"), g("g"), indirect, a.lib(input), a.other, [h("a"), h("b")]])
}`
	library := `    libs:
    - |
      package lib.a
      lib(i) = x { x := i.parameters.suffix }
      other = x { x := input.review.operation }
`
	text := strings.Replace(template("X", "{type: object, x-kubernetes-preserve-unknown-fields: true}", rego), "    rego", library+"    rego", 1)
	for _, c := range []string{"one", "two"} {
		text += strings.Replace(constraint("X", "{parameters: {suffix: "+c+", names: ["+c+"]}}"), "{name: c}", "{name: "+c+"}", 1)
	}
	got := evaluate(t, load(t, text), create(t, "{apiVersion: v1, kind: Pod, metadata: {name: parameters, namespace: shop, labels: {a: one, b: two}}}"))
	want := []string{
		`X/one deny: ["one", "two"] ["one"] 0 f-one g-end one one CREATE [1, "one"]`,
		`X/two deny: ["one", "two"] ["two"] 0 f-two g-end two two CREATE [1, "two"]`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("violations are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestConcurrentEvaluation wants a set to be safe for many at a time, while its
// inventory is replaced.
func TestConcurrentEvaluation(t *testing.T) {
	rego := `package x
size(q) = n { n := to_number(trim_suffix(q, "Gi")) }
names := {n | n := input.review.object.metadata.labels[_]}
violation[{"msg": msg}] {
  n := size(input.review.object.spec.size)
  n > size(input.parameters.most)
  msg := sprintf("%v %v %v", [n, sort(names), count(data.inventory.cluster.v1.Node)])
}`
	text := template("X", "{type: object, properties: {most: {type: string}}}", rego)
	for _, c := range []string{"1Gi", "2Gi", "100Gi"} {
		text += strings.Replace(constraint("X", "{parameters: {most: "+c+"}}"), "{name: c}", "{name: c"+strings.ToLower(c)+"}", 1)
	}
	set := load(t, text)
	node := object(t, "{apiVersion: v1, kind: Node, metadata: {name: node1}}")
	inventory, err := referential.New(slices.Values([]*unstructured.Unstructured{node}))
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			req := create(t, fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop, labels: {a: x%d}}, spec: {size: %dGi}}", i, i+3))
			for range 50 {
				next, err := inventory.With(slices.Values([]*unstructured.Unstructured{node}), nil)
				if err != nil {
					t.Error(err)
					return
				}
				violations, err := set.WithInventory(next).Evaluate(t.Context(), req)
				want := fmt.Sprintf(`X/c2gi deny: %d ["x%d"] 1`, i+3, i)
				if err != nil || len(violations) != 2 || lines(violations)[1] != want {
					t.Errorf("Evaluate = %v, %v, want %s", violations, err, want)
					return
				}
			}
		})
	}
	group.Wait()
}

func TestNoMatchReadsNothing(t *testing.T) {
	set := load(t, template("X", "{type: object}", always)+constraint("X", "{match: {kinds: [{kinds: [Pod]}]}}"))
	req := create(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: shop}}")
	if allocs := testing.AllocsPerRun(100, func() {
		if _, err := set.Evaluate(context.Background(), req); err != nil {
			t.Error(err)
		}
	}); allocs > 4 {
		t.Errorf("%v allocations for an object that nothing matches", allocs)
	}
}
