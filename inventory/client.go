package inventory

import (
	"context"
	"fmt"
	"path"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/kubeguardian/kubeguardian/policy/normal"
)

// maxExpired is how often a list may start anew because its pages are gone.
const maxExpired = 3

// A client reads a cluster: built-in kinds as protobuf, which takes a fraction
// of the bytes and of the work on both sides, all others as JSON, the only form
// that custom resources have. Both come out in the same form, converted once.
type client struct {
	builtIn rest.Interface
	custom  dynamic.Interface
	pool    pool
}

func newClient(config *rest.Config) (*client, error) {
	http, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	custom, err := dynamic.NewForConfigAndClient(config, http)
	if err != nil {
		return nil, err
	}
	typed := rest.CopyConfig(config)
	typed.ContentType = runtime.ContentTypeProtobuf
	// What stands between us and the API server may know JSON only.
	typed.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	typed.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	builtIn, err := rest.UnversionedRESTClientForConfigAndClient(typed, http)
	if err != nil {
		return nil, err
	}
	return &client{builtIn: builtIn, custom: custom}, nil
}

// builtIn reports whether the Go type of the kind is known.
func (r resource) builtIn() bool { return scheme.Scheme.Recognizes(r.GroupVersion().WithKind(r.kind)) }

func (c *client) get(r resource, opts metav1.ListOptions) *rest.Request {
	root := path.Join("/apis", r.Group, r.Version)
	if r.Group == "" {
		root = path.Join("/api", r.Version)
	}
	return c.builtIn.Get().AbsPath(root, r.Resource).
		SpecificallyVersionedParams(&opts, scheme.ParameterCodec, schema.GroupVersion{Version: "v1"})
}

// list reads all objects of a kind as they are now. Only one page at a time is
// held in the form in which it came. When the API server has forgotten the
// moment that the pages are of, the list starts anew: what it returns is always
// of one moment.
func (c *client) list(ctx context.Context, r resource) (*unstructured.UnstructuredList, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	for try := 1; ; try++ {
		all, err := c.pages(ctx, r)
		if !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) || try == maxExpired {
			return all, err
		}
	}
}

func (c *client) pages(ctx context.Context, r resource) (*unstructured.UnstructuredList, error) {
	all := &unstructured.UnstructuredList{}
	opts := metav1.ListOptions{Limit: pageSize}
	for {
		page, err := c.page(ctx, r, opts)
		if err != nil {
			return nil, err
		}
		all.Items = append(all.Items, page.Items...)
		all.SetResourceVersion(page.GetResourceVersion())
		if opts.Continue = page.GetContinue(); opts.Continue == "" {
			return all, nil
		}
	}
}

// page makes one request.
func (c *client) page(ctx context.Context, r resource, opts metav1.ListOptions) (*unstructured.UnstructuredList, error) {
	if !r.builtIn() {
		page, err := c.custom.Resource(r.GroupVersionResource).List(ctx, opts)
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			page.Items[i].SetManagedFields(nil)
			c.pool.share(page.Items[i].Object)
		}
		return page, nil
	}
	list, err := c.get(r, opts).Do(ctx).Get()
	if err != nil {
		return nil, err
	}
	about, err := meta.ListAccessor(list)
	if err != nil {
		return nil, err
	}
	page := &unstructured.UnstructuredList{Items: make([]unstructured.Unstructured, 0, meta.LenList(list))}
	page.SetResourceVersion(about.GetResourceVersion())
	page.SetContinue(about.GetContinue())
	return page, meta.EachListItem(list, func(item runtime.Object) error {
		u, err := c.normal(r, item)
		if err == nil {
			page.Items = append(page.Items, *u)
		}
		return err
	})
}

// watch follows a kind. The events carry objects in the same form as list does.
func (c *client) watch(ctx context.Context, r resource, opts metav1.ListOptions) (watch.Interface, error) {
	opts.Watch = true
	var events watch.Interface
	var err error
	if r.builtIn() {
		events, err = c.get(r, opts).Watch(ctx)
	} else {
		events, err = c.custom.Resource(r.GroupVersionResource).Watch(ctx, opts)
	}
	if err != nil {
		return nil, err
	}
	return watch.Filter(events, func(e watch.Event) (watch.Event, bool) {
		if e.Type == watch.Error { // a Status
			return e, true
		}
		u, err := c.normal(r, e.Object)
		if err != nil {
			return watch.Event{Type: watch.Error, Object: &apierrors.NewInternalError(err).ErrStatus}, true
		}
		e.Object = u
		return e, true
	}), nil
}

// normal returns an object as it stands in an inventory, without what no control
// reads. A built-in kind is in the form in which the API server shows it to
// policies: see [Object]. What it shares with others is shared in memory.
func (c *client) normal(r resource, obj runtime.Object) (*unstructured.Unstructured, error) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		u.SetManagedFields(nil)
		c.pool.share(u.Object)
		return u, nil
	}
	trim(obj)
	complete(obj)
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil, fmt.Errorf("convert %s: %w", r.kind, err)
	}
	normal.DropNulls(content)
	content["apiVersion"], content["kind"] = r.GroupVersion().String(), r.kind // a list says it once, for all
	c.pool.share(content)
	return &unstructured.Unstructured{Object: content}, nil
}

// trim drops what no control reads and what is often most of an object, or
// changes all the time.
func trim(obj runtime.Object) {
	if o, ok := obj.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	switch o := obj.(type) {
	case *autoscalingv2.HorizontalPodAutoscaler:
		o.Status = autoscalingv2.HorizontalPodAutoscalerStatus{}
	case *corev1.Node:
		o.Status.Conditions, o.Status.Images, o.Status.VolumesAttached, o.Status.VolumesInUse = nil, nil, nil, nil
	}
}

// complete adds what the API server has in JSON and protobuf has no place for:
// the kind of objects in other objects.
func complete(obj runtime.Object) {
	if set, ok := obj.(*appsv1.StatefulSet); ok {
		for i := range set.Spec.VolumeClaimTemplates {
			set.Spec.VolumeClaimTemplates[i].SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"))
		}
	}
}
