package source

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"github.com/kubeguardian/kubeguardian/policy"
)

const (
	maxWatches  = 500              // what is asked for beyond is read for each request
	idleWatch   = 10 * time.Minute // what nobody has asked for is not watched any longer
	schemaLimit = 2 * time.Second  // to read a definition for the first time
)

// Watched are the parameters and the schemas of a cluster. What is asked for is
// read, and watched from then on, so that the requests that follow need not wait:
// one name, or what one selector selects, not all objects of a kind. Its answers
// are as old as a watch, as those of the API server are. Where only reading is
// allowed, each request reads. It is safe for concurrent use; Stop ends it.
type Watched struct {
	clusterParams
	ctx  context.Context
	stop context.CancelFunc

	mu      sync.Mutex
	watches map[watched]*objectWatch
	schemas map[schema.GroupVersionKind]builtSchema
}

// A watched is what is watched: one object or those that a selector selects.
type watched struct {
	resource                  schema.GroupVersionResource
	namespace, name, selector string
}

type objectWatch struct {
	informer cache.SharedIndexInformer
	stop     context.CancelFunc
	used     time.Time
	refused  atomic.Bool
}

// A builtSchema is that of one version of a definition.
type builtSchema struct {
	uid        types.UID
	generation int64
	converter  managedfields.TypeConverter
}

var (
	_ policy.Params  = (*Watched)(nil)
	_ policy.Schemas = (*Watched)(nil)
)

// NewWatched returns what a cluster has. It is read and watched with the rights of
// the client.
func NewWatched(client dynamic.Interface, mapper meta.RESTMapper) *Watched {
	w := &Watched{
		clusterParams: clusterParams{client, mapper},
		watches:       map[watched]*objectWatch{}, schemas: map[schema.GroupVersionKind]builtSchema{},
	}
	w.ctx, w.stop = context.WithCancel(context.Background())
	return w
}

// Stop ends all watches. Whoever asks afterwards reads.
func (w *Watched) Stop() error {
	w.stop()
	return nil
}

// Params implements [policy.Params].
func (w *Watched) Params(ctx context.Context, kind schema.GroupVersionKind, namespace, name string, selector labels.Selector) ([]*unstructured.Unstructured, error) {
	mapping, err := w.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, err
	}
	what := watched{resource: mapping.Resource, namespace: namespace, name: name}
	if name == "" {
		what.selector = selector.String()
	}
	found, known := w.look(what)
	if !known {
		return w.clusterParams.Params(ctx, kind, namespace, name, selector)
	}
	if len(found) > maxParams {
		return nil, tooMany()
	}
	return found, nil
}

// look returns what a watch has seen, and whether it has seen all. What is not
// watched yet is from now on.
func (w *Watched) look(what watched) ([]*unstructured.Unstructured, bool) {
	o := w.watch(what)
	if o == nil || o.refused.Load() || !o.informer.HasSynced() || w.ctx.Err() != nil {
		return nil, false
	}
	list := o.informer.GetStore().List()
	found := make([]*unstructured.Unstructured, 0, len(list))
	for _, item := range list {
		if u, ok := item.(*unstructured.Unstructured); ok {
			found = append(found, u)
		}
	}
	return found, true
}

// watch returns the watch of something, or nil when there are too many.
func (w *Watched) watch(what watched) *objectWatch {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if o := w.watches[what]; o != nil && !(o.refused.Load() && now.Sub(o.used) > time.Minute) {
		if !o.refused.Load() { // else it is tried again after a minute
			o.used = now
		}
		return o
	} else if o != nil {
		o.stop()
		delete(w.watches, what)
	}
	for other, o := range w.watches {
		if now.Sub(o.used) > idleWatch {
			o.stop()
			delete(w.watches, other)
		}
	}
	if len(w.watches) >= maxWatches {
		return nil
	}
	o := w.start(what)
	o.used = now
	w.watches[what] = o
	return o
}

func (w *Watched) start(what watched) *objectWatch {
	var api dynamic.ResourceInterface = w.client.Resource(what.resource)
	if what.namespace != "" {
		api = w.client.Resource(what.resource).Namespace(what.namespace)
	}
	narrow := func(opts *metav1.ListOptions) {
		opts.LabelSelector = what.selector
		if what.name != "" {
			opts.FieldSelector = fields.OneTermEqualSelector("metadata.name", what.name).String()
		}
	}
	o := &objectWatch{}
	note := func(err error) {
		if err == nil || apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
			o.refused.Store(err != nil)
		}
	}
	o.informer = cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			narrow(&opts)
			list, err := api.List(ctx, opts)
			note(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			narrow(&opts)
			events, err := api.Watch(ctx, opts)
			note(err)
			return events, err
		},
	}, &unstructured.Unstructured{}, 0, cache.Indexers{})
	// Errors are noted above; before it runs an informer takes any handler.
	_ = o.informer.SetWatchErrorHandlerWithContext(func(context.Context, *cache.Reflector, error) {})
	ctx, stop := context.WithCancel(w.ctx)
	o.stop = stop
	go o.informer.RunWithContext(ctx)
	return o
}

// Schema implements [policy.Schemas]. A kind whose definition cannot be read has
// none.
func (w *Watched) Schema(kind schema.GroupVersionKind) managedfields.TypeConverter {
	mapping, err := w.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil
	}
	crd := w.definition(mapping.Resource.GroupResource().String())
	if crd == nil {
		return nil
	}
	w.mu.Lock()
	built := w.schemas[kind]
	w.mu.Unlock()
	if built.uid == crd.GetUID() && built.generation == crd.GetGeneration() {
		return built.converter
	}
	built = builtSchema{uid: crd.GetUID(), generation: crd.GetGeneration()}
	if built.converter, err = converterOf(crd, kind); err != nil || built.converter == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.schemas[kind] = built
	return built.converter
}

// definition returns a CustomResourceDefinition, or nil.
func (w *Watched) definition(name string) *unstructured.Unstructured {
	resource := apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")
	if found, known := w.look(watched{resource: resource, name: name}); known {
		if len(found) == 0 {
			return nil
		}
		return found[0]
	}
	ctx, cancel := context.WithTimeout(w.ctx, schemaLimit)
	defer cancel()
	crd, err := w.client.Resource(resource).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return crd
}

// converterOf returns the schema that a definition gives a version of its kind, or
// nil.
func converterOf(crd *unstructured.Unstructured, kind schema.GroupVersionKind) (managedfields.TypeConverter, error) {
	data, err := json.Marshal(crd.Object)
	if err != nil {
		return nil, err
	}
	var d definition
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("read the definition %s: %w", crd.GetName(), err)
	}
	for _, v := range d.Spec.Versions {
		if v.Name == kind.Version && d.Spec.Names.Kind == kind.Kind && v.Schema.OpenAPIV3Schema != nil {
			return newConverter(kind, *v.Schema.OpenAPIV3Schema)
		}
	}
	return nil, nil
}
