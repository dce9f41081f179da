package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/kubeguardian/kubeguardian/admission"
	"github.com/kubeguardian/kubeguardian/clusterpolicy"
	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/externaldata"
	"github.com/kubeguardian/kubeguardian/policy/source"
)

// sources are what policies ask for besides the object and its namespace. They
// speak to the API server when they are asked; parameters and schemas are watched
// from then on.
type sources struct {
	watched    *source.Watched
	authorizer policy.Authorizer
}

// newSources makes clients of their own: a request waits for their answers, so
// that they are held back by nothing but the API server.
func newSources(config *rest.Config) (sources, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return sources{}, fmt.Errorf("connect to cluster: %w", err)
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return sources{}, fmt.Errorf("connect to cluster: %w", err)
	}
	kinds, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return sources{}, fmt.Errorf("connect to cluster: %w", err)
	}
	return sources{
		watched:    source.NewWatched(objects, restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(kinds))),
		authorizer: source.NewAccessReviews(client.AuthorizationV1().SubjectAccessReviews()),
	}, nil
}

// openProviders lets the policies of files ask the providers of external data
// among them. It does not connect to any yet.
func (s *Server) openProviders(context.Context) (err error) {
	if s.policies, err = s.askingProviders(s.policies); err != nil {
		return err
	}
	s.onStop(func() error { return s.providers.Close() })
	if !s.cfg.Admission.FromCluster {
		s.force.Store(newInForce(s.policies, clusterpolicy.State{}, s.named))
	}
	s.metrics.policies(s.listed())
	return nil
}

// askingProviders returns policies that ask the providers among them, with a
// client of their own: what earlier policies were told they are told again.
// Requests that are being judged by those keep their client until they have
// ended.
func (s *Server) askingProviders(set *engine.Set) (*engine.Set, error) {
	cfg := s.cfg.Admission.ExternalData
	client, err := externaldata.NewClient(set.Providers(), externaldata.Options{
		CertFile: cfg.CertFile, KeyFile: cfg.KeyFile, TTL: cfg.CacheTTL, Failed: s.providerFailed,
	})
	if err != nil {
		return nil, err
	}
	if last := s.providers; last != nil {
		time.AfterFunc(maxRequest, func() { _ = last.Close() }) // it returns no error
	}
	s.providers = client
	return set.WithExternalData(client), nil
}

// maxRequest is longer than the API server waits for any webhook.
const maxRequest = time.Minute

// providerFailed counts a call that gave no answer, and logs some of them: a
// provider that is down is asked again and again.
func (s *Server) providerFailed(provider string, err error) {
	s.metrics.providerFailures.WithLabelValues(provider).Inc()
	s.silence.Do(func() { s.log.Warn("a provider of external data gives no answer", "provider", provider, "error", err) })
}

// enforced returns what admission judges by now: the policies with the cluster
// as they see it.
func (s *Server) enforced() admission.Policies {
	now := s.force.Load()
	if now == nil {
		return unread{errPoliciesUnread}
	}
	if !now.set.ReadsInventory() {
		return now.set
	}
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	if s.state.informed == nil {
		return unread{errors.New("read data.inventory: the cluster has not been read yet")}
	}
	return s.state.informed
}

// unread stands for policies until the cluster was read that they, or what they
// read, come from.
type unread struct{ error }

// Evaluate implements [admission.Policies].
func (u unread) Evaluate(context.Context, policy.Request) ([]finding.Violation, error) {
	return nil, u.error
}

// mutate implements [admission.Mutator].
func (s *Server) mutate(ctx context.Context, req policy.Request) (*unstructured.Unstructured, []string, error) {
	now := s.force.Load()
	if now == nil {
		return nil, nil, errPoliciesUnread
	}
	req.Schemas = s.sources.watched
	object, _, err := now.set.Mutate(ctx, req)
	return object, nil, err
}

// An informed set is the policies in force, with the cluster as data.inventory if
// they read it.
type informed struct {
	*engine.Set
	objects map[place]*unstructured.Unstructured // what they see
}

// A place is where data.inventory has an object.
type place struct {
	kind            schema.GroupVersionKind
	namespace, name string
}

// with returns the policies with another inventory. An object that is the same
// value in memory is the same, as it is from one snapshot of a watch to the next.
func (i *informed) with(inv *inventory.Inventory) (*informed, error) {
	if !i.ReadsInventory() {
		return i, nil
	}
	now := map[place]*unstructured.Unstructured{}
	var changed, removed []*unstructured.Unstructured
	synced := i.Synced()
	for _, o := range inv.Objects() {
		at := place{o.GroupVersionKind(), o.GetNamespace(), o.GetName()}
		if len(synced) > 0 && !slices.Contains(synced, at.kind) {
			continue
		}
		now[at] = o.Unstructured
		if i.objects[at] != o.Unstructured {
			changed = append(changed, o.Unstructured)
		}
	}
	for at, o := range i.objects {
		if now[at] == nil {
			removed = append(removed, o)
		}
	}
	set, err := i.WithChanges(slices.Values(changed), slices.Values(removed))
	return &informed{set, now}, err
}
