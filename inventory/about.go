package inventory

import (
	"context"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
)

// about is what a cluster says of itself.
type about struct {
	version  string     // of the API server; "" where it does not say
	unserved []resource // of the optional kinds, as far as it says
}

// ask reads the version of the cluster and which optional kinds it does not serve. A
// cluster that does not answer leaves them unknown, which is no error.
func ask(ctx context.Context, config *rest.Config) about {
	config = rest.CopyConfig(config)
	config.WarningHandler = rest.NoWarnings{}
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return about{}
	}
	var a about
	if v, err := client.ServerVersionWithContext(ctx); err == nil {
		a.version = v.GitVersion
	}
	groups, err := client.ServerGroupsWithContext(ctx)
	if err != nil {
		return a
	}
	served := map[schema.GroupVersion]*metav1.APIResourceList{}
	for _, group := range groups.Groups {
		for _, v := range group.Versions {
			served[schema.GroupVersion{Group: group.Name, Version: v.Version}] = nil
		}
	}
	for _, r := range clusterResources {
		list, known := served[r.GroupVersion()]
		if r.optional && known && list == nil {
			if list, err = client.ServerResourcesForGroupVersionWithContext(ctx, r.GroupVersion().String()); err != nil {
				continue
			}
			served[r.GroupVersion()] = list
		}
		if r.optional && (!known || !slices.ContainsFunc(list.APIResources, func(a metav1.APIResource) bool { return a.Name == r.Resource })) {
			a.unserved = append(a.unserved, r)
		}
	}
	return a
}

// resources returns the kinds to read.
func (a about) resources() []resource {
	return slices.DeleteFunc(slices.Clone(clusterResources), func(r resource) bool { return slices.Contains(a.unserved, r) })
}

// inventory returns the inventory of a cluster.
func (a about) inventory(objects []*Object, gaps []Gap, known *templates) (*Inventory, error) {
	inv, err := index(Cluster, objects, gaps, known)
	if err == nil {
		inv.server = a.version
	}
	return inv, err
}
