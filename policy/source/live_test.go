package source_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubeguardian/kubeguardian/policy/source"
)

// TestAccessReviews expects questions and answers to reach the API server and
// back as they are.
func TestAccessReviews(t *testing.T) {
	who := &user.DefaultInfo{Name: "ann", UID: "1", Groups: []string{"devs"}, Extra: map[string][]string{"a": {"b"}}}
	wanted, err := labels.NewRequirement("app", selection.In, []string{"web", "db"})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		asked  authorizer.AttributesRecord
		answer authorizationv1.SubjectAccessReviewStatus
		fails  error
		spec   string // what is asked
		want   string
	}{
		{"allowed", authorizer.AttributesRecord{User: who, Verb: "get", Namespace: "shop", APIGroup: "apps", APIVersion: "v1", Resource: "deployments", Subresource: "scale", Name: "web", ResourceRequest: true},
			authorizationv1.SubjectAccessReviewStatus{Allowed: true, Reason: "role"}, nil, "ann 1 [devs] map[a:[b]] shop get apps v1 deployments scale web", "Allow role"},
		{"denied", authorizer.AttributesRecord{User: who, Verb: "get", Path: "/metrics"}, authorizationv1.SubjectAccessReviewStatus{Denied: true, EvaluationError: "odd"}, nil, "ann 1 [devs] map[a:[b]] /metrics get", "Deny odd"},
		{"no opinion, selectors", authorizer.AttributesRecord{User: who, Verb: "list", Resource: "pods", ResourceRequest: true, LabelSelectorRequirements: labels.Requirements{*wanted},
			FieldSelectorRequirements: fields.Requirements{{Field: "spec.nodeName", Operator: selection.Equals, Value: "a,b"}, {Field: "metadata.name", Operator: selection.NotEquals, Value: "c"}}},
			authorizationv1.SubjectAccessReviewStatus{}, nil, `ann 1 [devs] map[a:[b]]  list   pods   fields spec.nodeName=a\,b,metadata.name!=c labels app in (db,web)`, "NoOpinion "},
		{"no answer", authorizer.AttributesRecord{User: who, Verb: "get", Path: "/"}, authorizationv1.SubjectAccessReviewStatus{}, errors.New("connection refused"), "ann 1 [devs] map[a:[b]] / get", "NoOpinion  review access: connection refused"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var spec authorizationv1.SubjectAccessReviewSpec
			client := fake.NewClientset()
			client.PrependReactor("create", "subjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
				review := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview)
				spec = review.Spec
				return true, &authorizationv1.SubjectAccessReview{Status: test.answer}, test.fails
			})
			decision, reason, err := source.NewAccessReviews(client.AuthorizationV1().SubjectAccessReviews()).Authorize(t.Context(), test.asked)
			got := map[authorizer.Decision]string{authorizer.DecisionAllow: "Allow", authorizer.DecisionDeny: "Deny", authorizer.DecisionNoOpinion: "NoOpinion"}[decision] + " " + reason
			if err != nil {
				got += " " + err.Error()
			}
			if got != test.want {
				t.Errorf("Authorize = %q, want %q", got, test.want)
			}
			if asked := describe(spec); asked != test.spec {
				t.Errorf("asked %q, want %q", asked, test.spec)
			}
		})
	}
}

func describe(s authorizationv1.SubjectAccessReviewSpec) string {
	out := fmt.Sprint(s.User, " ", s.UID, " ", s.Groups, " ", s.Extra, " ")
	if n := s.NonResourceAttributes; n != nil {
		return out + n.Path + " " + n.Verb
	}
	r := s.ResourceAttributes
	out += strings.Join([]string{r.Namespace, r.Verb, r.Group, r.Version, r.Resource, r.Subresource, r.Name}, " ")
	if r.FieldSelector != nil {
		out += " fields " + r.FieldSelector.RawSelector
	}
	if r.LabelSelector != nil {
		out += " labels " + r.LabelSelector.RawSelector
	}
	return out
}

func TestClusterParams(t *testing.T) {
	configMap := func(namespace, name string) runtime.Object {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"name": name}}}
	}
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("ConfigMap"), meta.RESTScopeNamespace)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Node"), meta.RESTScopeRoot)
	client := dynamicfake.NewSimpleDynamicClient(scheme.Scheme, configMap("a", "x"), configMap("a", "y"), configMap("b", "x"), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	p := source.NewClusterParams(client, mapper)
	tests := []struct{ kind, namespace, name, selector, want string }{
		{"ConfigMap", "a", "x", "", "a/x"},
		{"ConfigMap", "a", "z", "", ""},
		{"ConfigMap", "a", "", "name", "a/x a/y"},
		{"ConfigMap", "a", "", "name=y", "a/y"},
		{"Node", "", "n1", "", "/n1"},
		{"Other", "", "n1", "", `no matches for kind "Other" in version "v1"`},
	}
	for _, test := range tests {
		t.Run(test.kind+" "+test.namespace+" "+test.name+test.selector, func(t *testing.T) {
			kind := schema.GroupVersionKind{Version: "v1", Kind: test.kind}
			selector, err := labels.Parse(test.selector)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			found, err := p.Params(t.Context(), kind, test.namespace, test.name, selector)
			if err != nil {
				got = append(got, err.Error())
			}
			for _, u := range found {
				got = append(got, u.GetNamespace()+"/"+u.GetName())
			}
			if s := strings.Join(got, " "); s != test.want {
				t.Errorf("Params = %q, want %q", s, test.want)
			}
			namespaced, err := p.Namespaced(t.Context(), kind)
			if (err != nil) != (test.kind == "Other") || namespaced != (test.kind == "ConfigMap") {
				t.Errorf("Namespaced = %v, %v", namespaced, err)
			}
		})
	}
}
