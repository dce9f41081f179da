package normal

import (
	"maps"
	"math"
	"reflect"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	entries "sigs.k8s.io/structured-merge-diff/v6/value"
)

// Converting an object to its Go type and back looks at every field that the
// type has. A shape says the same of a type once: which fields there are, and
// which are written even if nobody set them. It is then the fields of the object
// that are looked at, of which there are far fewer.

// A shape is how the converter writes values of one Go type. The zero value is
// of a type that only the converter knows.
type shape struct {
	kind   reflect.Kind
	fields map[string]*field // of a struct, those of embedded ones among them
	zero   map[string]any    // what is always written of a struct
	elem   *shape            // of a pointer, slice or map
}

type field struct {
	*shape
	omitempty bool
}

// Kinds of types that are written by themselves.
const (
	quantityKind = reflect.Kind(100 + iota)
	intOrStringKind
)

// shapes holds the shape of each type that was asked for: what a type is never
// changes.
var shapes sync.Map // of reflect.Type to *shape

// normalContent returns what the converter makes of content as a value of type
// t, without nulls, or nil if only the converter can tell.
func normalContent(t reflect.Type, content map[string]any) map[string]any {
	s, ok := shapes.Load(t)
	if !ok {
		s, _ = shapes.LoadOrStore(t, newShape(t, map[reflect.Type]*shape{}))
	}
	out, ok := s.(*shape).normal(content)
	if !ok {
		return nil
	}
	return out.(map[string]any)
}

func newShape(t reflect.Type, known map[reflect.Type]*shape) *shape {
	if s := known[t]; s != nil {
		return s
	}
	s := &shape{}
	known[t] = s
	switch {
	case t == reflect.TypeFor[resource.Quantity]():
		s.kind = quantityKind
	case t == reflect.TypeFor[intstr.IntOrString]():
		s.kind = intOrStringKind
	case entries.TypeReflectEntryOf(t).CanConvertFromUnstructured() || entries.TypeReflectEntryOf(t).CanConvertToUnstructured():
		return s
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Int32, reflect.Int64:
		s.kind = t.Kind()
	case reflect.Pointer:
		s.kind, s.elem = t.Kind(), newShape(t.Elem(), known)
	case reflect.Slice:
		if t.Elem().Kind() != reflect.Uint8 {
			s.kind, s.elem = t.Kind(), newShape(t.Elem(), known)
		}
	case reflect.Map:
		if t.Key().Kind() == reflect.String {
			s.kind, s.elem = t.Kind(), newShape(t.Elem(), known)
		}
	case reflect.Struct:
		if s.kind == reflect.Invalid {
			s.structure(t, known)
		}
	}
	return s
}

// structure fills in the shape of a struct.
func (s *shape) structure(t reflect.Type, known map[reflect.Type]*shape) {
	zero, err := runtime.DefaultUnstructuredConverter.ToUnstructured(reflect.New(t).Interface())
	if err != nil {
		return
	}
	DropNulls(zero)
	s.kind, s.zero, s.fields = reflect.Struct, zero, map[string]*field{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			embedded := newShape(f.Type, known)
			maps.Copy(s.fields, embedded.fields)
			if embedded.kind != reflect.Struct {
				s.kind = reflect.Invalid
			}
		case strings.Contains(options, "omitzero"), name == "":
			s.fields[name] = &field{shape: &shape{}}
		default:
			s.fields[name] = &field{newShape(f.Type, known), strings.Contains(options, "omitempty")}
		}
	}
}

// normal returns a value as it is written. ok is false if only the converter can
// tell.
func (s *shape) normal(v any) (out any, ok bool) {
	switch s.kind {
	case reflect.String:
		_, ok = v.(string)
		return v, ok
	case reflect.Bool:
		_, ok = v.(bool)
		return v, ok
	case reflect.Int64:
		_, ok = v.(int64)
		return v, ok
	case reflect.Int32:
		return v, isInt32(v)
	case intOrStringKind:
		_, ok = v.(string)
		return v, ok || isInt32(v)
	case quantityKind:
		return normalQuantity(v)
	case reflect.Pointer:
		return s.elem.normal(v)
	case reflect.Slice:
		return s.slice(v)
	case reflect.Map:
		return s.mapping(v)
	case reflect.Struct:
		return s.object(v)
	}
	return nil, false
}

func isInt32(v any) bool {
	n, ok := v.(int64)
	return ok && n >= math.MinInt32 && n <= math.MaxInt32
}

func normalQuantity(v any) (any, bool) {
	text, ok := v.(string)
	if !ok {
		return nil, false
	}
	q, err := resource.ParseQuantity(text)
	return q.String(), err == nil
}

func (s *shape) slice(v any) (any, bool) {
	items, ok := v.([]any)
	if !ok || items == nil {
		return nil, false
	}
	out := make([]any, len(items))
	for i, item := range items {
		if out[i], ok = s.elem.normal(item); !ok {
			return nil, false
		}
	}
	return out, true
}

func (s *shape) mapping(v any) (any, bool) {
	items, ok := v.(map[string]any)
	if !ok || items == nil {
		return nil, false
	}
	out := make(map[string]any, len(items))
	for key, item := range items {
		if out[key], ok = s.elem.normal(item); !ok {
			return nil, false
		}
	}
	return out, true
}

func (s *shape) object(v any) (any, bool) {
	items, ok := v.(map[string]any)
	if !ok || items == nil {
		return nil, false
	}
	out := make(map[string]any, len(items)+len(s.zero))
	for key, item := range items {
		f := s.fields[key]
		if f == nil || item == nil {
			continue // unknown, or as if it were not there
		}
		normal, ok := f.normal(item)
		if !ok {
			return nil, false
		}
		if !f.omitempty || !f.empty(normal) {
			out[key] = normal
		}
	}
	for key, item := range s.zero {
		if _, set := out[key]; !set {
			out[key] = runtime.DeepCopyJSONValue(item)
		}
	}
	return out, true
}

// empty reports whether a value is one that omitempty leaves out.
func (s *shape) empty(v any) bool {
	switch s.kind {
	case reflect.String:
		return v == ""
	case reflect.Bool:
		return v == false
	case reflect.Int32, reflect.Int64:
		return v == int64(0)
	case reflect.Slice:
		return len(v.([]any)) == 0
	case reflect.Map:
		return len(v.(map[string]any)) == 0
	}
	return false
}
