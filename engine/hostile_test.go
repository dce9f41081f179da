package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/policy"
)

// template returns a template in Rego and its constraint.
func template(kind, rego string) string {
	return fmt.Sprintf(`---
apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: %s}
spec:
  crd: {spec: {names: {kind: %s}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    rego: |
      package x
      %s
---
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: %[2]s
metadata: {name: c}
`, strings.ToLower(kind), kind, rego)
}

// nativePolicy returns a ValidatingAdmissionPolicy for ConfigMaps and its binding.
func nativePolicy(name, expression string) string {
	return fmt.Sprintf(`---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: %s}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]}
  validations: [{expression: %q}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: %[1]s}
spec: {policyName: %[1]s, validationActions: [Deny]}
`, name, expression)
}

// hostilePolicies look at all of an object, in the ways that cost most.
var hostilePolicies = map[string]string{
	"walk":          template("Walk", `violation[{"msg": "found"}] { [_, v] := walk(input.review.object); v == "never" }`),
	"walk to a set": template("Collect", `violation[{"msg": sprintf("%d values", [count(all)])}] { all := {v | [_, v] := walk(input.review.object)} }`),
	"each to each":  template("Each", `violation[{"msg": "same"}] { a := input.review.object.list[i]; b := input.review.object.list[j]; i != j; a == b }`),
	"rego regex":    template("Regex", `violation[{"msg": "matches"}] { regex.match("(a{1,30}){2}b$", input.review.object.text) }`),
	"rego json":     template("Json", `violation[{"msg": "long"}] { count(json.marshal(input.review.object)) == 1 }`),
	"cel each":      nativePolicy("each", "!has(object.list) || object.list.all(a, object.list.all(b, a != b || a == b))"),
	"cel regex":     nativePolicy("regex", "!has(object.text) || !object.text.matches('(a{1,30}){2}b$')"),
	"cel text":      nativePolicy("text", "!has(object.text) || object.text.split('a').size() > 0"),
}

func hostileObjects() map[string]map[string]any {
	list := make([]any, 300_000)
	for i := range list {
		list[i] = fmt.Sprintf("%030d", i)
	}
	data := make(map[string]any, 100_000)
	for i := range 100_000 {
		data[fmt.Sprintf("key-%d", i)] = strings.Repeat("x", 90)
	}
	deep := any("end")
	for range 5000 {
		deep = []any{map[string]any{"a": deep}}
	}
	return map[string]map[string]any{
		"10 MB of items": {"list": list},
		"10 MB of keys":  {"data": data},
		"10 MB of text":  {"text": strings.Repeat("a", 10_000_000)},
		"deep":           {"data": deep},
	}
}

func configMap(content map[string]any) policy.Request {
	o := map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a", "namespace": "shop"}}
	for key, value := range content {
		o[key] = value
	}
	u := &unstructured.Unstructured{Object: o}
	return policy.Request{Operation: admissionv1.Create, Kind: u.GroupVersionKind(), Resource: u.GroupVersionKind().GroupVersion().WithResource("configmaps"), Namespace: "shop", Name: "a", Object: u}
}

// The bounds of a hostile evaluation: what it may take beyond its time, and of
// memory, which is that of all that lives on in the process.
const (
	hostileTime   = 2 * time.Second
	hostileGrace  = 30 * time.Second // under load; a stuck evaluation takes for ever
	hostileMemory = 2 << 30
)

// TestHostile judges objects that cost most by policies that look at all of them:
// each gets a verdict, or an error that says that the time is over, in time and
// within memory.
func TestHostile(t *testing.T) {
	objects := hostileObjects()
	for name, text := range hostilePolicies {
		t.Run(name, func(t *testing.T) {
			set, err := Load(policy.File{Name: "p.yaml", Data: []byte(text)})
			if err != nil {
				t.Fatal(err)
			}
			for object, content := range objects {
				peak := watchHeap(t)
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), hostileTime)
				violations, err := set.Evaluate(ctx, configMap(content))
				cancel()
				if incomplete := (*policy.IncompleteError)(nil); err != nil && !errors.As(err, &incomplete) {
					t.Errorf("%s: error = %v", object, err)
				}
				if took := time.Since(start); took > hostileTime+hostileGrace {
					t.Errorf("%s takes %v", object, took)
				}
				grown := peak()
				if grown > hostileMemory {
					t.Errorf("%s takes %d MiB", object, grown>>20)
				}
				t.Logf("%s: %d violations, error %v, %v, %d MiB", object, len(violations), err, time.Since(start).Round(time.Millisecond), grown>>20)
			}
		})
	}
}

// TestThousandAtOnce judges by Rego and CEL at the same moment, as often as an API
// server may ask.
func TestThousandAtOnce(t *testing.T) {
	set, err := Load(policy.File{Name: "p.yaml", Data: []byte(
		template("Each", `violation[{"msg": msg}] { input.review.object.data[k] == "bad"; msg := sprintf("%v is bad", [k]) }`) +
			nativePolicy("bad", "object.data.all(k, object.data[k] != 'bad')"))})
	if err != nil {
		t.Fatal(err)
	}
	peak := watchHeap(t)
	var group sync.WaitGroup
	for i := range 1000 {
		group.Go(func() {
			value := []string{"good", "bad"}[i%2]
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			violations, err := set.Evaluate(ctx, configMap(map[string]any{"data": map[string]any{"k": value, fmt.Sprint(i): "good"}}))
			if err != nil || len(violations) != 2*(i%2) {
				t.Errorf("%d: Evaluate = %v, %v", i, violations, err)
			}
		})
	}
	group.Wait()
	if grown := peak(); grown > 1<<30 {
		t.Errorf("they take %d MiB", grown>>20)
	}
}

// watchHeap returns a function that says by how much the heap was larger at most
// since.
func watchHeap(t *testing.T) (peak func() uint64) {
	heap := func() uint64 {
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	before, most := heap(), uint64(0)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for ticker := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-done:
				ticker.Stop()
				return
			case <-ticker.C:
				most = max(most, heap())
			}
		}
	}()
	stop := sync.OnceFunc(func() { close(done); <-ended })
	t.Cleanup(stop)
	return func() uint64 {
		stop()
		return max(most, before) - before
	}
}
