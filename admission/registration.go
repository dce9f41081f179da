package admission

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
)

// Names in the cluster.
const (
	ConfigurationName = "kubeguardian"               // of both webhook configurations
	WebhookName       = "policies.kubeguardian.dev"  // judges, by the configured failure policy
	ClosedWebhookName = "closed.kubeguardian.dev"    // judges what never passes unjudged
	MutatingName      = "defaults.kubeguardian.dev"  // changes
	HeartbeatName     = "heartbeat.kubeguardian.dev" // of the probe, see [Heartbeat]
)

// RegistrationOptions say how the API server reaches the webhook and when it
// asks.
type RegistrationOptions struct {
	Client kubernetes.Interface
	// Rules returns what the policies in force match.
	Rules func() []admissionregistrationv1.RuleWithOperations
	// MutatingRules returns what mutating policies match; nil or no rules means
	// that nothing is changed, and no webhook is registered for it.
	MutatingRules func() []admissionregistrationv1.RuleWithOperations
	// URL or Service is where the API server finds the handler, without a path;
	// one is given.
	URL     string
	Service *admissionregistrationv1.ServiceReference
	// CABundle returns the certificates to trust. It is called for each Apply,
	// because they change.
	CABundle func() []byte
	// FailurePolicy says what becomes of requests while the webhook does not
	// answer; empty means Ignore.
	FailurePolicy admissionregistrationv1.FailurePolicyType
	// FailClosed are resources whose requests are refused while the webhook does
	// not answer, whatever FailurePolicy says.
	FailClosed []schema.GroupResource
	// Timeout is how long the API server waits, in whole seconds from 1 to 30.
	Timeout time.Duration
	// Namespace is that of the webhook. It is not checked; the probe of the
	// [Heartbeat] is in it.
	Namespace string
	// Exempt are more namespaces that are not checked, besides those of
	// [SystemNamespaces].
	Exempt []string
	// Log receives what was written.
	Log *slog.Logger
}

// A Registration writes the webhook configurations and keeps them as they should
// be.
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
		if u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("register webhook: URL %q: want https://host:port", opts.URL)
		}
		opts.URL = strings.TrimSuffix(opts.URL, "/")
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

// metadata is that of both configurations.
func metadata() metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:   ConfigurationName,
		Labels: map[string]string{"app.kubernetes.io/managed-by": "kubeguardian"},
	}
}

// Validating returns the object that the cluster should have. All defaults of
// the API server are spelled out, so that the stored object equals it. What the
// policies match is split between two webhooks, so that each request is sent
// once; a webhook without rules is not valid and left out.
func (r *Registration) Validating() *admissionregistrationv1.ValidatingWebhookConfiguration {
	rules := r.opts.Rules()
	closed := restrict(rules, r.opts.FailClosed)
	config := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metadata()}
	config.Webhooks = append(config.Webhooks, r.heartbeat())
	if len(closed) > 0 {
		config.Webhooks = append(config.Webhooks, r.validating(ClosedWebhookName, ValidateClosedPath, closed, admissionregistrationv1.Fail, nil))
	}
	if len(rules) > 0 {
		config.Webhooks = append(config.Webhooks, r.validating(WebhookName, ValidatePath, rules, r.opts.FailurePolicy, elsewhere(r.opts.FailClosed)))
	}
	return config
}

func (r *Registration) validating(name, path string, rules []admissionregistrationv1.RuleWithOperations, fail admissionregistrationv1.FailurePolicyType, more []admissionregistrationv1.MatchCondition) admissionregistrationv1.ValidatingWebhook {
	return admissionregistrationv1.ValidatingWebhook{
		Name:                    name,
		ClientConfig:            r.clientConfig(path),
		Rules:                   rules,
		FailurePolicy:           &fail,
		MatchPolicy:             new(admissionregistrationv1.Equivalent),
		NamespaceSelector:       r.namespaceSelector(),
		ObjectSelector:          &metav1.LabelSelector{}, // labels belong to the user: they exempt nothing
		SideEffects:             new(admissionregistrationv1.SideEffectClassNone),
		TimeoutSeconds:          new(int32(r.opts.Timeout / time.Second)),
		AdmissionReviewVersions: []string{"v1"},
		MatchConditions:         append(matchConditions(rules), more...),
	}
}

// Mutating returns the object that the cluster should have, or nil when nothing
// is to be changed. Its failure policy is Ignore: what is not changed is judged
// as it is by the validating webhooks, which come after. It is asked again when
// another webhook changes an object after it.
func (r *Registration) Mutating() *admissionregistrationv1.MutatingWebhookConfiguration {
	if r.opts.MutatingRules == nil {
		return nil
	}
	rules := r.opts.MutatingRules()
	if len(rules) == 0 {
		return nil
	}
	v := r.validating(MutatingName, MutatePath, rules, admissionregistrationv1.Ignore, nil)
	return &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metadata(),
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: v.Name, ClientConfig: v.ClientConfig, Rules: v.Rules, FailurePolicy: v.FailurePolicy, MatchPolicy: v.MatchPolicy,
			NamespaceSelector: v.NamespaceSelector, ObjectSelector: v.ObjectSelector, SideEffects: v.SideEffects,
			TimeoutSeconds: v.TimeoutSeconds, AdmissionReviewVersions: v.AdmissionReviewVersions, MatchConditions: v.MatchConditions,
			ReinvocationPolicy: new(admissionregistrationv1.IfNeededReinvocationPolicy),
		}},
	}
}

