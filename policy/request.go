package policy

import (
	"context"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/kubeguardian/kubeguardian/policy/normal"
)

// A Request is what policies judge: one admission request. The objects are
// only read.
type Request struct {
	UID         types.UID // empty: nobody has sent the request
	Operation   admissionv1.Operation
	Kind        schema.GroupVersionKind
	Resource    schema.GroupVersionResource
	Subresource string

	// What the user asked for, when the API server has converted the object for a
	// webhook; zero: Kind, Resource and Subresource.
	RequestKind        schema.GroupVersionKind
	RequestResource    schema.GroupVersionResource
	RequestSubresource string

	Namespace string // empty for a cluster-scoped object
	Name      string

	Object    *unstructured.Unstructured // nil for DELETE
	OldObject *unstructured.Unstructured // nil for CREATE and CONNECT
	Options   *unstructured.Unstructured // request.options; may be nil

	User   authenticationv1.UserInfo
	DryRun bool

	// Namespaces finds the namespace of the object when a policy asks for it.
	// When it is nil no namespace is known, which is an error for the policies
	// that ask. The name of a namespace is always known, and so is the label that
	// repeats it.
	Namespaces Namespaces
	// Params finds the parameters of policies. When it is nil none are known,
	// which is an error for the policies that have parameters.
	Params Params
	// Authorizer answers what expressions ask the authorizer. When it is nil
	// nothing is known of rights, which is an error for the policies that ask.
	Authorizer Authorizer
	// Schemas knows how objects of custom kinds are merged. It may be nil.
	Schemas Schemas

	// Unjudged, when not nil, is told of each policy that cannot be judged because
	// something that it asks for, such as the namespace, cannot be had; the policy
	// then has no violation. When it is nil the failure policy decides, as in the
	// API server.
	Unjudged func(policy string, err error)
}

// Namespaces finds a namespace by name.
type Namespaces interface {
	Namespace(ctx context.Context, name string) (*corev1.Namespace, error)
}

// NamespacesFunc lets a plain function be [Namespaces].
type NamespacesFunc func(ctx context.Context, name string) (*corev1.Namespace, error)

// Namespace calls f.
func (f NamespacesFunc) Namespace(ctx context.Context, name string) (*corev1.Namespace, error) {
	return f(ctx, name)
}

// NewCreateRequest returns the request to create an object that stands in a
// file or was read from a cluster. A built-in kind is brought into the form in
// which the API server shows it to policies: nulls and unknown fields are gone,
// fields that are always present are there; defaults are not set, because that
// takes the API server. A value that the kind cannot hold is an error. Without
// a namespace, an object of a namespaced built-in kind is in "default". A
// namespace has the label with its name. obj is not changed.
func NewCreateRequest(obj *unstructured.Unstructured) (Request, error) {
	kind := obj.GroupVersionKind()
	if kind.Kind == "" || kind.Version == "" {
		return Request{}, fmt.Errorf("read object %q: apiVersion and kind are required", obj.GetName())
	}
	object, builtin, err := normal.Object(obj, kind)
	if err != nil {
		return Request{}, err
	}
	return createRequest(object, kind, builtin), nil
}

// NewNormalCreateRequest is [NewCreateRequest] for an object that is in the form
// that NewCreateRequest makes, because it was read as its Go type: it is not
// converted again.
func NewNormalCreateRequest(obj *unstructured.Unstructured) Request {
	kind := obj.GroupVersionKind()
	return createRequest(obj, kind, scheme.Scheme.Recognizes(kind))
}

func createRequest(object *unstructured.Unstructured, kind schema.GroupVersionKind, builtin bool) Request {
	resource, _ := meta.UnsafeGuessKindToResource(kind)
	req := Request{
		Operation: admissionv1.Create,
		Kind:      kind,
		Resource:  resource,
		Namespace: object.GetNamespace(),
		Name:      object.GetName(),
		Object:    object,
	}
	switch {
	case kind.Group == "" && kind.Kind == "Namespace": // it is in itself
		req.Namespace = req.Name
		labels := object.GetLabels()
		if labels[corev1.LabelMetadataName] == req.Name {
			break // one of a cluster has it, and may be shared
		}
		if labels == nil {
			labels = map[string]string{}
		}
		labels[corev1.LabelMetadataName] = req.Name // as the API server does
		object.SetLabels(labels)
	case builtin && normal.ClusterScoped(kind.Kind):
		req.Namespace = ""
	case builtin && req.Namespace == "":
		req.Namespace = corev1.NamespaceDefault
		object.SetNamespace(corev1.NamespaceDefault)
	}
	return req
}
