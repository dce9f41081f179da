package inventory

import (
	"os"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// TestPublishedRights holds the rights that the server asks for to the kinds
// that it reads: no more, and no less.
func TestPublishedRights(t *testing.T) {
	data, err := os.ReadFile("../content/rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	granted := map[string]bool{}
	for doc := range strings.SplitSeq(string(data), "\n---\n") {
		var role rbacv1.ClusterRole
		if err := yaml.Unmarshal([]byte(doc), &role); err != nil {
			t.Fatal(err)
		}
		if role.Name == "kubeguardian-policies" { // read by the package clusterpolicy
			continue
		}
		for _, rule := range role.Rules {
			if !slices.Equal(rule.Verbs, []string{"get", "list", "watch"}) {
				continue
			}
			for _, resource := range rule.Resources {
				granted[rule.APIGroups[0]+"/"+resource] = true
			}
		}
	}
	for _, r := range clusterResources {
		if key := r.Group + "/" + r.Resource; !granted[key] {
			t.Errorf("%s is read but not granted", key)
		} else {
			delete(granted, key)
		}
	}
	for key := range granted {
		t.Errorf("%s is granted but not read", key)
	}
}
