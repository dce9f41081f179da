package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"

	"github.com/kubeguardian/kubeguardian/admission"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/server/listener"
)

// auditPath is where the webhook listener takes audit events; admission has its
// own paths.
const auditPath = "/audit"

// webhookGrace is how long requests may take once the listener closes, or as long
// as the API server waits for a review. Batches of audit events come there too.
const webhookGrace = 5 * time.Second

// webhookHeaders bounds the headers of a request. API servers send some 500 bytes.
const webhookHeaders = 16 << 10

// registrationCheck is how often the registration is compared with what it
// should be.
const registrationCheck = 5 * time.Second

// webhookHosts returns the names by which the API server reaches the webhook
// listener.
func webhookHosts(w config.Webhook) []string {
	if w.Service.Name != "" {
		return []string{w.Service.Name + "." + w.Service.Namespace + ".svc"}
	}
	u, err := url.Parse(w.URL)
	if err != nil { // the configuration was validated
		return nil
	}
	return []string{u.Hostname()}
}

// connect makes the client of the cluster and both sides of its webhooks,
// without speaking to it yet.
func (s *Server) connect(ctx context.Context) (err error) {
	if s.client, err = kubernetes.NewForConfig(s.rest); err != nil {
		return fmt.Errorf("connect to cluster: %w", err)
	}
	if s.sources, err = newSources(s.rest); err != nil {
		return err
	}
	s.onStop(s.sources.watched.Stop)
	if s.authority, err = openAuthority(ctx, s.cfg, s.rest); err != nil {
		return err
	}
	s.breakGlass = admission.NewBreakGlass(s.client, ownNamespace(s.cfg))
	if err := s.openAuditLog(); err != nil {
		return err
	}
	if err := s.openWatchman(); err != nil {
		return err
	}
	s.metrics = newMetrics(s.version, s.authority.NotAfter, s.runaways)
	s.metrics.registry.MustRegister(s.images.Collector(), s.auditLog.Collector(), s.senders.Collector(), s.visitors.Collector())
	s.metrics.registry.MustRegister(s.reloads.collectors()...)
	s.metrics.registry.MustRegister(slices.Concat(s.auditWatch.Collectors(), s.watchman.Collectors())...)
	opts := admission.RegistrationOptions{
		Client: s.client,
		Rules:  func() []admissionregistrationv1.RuleWithOperations { return s.rulesOf((*engine.Set).WebhookRules) },
		MutatingRules: func() []admissionregistrationv1.RuleWithOperations {
			return s.rulesOf((*engine.Set).MutatingWebhookRules)
		},
		CABundle:      s.authority.CABundle,
		FailurePolicy: admissionregistrationv1.FailurePolicyType(s.cfg.Admission.FailurePolicy),
		Timeout:       s.cfg.Admission.Timeout,
		FailClosed:    s.failClosed(),
		Namespace:     ownNamespace(s.cfg),
		Exempt:        s.cfg.Admission.ExemptNamespaces,
		Log:           s.log,
	}
	if service := s.cfg.Webhook.Service; service.Name != "" {
		opts.Service = &admissionregistrationv1.ServiceReference{
			Namespace: service.Namespace, Name: service.Name, Port: new(int32(service.Port)),
		}
	} else {
		opts.URL = s.cfg.Webhook.URL
	}
	s.registration, err = admission.NewRegistration(opts)
	return err
}

func (s *Server) failClosed() []schema.GroupResource {
	var out []schema.GroupResource
	for _, resource := range s.cfg.Admission.FailClosed {
		out = append(out, schema.ParseGroupResource(resource))
	}
	return out
}

// serveWebhooks answers the API server until ctx ends and it was let known, and
// returns when all decisions made are stored.
func (s *Server) serveWebhooks(ctx context.Context) error {
	decisions, kept := make(chan finding.Decision, 1024), make(chan struct{})
	go func() {
		defer close(kept)
		s.keepDecisions(context.WithoutCancel(ctx), decisions)
	}()
	admit := admission.NewHandler(admission.Options{
		Policies:      func() admission.Policies { return s.tracer.Policies(s.enforced()) },
		Mutator:       admission.MutatorFunc(s.mutate),
		Namespaces:    policy.NamespacesFunc(s.namespace),
		Params:        s.sources.watched,
		Authorizer:    s.sources.authorizer,
		FailurePolicy: admissionregistrationv1.FailurePolicyType(s.cfg.Admission.FailurePolicy),
		BreakGlass:    s.breakGlass,
		Namespace:     ownNamespace(s.cfg),
		Exempt:        s.cfg.Admission.ExemptNamespaces,
		Log:           s.log,
		Record:        func(d finding.Decision) { s.decided(d, decisions) },
		Unjudged:      func(cause admission.Cause) { s.metrics.unjudged.WithLabelValues(string(cause)).Inc() },
	})
	if s.cfg.Admission.RequireClientCertificate {
		admit = s.authority.RequireClient(admit, nil)
	}
	admit = s.tracer.Reviews(admit)
	mux := http.NewServeMux()
	mux.Handle(auditPath, s.authority.RequireClient(s.auditLog.Receiver, func() { s.auditLog.Unauthorized.Add(1) }))
	for _, path := range []string{admission.ValidatePath, admission.ValidateClosedPath, admission.MutatePath} {
		mux.Handle(path, admit)
	}
	srv := listener.NewServer(mux, listener.Limits{Body: time.Minute, Answer: 2 * time.Minute})
	srv.ErrorLog, srv.HTTP2, srv.MaxHeaderBytes = s.httpLog("webhook"), admission.HTTP2(), webhookHeaders
	err := s.senders.Serve(s.drained(ctx), srv, s.webhookListener, s.authority.ServerTLS(webhookHosts(s.cfg.Webhook)...), max(s.cfg.Admission.Timeout, webhookGrace))
	s.closing.Lock()
	s.closed = true // a request that Shutdown gave up on may still decide
	close(decisions)
	s.closing.Unlock()
	<-kept
	return err
}

