// Package equivalent knows which built-in resources are the same in other groups
// and versions, and converts objects between those.
package equivalent

import (
	"fmt"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"

	"github.com/kubeguardian/kubeguardian/policy/normal"
)

// A family is one built-in resource in all its groups and versions.
type family struct {
	resource string
	kind     string
	members  []string // groups and versions, those that the API server serves first
	scale    bool     // it has the subresource scale

	// alike says that the versions after the first have no field of another
	// meaning, so that an object is converted by its fields.
	alike bool
	// into converts the content of an object to the first version; nil if only
	// the API server can. It may change the object.
	into func(object map[string]any, from schema.GroupVersion) error
}

// families are the built-in resources that the API server serves, or served, in
// more than one version.
func families() []family {
	return []family{
		{"deployments", "Deployment", []string{"apps/v1", "apps/v1beta2", "apps/v1beta1", "extensions/v1beta1"}, true, true, nil},
		{"replicasets", "ReplicaSet", []string{"apps/v1", "apps/v1beta2", "extensions/v1beta1"}, true, true, nil},
		{"statefulsets", "StatefulSet", []string{"apps/v1", "apps/v1beta2", "apps/v1beta1"}, true, true, nil},
		{"daemonsets", "DaemonSet", []string{"apps/v1", "apps/v1beta2", "extensions/v1beta1"}, false, true, nil},
		{"controllerrevisions", "ControllerRevision", []string{"apps/v1", "apps/v1beta2", "apps/v1beta1"}, false, true, nil},
		{"cronjobs", "CronJob", []string{"batch/v1", "batch/v1beta1"}, false, true, nil},
		{"poddisruptionbudgets", "PodDisruptionBudget", []string{"policy/v1", "policy/v1beta1"}, false, true, nil},
		{"networkpolicies", "NetworkPolicy", []string{"networking.k8s.io/v1", "extensions/v1beta1"}, false, true, nil},
		{"ingresses", "Ingress", []string{"networking.k8s.io/v1", "networking.k8s.io/v1beta1", "extensions/v1beta1"}, false, false, ingressIntoV1},
		{"ingressclasses", "IngressClass", []string{"networking.k8s.io/v1", "networking.k8s.io/v1beta1"}, false, true, nil},
		{"horizontalpodautoscalers", "HorizontalPodAutoscaler", []string{"autoscaling/v2", "autoscaling/v1", "autoscaling/v2beta2", "autoscaling/v2beta1"}, false, false, autoscalerIntoV2},
		{"roles", "Role", []string{"rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io/v1beta1"}, false, true, nil},
		{"rolebindings", "RoleBinding", []string{"rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io/v1beta1"}, false, true, nil},
		{"clusterroles", "ClusterRole", []string{"rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io/v1beta1"}, false, true, nil},
		{"clusterrolebindings", "ClusterRoleBinding", []string{"rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io/v1beta1"}, false, true, nil},
		{"storageclasses", "StorageClass", []string{"storage.k8s.io/v1", "storage.k8s.io/v1beta1"}, false, true, nil},
		{"csidrivers", "CSIDriver", []string{"storage.k8s.io/v1", "storage.k8s.io/v1beta1"}, false, true, nil},
		{"csinodes", "CSINode", []string{"storage.k8s.io/v1", "storage.k8s.io/v1beta1"}, false, true, nil},
		{"volumeattachments", "VolumeAttachment", []string{"storage.k8s.io/v1", "storage.k8s.io/v1beta1"}, false, true, nil},
		{"priorityclasses", "PriorityClass", []string{"scheduling.k8s.io/v1", "scheduling.k8s.io/v1beta1"}, false, true, nil},
		{"leases", "Lease", []string{"coordination.k8s.io/v1", "coordination.k8s.io/v1beta1"}, false, true, nil},
		{"runtimeclasses", "RuntimeClass", []string{"node.k8s.io/v1", "node.k8s.io/v1beta1"}, false, true, nil},
		{"endpointslices", "EndpointSlice", []string{"discovery.k8s.io/v1", "discovery.k8s.io/v1beta1"}, false, false, nil},
		{"events", "Event", []string{"v1", "events.k8s.io/v1", "events.k8s.io/v1beta1"}, false, false, nil},
		{"mutatingwebhookconfigurations", "MutatingWebhookConfiguration", []string{"admissionregistration.k8s.io/v1", "admissionregistration.k8s.io/v1beta1"}, false, true, nil},
		{"validatingwebhookconfigurations", "ValidatingWebhookConfiguration", []string{"admissionregistration.k8s.io/v1", "admissionregistration.k8s.io/v1beta1"}, false, true, nil},
	}
}

