// Package source has what policies ask for besides the object that they judge:
// from objects at hand, such as those of files, or from a cluster.
package source

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/normal"
)

// Objects are what is known of a cluster when all that there is are objects,
// such as those of files: they find its namespaces and the parameters of
// policies, answer for the authorizer by RBAC, and know the schemas of custom
// kinds from their definitions. They are immutable and safe for concurrent use.
type Objects struct {
	rbac
	namespaces map[string]*corev1.Namespace
	byKind     map[schema.GroupVersionKind][]*unstructured.Unstructured
	namespaced map[schema.GroupVersionKind]bool // of custom kinds
	schemas    map[schema.GroupVersionKind]managedfields.TypeConverter
}

var (
	_ policy.Namespaces = (*Objects)(nil)
	_ policy.Params     = (*Objects)(nil)
	_ policy.Authorizer = (*Objects)(nil)
	_ policy.Schemas    = (*Objects)(nil)
)

// NewObjects returns what the objects say. They are read, and kept. An object
// of a built-in kind that its kind cannot hold is an error.
func NewObjects(objects ...*unstructured.Unstructured) (*Objects, error) {
	o := &Objects{
		namespaces: map[string]*corev1.Namespace{},
		byKind:     map[schema.GroupVersionKind][]*unstructured.Unstructured{},
		namespaced: map[schema.GroupVersionKind]bool{},
		schemas:    map[schema.GroupVersionKind]managedfields.TypeConverter{},
	}
	for _, u := range objects {
		req, err := policy.NewCreateRequest(u)
		if err != nil {
			return nil, err
		}
		if err := o.add(req); err != nil {
			return nil, fmt.Errorf("read %s %q: %w", req.Kind.Kind, req.Name, err)
		}
	}
	o.aggregate()
	return o, nil
}

func (o *Objects) add(req policy.Request) error {
	u := req.Object
	if u.GetNamespace() != req.Namespace && req.Kind.Kind != "Namespace" {
		u = u.DeepCopy()
		u.SetNamespace(req.Namespace)
	}
	o.byKind[req.Kind] = append(o.byKind[req.Kind], u)
	switch {
	case req.Kind == corev1.SchemeGroupVersion.WithKind("Namespace"):
		return o.addNamespace(u)
	case req.Kind.Group == "rbac.authorization.k8s.io":
		return o.rbac.add(u)
	case req.Kind.GroupKind() == schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}:
		return o.addDefinition(u)
	}
	return nil
}

func (o *Objects) addNamespace(u *unstructured.Unstructured) error {
	namespace := &corev1.Namespace{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, namespace); err != nil {
		return err
	}
	if namespace.Labels = maps.Clone(namespace.Labels); namespace.Labels == nil {
		namespace.Labels = map[string]string{}
	}
	namespace.Labels[corev1.LabelMetadataName] = namespace.Name // as the API server does
	o.namespaces[namespace.Name] = namespace
	return nil
}

// A definition is what is read of a CustomResourceDefinition.
type definition struct {
	Spec struct {
		Group string `json:"group"`
		Scope string `json:"scope"`
		Names struct {
			Kind string `json:"kind"`
		} `json:"names"`
		Versions []struct {
			Name   string `json:"name"`
			Schema struct {
				OpenAPIV3Schema *spec.Schema `json:"openAPIV3Schema"`
			} `json:"schema"`
		} `json:"versions"`
	} `json:"spec"`
}

func (o *Objects) addDefinition(u *unstructured.Unstructured) error {
	data, err := json.Marshal(u.Object)
	if err != nil {
		return err
	}
	var d definition
	if err := json.Unmarshal(data, &d); err != nil {
		return err
	}
	for _, v := range d.Spec.Versions {
		kind := schema.GroupVersionKind{Group: d.Spec.Group, Version: v.Name, Kind: d.Spec.Names.Kind}
		o.namespaced[kind] = d.Spec.Scope != "Cluster"
		if v.Schema.OpenAPIV3Schema == nil {
			continue
		}
		if o.schemas[kind], err = newConverter(kind, *v.Schema.OpenAPIV3Schema); err != nil {
			return fmt.Errorf("schema of version %q: %w", v.Name, err)
		}
	}
	return nil
}

// metadataSchema says how the metadata of custom objects are merged; their
// definitions leave it out.
const metadataSchema = `{"type": "object", "additionalProperties": true, "properties": {
	"labels": {"type": "object", "additionalProperties": {"type": "string"}},
	"annotations": {"type": "object", "additionalProperties": {"type": "string"}},
	"finalizers": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
	"ownerReferences": {"type": "array", "items": {"type": "object", "additionalProperties": true},
		"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"]}}}`

func newConverter(kind schema.GroupVersionKind, root spec.Schema) (managedfields.TypeConverter, error) {
	var metadata spec.Schema
	if err := json.Unmarshal([]byte(metadataSchema), &metadata); err != nil {
		return nil, err
	}
	root.Properties = maps.Clone(root.Properties)
	if root.Properties == nil {
		root.Properties = map[string]spec.Schema{}
	}
	text := spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"string"}}}
	root.Properties["apiVersion"], root.Properties["kind"], root.Properties["metadata"] = text, text, metadata
	root.AddExtension("x-kubernetes-group-version-kind", []any{map[string]any{"group": kind.Group, "version": kind.Version, "kind": kind.Kind}})
	return managedfields.NewTypeConverter(map[string]*spec.Schema{kind.Kind: &root}, false)
}

// Namespace implements [policy.Namespaces].
func (o *Objects) Namespace(_ context.Context, name string) (*corev1.Namespace, error) {
	if namespace := o.namespaces[name]; namespace != nil {
		return namespace, nil
	}
	return nil, fmt.Errorf("it is not among the %d namespaces that are given", len(o.namespaces))
}

// Namespaced implements [policy.Params].
func (o *Objects) Namespaced(_ context.Context, kind schema.GroupVersionKind) (bool, error) {
	if scheme.Scheme.Recognizes(kind) {
		return !normal.ClusterScoped(kind.Kind), nil
	}
	if namespaced, ok := o.namespaced[kind]; ok {
		return namespaced, nil
	}
	given := o.byKind[kind]
	if len(given) == 0 {
		return false, fmt.Errorf("%s is not built in, and neither its CustomResourceDefinition nor an object is given", kind.Kind)
	}
	return slices.ContainsFunc(given, func(u *unstructured.Unstructured) bool { return u.GetNamespace() != "" }), nil
}

// Params implements [policy.Params].
func (o *Objects) Params(_ context.Context, kind schema.GroupVersionKind, namespace, name string, selector labels.Selector) (found []*unstructured.Unstructured, err error) {
	for _, u := range o.byKind[kind] {
		at := u.GetNamespace()
		if o.namespaced[kind] && at == "" {
			at = corev1.NamespaceDefault
		}
		if at == namespace && (name == u.GetName() || name == "" && selector.Matches(labels.Set(u.GetLabels()))) {
			found = append(found, u)
		}
	}
	return found, nil
}

// Schema implements [policy.Schemas].
func (o *Objects) Schema(kind schema.GroupVersionKind) managedfields.TypeConverter {
	return o.schemas[kind] // a missing one is a nil interface
}
