package policy_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/warning"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/policy"
)

// oracle is the admission plugin of the API server itself, fed with policies.
type oracle struct{ plugin *validating.Plugin }

// newOracle starts the plugin with the documents, in a cluster with the
// namespaces that every cluster has, and shop.
func newOracle(t *testing.T, documents string) oracle {
	t.Helper()
	var objects []runtime.Object
	for _, name := range []string{"default", "kube-node-lease", "kube-public", "kube-system", "shop"} {
		objects = append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelMetadataName: name}}})
	}
	for text := range strings.SplitSeq(documents, "---\n") {
		if o := stored(t, text); o != nil {
			objects = append(objects, o)
		}
	}
	plugin, err := validating.NewPlugin(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset(objects...)
	factory := informers.NewSharedInformerFactory(client, 0)
	plugin.SetExternalKubeInformerFactory(factory)
	plugin.SetExternalKubeClientSet(client)
	plugin.SetDynamicClient(dynamicfake.NewSimpleDynamicClient(scheme.Scheme))
	plugin.SetRESTMapper(meta.NewDefaultRESTMapper(nil))
	plugin.SetUnconditionalAuthorizer(authorizerfactory.NewAlwaysDenyAuthorizer())
	plugin.SetDrainedNotification(t.Context().Done())
	if err := plugin.ValidateInitialization(); err != nil {
		t.Fatal(err)
	}
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	return oracle{plugin}
}

// stored returns a policy or binding as the API server stores it: defaulted,
// and here warning instead of denying, since a denial hides what follows it.
func stored(t *testing.T, text string) runtime.Object {
	t.Helper()
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal([]byte(text), &kind); err != nil {
		t.Fatal(err)
	}
	switch kind.Kind {
	case "ValidatingAdmissionPolicy":
		p := &admissionregistrationv1.ValidatingAdmissionPolicy{}
		if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
			t.Fatal(err)
		}
		if p.Spec.FailurePolicy == nil {
			p.Spec.FailurePolicy = new(admissionregistrationv1.Fail)
		}
		storedMatch(p.Spec.MatchConstraints)
		return p
	case "ValidatingAdmissionPolicyBinding":
		b := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{}
		if err := yaml.UnmarshalStrict([]byte(text), b); err != nil {
			t.Fatal(err)
		}
		b.Spec.ValidationActions = []admissionregistrationv1.ValidationAction{admissionregistrationv1.Warn}
		storedMatch(b.Spec.MatchResources)
		return b
	}
	return nil
}

func storedMatch(m *admissionregistrationv1.MatchResources) {
	if m == nil {
		return
	}
	m.MatchPolicy = new(admissionregistrationv1.Equivalent)
	if m.NamespaceSelector == nil {
		m.NamespaceSelector = &metav1.LabelSelector{}
	}
	if m.ObjectSelector == nil {
		m.ObjectSelector = &metav1.LabelSelector{}
	}
}

// judge returns the warnings of the plugin, and its denial if there is one.
func (o oracle) judge(t *testing.T, req policy.Request) []string {
	t.Helper()
	typed := func(u map[string]any) runtime.Object {
		obj, err := scheme.Scheme.New(req.Kind)
		if err != nil {
			t.Fatal(err)
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u, obj); err != nil {
			t.Fatal(err)
		}
		return obj
	}
	var object, oldObject runtime.Object
	if req.Object != nil {
		object = typed(req.Object.Object)
	}
	if req.OldObject != nil {
		oldObject = typed(req.OldObject.Object)
	}
	attr := admission.NewAttributesRecord(object, oldObject, req.Kind, req.Namespace, req.Name, req.Resource, req.Subresource,
		admission.Operation(req.Operation), nil, false, &user.DefaultInfo{})
	var seen warnings
	err := o.plugin.Validate(warning.WithWarningRecorder(t.Context(), &seen), attr, admission.NewObjectInterfacesFromScheme(scheme.Scheme))
	if err != nil {
		seen.texts = append(seen.texts, err.Error())
	}
	slices.Sort(seen.texts)
	return seen.texts
}

type warnings struct {
	mu    sync.Mutex
	texts []string
}

func (w *warnings) AddWarning(_, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, text)
}

// ours returns our violations, worded like the warnings of the API server.
func ours(t *testing.T, set *policy.Set, req policy.Request) []string {
	t.Helper()
	req.Namespaces = policy.NamespacesFunc(func(_ context.Context, name string) (*corev1.Namespace, error) {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelMetadataName: name}}}, nil
	})
	violations, err := set.Evaluate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, v := range violations {
		out = append(out, fmt.Sprintf("Validation failed for ValidatingAdmissionPolicy '%s' with binding '%s': %s", v.Policy, v.Binding, v.Message))
	}
	slices.Sort(out)
	return out
}

