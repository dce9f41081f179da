package admission

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/kubeguardian/kubeguardian/policy"
)

// registered returns a registration, with the changes of edit.
func registered(t *testing.T, edit func(*RegistrationOptions)) (*Registration, error) {
	t.Helper()
	set := failing(t, "Deny", "no")
	opts := RegistrationOptions{
		Client:   fake.NewClientset(),
		Policies: func() *policy.Set { return set },
		URL:      "https://127.0.0.1:9443/admit",
		CABundle: []byte("pem"),
		Timeout:  3 * time.Second,
		Exempt:   []string{"kubeguardian", "kube-system"},
		Log:      slog.New(slog.DiscardHandler),
	}
	edit(&opts)
	return NewRegistration(opts)
}

func mustRegister(t *testing.T, edit func(*RegistrationOptions)) *Registration {
	t.Helper()
	r, err := registered(t, edit)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func unchanged(*RegistrationOptions) {}

func TestRegistrationErrors(t *testing.T) {
	service := &admissionregistrationv1.ServiceReference{Namespace: "kubeguardian", Name: "webhook"}
	tests := []struct {
		name string
		edit func(*RegistrationOptions)
		want string
	}{
		{"neither", func(o *RegistrationOptions) { o.URL = "" }, "want either a URL or a service"},
		{"both", func(o *RegistrationOptions) { o.Service = service }, "want either a URL or a service"},
		{"not a URL", func(o *RegistrationOptions) { o.URL = "https://a b" }, "invalid character"},
		{"plain HTTP", func(o *RegistrationOptions) { o.URL = "http://a/admit" }, "want https://host:port/path"},
		{"user in URL", func(o *RegistrationOptions) { o.URL = "https://u:p@a/admit" }, "want https://host:port/path"},
		{"query in URL", func(o *RegistrationOptions) { o.URL = "https://a/admit?b=c" }, "want https://host:port/path"},
		{"no timeout", func(o *RegistrationOptions) { o.Timeout = 0 }, "timeout 0s: want 1s to 30s"},
		{"long timeout", func(o *RegistrationOptions) { o.Timeout = time.Minute }, "timeout 1m0s: want 1s to 30s"},
		{"half a second", func(o *RegistrationOptions) { o.Timeout = 1500 * time.Millisecond }, "whole seconds"},
		{"failure policy", func(o *RegistrationOptions) { o.FailurePolicy = "Open" }, `failure policy "Open": want Ignore or Fail`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := registered(t, test.edit); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want %q", err, test.want)
			}
		})
	}
}

func TestConfiguration(t *testing.T) {
	config := mustRegister(t, unchanged).Configuration()
	if config.Name != "kubeguardian" || len(config.Webhooks) != 1 {
		t.Fatalf("configuration = %+v", config)
	}
	w := config.Webhooks[0]
	if w.Name != "policies.kubeguardian.dev" || *w.ClientConfig.URL != "https://127.0.0.1:9443/admit" || string(w.ClientConfig.CABundle) != "pem" || w.ClientConfig.Service != nil {
		t.Errorf("webhook = %+v", w)
	}
	if *w.FailurePolicy != admissionregistrationv1.Ignore || *w.TimeoutSeconds != 3 || *w.SideEffects != admissionregistrationv1.SideEffectClassNone || !slices.Equal(w.AdmissionReviewVersions, []string{"v1"}) {
		t.Errorf("webhook = %+v", w)
	}
	if len(w.Rules) != 1 || !slices.Equal(w.Rules[0].Resources, []string{"namespaces", "pods"}) {
		t.Errorf("rules = %+v", w.Rules)
	}
	byService := mustRegister(t, func(o *RegistrationOptions) {
		o.URL, o.Service = "", &admissionregistrationv1.ServiceReference{Namespace: "kubeguardian", Name: "webhook"}
		o.FailurePolicy = admissionregistrationv1.Fail
	}).Configuration().Webhooks[0]
	if byService.ClientConfig.URL != nil || *byService.ClientConfig.Service.Port != 443 || *byService.FailurePolicy != admissionregistrationv1.Fail {
		t.Errorf("webhook = %+v", byService)
	}
	none := mustRegister(t, func(o *RegistrationOptions) {
		empty := failing(t, "Deny")
		o.Policies = func() *policy.Set { return empty }
	})
	if webhooks := none.Configuration().Webhooks; len(webhooks) != 0 {
		t.Errorf("without policies: webhooks = %+v", webhooks)
	}
}

func TestNamespaceSelector(t *testing.T) {
	selector, err := metav1.LabelSelectorAsSelector(mustRegister(t, unchanged).Configuration().Webhooks[0].NamespaceSelector)
	if err != nil {
		t.Fatal(err)
	}
	for namespace, want := range map[string]bool{
		"kube-system": false, "kube-public": false, "kube-node-lease": false, "kubeguardian": false, "default": true, "kube-system-2": true,
	} {
		if got := selector.Matches(labels.Set{corev1.LabelMetadataName: namespace}); got != want {
			t.Errorf("%s: asked for = %v, want %v", namespace, got, want)
		}
	}
}

