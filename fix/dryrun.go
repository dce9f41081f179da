package fix

import (
	"context"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// A DryRunner says whether a cluster would take an object.
type DryRunner func(ctx context.Context, o *unstructured.Unstructured) error

// manager is who changes objects, in the eyes of the API server.
const manager = "kubeguardian-fix"

// ServerDryRun returns a [DryRunner] that applies objects on the server side of
// a cluster without storing them: schema, validation and admission are the
// cluster's own. It is safe for concurrent use.
func ServerDryRun(config *rest.Config) (DryRunner, error) {
	found, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(found))
	return func(ctx context.Context, o *unstructured.Unstructured) error {
		gvk := o.GroupVersionKind()
		mapping, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if err != nil {
			return fmt.Errorf("find the resource of %s: %w", gvk.Kind, err)
		}
		var resource dynamic.ResourceInterface = client.Resource(mapping.Resource)
		if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
			namespace := o.GetNamespace()
			if namespace == "" {
				namespace = metav1.NamespaceDefault
			}
			resource = client.Resource(mapping.Resource).Namespace(namespace)
		}
		return apply(ctx, resource, o)
	}, nil
}

// apply asks for an object to be applied, or to be created if the API server is
// to find its name.
func apply(ctx context.Context, resource dynamic.ResourceInterface, o *unstructured.Unstructured) error {
	all := []string{metav1.DryRunAll}
	if o.GetName() == "" {
		_, err := resource.Create(ctx, o, metav1.CreateOptions{DryRun: all, FieldManager: manager})
		return err
	}
	data, err := json.Marshal(o.Object)
	if err != nil {
		return fmt.Errorf("write %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	force := true
	_, err = resource.Patch(ctx, o.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{DryRun: all, FieldManager: manager, Force: &force})
	return err
}
