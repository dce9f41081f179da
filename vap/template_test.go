package vap_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/admission/plugin/policy/manifest/loader"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/vap"
)

// labelled demands labels, by a template with all that templates may have.
const labelled = `apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: labelled}
spec:
  crd:
    spec:
      names: {kind: Labelled}
      validation:
        openAPIV3Schema:
          type: object
          properties:
            labels: {type: array, items: {type: object, properties: {key: {type: string}, allowed: {type: array, items: {type: string}}}}}
            most: {type: integer, default: 3}
            ratio: {type: number}
            strict: {type: boolean}
            text: {type: string}
  targets:
  - target: admission.k8s.gatekeeper.sh
    operations: [CREATE, UPDATE, DELETE]
    code:
    - engine: K8sNativeValidation
      source:
        failurePolicy: Fail
        matchCondition:
        - {name: not-skipped, expression: "!has(request.options) || true"}
        variables:
        - {name: have, expression: "variables.anyObject.metadata.?labels.orValue({})"}
        - {name: wanted, expression: "variables.params == null || !has(variables.params.labels) ? [] : variables.params.labels"}
        - name: missing
          expression: "variables.wanted.filter(l, !(l.key in variables.have) || has(l.allowed) && !(variables.have[l.key] in l.allowed)).map(l, l.key)"
        validations:
        - expression: size(variables.missing) == 0
          messageExpression: "'missing: ' + variables.missing.join(', ') + (has(variables.params.text) ? variables.params.text : '')"
        - expression: size(variables.have) <= variables.params.most
          message: too many labels
        - expression: "!has(variables.params.ratio) || variables.params.ratio < 2.0"
          message: ratio
---
`

// constraint is one of labelled.
func constraint(name, spec string) string {
	return fmt.Sprintf("apiVersion: constraints.gatekeeper.sh/v1beta1\nkind: Labelled\nmetadata: {name: %s}\nspec: %s\n---\n", name, spec)
}

const owner = `parameters: {labels: [{key: owner}]}`

func constraints() string {
	return constraint("all", "{"+owner+"}") +
		constraint("none", "{match: {name: nobody}}") +
		constraint("quotes", `{parameters: {text: "it's \"\\ \t ü", ratio: 2.5, strict: true, most: 1, labels: [{key: "a'b", allowed: []}]}}`) +
		constraint("pods", `{match: {kinds: [{apiGroups: [""], kinds: [Pod]}]}, `+owner+`, enforcementAction: warn}`) +
		constraint("workloads", `{match: {kinds: [{apiGroups: [apps], kinds: ["*"]}, {apiGroups: ["*"], kinds: [Widget, ClusterRole]}]}, `+owner+`, enforcementAction: dryrun}`) +
		constraint("cluster", `{match: {scope: Cluster}, `+owner+`}`) +
		constraint("namespaced", `{match: {scope: Namespaced}, `+owner+`}`) +
		constraint("namespaces", `{match: {namespaces: [shop, "kube-*"]}, `+owner+`}`) +
		constraint("excluded", `{match: {excludedNamespaces: ["*-system", "*ega*", shop]}, `+owner+`}`) +
		constraint("both", `{match: {namespaces: ["*s*"], excludedNamespaces: [shop]}, `+owner+`}`) +
		constraint("selected", `{match: {labelSelector: {matchExpressions: [{key: tier, operator: In, values: [web]}]}}, `+owner+`}`) +
		constraint("stage", `{match: {kinds: [{apiGroups: ["", apps], kinds: [Pod, Deployment]}], namespaceSelector: {matchLabels: {stage: production}}}, `+owner+`}`) +
		constraint("named", `{match: {name: "web*"}, `+owner+`}`) +
		constraint("ending", `{match: {name: "*web"}, `+owner+`}`) +
		constraint("original", `{match: {source: Original}, `+owner+`}`) +
		constraint("scoped", `{enforcementAction: scoped, scopedEnforcementActions: [{action: warn, enforcementPoints: [{name: vap.k8s.io}, {name: validation.gatekeeper.sh}]}], `+owner+`}`)
}