// TestMatchConditions evaluates the conditions with the matcher of the API
// server.
func TestMatchConditions(t *testing.T) {
	compiler := plugincel.NewConditionCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	var expressions []plugincel.ExpressionAccessor
	for _, c := range mustRegister(t, unchanged).Configuration().Webhooks[0].MatchConditions {
		expressions = append(expressions, &matchconditions.MatchCondition{Name: c.Name, Expression: c.Expression})
	}
	compiled := compiler.CompileCondition(expressions, plugincel.OptionalVariableDeclarations{HasAuthorizer: true}, environment.NewExpressions)
	if errs := compiled.CompilationErrors(); len(errs) > 0 {
		t.Fatal(errs)
	}
	fail := admissionregistrationv1.Fail
	matcher := matchconditions.NewMatcher(compiled, &fail, "webhook", "validating", WebhookName)

	pods := schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	tests := []struct {
		name        string
		user        string
		groups      []string
		resource    schema.GroupVersionResource
		subresource string
		want        bool
	}{
		{"a user", "ann", []string{"system:authenticated"}, pods, "", true},
		{"a user of no group", "ann", nil, pods, "", true},
		{"an administrator", "admin", []string{"system:masters"}, pods, "", true},
		{"a controller", "system:serviceaccount:kube-system:replicaset-controller", []string{"system:serviceaccounts"}, pods, "", true},
		{"debugging", "ann", nil, pods, "ephemeralcontainers", true},
		{"nodes of another group", "ann", nil, schema.GroupVersionResource{Group: "metrics.k8s.io", Version: "v1", Resource: "nodes"}, "", true},
		{"a kubelet", "system:node:a", []string{"system:nodes", "system:authenticated"}, pods, "", false},
		{"the API server", "system:apiserver", []string{"system:masters"}, pods, "", false},
		{"a node", "ann", nil, schema.GroupVersionResource{Version: "v1", Resource: "nodes"}, "", false},
		{"a lease", "ann", nil, schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}, "", false},
		{"a status", "ann", nil, pods, "status", false},
		{"the end of a namespace", "ann", nil, schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, "finalize", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			info := &user.DefaultInfo{Name: test.user, Groups: test.groups}
			attr := &admission.VersionedAttributes{
				Attributes: admission.NewAttributesRecord(nil, nil, schema.GroupVersionKind{Version: "v1", Kind: "X"}, "shop", "x",
					test.resource, test.subresource, admission.Update, nil, false, info),
			}
			result := matcher.Match(t.Context(), attr, nil, nil)
			if result.Error != nil || result.Matches != test.want {
				t.Errorf("matches = %v (%s), error %v; want %v", result.Matches, result.FailedConditionName, result.Error, test.want)
			}
		})
	}
}

// TestApply works on the cluster of a fake client; the end-to-end test repeats
// it on a real API server.
func TestApply(t *testing.T) {
	r := mustRegister(t, unchanged)
	api := r.opts.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	get := func() *admissionregistrationv1.ValidatingWebhookConfiguration {
		t.Helper()
		config, err := api.Get(t.Context(), ConfigurationName, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return config
	}
	apply := func() {
		t.Helper()
		if err := r.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	apply()
	want := get().Webhooks
	for name, drift := range map[string]func(*admissionregistrationv1.ValidatingWebhookConfiguration){
		"no webhooks":   func(c *admissionregistrationv1.ValidatingWebhookConfiguration) { c.Webhooks = nil },
		"label removed": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) { c.Labels = nil },
		"other authority": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
			c.Webhooks[0].ClientConfig.CABundle = []byte("x")
		},
		"exemption added": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
			c.Webhooks[0].NamespaceSelector.MatchExpressions[0].Values = []string{"shop"}
		},
		"condition added": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
			c.Webhooks[0].MatchConditions = append(c.Webhooks[0].MatchConditions, admissionregistrationv1.MatchCondition{Name: "never", Expression: "false"})
		},
		"a second webhook": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
			c.Webhooks = append(c.Webhooks, c.Webhooks[0])
		},
		"failure policy": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
			c.Webhooks[0].FailurePolicy = new(admissionregistrationv1.Fail)
		},
	} {
		t.Run(name, func(t *testing.T) {
			changed := get()
			drift(changed)
			if _, err := api.Update(t.Context(), changed, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			apply()
			if got := get(); len(got.Webhooks) != 1 || got.Webhooks[0].String() != want[0].String() || got.Labels["app.kubernetes.io/managed-by"] != "kubeguardian" {
				t.Errorf("configuration = %+v", got)
			}
		})
	}
	other := get()
	other.Labels["team"] = "platform"
	if _, err := api.Update(t.Context(), other, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	client := r.opts.Client.(*fake.Clientset)
	client.ClearActions()
	apply()
	if n := len(client.Actions()); n != 1 || get().Labels["team"] != "platform" {
		t.Errorf("%d calls for a configuration that is as it should be, want one", n)
	}
	for range 2 { // the second finds nothing
		if err := r.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := api.Get(t.Context(), ConfigurationName, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("after Remove: %v", err)
	}
}
