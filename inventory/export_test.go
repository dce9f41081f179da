package inventory

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

// StartCluster starts an API server for a test outside the package and returns
// what an administrator connects with.
func StartCluster(t testing.TB) *rest.Config { return startCluster(t).as("admin") }

// Resources returns what is read from a cluster, and the kind of each.
func Resources() map[schema.GroupVersionResource]string {
	all := map[schema.GroupVersionResource]string{}
	for _, r := range clusterResources {
		all[r.GroupVersionResource] = r.kind
	}
	return all
}

// With returns an inventory of the same cluster with other objects.
func (inv *Inventory) With(objects []*Object) (*Inventory, error) {
	return about{version: inv.server}.inventory(objects, inv.Gaps, newTemplates())
}
