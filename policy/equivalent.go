package policy

import (
	"fmt"
	"slices"
	"sync"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"

	"github.com/kubeguardian/kubeguardian/policy/normal"
)

// A match says in which version of its kind a policy wants to see an object.
type match struct {
	resource schema.GroupVersionResource
	kind     schema.GroupVersionKind
}

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

// equivalentInterfaces returns what the API server's matcher asks for.
func equivalentInterfaces() admission.ObjectInterfaces {
	return &admission.RuntimeObjectInterfaces{EquivalentResourceMapper: equivalents()}
}

// equivalents returns the resources that a rule for one of them selects too.
func (c *criteria) equivalents(r schema.GroupResource) []schema.GroupResource {
	same := equivalents().groups[r]
	if len(same) == 0 || c.resources.MatchPolicy == nil || *c.resources.MatchPolicy == admissionregistrationv1.Exact {
		return []schema.GroupResource{r}
	}
	return same
}

// matching returns in which version the criteria select the request, and nil if
// they do not. No criteria select all.
func (in *input) matching(c *criteria) (*match, error) {
	if c == nil {
		return &in.matched, nil
	}
	if !c.plain {
		return in.selected(c)
	}
	key := place{in.matched, in.req.Subresource, in.req.Operation, in.req.Namespace != ""}
	if known, ok := c.known.Load(key); ok {
		return known.(*match), nil
	}
	found, err := in.selected(c)
	if err == nil {
		c.known.Store(key, found)
	}
	return found, err
}

// A place is all of a request that criteria without selectors and names of
// objects look at.
type place struct {
	match
	subresource string
	operation   admissionv1.Operation
	namespaced  bool
}

// selected asks the API server's matcher.
func (in *input) selected(c *criteria) (*match, error) {
	in.namespaces.nameOnly = c.nameOnly
	matches, resource, kind, err := in.matcher.Matches(in.attr.Attributes, in.interfaces, c)
	in.namespaces.nameOnly = false // who asks next may need more
	if !matches || err != nil {
		return nil, err
	}
	if resource == in.matched.resource {
		kind = in.matched.kind
	}
	return &match{resource, kind}, nil
}

// as returns the request in another version of its kind.
func (in *input) as(m *match) (*input, error) {
	if *m == in.matched {
		return in, nil
	}
	if other := in.others[*m]; other != nil {
		return other, nil
	}
	object, err := convert(in.req.Object, m.kind)
	if err != nil {
		return nil, fmt.Errorf("failed to convert object version: %w", err)
	}
	oldObject, err := convert(in.req.OldObject, m.kind)
	if err != nil {
		return nil, fmt.Errorf("failed to convert object version: %w", err)
	}
	other := *in
	other.matched, other.others, other.passed, other.request, other.sharing, other.values = *m, nil, nil, nil, sharing{}, nil
	other.memos, other.ofParam = map[identity]*memo{}, nil
	other.attr = &admission.VersionedAttributes{
		Attributes:         in.attr.Attributes,
		VersionedObject:    admission.NewLazyObject(runtimeObject(object)),
		VersionedOldObject: admission.NewLazyObject(runtimeObject(oldObject)),
		VersionedKind:      m.kind,
	}
	if in.others == nil {
		in.others = map[match]*input{}
	}
	in.others[*m] = &other
	return &other, nil
}

// shows reports whether expressions about this request see what others see. The
// API server's match conditions do not, for an object in another version: they
// see the resource as the user asked for it. What the user asked for, where it is
// not what the object is now, is written down on the way.
func (in *input) shows(request *admissionv1.AdmissionRequest) bool {
	if r := in.req; !r.RequestKind.Empty() {
		request.RequestKind = (*metav1.GroupVersionKind)(&r.RequestKind)
	}
	if r := in.req; !r.RequestResource.Empty() {
		request.RequestResource = (*metav1.GroupVersionResource)(&r.RequestResource)
	}
	return schema.GroupVersionResource(request.Resource) == in.matched.resource
}

// convert returns an object in another version of its kind. Only what needs no
// more than the object is converted: the rest takes the API server, which
// converts before it calls a webhook.
func convert(u *unstructured.Unstructured, to schema.GroupVersionKind) (*unstructured.Unstructured, error) {
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
