package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured/unstructuredscheme"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// Schemas knows how objects of custom kinds are merged.
type Schemas interface {
	// Schema returns the schema of a kind, and nil if none is known.
	Schema(kind schema.GroupVersionKind) managedfields.TypeConverter
}

// builtinSchemas are the schemas of the built-in kinds. Reading them takes a
// while, so that it is done once, when a policy needs them.
var builtinSchemas = sync.OnceValue(func() managedfields.TypeConverter {
	return applyconfigurations.NewTypeConverter(scheme.Scheme)
})

// converter returns the schema of the kind that a policy changes.
func (m *mutator) converter(i invocation) managedfields.TypeConverter {
	if scheme.Scheme.Recognizes(i.match.kind) {
		return builtinSchemas()
	}
	if m.req.Schemas != nil {
		if known := m.req.Schemas.Schema(i.match.kind); known != nil {
			return known
		}
	}
	return deduced{managedfields.NewDeducedTypeConverter()}
}

// A deduced schema is that of a kind of which none is known: fields are merged
// by their names. How items of a list belong together it cannot say, so that a
// patch with one is an error.
type deduced struct{ managedfields.TypeConverter }

// ObjectToTyped implements [managedfields.TypeConverter].
func (d deduced) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	if u, ok := obj.(*unstructured.Unstructured); ok && len(opts) == 0 { // the object itself is read with options
		if list := firstList(u.Object, ""); list != "" {
			return nil, fmt.Errorf("how the list %s of a %s is merged is not known: its CustomResourceDefinition is not given", list, u.GetKind())
		}
	}
	return d.TypeConverter.ObjectToTyped(obj, opts...)
}

// firstList returns the path of a list in a mapping, or "".
func firstList(fields map[string]any, path string) string {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		at := strings.TrimPrefix(path+"."+name, ".")
		switch value := fields[name].(type) {
		case []any:
			return at
		case map[string]any:
			if found := firstList(value, at); found != "" {
				return found
			}
		}
	}
	return ""
}

// unstructuredInterfaces lets patchers read and write objects of any kind.
func unstructuredInterfaces() admission.ObjectInterfaces {
	return &admission.RuntimeObjectInterfaces{
		ObjectCreater: unstructuredscheme.NewUnstructuredCreator(),
		ObjectTyper:   unstructuredscheme.NewUnstructuredObjectTyper(),
	}
}

// unknownFields says which fields of an object its built-in kind does not have.
// The error is a value that the kind cannot hold.
func unknownFields(u *unstructured.Unstructured, kind schema.GroupVersionKind) (unknown []string, err error) {
	into, err := scheme.Scheme.New(kind)
	if runtime.IsNotRegisteredError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	err = runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(u.Object, into, true)
	if strict, ok := runtime.AsStrictDecodingError(err); ok {
		for _, field := range strict.Errors() {
			unknown = append(unknown, field.Error())
		}
		return unknown, nil
	}
	return nil, err
}
