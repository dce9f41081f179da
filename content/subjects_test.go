package content_test

import (
	"maps"
	"slices"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
)

// judges reports whether objects of a kind are subjects of a control.
func judges(ctl control.Control, gk schema.GroupKind) bool {
	return slices.Contains(ctl.Subjects, gk.String()) || inventory.IsWorkload(gk) && slices.Contains(ctl.Subjects, "workload")
}

// builtInKinds returns every kind of the API that has names and a life of its
// own, in all its versions.
func builtInKinds(t *testing.T) []schema.GroupVersionKind {
	t.Helper()
	var out []schema.GroupVersionKind
	for gvk := range scheme.Scheme.AllKnownTypes() {
		obj, err := scheme.Scheme.New(gvk)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := meta.Accessor(obj); err == nil && gvk.Version != runtime.APIVersionInternal {
			out = append(out, gvk)
		}
	}
	if len(out) < 150 {
		t.Fatalf("%d built-in kinds: want more", len(out))
	}
	return out
}

// resourceRules returns the rules of each built-in policy, by its name.
func resourceRules(t *testing.T) map[string][]admissionregistrationv1.NamedRuleWithOperations {
	t.Helper()
	files, err := content.Read[policy.File](content.Policies())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]admissionregistrationv1.NamedRuleWithOperations{}
	for _, f := range files {
		var p admissionregistrationv1.ValidatingAdmissionPolicy // the first document of the file
		if err := yaml.Unmarshal(f.Data, &p); err != nil {
			t.Fatal(err)
		}
		out[p.Name] = p.Spec.MatchConstraints.ResourceRules
	}
	return out
}

func matches(rules []admissionregistrationv1.NamedRuleWithOperations, resource schema.GroupVersionResource) bool {
	in := func(list []string, value string) bool {
		return slices.Contains(list, value) || slices.Contains(list, "*")
	}
	return slices.ContainsFunc(rules, func(r admissionregistrationv1.NamedRuleWithOperations) bool {
		return in(r.APIGroups, resource.Group) && in(r.APIVersions, resource.Version) &&
			(in(r.Resources, resource.Resource) || slices.Contains(r.Resources, "*/*") || slices.Contains(r.Resources, resource.Resource+"/*"))
	})
}

// TestPoliciesMatchSubjectsOnly expects of each control that is judged by
// policy that its policies match the kinds that are its subjects, and no other
// kind: a finding on a kind that cannot have the field is a bug.
func TestPoliciesMatchSubjectsOnly(t *testing.T) {
	rules, kinds, set := resourceRules(t), builtInKinds(t), loadPolicies(t)
	controls := map[string]control.Control{}
	for _, ctl := range loadControls(t).Controls() {
		controls[ctl.ID] = ctl
	}
	pairs := 0
	for _, p := range set.Policies() {
		ctl := controls[p.Annotation(controlAnnotation)]
		if ctl.Evaluator != "policy" {
			continue
		}
		missing := map[schema.GroupKind]bool{}
		for _, gvk := range kinds {
			gk := gvk.GroupKind()
			resource, _ := meta.UnsafeGuessKindToResource(gvk)
			subject, matched := judges(ctl, gk), matches(rules[p.Name()], resource)
			if matched && !subject {
				t.Errorf("policy %s matches %s, which is no subject of %s", p.Name(), gvk, ctl.ID)
			}
			if subject {
				missing[gk] = !matched && (missing[gk] || gvk.Version == "v1")
			}
			// The group extensions has kinds of other groups in older versions,
			// which are judged as what they are now.
			if !subject && gvk.Group != "extensions" && applies(t, p, gvk) {
				t.Errorf("policy %s judges %s, which is no subject of %s", p.Name(), gvk, ctl.ID)
			}
			pairs++
		}
		maps.DeleteFunc(missing, func(_ schema.GroupKind, v bool) bool { return !v })
		if len(missing) > 0 {
			t.Errorf("policy %s does not match %v, which are subjects of %s", p.Name(), missing, ctl.ID)
		}
	}
	t.Logf("%d pairs of a policy and one of %d kinds", pairs, len(kinds))
}

// applies reports whether a policy judges an object of a kind that says nothing
// but its name. An object that it cannot judge counts.
func applies(t *testing.T, p *policy.Policy, gvk schema.GroupVersionKind) bool {
	t.Helper()
	obj := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "a"}}}
	obj.SetGroupVersionKind(gvk)
	applies, _, err := p.Check(t.Context(), create(t, obj))
	return applies || err != nil
}

// TestFindingsAreOnSubjectsOnly evaluates an object of every built-in kind, and
// expects findings of each control on its subjects only.
func TestFindingsAreOnSubjectsOnly(t *testing.T) {
	var objects []*inventory.Object
	for _, gvk := range builtInKinds(t) {
		obj := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "a"}}}
		obj.SetGroupVersionKind(gvk)
		objects = append(objects, &inventory.Object{Unstructured: obj})
	}
	c := loadControls(t)
	findings, err := c.Evaluate(t.Context(), control.Input{
		Inventory: inventoryOf(t, inventory.Cluster, objects...), Policies: loadPolicies(t), Now: examplesNow,
	})
	if err != nil {
		t.Fatal(err)
	}
	controls := map[string]control.Control{}
	for _, ctl := range c.Controls() {
		controls[ctl.ID] = ctl
	}
	for _, f := range findings {
		gk := schema.FromAPIVersionAndKind(f.Subject.APIVersion, f.Subject.Kind).GroupKind()
		if !judges(controls[f.Control], gk) {
			t.Errorf("%s on %s, which is no subject of it: %s", f.Control, gk, f.Message+f.Reason)
		}
	}
}
