package native

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/vap"
)

// constrained is a template in CEL and constraints that use what they can match.
// All of them warn, so that the API server tells each violation.
const constrained = `
apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: labelled}
spec:
  crd:
    spec:
      names: {kind: Labelled}
      validation: {openAPIV3Schema: {type: object, properties: {label: {type: string}, most: {type: integer, default: 3}, others: {type: array, items: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    operations: [CREATE, UPDATE, DELETE]
    code:
    - engine: K8sNativeValidation
      source:
        variables:
        - {name: have, expression: "variables.anyObject.metadata.?labels.orValue({})"}
        validations:
        - expression: variables.params.label in variables.have
          messageExpression: "'label ' + variables.params.label + ' is missing in ' + (namespaceObject == null ? 'the cluster' : namespaceObject.metadata.name)"
        - expression: size(variables.have) <= variables.params.most
          message: too many labels
---
{name: all}
---
{name: named, match: {name: "web*"}}
---
{name: maps, match: {kinds: [{apiGroups: [""], kinds: [ConfigMap]}, {apiGroups: [apps], kinds: ["*"]}]}}
---
{name: things, match: {kinds: [{apiGroups: [example.org], kinds: [Thing]}]}}
---
{name: cluster, match: {scope: Cluster}}
---
{name: namespaced, match: {scope: Namespaced, excludedNamespaces: ["*-b"]}}
---
{name: listed, match: {namespaces: ["ns-a", "web"]}}
---
{name: tier, match: {labelSelector: {matchLabels: {tier: web}}}}
---
{name: team, match: {kinds: [{apiGroups: [""], kinds: [ConfigMap]}], namespaceSelector: {matchLabels: {team: a}}}}
`

// constrainedFiles writes constrained out: after the template each document is the
// name and match of a constraint.
func constrainedFiles() []policy.File {
	parts := strings.Split(constrained, "---\n")
	text := parts[0]
	for _, part := range parts[1:] {
		name, match, _ := strings.Cut(strings.TrimSuffix(strings.Split(part, "\n")[0], "}"), ", match: ")
		if match != "" {
			match = "match: " + match + ", "
		}
		text += "---\napiVersion: constraints.gatekeeper.sh/v1beta1\nkind: Labelled\nmetadata: " + name + "}\n" +
			"spec: {enforcementAction: warn, " + match + "parameters: {label: owner, others: [{a: 1.5, b: [x, null, true], c: \"it's\"}]}}\n"
	}
	return []policy.File{{Name: "constrained.yaml", Data: []byte(text)}}
}

// TestExportedConstraints puts exported constraints in force in the lab's API
// server, and expects it to say what our engine says of the constraints.
func TestExportedConstraints(t *testing.T) {
	c := start(t)
	c.populate(t)
	files := constrainedFiles()
	set, err := engine.Load(files...)
	if err != nil {
		t.Fatal(err)
	}
	manifests, unsupported, err := vap.Export(files, vap.Validating, false)
	if err != nil || len(unsupported) > 0 || len(manifests) != set.Len() {
		t.Fatal(len(manifests), set.Len(), unsupported, err)
	}
	for _, m := range manifests {
		for _, u := range documents(t, string(m.Data)) {
			c.create(t, registration(u.GetKind()), u)
		}
	}
	x := &exported{c, set.Served(), 0}
	await(t, "policies in force", func() error {
		problems := x.create(t, exportedObjects()[0])
		if len(problems) > 0 {
			return errors.New(problems[0])
		}
		return nil
	})
	for _, u := range exportedObjects() {
		problems := slices.Concat(x.create(t, u), x.change(t, u))
		for _, p := range problems {
			t.Error(p)
		}
	}
	t.Logf("%d requests, the violations of which are the same", x.asked)
	if x.asked < 60 {
		t.Errorf("%d requests are too few", x.asked)
	}
}

