package clusterpolicy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

const (
	templatesDefinition = "constrainttemplates.templates.gatekeeper.sh"
	templateGroup       = "templates.gatekeeper.sh"
	constraintGroup     = "constraints.gatekeeper.sh"
	policyGroup         = "kubeguardian.dev"
)

// ours reports whether we manage an object.
func ours(o *unstructured.Unstructured) bool { return o.GetLabels()[managedBy] == ourselves }

// foreign says why Gatekeeper's kinds are not ours by their definitions.
func foreign(crds []*unstructured.Unstructured) string {
	for _, crd := range crds {
		if crd.GetName() == templatesDefinition && !ours(crd) {
			return fmt.Sprintf("the definition %s has no label %s: %s, so that it is Gatekeeper's", templatesDefinition, managedBy, ourselves)
		}
	}
	return ""
}

// A work is what the cluster should say of what is in force. Objects are only
// read.
type work struct {
	objects   []judged
	crds      map[string]*unstructured.Unstructured // by name
	templates map[string]*unstructured.Unstructured // those in force, by the name of their definition
	known     bool                                  // all templates are known
}

// A judged object is one with what it says now.
type judged struct {
	Object
	resource
	source *unstructured.Unstructured
}

// work returns what is to be written.
func (w *Watcher) work() work {
	out := work{crds: map[string]*unstructured.Unstructured{}, templates: map[string]*unstructured.Unstructured{}}
	for _, crd := range w.feeds.open[definitions].objects() {
		out.crds[crd.GetName()] = crd
	}
	for r, feed := range w.feeds.open {
		if r.Group == templateGroup {
			out.known = feed.informer.HasSynced() && feed.unread() == nil
		}
	}
	for _, e := range w.enforced.entries {
		for r := range w.feeds.open {
			if r.groupVersionKind() == e.Kind {
				out.objects = append(out.objects, judged{e.Object, r, e.source})
			}
		}
		if e.Kind.Group != templateGroup || !e.InForce {
			continue
		}
		template := e.source
		if e.Stale {
			template = &unstructured.Unstructured{}
			if yaml.Unmarshal(e.good, &template.Object) != nil {
				continue
			}
			template.SetUID(e.UID)
		}
		out.templates[e.Name+"."+constraintGroup] = template
	}
	return out
}

// writeLimit is for all that is written at a time.
const writeLimit = 2 * time.Minute

// A writer writes definitions and status, apart from what decides.
type writer struct {
	client   dynamic.Interface
	log      *slog.Logger
	replicas *replicas
	own      string
	works    chan work // holds the newest
	accepted map[string]acceptance
	failed   error

	mu      sync.Mutex
	webhook string    // of Gatekeeper
	noticed time.Time // when it was looked for
	owner   bool      // of Gatekeeper's kinds, when they were written to last
}

func newWriter(client dynamic.Interface, opts Options) *writer {
	return &writer{
		client: client, log: opts.Log, own: opts.Replica, replicas: newReplicas(client, opts.Namespace, opts.Replica),
		works: make(chan work, 1), accepted: map[string]acceptance{},
	}
}

// offer hands over what is to be written, in place of what was not taken yet.
func (w *writer) offer(next work) {
	select {
	case <-w.works:
	default:
	}
	w.works <- next
}

// run writes until ctx ends.
func (w *writer) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case next := <-w.works:
			err := w.write(ctx, next)
			if err != nil && ctx.Err() == nil && (w.failed == nil || w.failed.Error() != err.Error()) {
				w.log.Error("what is in force is not written to the cluster", "error", err)
			}
			w.failed = err
		}
	}
}

// foreign names Gatekeeper's webhook, if there is one.
func (w *writer) foreign() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.webhook == "" {
		return ""
	}
	return fmt.Sprintf("Gatekeeper's webhook %s is registered", w.webhook)
}

func (w *writer) setOwner(owner bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.owner = owner
}

// look looks for a webhook of Gatekeeper, at most every few seconds.
func (w *writer) look(ctx context.Context) error {
	if time.Since(w.noticed) < recheck/2 {
		return nil
	}
	found := ""
	for _, kind := range []string{"validatingwebhookconfigurations", "mutatingwebhookconfigurations"} {
		list, err := w.client.Resource(admissionregistrationv1.SchemeGroupVersion.WithResource(kind)).List(ctx, metav1.ListOptions{LabelSelector: "gatekeeper.sh/system=yes", Limit: 1})
		if err != nil {
			return fmt.Errorf("look for Gatekeeper's webhooks: %w", err)
		}
		if len(list.Items) > 0 {
			found = list.Items[0].GetName()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.webhook, w.noticed = found, time.Now()
	return nil
}

// write writes what is not yet as it should be. What others have changed meanwhile
// comes again.
func (w *writer) write(ctx context.Context, next work) error {
	if len(next.objects) == 0 && len(next.crds) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	if err := w.look(ctx); err != nil { // not knowing, write nothing
		w.setOwner(false)
		return err
	}
	gatekeepers := w.foreign() == "" && next.crds[templatesDefinition] != nil && ours(next.crds[templatesDefinition])
	w.setOwner(gatekeepers)
	if !gatekeepers && !next.writes(policyGroup) {
		return nil
	}
	var errs []error
	if gatekeepers {
		errs = append(errs, w.define(ctx, next))
	}
	living, err := w.replicas.living(ctx, time.Now(), next.replicas())
	errs = append(errs, err)
	for _, o := range next.objects {
		if o.Group == policyGroup || gatekeepers && (o.Group == constraintGroup || next.owned(o.resource)) {
			errs = append(errs, w.writeStatus(ctx, o, next, living))
		}
	}
	return joined(errs)
}

// replicas returns those that have written a status.
func (k *work) replicas() map[string]bool {
	out := map[string]bool{}
	for _, o := range k.objects {
		list, _, _ := unstructured.NestedSlice(o.source.Object, "status", "byPod")
		for _, e := range list {
			entry, _ := e.(map[string]any)
			if id, ok := entry["id"].(string); ok && uidField(o.resource) != "" {
				out[id] = true
			}
		}
	}
	return out
}

// writes reports whether there are objects of a group.
func (k *work) writes(group string) bool {
	for _, o := range k.objects {
		if o.Group == group {
			return true
		}
	}
	return false
}

// owned reports whether the definition of a kind is ours.
func (k *work) owned(r resource) bool {
	crd := k.crds[r.GroupResource().String()]
	return crd != nil && ours(crd)
}

// joined joins the different ones of many errors, and leaves out those that a
// later try settles.
func joined(errs []error) error {
	seen := sets.Set[string]{}
	var out []error
	for _, err := range errs {
		if err == nil || apierrors.IsConflict(err) || apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err) || seen.Has(err.Error()) {
			continue
		}
		seen.Insert(err.Error())
		if out = append(out, err); len(out) == maxProblems {
			break
		}
	}
	return errors.Join(out...)
}

// constraints returns the resource of constraints.
func constraints(plural string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: constraintGroup, Version: "v1beta1", Resource: plural}
}
