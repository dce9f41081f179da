// Package normal brings objects that stand in files into the form in which an API
// server shows them to policies: that of their Go types. Unknown fields and nulls
// are gone, and fields that are always written are there.
package normal

import (
	"fmt"
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
)

// Object returns an object of a built-in kind as it is after a conversion to its
// Go type and back, without nulls, and any other as it is. obj is not changed.
func Object(obj *unstructured.Unstructured, kind schema.GroupVersionKind) (_ *unstructured.Unstructured, builtin bool, err error) {
	typed, err := scheme.Scheme.New(kind)
	if runtime.IsNotRegisteredError(err) {
		return obj, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read %s %q: %w", kind.Kind, obj.GetName(), err)
	}
	if content := normalContent(reflect.TypeOf(typed).Elem(), obj.Object); content != nil {
		return &unstructured.Unstructured{Object: content}, true, nil
	}
	content, err := converted(obj.Object, typed)
	if err != nil {
		return nil, true, fmt.Errorf("read %s %q: %w", kind.Kind, obj.GetName(), err)
	}
	return &unstructured.Unstructured{Object: content}, true, nil
}

// converted returns content as the converter writes it, without nulls, by way of
// the Go type.
func converted(content map[string]any, typed runtime.Object) (map[string]any, error) {
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, typed); err != nil {
		return nil, err
	}
	out, err := runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
	if err != nil {
		return nil, err
	}
	DropNulls(out)
	return out, nil
}

// DropNulls removes what Go types without omitempty leave behind for a list
// that a file does not have.
func DropNulls(value any) {
	switch v := value.(type) {
	case map[string]any:
		for key, item := range v {
			if item == nil {
				delete(v, key)
			} else {
				DropNulls(item)
			}
		}
	case []any:
		for _, item := range v {
			DropNulls(item)
		}
	}
}

// ClusterScoped reports whether a built-in kind has no namespace. The Go types do
// not say so.
func ClusterScoped(kind string) bool {
	return slices.Contains([]string{
		"APIService", "CSIDriver", "CSINode", "CertificateSigningRequest", "ClusterRole", "ClusterRoleBinding",
		"ClusterTrustBundle", "ComponentStatus", "CustomResourceDefinition", "DeviceClass", "DeviceTaintRule", "FlowSchema", "IPAddress",
		"IngressClass", "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding", "MutatingWebhookConfiguration",
		"Namespace", "Node", "PersistentVolume", "PriorityClass", "PriorityLevelConfiguration", "ResourceSlice",
		"RuntimeClass", "SelfSubjectAccessReview", "SelfSubjectReview", "SelfSubjectRulesReview", "ServiceCIDR",
		"StorageClass", "StorageVersion", "StorageVersionMigration", "SubjectAccessReview", "TokenReview",
		"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration",
		"VolumeAttachment", "VolumeAttributesClass",
	}, kind)
}