// exportedObjects are of many kinds, with names and labels that matter.
func exportedObjects() (out []*unstructured.Unstructured) {
	for _, kind := range []string{"v1 ConfigMap", "apps/v1 Deployment", "example.org/v1 Thing", "v1 Namespace", "rbac.authorization.k8s.io/v1 ClusterRole"} {
		version, kind, _ := strings.Cut(kind, " ")
		for i, labels := range []map[string]any{{"a": "b", "c": "d", "e": "f", "tier": "web"}, {"owner": "red"}, {"tier": "web"}, nil} {
			for _, namespace := range []string{"ns-a", "ns-b"} {
				name := fmt.Sprintf("%s-%d-%s", []string{"web", "db"}[i%2], i, strings.ToLower(kind))
				u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": version, "kind": kind, "metadata": map[string]any{"name": name}}}
				if kind == "Deployment" {
					pod := map[string]any{"metadata": map[string]any{"labels": map[string]any{"app": "a"}}, "spec": map[string]any{"containers": []any{map[string]any{"name": "a", "image": "a"}}}}
					u.Object["spec"] = map[string]any{"selector": map[string]any{"matchLabels": map[string]any{"app": "a"}}, "template": pod}
				}
				if labels != nil {
					u.Object["metadata"].(map[string]any)["labels"] = labels
				}
				if kind != "Namespace" && kind != "ClusterRole" {
					u.SetNamespace(namespace)
				} else if namespace != "ns-a" {
					continue
				}
				out = append(out, u)
			}
		}
	}
	return out
}

// An exported world asks both sides.
type exported struct {
	*cluster
	set   *engine.Set
	asked int
}

// create asks about a creation that is not stored.
func (x *exported) create(t *testing.T, u *unstructured.Unstructured) []string {
	t.Helper()
	done, err := at(x.user, resourceOf(u), u.GetNamespace()).Create(t.Context(), u, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		t.Fatalf("create %s %s: %v", u.GetKind(), u.GetName(), err)
	}
	return x.compare(t, admissionv1.Create, done, nil)
}

// change stores an object, and asks about its update and deletion.
func (x *exported) change(t *testing.T, u *unstructured.Unstructured) []string {
	t.Helper()
	client := at(x.user, resourceOf(u), u.GetNamespace())
	before := x.cluster.create(t, resourceOf(u), u)
	var done *unstructured.Unstructured
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() (err error) { // with controllers, which write the status
		if before, err = at(x.cluster.admin, resourceOf(u), u.GetNamespace()).Get(t.Context(), u.GetName(), metav1.GetOptions{}); err != nil {
			return err
		}
		after := before.DeepCopy()
		after.SetLabels(map[string]string{"tier": "db", "owner": "blue"})
		x.answer.take()
		done, err = client.Update(t.Context(), after, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	})
	if err != nil {
		t.Fatalf("update %s %s: %v", u.GetKind(), u.GetName(), err)
	}
	problems := x.compare(t, admissionv1.Update, done, before)
	if err := client.Delete(t.Context(), u.GetName(), metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		t.Fatalf("delete %s %s: %v", u.GetKind(), u.GetName(), err)
	}
	return append(problems, x.compare(t, admissionv1.Delete, before, nil)...)
}

// compare compares the warnings of the last request with our violations.
func (x *exported) compare(t *testing.T, operation admissionv1.Operation, object, old *unstructured.Unstructured) (problems []string) {
	t.Helper()
	x.asked++
	_, theirs := x.answer.take()
	theirs = slices.DeleteFunc(theirs, func(w string) bool { return !strings.Contains(w, "ValidatingAdmissionPolicy") })
	req, err := policy.NewRequest(operation, object, old)
	if err != nil {
		t.Fatal(err)
	}
	req.Namespaces = policy.NamespacesFunc(func(ctx context.Context, name string) (*corev1.Namespace, error) {
		return x.kube.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	})
	found, err := x.set.Evaluate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	var ours []string
	for _, v := range found {
		name := "labelled-" + v.Binding
		ours = append(ours, fmt.Sprintf("Validation failed for ValidatingAdmissionPolicy '%s' with binding '%s': %s", name, name, v.Message))
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	if !slices.Equal(ours, theirs) {
		problems = append(problems, fmt.Sprintf("%s of %s %s/%s: the API server says\n%s\nwe say\n%s", operation, object.GetKind(), object.GetNamespace(), object.GetName(), strings.Join(theirs, "\n"), strings.Join(ours, "\n")))
	}
	return problems
}
