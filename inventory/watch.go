package inventory

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

const (
	debounce = 500 * time.Millisecond // collects a burst of changes
	gapRetry = time.Minute            // until a kind that was not permitted is tried again
)

// Watch keeps an inventory of the cluster current. It calls onChange with a new
// snapshot for each burst of changes, one call at a time, and first when all
// kinds that may be read have been listed: from then on the inventory is
// synced. A kind that may not be read is a [Gap] until it may.
//
// Watch returns an error if the cluster cannot be reached at the start, of which
// [Passing] says whether to try again, and nil once ctx ends. When the API server
// goes away later, the last snapshot stands and watching resumes by itself.
func Watch(ctx context.Context, config *rest.Config, onChange func(*Inventory)) error {
	return follow(ctx, config, onChange, gapRetry)
}

func follow(ctx context.Context, config *rest.Config, onChange func(*Inventory), retry time.Duration) error {
	client, err := connect(ctx, config)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	w := &watcher{
		config:    config,
		client:    client,
		about:     ask(ctx, config),
		changed:   make(chan struct{}, 1),
		informers: map[resource]cache.SharedIndexInformer{},
		gaps:      map[resource]string{},
		templates: newTemplates(),
	}
	defer w.running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, r := range w.about.resources() {
		if err := w.open(ctx, r); err != nil && ctx.Err() == nil {
			return err
		}
	}
	for _, informer := range w.informers {
		cache.WaitForCacheSync(ctx.Done(), informer.HasSynced)
	}
	w.signal()
	return w.loop(ctx, onChange, retry)
}

// A watcher holds one informer for each kind that may be read.
type watcher struct {
	config    *rest.Config
	about     about
	client    *client
	changed   chan struct{} // holds one signal at most
	running   sync.WaitGroup
	informers map[resource]cache.SharedIndexInformer
	templates *templates

	mu   sync.Mutex
	gaps map[resource]string
}

func (w *watcher) signal() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// open tries to read a kind: it closes the gap of that kind, or opens one.
func (w *watcher) open(ctx context.Context, r resource) error {
	err := w.client.probe(ctx, r)
	reason := gapReason(r, err)
	if err != nil && reason == "" {
		return fmt.Errorf("list %s: %w", r.Resource, err)
	}
	w.setGap(r, reason)
	if reason != "" || w.informers[r] != nil {
		return nil
	}
	informer := cache.NewSharedIndexInformer(w.listWatch(r), &unstructured.Unstructured{}, 0, cache.Indexers{})
	if err := w.configure(informer, r); err != nil {
		return fmt.Errorf("watch %s: %w", r.Resource, err)
	}
	w.informers[r] = informer
	w.running.Go(func() { informer.RunWithContext(ctx) })
	return nil
}

// listWatch is what an informer reads a kind by: a watch that begins with all
// objects, or a list and a watch where the API server knows no such thing. The
// informer asks for bookmarks and goes on from the last one.
func (w *watcher) listWatch(r resource) *cache.ListWatch {
	return &cache.ListWatch{
		// Our own pages: an informer asks for all at once, from a cache that
		// does not heed limits.
		ListWithContextFunc: func(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
			return w.client.list(ctx, r)
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			return w.client.watch(ctx, r, opts)
		},
	}
}

func (w *watcher) setGap(r resource, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gaps[r] != reason {
		w.gaps[r] = reason
		w.signal()
	}
}

func (w *watcher) configure(informer cache.SharedIndexInformer, r resource) error {
	// Only a lost permission matters here: the informer itself tries again
	// after every error, and evidence that is no longer renewed ages.
	err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		if reason := gapReason(r, err); reason != "" {
			w.setGap(r, reason)
		}
	})
	if err != nil {
		return err
	}
	_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { w.signal() },
		DeleteFunc: func(any) { w.signal() },
		UpdateFunc: func(before, after any) {
			if version(before) != version(after) && !heartbeat(before, after) {
				w.signal()
			}
		},
	})
	return err
}

// heartbeat reports whether an update of a kind that reports every few seconds
// changes nothing that is kept.
func heartbeat(before, after any) bool {
	a, _ := before.(*unstructured.Unstructured)
	b, _ := after.(*unstructured.Unstructured)
	if a == nil || b == nil || a.GetKind() != "Node" && a.GetKind() != "HorizontalPodAutoscaler" {
		return false
	}
	return same(a.Object["spec"], b.Object["spec"]) && same(a.Object["status"], b.Object["status"]) &&
		reflect.DeepEqual(a.GetLabels(), b.GetLabels()) && reflect.DeepEqual(a.GetAnnotations(), b.GetAnnotations())
}

func version(obj any) string {
	if o, ok := obj.(metav1.Object); ok {
		return o.GetResourceVersion()
	}
	return ""
}

func (w *watcher) loop(ctx context.Context, onChange func(*Inventory), every time.Duration) error {
	retry := time.NewTicker(every)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-retry.C:
			if about := ask(ctx, w.config); about.version != "" {
				w.about = about // else it does not answer: what it said stands
			}
			w.retryGaps(ctx)
		case <-w.changed:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(debounce):
			}
			inv, err := w.snapshot()
			if err != nil {
				return err
			}
			onChange(inv)
		}
	}
}

// retryGaps opens what may be read now, or is served now. It ignores errors: the
// gap stays, and the next try is a minute away.
func (w *watcher) retryGaps(ctx context.Context) {
	for _, r := range w.about.resources() {
		if w.gap(r) == "" && w.informers[r] != nil || w.open(ctx, r) != nil || w.informers[r] == nil {
			continue
		}
		wait, cancel := context.WithTimeout(ctx, reachTimeout)
		cache.WaitForCacheSync(wait.Done(), w.informers[r].HasSynced)
		cancel()
		w.signal()
	}
}

func (w *watcher) gap(r resource) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gaps[r]
}

func (w *watcher) snapshot() (*Inventory, error) {
	gaps := []Gap{secretsGap}
	var objects []*Object
	for _, r := range w.about.resources() {
		reason := w.gap(r)
		if reason == "" && w.informers[r] == nil {
			continue // served for less than a minute
		}
		if reason == "" && !w.informers[r].HasSynced() {
			reason = r.Resource + " are not listed yet"
		}
		if reason != "" {
			gaps = r.appendGap(gaps, reason)
			continue
		}
		for _, item := range w.informers[r].GetStore().List() {
			objects = append(objects, r.object(item.(*unstructured.Unstructured)))
		}
	}
	return w.about.inventory(objects, gaps, w.templates)
}
