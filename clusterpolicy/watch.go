package clusterpolicy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/policy/gatekeeper"
)

// A resource is a kind as it is read.
type resource struct {
	schema.GroupVersionResource
	kind string
}

func (r resource) groupVersionKind() schema.GroupVersionKind {
	return r.GroupVersion().WithKind(r.kind)
}

// definitions are the CustomResourceDefinitions.
var definitions = resource{apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"), "CustomResourceDefinition"}

// A feed is the objects of one kind, as they are now.
type feed struct {
	resource
	informer cache.SharedIndexInformer
	stop     context.CancelFunc

	mu      sync.Mutex
	refused error // why the API server lets nobody read them
}

// feeds are those of all kinds. Its methods are for one goroutine.
type feeds struct {
	client  dynamic.Interface
	changed chan struct{} // holds one signal at most
	running sync.WaitGroup
	open    map[resource]*feed
}

func (f *feeds) signal() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// set opens the feeds of these kinds and closes all others.
func (f *feeds) set(ctx context.Context, wanted []resource) error {
	for r, feed := range f.open {
		if !slices.Contains(wanted, r) {
			feed.stop()
			delete(f.open, r)
		}
	}
	for _, r := range wanted {
		if f.open[r] != nil {
			continue
		}
		feed, err := f.start(ctx, r)
		if err != nil {
			return fmt.Errorf("watch %s: %w", r.GroupResource(), err)
		}
		f.open[r] = feed
	}
	return nil
}

func (f *feeds) start(ctx context.Context, r resource) (*feed, error) {
	api := f.client.Resource(r.GroupVersionResource)
	feed := &feed{resource: r}
	feed.informer = cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			list, err := api.List(ctx, opts)
			f.note(feed, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			events, err := api.Watch(ctx, opts)
			f.note(feed, err)
			return events, err
		},
	}, &unstructured.Unstructured{}, 0, cache.Indexers{})
	_, err := feed.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { f.signal() }, UpdateFunc: func(any, any) { f.signal() }, DeleteFunc: func(any) { f.signal() },
	})
	err = errors.Join(err, feed.informer.SetTransform(trim),
		feed.informer.SetWatchErrorHandlerWithContext(func(context.Context, *cache.Reflector, error) {})) // which is noted above
	if err != nil {
		return nil, err
	}
	ctx, feed.stop = context.WithCancel(ctx)
	f.running.Go(func() { feed.informer.RunWithContext(ctx) })
	f.running.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), feed.informer.HasSynced) {
			f.signal()
		}
	})
	return feed, nil
}

// note keeps whether the API server lets us read a kind. Of other errors, such as
// that it does not answer, nothing is known; the informer tries again by itself.
func (f *feeds) note(feed *feed, err error) {
	refused := apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsNotFound(err)
	if err != nil && !refused {
		return
	}
	feed.mu.Lock()
	defer feed.mu.Unlock()
	if (feed.refused != nil) != refused {
		f.signal()
	}
	feed.refused = err
}

// unread says why the kind cannot be read, and nil when it can or nobody knows yet.
func (f *feed) unread() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refused == nil {
		return nil
	}
	return fmt.Errorf("read %s: %w", f.GroupResource(), f.refused)
}

// settled reports whether it is known what there is, or that nobody may know.
func (f *feed) settled() bool { return f.informer.HasSynced() || f.unread() != nil }

// objects returns what there is. They are only read.
func (f *feed) objects() (out []*unstructured.Unstructured) {
	for _, o := range f.informer.GetStore().List() {
		if u, ok := o.(*unstructured.Unstructured); ok {
			out = append(out, u)
		}
	}
	return out
}

// trim leaves out of an object what nobody reads: of definitions, which are many
// and large, also their schemas, but for those of constraints.
func trim(o any) (any, error) {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return o, nil
	}
	u.SetManagedFields(nil)
	if u.GetKind() != definitions.kind || u.GetLabels()[gatekeeper.ConstraintLabel] == "yes" {
		return u, nil
	}
	u.SetAnnotations(nil)
	versions, _, err := unstructured.NestedSlice(u.Object, "spec", "versions")
	if err != nil {
		return u, nil // nobody can read it
	}
	for _, v := range versions {
		if v, ok := v.(map[string]any); ok {
			delete(v, "schema")
		}
	}
	return u, unstructured.SetNestedSlice(u.Object, versions, "spec", "versions")
}

// custom returns the kinds of policies that definitions give the cluster.
func custom(crds []*unstructured.Unstructured) (out []resource) {
	for _, u := range crds {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, crd) != nil || !established(crd) || crd.DeletionTimestamp != nil {
			continue
		}
		kind := schema.GroupKind{Group: crd.Spec.Group, Kind: crd.Spec.Names.Kind}
		if v := newest(crd.Spec.Versions); v != "" && engine.Handles(kind.WithVersion(v)) {
			out = append(out, resource{schema.GroupVersionResource{Group: kind.Group, Version: v, Resource: crd.Spec.Names.Plural}, kind.Kind})
		}
	}
	return out
}

func established(crd *apiextensionsv1.CustomResourceDefinition) bool {
	return slices.ContainsFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
	})
}

// newest returns the version that is served and the most stable.
func newest(versions []apiextensionsv1.CustomResourceDefinitionVersion) (best string) {
	for _, v := range versions {
		if v.Served && (best == "" || version.CompareKubeAwareVersionStrings(v.Name, best) > 0) {
			best = v.Name
		}
	}
	return best
}

// natives returns the kinds of native policies that the API server has.
func natives(ctx context.Context, client *discovery.DiscoveryClient) (out []resource, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, v := range []string{"v1", "v1beta1"} {
		gv := schema.GroupVersion{Group: "admissionregistration.k8s.io", Version: v}
		list, err := client.ServerResourcesForGroupVersionWithContext(ctx, gv.String())
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the kinds of native policies: %w", err)
		}
		for _, r := range list.APIResources {
			known := slices.ContainsFunc(out, func(o resource) bool { return o.kind == r.Kind })
			mutating := r.Kind == "MutatingAdmissionPolicy" || r.Kind == "MutatingAdmissionPolicyBinding"
			validating := v == "v1" && (r.Kind == "ValidatingAdmissionPolicy" || r.Kind == "ValidatingAdmissionPolicyBinding")
			if (mutating || validating) && !known && slices.Contains(r.Verbs, "list") {
				out = append(out, resource{gv.WithResource(r.Name), r.Kind})
			}
		}
	}
	return out, nil
}