// An equivalence knows which resources are the same in other groups and
// versions. It is immutable.
type equivalence struct {
	runtime.EquivalentResourceRegistry
	groups   map[schema.GroupResource][]schema.GroupResource // itself included
	families map[schema.GroupKind]family
}

// equivalents makes the equivalence once: it is the same for all requests.
var equivalents = sync.OnceValue(newEquivalence)

func newEquivalence() *equivalence {
	all := families()
	key := map[schema.GroupResource]string{}
	e := &equivalence{groups: map[schema.GroupResource][]schema.GroupResource{}, families: map[schema.GroupKind]family{}}
	for _, f := range all {
		var groups []schema.GroupResource
		for _, member := range f.members {
			r := schema.GroupResource{Group: groupVersion(member).Group, Resource: f.resource}
			key[r] = f.resource
			if !slices.Contains(groups, r) {
				groups = append(groups, r)
			}
			e.families[schema.GroupKind{Group: r.Group, Kind: f.kind}] = f
		}
		for _, r := range groups {
			e.groups[r] = groups
		}
	}
	e.EquivalentResourceRegistry = runtime.NewEquivalentResourceRegistryWithIdentity(func(r schema.GroupResource) string { return key[r] })
	for _, f := range all {
		f.register(e)
	}
	return e
}

func (f family) register(e *equivalence) {
	for _, member := range f.members {
		gv := groupVersion(member)
		resource := gv.WithResource(f.resource)
		e.RegisterKindFor(resource, "", gv.WithKind(f.kind))
		e.RegisterKindFor(resource, "status", gv.WithKind(f.kind))
		if !f.scale {
			continue
		}
		scale := gv.WithKind("Scale")
		if gv.Version == "v1" { // before that each group had a Scale of its own
			scale = schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}
		}
		e.RegisterKindFor(resource, "scale", scale)
	}
}

// groupVersion parses what is written in the table above.
func groupVersion(s string) schema.GroupVersion {
	gvk := schema.FromAPIVersionAndKind(s, "")
	return gvk.GroupVersion()
}

// Interfaces returns what the API server's matcher asks for.
func Interfaces() admission.ObjectInterfaces {
	return &admission.RuntimeObjectInterfaces{EquivalentResourceMapper: equivalents()}
}

// Resources returns the resources that are the same as one, itself included; none
// for a resource that is alone.
func Resources(r schema.GroupResource) []schema.GroupResource { return equivalents().groups[r] }

// Convert returns an object in another version of its kind. Only what needs no
// more than the object is converted: the rest takes the API server, which
// converts before it calls a webhook.
func Convert(u *unstructured.Unstructured, to schema.GroupVersionKind) (*unstructured.Unstructured, error) {
	if u == nil || u.GroupVersionKind() == to {
		return u, nil
	}
	from := u.GroupVersionKind()
	converted := u.DeepCopy()
	f, target := equivalents().families[from.GroupKind()], equivalents().families[to.GroupKind()]
	switch {
	case from.Kind == "Scale" && to.Kind == "Scale":
		delete(converted.Object, "status") // its selector is written in another way
	case f.resource == "" || f.resource != target.resource || !f.alike && (f.into == nil || to.GroupVersion().String() != f.members[0]):
		return nil, fmt.Errorf("%s %q: only the API server converts %s to %s", from.Kind, u.GetName(), from.GroupVersion(), to.GroupVersion())
	case !f.alike:
		if err := f.into(converted.Object, from.GroupVersion()); err != nil {
			return nil, fmt.Errorf("%s %q: convert %s to %s: %w", from.Kind, u.GetName(), from.GroupVersion(), to.GroupVersion(), err)
		}
	}
	converted.SetGroupVersionKind(to)
	out, _, err := normal.Object(converted, to)
	return out, err
}
