package inventory

import (
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// NamespaceOf returns the namespace that o lives in. Manifests may leave it
// out; then it is "default", as kubectl has it without further settings. It is
// empty for a cluster-scoped object.
func (inv *Inventory) NamespaceOf(o *Object) string {
	if home, ok := inv.home[o]; ok {
		return home
	}
	return inv.namespace(o.GroupVersionKind().GroupKind(), o.GetNamespace())
}

func (inv *Inventory) namespace(gk schema.GroupKind, namespace string) string {
	switch {
	case inv.clusterScoped(gk):
		return ""
	case namespace == "":
		return "default"
	}
	return namespace
}

func (inv *Inventory) clusterScoped(gk schema.GroupKind) bool {
	if scope, ok := inv.scopes[gk]; ok {
		return scope == "Cluster"
	}
	return slices.Contains(clusterKinds[gk.Group], gk.Kind)
}

// clusterKinds lists the cluster-scoped kinds of Kubernetes by group. All other
// kinds are namespaced unless their definition is in the inventory and says
// otherwise.
var clusterKinds = map[string][]string{
	"": {"ComponentStatus", "Namespace", "Node", "PersistentVolume"},
	"admissionregistration.k8s.io": {
		"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding", "MutatingWebhookConfiguration",
		"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration",
	},
	"apiextensions.k8s.io":         {"CustomResourceDefinition"},
	"apiregistration.k8s.io":       {"APIService"},
	"authentication.k8s.io":        {"SelfSubjectReview", "TokenReview"},
	"authorization.k8s.io":         {"SelfSubjectAccessReview", "SelfSubjectRulesReview", "SubjectAccessReview"},
	"certificates.k8s.io":          {"CertificateSigningRequest", "ClusterTrustBundle"},
	"flowcontrol.apiserver.k8s.io": {"FlowSchema", "PriorityLevelConfiguration"},
	"internal.apiserver.k8s.io":    {"StorageVersion"},
	"networking.k8s.io":            {"IPAddress", "IngressClass", "ServiceCIDR"},
	"node.k8s.io":                  {"RuntimeClass"},
	"rbac.authorization.k8s.io":    {"ClusterRole", "ClusterRoleBinding"},
	"resource.k8s.io":              {"DeviceClass", "DeviceTaintRule", "ResourceSlice"},
	"scheduling.k8s.io":            {"PriorityClass"},
	"storage.k8s.io":               {"CSIDriver", "CSINode", "StorageClass", "VolumeAttachment", "VolumeAttributesClass"},
	"storagemigration.k8s.io":      {"StorageVersionMigration"},
}

// customScopes reads the scope of each kind that a definition declares.
func customScopes(definitions []*Object) map[schema.GroupKind]string {
	scopes := map[schema.GroupKind]string{}
	for _, o := range definitions {
		group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
		kind, _, _ := unstructured.NestedString(o.Object, "spec", "names", "kind")
		scope, _, _ := unstructured.NestedString(o.Object, "spec", "scope")
		scopes[schema.GroupKind{Group: group, Kind: kind}] = scope
	}
	return scopes
}