func builtIn(t testing.TB) string {
	t.Helper()
	names, err := fs.Glob(content.Policies(), "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, name := range names {
		data, err := fs.ReadFile(content.Policies(), name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(data))
	}
	return strings.Join(all, "---\n")
}

// TestSameAsAPIServer compares every violation of every built-in policy, on
// all their examples, with what the admission plugin of the API server says
// about the typed object: verdict and wording.
func TestSameAsAPIServer(t *testing.T) {
	// A denial hides the warnings, so all policies warn.
	documents := strings.ReplaceAll(builtIn(t), "[Deny]", "[Warn]")
	set, plugin := load(t, documents), newOracle(t, documents)
	files, err := filepath.Glob("../content/policies/testdata/*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	violations, judged := 0, 0
	for i, file := range files {
		if testing.Short() && i%8 > 0 {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), "kind: AdmissionReview\n") {
			continue // by users and in namespaces that this plugin does not have
		}
		judged++
		req := create(t, string(data))
		want := plugin.judge(t, req)
		violations += len(want)
		if got := ours(t, set, req); !slices.Equal(got, want) {
			t.Errorf("%s:\nours:       %s\nAPI server: %s", file, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
		}
		old := req
		old.Operation, old.OldObject = "UPDATE", req.Object
		if got, want := ours(t, set, old), plugin.judge(t, old); !slices.Equal(got, want) {
			t.Errorf("%s, unchanged by an update:\nours:       %s\nAPI server: %s", file, got, want)
		}
	}
	if violations < judged {
		t.Errorf("%d violations of %d objects prove little", violations, judged)
	}
}

// TestSameAsAPIServerInDetail compares single features.
func TestSameAsAPIServerInDetail(t *testing.T) {
	tests := map[string]string{
		"absent struct":        pods + "validations: [{expression: '!has(object.spec.containers[0].resources.limits)'}]",
		"absent map":           pods + "validations: [{expression: \"object.metadata.annotations['a'] == 'b'\"}]",
		"message expression":   pods + "validations: [{expression: 'false', messageExpression: \"'  ' + object.metadata.name + '  '\"}]",
		"message too long":     pods + "validations: [{expression: 'false', message: nope, messageExpression: \"'" + strings.Repeat("x", 6000) + "'\"}]",
		"message of two lines": pods + "validations: [{expression: 'false', message: nope, messageExpression: \"'a\\\\nb'\"}]",
		"empty message":        pods + "validations: [{expression: 'false', message: nope, messageExpression: \"' '\"}]",
		"error":                pods + "validations: [{expression: object.spec.nodeName == 'a'}, {expression: 'false'}]",
		"error, Ignore":        pods + "failurePolicy: Ignore\nvalidations: [{expression: object.spec.nodeName == 'a'}, {expression: 'false'}]",
		"error of a variable":  pods + "variables: [{name: a, expression: object.spec.nodeName}]\nvalidations: [{expression: variables.a == 'a'}]",
		"error of a condition": valid + "\nmatchConditions: [{name: a, expression: object.spec.nodeName == 'a'}]",
		"condition":            valid + "\nmatchConditions: [{name: a, expression: 'false'}]",
		"namespace":            pods + "validations: [{expression: \"namespaceObject.metadata.name == 'a'\", messageExpression: \"'in ' + namespaceObject.metadata.name\"}]",
		"namespace selector":   strings.Replace(pods, "matchConstraints:", "matchConstraints:\n  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}", 1) + "validations: [{expression: 'false'}]",
		"request":              pods + "validations: [{expression: \"request.kind.kind == 'X'\", messageExpression: \"request.kind.kind + ' ' + request.name + ' ' + request.requestResource.resource + ' ' + string(has(request.subResource))\"}]",
		"cost of a call":       pods + "variables: [{name: l, expression: '[1,2,3,4,5,6,7,8,9,10]'}]\nvalidations: [{expression: 'variables.l.all(a, variables.l.all(b, variables.l.all(c, variables.l.all(d, variables.l.all(e, variables.l.all(f, a+b+c+d+e+f > 0))))))'}]",
		"cost of all":          pods + "variables: [{name: l, expression: '[1,2,3,4,5,6,7,8,9,10]'}]\nvalidations:" + repeat(40, "\n- {expression: 'variables.l.all(a, variables.l.all(b, variables.l.all(c, variables.l.all(d, variables.l.all(e, a+b+c+d+e > %d)))))'}"),
	}
	for name, spec := range tests {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name == "cost of all" {
				t.Skip("spends the whole cost budget")
			}
			text := strings.Replace(document(spec), "[Deny]", "[Warn]", 1)
			set, plugin := load(t, text), newOracle(t, text)
			req := create(t, webPod)
			if got, want := ours(t, set, req), plugin.judge(t, req); !slices.Equal(got, want) {
				t.Errorf("\nours:       %q\nAPI server: %q", got, want)
			}
		})
	}
}
