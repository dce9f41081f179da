package policy_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubeguardian/kubeguardian/policy"
)

const execReview = `
apiVersion: admission.k8s.io/v1
kind: AdmissionReview
request:
  uid: a
  kind: {group: "", version: v1, kind: PodExecOptions}
  resource: {group: "", version: v1, resource: pods}
  subResource: exec
  operation: CONNECT
  name: web
  namespace: shop
  dryRun: true
  userInfo: {username: alice, groups: [dev], extra: {scope: [a]}}
  object: {apiVersion: v1, kind: PodExecOptions, command: [sh], replicas: 3}
  options: null
`

func TestNewReviewRequest(t *testing.T) {
	req, err := policy.NewReviewRequest(object(t, execReview))
	if err != nil {
		t.Fatal(err)
	}
	if req.Operation != admissionv1.Connect || req.Subresource != "exec" || req.Kind.Kind != "PodExecOptions" || req.Resource.Resource != "pods" ||
		req.Name != "web" || req.Namespace != "shop" || !req.DryRun || req.User.Username != "alice" || !slices.Equal(req.User.Groups, []string{"dev"}) {
		t.Errorf("request = %+v", req)
	}
	if got := req.Object.Object["replicas"]; got != int64(3) { // whole numbers stay whole
		t.Errorf("replicas = %#v", got)
	}
	if req.OldObject != nil || req.Options != nil {
		t.Errorf("old object %v, options %v; want none", req.OldObject, req.Options)
	}
}

func TestNewReviewRequestErrors(t *testing.T) {
	tests := []struct{ name, old, new, want string }{
		{"old version", "k8s.io/v1", "k8s.io/v1beta1", "apiVersion admission.k8s.io/v1beta1 is not supported: want admission.k8s.io/v1"},
		{"no request", "request:", "response:", "request is missing"},
		{"unknown field", "dryRun: true", "dryRun: true\n  dryrun: true", `unknown field "request.dryrun"`},
		{"no operation", "operation: CONNECT", "", "request.operation are required"},
		{"no object", "object: {", "other: {", "neither object nor oldObject"},
		{"object without kind", "kind: PodExecOptions, command", "command", "request.object: Object 'Kind' is missing"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			text := strings.Replace(execReview, test.old, test.new, 1)
			if test.name == "no object" {
				text = strings.Replace(execReview, "  object: {apiVersion: v1, kind: PodExecOptions, command: [sh], replicas: 3}\n", "", 1)
			}
			if test.name == "no request" {
				text = "apiVersion: admission.k8s.io/v1\nkind: AdmissionReview\n"
			}
			if _, err := policy.NewReviewRequest(object(t, text)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want %q", err, test.want)
			}
		})
	}
}

func TestNewRequest(t *testing.T) {
	pod := object(t, webPod)
	deletion, err := policy.NewRequest(admissionv1.Delete, pod, nil)
	if err != nil || deletion.Object != nil || deletion.OldObject.GetName() != pod.GetName() || deletion.Operation != admissionv1.Delete {
		t.Errorf("deletion = %+v, %v", deletion, err)
	}
	before := pod.DeepCopy()
	before.SetLabels(map[string]string{"a": "b"})
	update, err := policy.NewRequest(admissionv1.Update, pod, before)
	if err != nil || update.OldObject.GetLabels()["a"] != "b" || update.Object.GetLabels()["a"] != "" {
		t.Errorf("update = %+v, %v", update, err)
	}
	for operation, want := range map[admissionv1.Operation]string{
		admissionv1.Update:  "the object as it was before is not known",
		admissionv1.Connect: "give an AdmissionReview",
	} {
		if _, err := policy.NewRequest(operation, pod, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error = %v, want %q", operation, err, want)
		}
	}
}

// TestUnjudged expects that who asks for it is told which policies cannot be
// judged, in place of what their failure policies make of that.
func TestUnjudged(t *testing.T) {
	told := map[string]string{}
	req := create(t, webPod)
	req.Unjudged = func(policy string, err error) { told[policy] = err.Error() }
	violations, err := set(t, member{"a", "[Deny]", asking}, member{"b", "[Deny]", asking + "\nfailurePolicy: Ignore"}, member{"c", "[Warn]", fails}).Evaluate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if got := lines(violations); !slices.Equal(got, []string{"warn c/c: nope"}) {
		t.Errorf("violations = %q", got)
	}
	for _, name := range []string{"a", "b"} {
		if !strings.Contains(told[name], `look up namespace "shop"`) {
			t.Errorf("%s: told %q", name, told[name])
		}
	}
	if len(told) != 2 {
		t.Errorf("told of %v", told)
	}
}

// TestNameOfNamespaceIsKnown expects that a selector of nothing but names needs
// no namespace object, and gives the verdict that it gives with one.
func TestNameOfNamespaceIsKnown(t *testing.T) {
	for operator, want := range map[string]int{"In": 1, "NotIn": 0} {
		text := strings.Replace(document(pods+fails), "validationActions", "matchResources: {namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: "+operator+", values: [shop]}]}}, validationActions", 1)
		for name, known := range map[string]policy.Namespaces{
			"nothing is known": nil,
			"known":            namespaces{"shop": {corev1.LabelMetadataName: "shop"}},
			"gone":             policy.NamespacesFunc(func(context.Context, string) (*corev1.Namespace, error) { return nil, errors.New("gone") }),
		} {
			req := create(t, webPod)
			req.Namespaces = known
			violations, err := load(t, text).Evaluate(t.Context(), req)
			if err != nil || len(violations) != want || want == 1 && violations[0].Message != "nope" {
				t.Errorf("%s, %s: violations %v, error %v; want %d", operator, name, violations, err, want)
			}
		}
	}
}
