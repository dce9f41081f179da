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
)

// registered returns a registration, with the changes of edit.
func registered(t *testing.T, edit func(*RegistrationOptions)) (*Registration, error) {
	t.Helper()
	set := failing(t, "Deny", "no")
	opts := RegistrationOptions{
		Client:    fake.NewClientset(),
		Rules:     set.WebhookRules,
		URL:       "https://127.0.0.1:9443",
		CABundle:  func() []byte { return []byte("pem") },
		Timeout:   3 * time.Second,
		Namespace: "kubeguardian",
		Exempt:    []string{"legacy", "kube-system"},
		Log:       slog.New(slog.DiscardHandler),
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
		{"a path", func(o *RegistrationOptions) { o.URL = "https://a/admit" }, "want https://host:port"},
		{"plain HTTP", func(o *RegistrationOptions) { o.URL = "http://a" }, "want https://host:port"},
		{"user in URL", func(o *RegistrationOptions) { o.URL = "https://u:p@a" }, "want https://host:port"},
		{"query in URL", func(o *RegistrationOptions) { o.URL = "https://a?b=c" }, "want https://host:port"},
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

// webhook returns the one of a configuration with this name, or nil.
func webhook(config *admissionregistrationv1.ValidatingWebhookConfiguration, name string) *admissionregistrationv1.ValidatingWebhook {
	for i := range config.Webhooks {
		if config.Webhooks[i].Name == name {
			return &config.Webhooks[i]
		}
	}
	return nil
}

func TestConfiguration(t *testing.T) {
	config := mustRegister(t, unchanged).Validating()
	if config.Name != "kubeguardian" || len(config.Webhooks) != 2 || webhook(config, HeartbeatName) == nil {
		t.Fatalf("configuration = %+v", config)
	}
	w := webhook(config, WebhookName)
	if w.Name != "policies.kubeguardian.dev" || *w.ClientConfig.URL != "https://127.0.0.1:9443/admit" || string(w.ClientConfig.CABundle) != "pem" || w.ClientConfig.Service != nil {
		t.Errorf("webhook = %+v", w)
	}
	if *w.FailurePolicy != admissionregistrationv1.Ignore || *w.TimeoutSeconds != 3 || *w.SideEffects != admissionregistrationv1.SideEffectClassNone || !slices.Equal(w.AdmissionReviewVersions, []string{"v1"}) {
		t.Errorf("webhook = %+v", w)
	}
	if len(w.Rules) != 1 || !slices.Equal(w.Rules[0].Resources, []string{"namespaces", "pods"}) {
		t.Errorf("rules = %+v", w.Rules)
	}
	byService := webhook(mustRegister(t, func(o *RegistrationOptions) {
		o.URL, o.Service = "", &admissionregistrationv1.ServiceReference{Namespace: "kubeguardian", Name: "webhook"}
		o.FailurePolicy = admissionregistrationv1.Fail
	}).Validating(), WebhookName)
	if byService.ClientConfig.URL != nil || *byService.ClientConfig.Service.Port != 443 || *byService.ClientConfig.Service.Path != "/admit" || *byService.FailurePolicy != admissionregistrationv1.Fail {
		t.Errorf("webhook = %+v", byService)
	}
	none := mustRegister(t, func(o *RegistrationOptions) {
		empty := failing(t, "Deny")
		o.Rules = empty.WebhookRules
	})
	if config := none.Validating(); len(config.Webhooks) != 1 || config.Webhooks[0].Name != HeartbeatName {
		t.Errorf("without policies: webhooks = %+v", config.Webhooks)
	}
}

// TestFailClosed splits what policies match: each request is sent to one
// webhook, and the narrow one fails closed.
func TestFailClosed(t *testing.T) {
	config := mustRegister(t, func(o *RegistrationOptions) {
		o.FailClosed = []schema.GroupResource{{Resource: "pods"}, {Group: "apps", Resource: "deployments"}}
	}).Validating()
	closed, open := webhook(config, ClosedWebhookName), webhook(config, WebhookName)
	if closed == nil || *closed.FailurePolicy != admissionregistrationv1.Fail || *closed.ClientConfig.URL != "https://127.0.0.1:9443/admit/closed" {
		t.Fatalf("webhook = %+v", closed)
	}
	if len(closed.Rules) != 1 || !slices.Equal(closed.Rules[0].Resources, []string{"pods"}) {
		t.Errorf("rules = %+v", closed.Rules)
	}
	for resource, want := range map[string]string{"pods": ClosedWebhookName, "namespaces": WebhookName} {
		for _, w := range []*admissionregistrationv1.ValidatingWebhook{closed, open} {
			matches := matcher(t, w).matches(t, asked{user: "ann", resource: schema.GroupVersionResource{Version: "v1", Resource: resource}})
			names := slices.ContainsFunc(w.Rules, func(r admissionregistrationv1.RuleWithOperations) bool { return slices.Contains(r.Resources, resource) })
			if (matches && names) != (w.Name == want) {
				t.Errorf("%s is sent to %s: %v, want it sent to %s", resource, w.Name, matches && names, want)
			}
		}
	}
}

func TestRestrict(t *testing.T) {
	rule := func(groups, resources string) admissionregistrationv1.RuleWithOperations {
		return admissionregistrationv1.RuleWithOperations{Rule: admissionregistrationv1.Rule{
			APIGroups: strings.Split(groups, " "), APIVersions: []string{"v1"}, Resources: strings.Fields(resources),
		}}
	}
	tests := []struct {
		name string
		rule admissionregistrationv1.RuleWithOperations
		want []string
	}{
		{"named", rule("", "pods services"), []string{"pods"}},
		{"subresources", rule("", "pods/exec pods/ephemeralcontainers services/proxy"), []string{"pods/exec", "pods/ephemeralcontainers"}},
		{"any resource", rule("*", "*"), []string{"pods"}},
		{"anything", rule("*", "*/*"), []string{"pods/*"}},
		{"another group", rule("apps", "pods *"), nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, r := range restrict([]admissionregistrationv1.RuleWithOperations{test.rule}, []schema.GroupResource{{Resource: "pods"}}) {
				if !slices.Equal(r.APIGroups, []string{""}) || !slices.Equal(r.APIVersions, []string{"v1"}) {
					t.Errorf("rule = %+v", r)
				}
				got = append(got, r.Resources...)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("resources = %q, want %q", got, test.want)
			}
		})
	}
}

// TestMutatingConfiguration expects no webhook where nothing is to be changed,
// and one that is asked again otherwise.
func TestMutatingConfiguration(t *testing.T) {
	if config := mustRegister(t, unchanged).Mutating(); config != nil {
		t.Errorf("configuration = %+v", config)
	}
	set := failing(t, "Deny", "no")
	w := mustRegister(t, func(o *RegistrationOptions) { o.MutatingRules = set.WebhookRules }).Mutating().Webhooks[0]
	if *w.ClientConfig.URL != "https://127.0.0.1:9443/mutate" || *w.ReinvocationPolicy != admissionregistrationv1.IfNeededReinvocationPolicy || *w.FailurePolicy != admissionregistrationv1.Ignore || *w.SideEffects != admissionregistrationv1.SideEffectClassNone {
		t.Errorf("webhook = %+v", w)
	}
	if len(w.Rules) != 1 || len(w.MatchConditions) == 0 || w.NamespaceSelector == nil {
		t.Errorf("webhook = %+v", w)
	}
}

func TestNamespaceSelector(t *testing.T) {
	selector, err := metav1.LabelSelectorAsSelector(webhook(mustRegister(t, unchanged).Validating(), WebhookName).NamespaceSelector)
	if err != nil {
		t.Fatal(err)
	}
	for namespace, want := range map[string]bool{
		"kube-system": false, "kube-public": false, "kube-node-lease": false, "kubeguardian": false, "legacy": false, "default": true, "kube-system-2": true,
	} {
		if got := selector.Matches(labels.Set{corev1.LabelMetadataName: namespace}); got != want {
			t.Errorf("%s: asked for = %v, want %v", namespace, got, want)
		}
	}
}

// asked is what match conditions look at.
type asked struct {
	user        string
	groups      []string
	resource    schema.GroupVersionResource
	subresource string
	name        string
	dryRun      bool
}

// conditions are those of a webhook, compiled as the API server compiles them.
type conditions struct{ matchconditions.Matcher }

func matcher(t *testing.T, w *admissionregistrationv1.ValidatingWebhook) conditions {
	t.Helper()
	compiler := plugincel.NewConditionCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	var expressions []plugincel.ExpressionAccessor
	for _, c := range w.MatchConditions {
		expressions = append(expressions, &matchconditions.MatchCondition{Name: c.Name, Expression: c.Expression})
	}
	compiled := compiler.CompileCondition(expressions, plugincel.OptionalVariableDeclarations{HasAuthorizer: true}, environment.NewExpressions)
	if errs := compiled.CompilationErrors(); len(errs) > 0 {
		t.Fatal(errs)
	}
	fail := admissionregistrationv1.Fail
	return conditions{matchconditions.NewMatcher(compiled, &fail, "webhook", "validating", w.Name)}
}

func (c conditions) matches(t *testing.T, r asked) bool {
	t.Helper()
	info := &user.DefaultInfo{Name: r.user, Groups: r.groups}
	if r.name == "" {
		r.name = "x"
	}
	attr := &admission.VersionedAttributes{
		Attributes: admission.NewAttributesRecord(nil, nil, schema.GroupVersionKind{Version: "v1", Kind: "X"}, "shop", r.name,
			r.resource, r.subresource, admission.Update, nil, r.dryRun, info),
	}
	result := c.Match(t.Context(), attr, nil, nil)
	if result.Error != nil {
		t.Errorf("%+v: %v", r, result.Error)
	}
	return result.Matches
}

// TestMatchConditions evaluates the conditions with the matcher of the API
// server.
func TestMatchConditions(t *testing.T) {
	w := webhook(mustRegister(t, unchanged).Validating(), WebhookName)
	conditions := matcher(t, w)
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
		{"the group of kubelets alone", "ann", []string{"system:nodes"}, pods, "", true},
		{"the name of a kubelet alone", "system:node:a", []string{"system:authenticated"}, pods, "", true},
		{"the name of the API server alone", "system:apiserver", []string{"system:authenticated"}, pods, "", true},
		{"a kubelet that joins", "system:bootstrap:a", []string{"system:bootstrappers"}, schema.GroupVersionResource{Group: "certificates.k8s.io", Version: "v1", Resource: "certificatesigningrequests"}, "", false},
		{"a certificate for a user", "ann", nil, schema.GroupVersionResource{Group: "certificates.k8s.io", Version: "v1", Resource: "certificatesigningrequests"}, "", true},
		{"an event", "ann", nil, schema.GroupVersionResource{Version: "v1", Resource: "events"}, "", false},
		{"a new event", "ann", nil, schema.GroupVersionResource{Group: "events.k8s.io", Version: "v1", Resource: "events"}, "", false},
		{"events of another group", "ann", nil, schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "events"}, "", true},
		{"a review", "ann", nil, schema.GroupVersionResource{Group: "authorization.k8s.io", Version: "v1", Resource: "subjectaccessreviews"}, "", false},
		{"a lease", "ann", nil, schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}, "", false},
		{"a status", "ann", nil, pods, "status", false},
		{"the end of a namespace", "ann", nil, schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, "finalize", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := asked{user: test.user, groups: test.groups, resource: test.resource, subresource: test.subresource}
			if got := conditions.matches(t, r); got != test.want {
				t.Errorf("matches = %v, want %v", got, test.want)
			}
		})
	}
	w.MatchConditions = matchConditions([]admissionregistrationv1.RuleWithOperations{{Rule: admissionregistrationv1.Rule{Resources: []string{"services/status", "*/status", "pods"}}}})
	named := matcher(t, w)
	for resource, want := range map[string]bool{"services": true, "pods": false} {
		if got := named.matches(t, asked{user: "ann", resource: schema.GroupVersionResource{Version: "v1", Resource: resource}, subresource: "status"}); got != want {
			t.Errorf("%s/status matches = %v, want %v", resource, got, want)
		}
	}
}

// TestHeartbeatIsAlone expects that only the probe is sent to the webhook of the
// heartbeat.
func TestHeartbeatIsAlone(t *testing.T) {
	w := webhook(mustRegister(t, unchanged).Validating(), HeartbeatName)
	conditions := matcher(t, w)
	maps := schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	for _, test := range []struct {
		name   string
		dryRun bool
		want   bool
	}{{HeartbeatObject, true, true}, {HeartbeatObject, false, false}, {"other", true, false}} {
		if got := conditions.matches(t, asked{user: "ann", resource: maps, name: test.name, dryRun: test.dryRun}); got != test.want {
			t.Errorf("%s, dry run %v: matches = %v, want %v", test.name, test.dryRun, got, test.want)
		}
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
			c.Webhooks = append(c.Webhooks, c.Webhooks[1])
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
			if got := get(); len(got.Webhooks) != len(want) || got.Webhooks[1].String() != want[1].String() || got.Webhooks[0].String() != want[0].String() || got.Labels["app.kubernetes.io/managed-by"] != "kubeguardian" {
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
	if n := len(client.Actions()); n != 2 || get().Labels["team"] != "platform" {
		t.Errorf("%d calls for a configuration that is as it should be, want two", n)
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