// world yields requests of all operations for objects of many kinds.
func world(t *testing.T) (out []policy.Request) {
	t.Helper()
	namespaces := policy.NamespacesFunc(func(_ context.Context, name string) (*corev1.Namespace, error) {
		ns := &corev1.Namespace{}
		ns.Name, ns.Labels = name, map[string]string{corev1.LabelMetadataName: name}
		if name == "shop" {
			ns.Labels["stage"] = "production"
		}
		return ns, nil
	})
	for _, kind := range [][2]string{{"v1", "Pod"}, {"apps/v1", "Deployment"}, {"v1", "Namespace"}, {"rbac.authorization.k8s.io/v1", "ClusterRole"}, {"example.com/v1", "Widget"}} {
		for _, namespace := range []string{"shop", "legacy", "kube-system", "bank"} {
			for _, name := range []map[string]any{{"name": "web"}, {"name": "my-web"}, {"name": "shop"}, {"generateName": "web-"}} {
				for _, labels := range []map[string]any{nil, {"owner": "red"}, {"tier": "web"}, {"tier": "db", "a": "b", "c": "d", "e": "f"}} {
					object := func(labels map[string]any) *unstructured.Unstructured {
						metadata := map[string]any{"labels": labels}
						for key, value := range name {
							metadata[key] = value
						}
						if !slices.Contains([]string{"Namespace", "ClusterRole"}, kind[1]) {
							metadata["namespace"] = namespace
						}
						if labels == nil {
							delete(metadata, "labels")
						}
						return &unstructured.Unstructured{Object: map[string]any{"apiVersion": kind[0], "kind": kind[1], "metadata": metadata}}
					}
					for _, operation := range []admissionv1.Operation{admissionv1.Create, admissionv1.Update, admissionv1.Delete} {
						req, err := policy.NewRequest(operation, object(labels), object(map[string]any{"tier": "web"}))
						if err != nil {
							t.Fatal(err)
						}
						req.Namespaces = namespaces
						out = append(out, req)
					}
				}
			}
		}
	}
	return out
}

// said writes violations so that both kinds of policies can be compared.
func said(violations []finding.Violation) map[string][]string {
	out := map[string][]string{}
	for _, v := range violations {
		name := strings.TrimSuffix(v.Policy, vap.StaticSuffix)
		if v.Binding != v.Policy {
			name = strings.ToLower(v.Policy) + "-" + v.Binding
		}
		enforcement := strings.Replace(v.Enforcement, "dryrun", "audit", 1)
		out[name] = append(out[name], enforcement+": "+v.Message)
	}
	for _, messages := range out {
		slices.Sort(messages)
	}
	return out
}

