package inventory

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/pager"
)

const (
	pageSize     = 500
	reachTimeout = 10 * time.Second // until a silent cluster counts as unreachable
	listTimeout  = 2 * time.Minute  // for all pages of one kind
)

// A resource is a kind that is read from a cluster.
type resource struct {
	schema.GroupVersionResource
	kind string
}

func (r resource) groupKind() schema.GroupKind {
	return schema.GroupKind{Group: r.Group, Kind: r.kind}
}

// clusterResources lists what controls and checks read, and nothing else, since
// each kind is a permission (content/rbac.yaml) and a watch. Secrets are not
// among them.
var clusterResources = []resource{
	{schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, "Namespace"},
	{schema.GroupVersionResource{Version: "v1", Resource: "pods"}, "Pod"},
	{schema.GroupVersionResource{Version: "v1", Resource: "replicationcontrollers"}, "ReplicationController"},
	{schema.GroupVersionResource{Version: "v1", Resource: "services"}, "Service"},
	{schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}, "ServiceAccount"},
	{schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, "ConfigMap"},
	{schema.GroupVersionResource{Version: "v1", Resource: "limitranges"}, "LimitRange"},
	{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}, "Deployment"},
	{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "statefulsets"}, "StatefulSet"},
	{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}, "DaemonSet"},
	{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "replicasets"}, "ReplicaSet"},
	{schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "jobs"}, "Job"},
	{schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "cronjobs"}, "CronJob"},
	{schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "ingresses"}, "Ingress"},
	{schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"}, "NetworkPolicy"},
	{schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"}, "Role"},
	{schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"}, "RoleBinding"},
	{schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}, "ClusterRole"},
	{schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"}, "ClusterRoleBinding"},
}

// secretsGap stands in every inventory of a cluster.
var secretsGap = Gap{Kind: schema.GroupKind{Kind: "Secret"}, Reason: "secret contents are not read"}

// FromCluster reads the kinds that controls judge, never Secrets. A kind that
// the credentials may not list becomes a [Gap]; if that is so for every kind,
// or the cluster cannot be reached, it is an error, which may have a method
// Hint() string.
func FromCluster(ctx context.Context, config *rest.Config) (*Inventory, error) {
	client, err := connect(ctx, config)
	if err != nil {
		return nil, err
	}
	gaps := []Gap{secretsGap}
	var objects []*Object
	for _, r := range clusterResources {
		err := list(ctx, client, r, func(o *Object) { objects = append(objects, o) })
		if reason := gapReason(r, err); reason != "" {
			gaps = append(gaps, Gap{r.groupKind(), reason})
		} else if err != nil {
			return nil, fmt.Errorf("list %s: %w", r.Resource, err)
		}
	}
	if len(gaps) > len(clusterResources) {
		return nil, hint(fmt.Errorf("read cluster %s: these credentials may list nothing", config.Host),
			"see what they may do: kubectl auth can-i --list")
	}
	return New(Cluster, objects, gaps)
}

// connect checks that the cluster answers and accepts the credentials.
func connect(ctx context.Context, config *rest.Config) (dynamic.Interface, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 50, 100
	config.WarningHandler = rest.NoWarnings{}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to cluster %s: %w", config.Host, err)
	}
	if _, err = probe(ctx, client, clusterResources[0]); err == nil || apierrors.IsForbidden(err) {
		return client, nil
	}
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %s", reachTimeout)
	}
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	advice := "check the kubeconfig, and that the API server runs"
	if apierrors.IsUnauthorized(err) {
		advice = "the credentials in the kubeconfig are not valid, or no longer"
	}
	return nil, hint(fmt.Errorf("reach cluster %s: %w", config.Host, err), advice)
}

// probe lists at most one object.
func probe(ctx context.Context, client dynamic.Interface, r resource) (*unstructured.UnstructuredList, error) {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	return client.Resource(r.GroupVersionResource).List(ctx, metav1.ListOptions{Limit: 1})
}

func list(ctx context.Context, client dynamic.Interface, r resource, yield func(*Object)) error {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	pages := pager.New(func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
		return client.Resource(r.GroupVersionResource).List(ctx, opts)
	})
	pages.PageSize = pageSize
	all, _, err := pages.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	return meta.EachListItem(all, func(item runtime.Object) error {
		u := item.(*unstructured.Unstructured)
		u.SetManagedFields(nil)
		yield(&Object{Unstructured: u})
		return nil
	})
}

// gapReason says why a kind cannot be read when that is no fault of the
// connection, or "".
func gapReason(r resource, err error) string {
	switch {
	case apierrors.IsForbidden(err):
		return "not permitted to list " + r.Resource
	case apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err):
		return r.Resource + " are not served by this cluster"
	}
	return ""
}