// decided counts a decision and hands one that has something to show to who
// stores it, without waiting.
func (s *Server) decided(d finding.Decision, keep chan<- finding.Decision) {
	s.metrics.decided(d)
	if len(d.Violations) == 0 {
		return
	}
	s.closing.RLock()
	defer s.closing.RUnlock()
	if !s.closed {
		select {
		case keep <- d:
			s.metrics.queued.Inc()
			return
		default:
		}
	}
	s.metrics.lostDecisions.Inc()
}

// keepDecisions stores decisions until the channel is closed, apart from
// answering, so that a slow disk cannot slow the cluster down.
func (s *Server) keepDecisions(ctx context.Context, decisions <-chan finding.Decision) {
	for d := range decisions {
		batch := []finding.Decision{d}
		for len(decisions) > 0 && len(batch) < 256 {
			batch = append(batch, <-decisions)
		}
		s.metrics.queued.Sub(float64(len(batch)))
		if err := s.keepSome(ctx, batch); err != nil {
			s.metrics.lostDecisions.Add(float64(len(batch)))
			s.log.Error("admission decisions are not recorded", "count", len(batch), "error", err)
		}
	}
}

// keepAgain is how long to wait before decisions are stored that could not be.
const keepAgain = time.Second

// keepSome stores decisions, again and again until that works or the server has
// ended. Meanwhile others wait, as many as the channel takes.
func (s *Server) keepSome(ctx context.Context, batch []finding.Decision) error {
	for {
		began := time.Now()
		err := s.store.AddDecisions(ctx, batch)
		s.metrics.wrote("decisions", began)
		if s.stored(err) == nil {
			return nil
		}
		s.closing.RLock()
		closed := s.closed
		s.closing.RUnlock()
		if closed {
			return err
		}
		time.Sleep(keepAgain)
	}
}

// namespace returns a Namespace from the watch, or from the API server when it
// is newer than the watch.
func (s *Server) namespace(ctx context.Context, name string) (*corev1.Namespace, error) {
	s.state.mu.RLock()
	inv := s.state.inventory
	s.state.mu.RUnlock()
	if inv != nil {
		if o := inv.Get("", "Namespace", "", name); o != nil {
			ns := &corev1.Namespace{}
			err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, ns)
			return ns, err
		}
	}
	return s.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
}

// Uninstall removes the webhook registration from a cluster, and reports whether
// no server will register it again. Then the Leases of replicas are removed, too.
func Uninstall(ctx context.Context, opts Options) (forGood bool, err error) {
	client, err := kubernetes.NewForConfig(opts.Cluster)
	if err != nil {
		return false, fmt.Errorf("connect to cluster: %w", err)
	}
	forGood, err = admission.Uninstall(ctx, client, ownNamespace(opts.Config), registrationCheck, opts.Log)
	if err == nil && forGood {
		err = removeLeases(ctx, client, ownNamespace(opts.Config))
	}
	return forGood, err
}

// uninstalled reports whether the server is to be removed. Where that cannot be
// read it stays.
func (s *Server) uninstalled(ctx context.Context) bool {
	if found, err := admission.Uninstalled(ctx, s.client, ownNamespace(s.cfg)); err == nil && found && !s.removing.Swap(true) {
		s.log.Info("being uninstalled: the webhook is removed and not registered again")
		close(s.removal)
	}
	return s.removing.Load()
}

// untilRemoved runs what holds Leases until ctx ends, or the server is being
// uninstalled: a Lease that is removed then must not be made again.
func (s *Server) untilRemoved(ctx context.Context, part func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		select {
		case <-ctx.Done():
		case <-s.removal:
		}
	}()
	return part(ctx)
}

// register keeps the webhook registered as it should be, or removed when
// admission is switched off.
func (s *Server) register(ctx context.Context) error {
	tick := time.NewTicker(registrationCheck)
	defer tick.Stop()
	apply := s.registration.Apply
	if !s.cfg.Admission.Enabled {
		apply = s.registration.Remove
	}
	var before, unpublished error
	for {
		if err := s.authority.Refresh(ctx); ctx.Err() == nil { // on an error, what is trusted now stays so
			s.news(&before, err)
		}
		if err := s.publish(ctx); ctx.Err() == nil {
			s.news(&unpublished, err)
		}
		if s.uninstalled(ctx) {
			s.registered(errors.Join(admission.ErrUninstalled, s.registration.Remove(ctx)))
		} else if s.force.Load() != nil || !s.cfg.Admission.Enabled { // else the registration that is there stays
			if err := apply(ctx); ctx.Err() == nil {
				s.registered(err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed.registration:
		case <-tick.C:
		}
	}
}

// registered notes the outcome of a check, and logs an error that is news.
func (s *Server) registered(err error) {
	var before error
	s.state.update(func(st *state) {
		before, st.registered = st.registered, err
		if err == nil || apierrors.ReasonForError(err) != metav1.StatusReasonUnknown { // it answered, if only to refuse
			st.contact = time.Now()
		}
	})
	if err != nil && (before == nil || before.Error() != err.Error()) {
		s.log.Error("the registration of the admission webhook is not verified", "error", err)
	}
	s.metrics.registered.Set(0)
	if err == nil && s.cfg.Admission.Enabled {
		s.metrics.registered.Set(1)
	}
}