// TestTemplates exports constraints, and expects each policy to say of many
// requests what its constraint says.
func TestTemplates(t *testing.T) {
	files := []policy.File{{Name: "t.yaml", Data: []byte(labelled + constraints())}}
	original := load(t, files).Served()
	for _, static := range []bool{false, true} {
		manifests := export(t, files, static)
		if n := strings.Count(constraints(), "kind: Labelled"); len(manifests) != n {
			t.Errorf("%d policies, want %d", len(manifests), n)
		}
		violated, sets := map[string]bool{}, map[string]*engine.Set{}
		for _, m := range manifests { // alone: a policy that only warns is not asked where another denies
			sets[m.Name] = load(t, asFiles([]vap.Manifest{m}))
		}
		for i, req := range world(t) {
			if static && i%7 != 0 {
				continue // only names differ
			}
			found, err := original.Evaluate(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			want := said(found)
			for _, m := range manifests {
				name := strings.TrimSuffix(m.Name, vap.StaticSuffix)
				found, err := sets[m.Name].Evaluate(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				if have := said(found)[name]; !slices.Equal(have, want[name]) {
					t.Errorf("%s of %s %s/%s%s (labels %v): %s says %q, its constraint %q", req.Operation, req.Kind.Kind, req.Namespace, req.Name, req.Object.GetGenerateName(), req.Object.GetLabels(), name, have, want[name])
				}
				violated[name] = violated[name] || len(want[name]) > 0
			}
			if t.Failed() {
				t.FailNow()
			}
		}
		for name, did := range violated {
			if did == (name == "labelled-none") {
				t.Errorf("%s is violated: %v", name, did)
			}
		}
	}
}

// TestAPIServerReadsConstraints has the API server's own loader read constraints,
// and the built-in mutating policies.
func TestAPIServerReadsConstraints(t *testing.T) {
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	write := func(manifests []vap.Manifest) string {
		dir := t.TempDir()
		for _, f := range asFiles(manifests) {
			if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	manifests := export(t, []policy.File{{Name: "t.yaml", Data: []byte(labelled + constraints())}}, true)
	policies, bindings, _, err := loader.LoadPolicyManifests(write(manifests), decoder,
		accept[*admissionregistrationv1.ValidatingAdmissionPolicy], accept[*admissionregistrationv1.ValidatingAdmissionPolicyBinding],
		func(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) string { return b.Spec.PolicyName })
	if err != nil || len(policies) != len(manifests) || len(bindings) != len(manifests) {
		t.Errorf("%d policies, %d bindings, %v, want %d", len(policies), len(bindings), err, len(manifests))
	}

	files, err := content.Read[policy.File](content.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	files[0].Data = []byte(strings.ReplaceAll(string(files[0].Data), "admissionregistration.k8s.io/v1\n", "admissionregistration.k8s.io/v1beta1\n"))
	manifests, unsupported, err := vap.Export(files, vap.Mutating, true)
	if err != nil || len(unsupported) > 0 {
		t.Fatal(unsupported, err)
	}
	changing, bound, _, err := loader.LoadPolicyManifests(write(manifests), decoder,
		accept[*admissionregistrationv1.MutatingAdmissionPolicy], accept[*admissionregistrationv1.MutatingAdmissionPolicyBinding],
		func(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) string { return b.Spec.PolicyName })
	if err != nil || len(changing) != len(files) || len(bound) != len(files) {
		t.Errorf("%d mutating policies, %d bindings, %v, want %d", len(changing), len(bound), err, len(files))
	}
}

// TestObstacles names each template and constraint that no native policy stands
// for, with the reason.
func TestObstacles(t *testing.T) {
	const rego = `apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: unique}
spec:
  crd: {spec: {names: {kind: Unique}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    rego: |
      package unique
      violation[{"msg": "no"}] { data.inventory.cluster["v1"].Namespace[_] }
---
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: Unique
metadata: {name: a}
---
`
	selector := "namespaceSelector: {matchLabels: {a: b}}"
	text := labelled +
		constraint("generated", "{match: {source: Generated}}") +
		constraint("webhook", `{enforcementAction: scoped, scopedEnforcementActions: [{action: deny, enforcementPoints: [{name: validation.gatekeeper.sh}]}]}`) +
		constraint("namespaces", "{match: {"+selector+"}}") +
		constraint("good", "{match: {kinds: [{apiGroups: [''], kinds: [Pod]}], "+selector+"}}") +
		constraint("taken", "{}") + rego +
		strings.NewReplacer("{name: labelled}", "{name: raw}", "kind: Labelled", "kind: Raw", "variables.params.most", "params.spec.parameters.most").Replace(labelled) +
		strings.NewReplacer("{name: labelled}", "{name: direct}", "kind: Labelled", "kind: Direct", "variables.anyObject.metadata.?labels.orValue({})", "params.metadata.?labels.orValue({})").Replace(labelled) +
		strings.Replace(constraint("a", "{}"), "kind: Labelled", "kind: Direct", 1) +
		strings.NewReplacer("&name team", "labelled-taken", "*name", "x", "policyName: team", "policyName: labelled-taken").Replace(team) +
		"---\napiVersion: config.gatekeeper.sh/v1alpha1\nkind: Config\nmetadata: {name: config}\nspec: {}\n" +
		"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
	if _, _, err := vap.Export([]policy.File{{Name: "t.yaml", Data: []byte(text)}}, vap.Validating, true); err == nil {
		t.Fatal("params outside of variables load")
	}
	text = strings.ReplaceAll(text, "params.spec.parameters.most", "3")
	manifests, unsupported, err := vap.Export([]policy.File{{Name: "t.yaml", Data: []byte(text)}}, vap.Validating, true)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range manifests {
		names = append(names, m.Name)
	}
	if want := []string{"labelled-good.static.k8s.io", "labelled-taken.static.k8s.io"}; !slices.Equal(names, want) {
		t.Errorf("exported %v, want %v", names, want)
	}
	for _, want := range []string{
		"Labelled generated cannot be exported: it judges only what an ExpansionTemplate generates",
		"Labelled webhook cannot be exported: none of its scoped actions is for vap.k8s.io",
		"Labelled namespaces cannot be exported: its namespaceSelector is for Namespaces too",
		"Labelled taken cannot be exported: another policy is called labelled-taken",
		"ConstraintTemplate unique cannot be exported: its code is Rego, which only a webhook runs; it also reads data.inventory",
		"Direct a cannot be exported: it does not compile without Gatekeeper's variables: direct-a:",
		"ConstraintTemplate raw cannot be exported: it has no constraint",
		"Config config cannot be exported: no ValidatingAdmissionPolicy does what it does",
		"ConfigMap cannot be exported: it is no policy",
	} {
		n := slices.IndexFunc(unsupported, func(err error) bool {
			return strings.HasPrefix(err.Error(), "t.yaml:") && strings.Contains(err.Error(), want)
		})
		if n < 0 {
			t.Errorf("no %q in %v", want, unsupported)
			continue
		}
		unsupported = slices.Delete(unsupported, n, n+1)
	}
	if len(unsupported) > 0 {
		t.Errorf("besides: %v", unsupported)
	}
	_, unsupported, err = vap.Export([]policy.File{{Name: "t.yaml", Data: []byte(labelled + constraint("a", "{}"))}}, vap.Mutating, false)
	if err != nil || len(unsupported) != 2 || !strings.Contains(cmp.Or(unsupported...).Error(), "no MutatingAdmissionPolicy does what it does") {
		t.Errorf("as mutating policies: %v, %v", unsupported, err)
	}
}
