package clusterpolicy

import (
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/engine"
)

// TestPublishedRights holds what the published role lets us read to what is read:
// definitions, native policies, and the kinds that are defined and that an engine
// knows.
func TestPublishedRights(t *testing.T) {
	wanted := map[string]bool{"apiextensions.k8s.io/customresourcedefinitions": true, "constraints.gatekeeper.sh/*": true}
	for _, kind := range []string{"mutatingadmissionpolicies", "mutatingadmissionpolicybindings", "validatingadmissionpolicies", "validatingadmissionpolicybindings"} {
		wanted["admissionregistration.k8s.io/"+kind] = true
	}
	for doc := range strings.SplitSeq(string(content.CRDs())+"\n---\n"+string(content.Gatekeeper()), "\n---\n") {
		var crd struct {
			Kind string
			Spec struct {
				Group string
				Names struct{ Kind, Plural string }
			}
		}
		if err := yaml.Unmarshal([]byte(doc), &crd); err != nil {
			t.Fatal(err)
		}
		if crd.Kind == definitions.kind && engine.Handles(schema.GroupVersionKind{Group: crd.Spec.Group, Version: "v1", Kind: crd.Spec.Names.Kind}) {
			wanted[crd.Spec.Group+"/"+crd.Spec.Names.Plural] = true
		}
	}
	for doc := range strings.SplitSeq(string(content.RBAC()), "\n---\n") {
		var role rbacv1.ClusterRole
		if err := yaml.Unmarshal([]byte(doc), &role); err != nil {
			t.Fatal(err)
		}
		if role.Kind != "ClusterRole" || role.Name != "kubeguardian-policies" {
			continue
		}
		for _, rule := range role.Rules {
			for _, resource := range rule.Resources {
				key := rule.APIGroups[0] + "/" + resource
				switch {
				case slices.Equal(rule.Verbs, []string{"patch"}) && resource == "imagepolicies/status":
				case !slices.Equal(rule.Verbs, []string{"get", "list", "watch"}) || !wanted[key]:
					t.Errorf("%v of %s is granted but not needed", rule.Verbs, key)
				}
				delete(wanted, key)
			}
		}
	}
	for key := range wanted {
		t.Errorf("%s is read but not granted", key)
	}
}
