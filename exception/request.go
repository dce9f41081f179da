package exception

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/yamldoc"
)

// Annotation is the key by which an object asks for exceptions for itself: a
// YAML list of specs, whose scope may name containers only.
const Annotation = "kubeguardian.dev/exceptions"

// Requests reads what an object asks for; place is for errors and for the
// source of the exceptions.
func Requests(place string, o *unstructured.Unstructured) ([]Exception, error) {
	text := o.GetAnnotations()[Annotation]
	if text == "" {
		return nil, nil
	}
	var specs []Spec
	if err := yamldoc.One("annotation "+Annotation, []byte(text), &specs); err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	var out []Exception
	for i, spec := range specs {
		s := spec.Scope
		if s.Kind != "" || s.Namespace != "" || s.Name != "" || s.File != "" || len(s.Labels) > 0 || s.Subject != (Grantee{}) {
			return nil, fmt.Errorf("%s: annotation %s: an object asks for itself: its scope may name a container only", place, Annotation)
		}
		spec.Scope.Kind, spec.Scope.Name = o.GetKind(), o.GetName()
		out = append(out, Exception{
			Namespace: o.GetNamespace(), Name: fmt.Sprintf("%s-annotation-%d", o.GetName(), i+1), Spec: spec, Source: place,
		})
	}
	return out, nil
}

// FromObject reads an exception that is an object of a cluster.
func FromObject(o *unstructured.Unstructured) (Exception, error) {
	meta := map[string]any{"name": o.GetName()}
	if ns := o.GetNamespace(); ns != "" {
		meta["namespace"] = ns
	}
	text, err := yaml.Marshal(map[string]any{"apiVersion": o.GetAPIVersion(), "kind": o.GetKind(), "metadata": meta, "spec": o.Object["spec"]})
	if err != nil {
		return Exception{}, fmt.Errorf("read %s %s: %w", Kind, o.GetName(), err)
	}
	found, err := Read(Kind+" "+o.GetName(), text)
	if err == nil && len(found) != 1 {
		err = errors.New("not one object")
	}
	if err != nil {
		return Exception{}, err
	}
	found[0].Source = ""
	return found[0], nil
}
