package admission

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kubeguardian/kubeguardian/policy"
)

// Names in the cluster.
const (
	ConfigurationName = "kubeguardian"              // of the ValidatingWebhookConfiguration
	WebhookName       = "policies.kubeguardian.dev" // of its one webhook
)

// RegistrationOptions say how the API server reaches the webhook and when it
// asks.
type RegistrationOptions struct {
	Client kubernetes.Interface
	// Policies returns the policies in force; their rules become those of the
	// webhook.
	Policies func() *policy.Set
	// URL or Service is where the API server finds the handler; one is given.
	URL      string
	Service  *admissionregistrationv1.ServiceReference
	CABundle []byte
	// FailurePolicy says what becomes of requests while the webhook does not
	// answer; empty means Ignore.
	FailurePolicy admissionregistrationv1.FailurePolicyType
	// Timeout is how long the API server waits, in whole seconds from 1 to 30.
	Timeout time.Duration
	// Exempt are namespaces that are not checked, besides those of
	// [SystemNamespaces].
	Exempt []string
	// Log receives what was written.
	Log *slog.Logger
}

// A Registration writes the ValidatingWebhookConfiguration and keeps it as it
// should be.
type Registration struct{ opts RegistrationOptions }

// NewRegistration checks the options.
func NewRegistration(opts RegistrationOptions) (*Registration, error) {
	if (opts.URL == "") == (opts.Service == nil) {
		return nil, errors.New("register webhook: want either a URL or a service")
	}
	if opts.URL != "" {
		u, err := url.Parse(opts.URL)
		if err != nil {
			return nil, fmt.Errorf("register webhook: %w", err)
		}
		if u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("register webhook: URL %q: want https://host:port/path", opts.URL)
		}
	}
	if opts.Timeout < time.Second || opts.Timeout > 30*time.Second || opts.Timeout%time.Second != 0 {
		return nil, fmt.Errorf("register webhook: timeout %s: want 1s to 30s in whole seconds", opts.Timeout)
	}
	switch opts.FailurePolicy {
	case "":
		opts.FailurePolicy = admissionregistrationv1.Ignore
	case admissionregistrationv1.Ignore, admissionregistrationv1.Fail:
	default:
		return nil, fmt.Errorf("register webhook: failure policy %q: want Ignore or Fail", opts.FailurePolicy)
	}
	return &Registration{opts}, nil
}

// Configuration returns the object that the cluster should have. All defaults
// of the API server are spelled out, so that the stored object equals it.
func (r *Registration) Configuration() *admissionregistrationv1.ValidatingWebhookConfiguration {
	config := &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{
			Name:   ConfigurationName,
			Labels: map[string]string{"app.kubernetes.io/managed-by": "kubeguardian"},
		},
	}
	rules := r.opts.Policies().WebhookRules()
	if len(rules) == 0 {
		return config // a webhook without rules is not valid
	}
	config.Webhooks = []admissionregistrationv1.ValidatingWebhook{{
		Name:                    WebhookName,
		ClientConfig:            r.clientConfig(),
		Rules:                   rules,
		FailurePolicy:           new(r.opts.FailurePolicy),
		MatchPolicy:             new(admissionregistrationv1.Equivalent),
		NamespaceSelector:       r.namespaceSelector(),
		ObjectSelector:          &metav1.LabelSelector{}, // labels belong to the user: they exempt nothing
		SideEffects:             new(admissionregistrationv1.SideEffectClassNone),
		TimeoutSeconds:          new(int32(r.opts.Timeout / time.Second)),
		AdmissionReviewVersions: []string{"v1"},
		MatchConditions:         matchConditions(),
	}}
	return config
}

func (r *Registration) clientConfig() admissionregistrationv1.WebhookClientConfig {
	config := admissionregistrationv1.WebhookClientConfig{CABundle: r.opts.CABundle}
	if r.opts.URL != "" {
		config.URL = &r.opts.URL
		return config
	}
	config.Service = r.opts.Service.DeepCopy()
	if config.Service.Port == nil {
		config.Service.Port = new(int32(443))
	}
	return config
}

// namespaceSelector leaves out exempt namespaces by the label with their name,
// which only the API server sets.
func (r *Registration) namespaceSelector() *metav1.LabelSelector {
	names := append(SystemNamespaces(), r.opts.Exempt...)
	slices.Sort(names)
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
		Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpNotIn, Values: slices.Compact(names),
	}}}
}

// matchConditions leave out what must never wait for a webhook, nor be refused
// by one, whatever rules policies bring.
func matchConditions() []admissionregistrationv1.MatchCondition {
	return []admissionregistrationv1.MatchCondition{
		// Kubelets mirror static pods, the control plane among them, and report
		// on nodes and pods. What they may write is bounded by NodeRestriction.
		{Name: "not-a-kubelet", Expression: `!("system:nodes" in request.userInfo.?groups.orValue([]))`},
		// When the API server starts it writes its own roles and namespaces.
		{Name: "not-the-api-server", Expression: `request.userInfo.?username.orValue("") != "system:apiserver"`},
		// Without nodes there is nowhere to run the webhook.
		{Name: "not-a-node", Expression: `!(request.resource.group == "" && request.resource.resource == "nodes")`},
		// Leases are heartbeats and leader elections.
		{Name: "not-a-lease", Expression: `request.resource.group != "coordination.k8s.io"`},
		// Status is what controllers see, not what users ask for, and finalize
		// lets namespaces end.
		{Name: "not-a-status", Expression: `!(request.?subResource.orValue("") in ["status", "finalize"])`},
	}
}

// Apply makes the configuration in the cluster what it should be, and writes
// only if it is not. Called again and again it undoes changes by others and
// follows the policies: reading one object costs nothing, and it needs no watch
// that could end unnoticed.
func (r *Registration) Apply(ctx context.Context) error {
	want := r.Configuration()
	api := r.opts.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	have, err := api.Get(ctx, want.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		if _, err := api.Create(ctx, want, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create webhook configuration %s: %w", want.Name, err)
		}
		r.opts.Log.Info("created webhook configuration", "name", want.Name)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read webhook configuration %s: %w", want.Name, err)
	}
	if current(have, want) {
		return nil
	}
	// All webhooks are replaced: a foreign match condition could switch ours off.
	have.Webhooks = want.Webhooks
	if have.Labels == nil {
		have.Labels = map[string]string{}
	}
	maps.Copy(have.Labels, want.Labels)
	if _, err := api.Update(ctx, have, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update webhook configuration %s: %w", want.Name, err)
	}
	r.opts.Log.Info("updated webhook configuration", "name", want.Name)
	return nil
}

// current reports whether a stored configuration is what it should be. Labels
// of others do not count.
func current(have, want *admissionregistrationv1.ValidatingWebhookConfiguration) bool {
	for key, value := range want.Labels {
		if have.Labels[key] != value {
			return false
		}
	}
	return equality.Semantic.DeepEqual(have.Webhooks, want.Webhooks)
}

// Remove deletes the configuration. That there is none is no error.
func (r *Registration) Remove(ctx context.Context) error {
	api := r.opts.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	if err := api.Delete(ctx, ConfigurationName, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete webhook configuration %s: %w", ConfigurationName, err)
	}
	return nil
}