func (r *Registration) clientConfig(path string) admissionregistrationv1.WebhookClientConfig {
	config := admissionregistrationv1.WebhookClientConfig{CABundle: r.opts.CABundle()}
	if r.opts.URL != "" {
		config.URL = new(r.opts.URL + path)
		return config
	}
	config.Service = r.opts.Service.DeepCopy()
	config.Service.Path = &path
	if config.Service.Port == nil {
		config.Service.Port = new(int32(443))
	}
	return config
}

// namespaceSelector leaves out exempt namespaces by the label with their name,
// which only the API server sets.
func (r *Registration) namespaceSelector() *metav1.LabelSelector {
	names := append(append(SystemNamespaces(), r.opts.Namespace), r.opts.Exempt...)
	slices.Sort(names)
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
		Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpNotIn, Values: slices.Compact(names),
	}}}
}

// Apply makes the configurations in the cluster what they should be, and writes
// only if they are not. Called again and again it undoes changes by others and
// follows the policies and the certificates: reading two objects costs nothing,
// and it needs no watch that could end unnoticed. Several replicas may do so at
// the same time.
func (r *Registration) Apply(ctx context.Context) error {
	return errors.Join(r.applyValidating(ctx), r.applyMutating(ctx))
}

func (r *Registration) applyValidating(ctx context.Context) error {
	want := r.Validating()
	return apply(ctx, r.opts.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations(), "validating", r.opts.Log, want,
		func(have *admissionregistrationv1.ValidatingWebhookConfiguration) bool {
			if labelled(have.Labels, want.Labels) && equality.Semantic.DeepEqual(have.Webhooks, want.Webhooks) {
				return false
			}
			// All webhooks are replaced: a foreign match condition could switch ours off.
			have.Labels, have.Webhooks = label(have.Labels, want.Labels), want.Webhooks
			return true
		})
}

func (r *Registration) applyMutating(ctx context.Context) error {
	api := r.opts.Client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	want := r.Mutating()
	if want == nil {
		_, err := remove(ctx, api, "mutating", r.opts.Log)
		return err
	}
	return apply(ctx, api, "mutating", r.opts.Log, want,
		func(have *admissionregistrationv1.MutatingWebhookConfiguration) bool {
			if labelled(have.Labels, want.Labels) && equality.Semantic.DeepEqual(have.Webhooks, want.Webhooks) {
				return false
			}
			have.Labels, have.Webhooks = label(have.Labels, want.Labels), want.Webhooks
			return true
		})
}

// A configurationAPI is the client of one kind of webhook configuration.
type configurationAPI[T any] interface {
	Get(ctx context.Context, name string, opts metav1.GetOptions) (*T, error)
	Create(ctx context.Context, config *T, opts metav1.CreateOptions) (*T, error)
	Update(ctx context.Context, config *T, opts metav1.UpdateOptions) (*T, error)
	Delete(ctx context.Context, name string, opts metav1.DeleteOptions) error
}

// maxTries bounds the tries to write an object that others write too.
const maxTries = 5

// apply creates want, or updates what there is when amend changes it.
func apply[T any](ctx context.Context, api configurationAPI[T], kind string, log *slog.Logger, want *T, amend func(have *T) bool) error {
	var err error
	for range maxTries {
		var have *T
		var verb string
		have, err = api.Get(ctx, ConfigurationName, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			verb = "create"
			_, err = api.Create(ctx, want, metav1.CreateOptions{})
		case err != nil:
			return fmt.Errorf("read %s webhook configuration %s: %w", kind, ConfigurationName, err)
		case !amend(have):
			return nil
		default:
			verb = "update"
			_, err = api.Update(ctx, have, metav1.UpdateOptions{})
		}
		switch {
		case err == nil:
			log.Info(verb+"d webhook configuration", "kind", kind, "name", ConfigurationName)
			return nil
		case !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err): // another replica was faster
			return fmt.Errorf("%s %s webhook configuration %s: %w", verb, kind, ConfigurationName, err)
		}
	}
	return fmt.Errorf("write %s webhook configuration %s, which others write too: %w", kind, ConfigurationName, err)
}

// remove deletes a configuration. That there is none is no error; looking first
// keeps the audit log of the cluster quiet.
// remove deletes a configuration, and reports whether there was one.
func remove[T any](ctx context.Context, api configurationAPI[T], kind string, log *slog.Logger) (bool, error) {
	_, err := api.Get(ctx, ConfigurationName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err == nil {
		err = api.Delete(ctx, ConfigurationName, metav1.DeleteOptions{})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return false, fmt.Errorf("delete %s webhook configuration %s: %w", kind, ConfigurationName, err)
	}
	log.Info("deleted webhook configuration", "kind", kind, "name", ConfigurationName)
	return true, nil
}

// labelled reports whether labels has all of want. Those of others do not count.
func labelled(labels, want map[string]string) bool {
	for key, value := range want {
		if labels[key] != value {
			return false
		}
	}
	return true
}

func label(labels, want map[string]string) map[string]string {
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, want)
	return labels
}

// Remove deletes the configurations. That there are none is no error.
func (r *Registration) Remove(ctx context.Context) error {
	_, err := Unregister(ctx, r.opts.Client, r.opts.Log)
	return err
}

// Unregister deletes the configurations of whoever registered them, and reports
// whether there were any.
func Unregister(ctx context.Context, client kubernetes.Interface, log *slog.Logger) (bool, error) {
	api := client.AdmissionregistrationV1()
	validating, err := remove(ctx, api.ValidatingWebhookConfigurations(), "validating", log)
	mutating, other := remove(ctx, api.MutatingWebhookConfigurations(), "mutating", log)
	return validating || mutating, errors.Join(err, other)
}
