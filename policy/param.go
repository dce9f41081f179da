package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Params finds the parameters of policies.
type Params interface {
	// Namespaced reports whether the objects of a kind live in namespaces. The
	// error says that the kind is not known.
	Namespaced(ctx context.Context, kind schema.GroupVersionKind) (bool, error)
	// Params returns the objects of a kind in a namespace, or of a cluster-scoped
	// kind when namespace is empty: the one with this name, or all that the
	// selector selects when name is empty. That there are none is no error. The
	// objects are only read.
	Params(ctx context.Context, kind schema.GroupVersionKind, namespace, name string, selector labels.Selector) ([]*unstructured.Unstructured, error)
}

// A paramRef says which objects are the parameters for a binding.
type paramRef struct {
	namespace string
	name      string
	selector  labels.Selector // nil when there is a name
	deny      bool            // when there are none
}

// newParamKind returns nil for nil. A version that does not parse is reported
// by the checks before.
func newParamKind(k *admissionregistrationv1.ParamKind) *schema.GroupVersionKind {
	if k == nil {
		return nil
	}
	kind := schema.FromAPIVersionAndKind(k.APIVersion, k.Kind)
	return &kind
}

// newParamRef returns nil for nil.
func newParamRef(ref *admissionregistrationv1.ParamRef) *paramRef {
	if ref == nil {
		return nil
	}
	out := &paramRef{namespace: ref.Namespace, name: ref.Name}
	if ref.Selector != nil {
		out.selector = selector(ref.Selector)
	}
	out.deny = ref.ParameterNotFoundAction != nil && *ref.ParameterNotFoundAction == admissionregistrationv1.DenyAction
	return out
}

// A paramSource finds the parameters of one request, each at most once, so that
// policies which name the same one share what they make of it.
type paramSource struct {
	ctx    context.Context
	source Params
	scopes map[schema.GroupVersionKind]scopeAnswer
	found  map[paramQuery]paramAnswer
}

type scopeAnswer struct {
	namespaced bool
	err        error
}

type paramQuery struct {
	kind                      schema.GroupVersionKind
	namespace, name, selector string
}

type paramAnswer struct {
	objects []*unstructured.Unstructured
	err     error
}

// namespaced returns the scope of a kind. Its error is one of the policy.
func (p *paramSource) namespaced(kind schema.GroupVersionKind) (bool, error) {
	if p.source == nil {
		return false, fmt.Errorf("find parameters of kind %s: no parameters are known", kind.Kind)
	}
	answer, ok := p.scopes[kind]
	if !ok {
		var err error
		if answer.namespaced, err = p.source.Namespaced(p.ctx, kind); err != nil {
			answer.err = fmt.Errorf("failed to find resource referenced by paramKind: '%v': %v", kind, err)
		}
		if p.scopes == nil {
			p.scopes = map[schema.GroupVersionKind]scopeAnswer{}
		}
		p.scopes[kind] = answer
	}
	return answer.namespaced, answer.err
}

// collect returns the parameters that a binding names, for a request in a
// namespace: one that is nil when it has none to name. No parameters at all
// mean that the policy is not evaluated. Its error is one of the binding.
func (p *paramSource) collect(kind *schema.GroupVersionKind, ref *paramRef, namespace string) ([]*unstructured.Unstructured, error) {
	if kind == nil || ref == nil {
		return []*unstructured.Unstructured{nil}, nil
	}
	namespaced, err := p.namespaced(*kind)
	if err != nil {
		return nil, err
	}
	switch {
	case !namespaced && ref.namespace != "":
		return nil, errors.New("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
	case !namespaced:
		namespace = ""
	case ref.namespace != "":
		namespace = ref.namespace
	case namespace == "":
		return nil, errors.New("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
	}
	objects, err := p.find(*kind, namespace, ref)
	if err != nil {
		return nil, err
	}
	if len(objects) == 0 && ref.deny {
		return nil, errors.New("no params found for policy binding with `Deny` parameterNotFoundAction")
	}
	return objects, nil
}

func (p *paramSource) find(kind schema.GroupVersionKind, namespace string, ref *paramRef) ([]*unstructured.Unstructured, error) {
	query := paramQuery{kind: kind, namespace: namespace, name: ref.name}
	if ref.selector != nil {
		query.selector = ref.selector.String()
	}
	answer, ok := p.found[query]
	if !ok {
		objects, err := p.source.Params(p.ctx, kind, namespace, ref.name, ref.selector)
		if err != nil {
			err = fmt.Errorf("find parameters of kind %s: %v", kind.Kind, err)
		}
		answer = paramAnswer{slices.Clone(objects), err}
		slices.SortFunc(answer.objects, func(a, b *unstructured.Unstructured) int { return cmp.Compare(a.GetName(), b.GetName()) })
		if p.found == nil {
			p.found = map[paramQuery]paramAnswer{}
		}
		p.found[query] = answer
	}
	return answer.objects, answer.err
}

func (c *checker) paramKind(k *admissionregistrationv1.ParamKind) {
	if k == nil {
		return
	}
	c.required("spec.paramKind.kind", k.Kind)
	c.required("spec.paramKind.apiVersion", k.APIVersion)
	if gv, err := schema.ParseGroupVersion(k.APIVersion); err != nil {
		c.bad("spec.paramKind.apiVersion", "%v", err)
	} else if k.APIVersion != "" && gv.Version == "" {
		c.bad("spec.paramKind.apiVersion", "%q has no version", k.APIVersion)
	}
}

func (c *checker) paramRef(ref *admissionregistrationv1.ParamRef) {
	if ref == nil {
		return
	}
	switch {
	case ref.Name != "" && ref.Selector != nil:
		c.bad("spec.paramRef", "name and selector exclude each other")
	case ref.Name == "" && ref.Selector == nil:
		c.bad("spec.paramRef", "one of name and selector is required")
	}
	if _, err := metav1.LabelSelectorAsSelector(ref.Selector); err != nil {
		c.bad("spec.paramRef.selector", "%v", err)
	}
	if ref.ParameterNotFoundAction == nil {
		c.bad("spec.paramRef.parameterNotFoundAction", "a value is required: Allow or Deny")
		return
	}
	c.oneOf("spec.paramRef.parameterNotFoundAction", string(*ref.ParameterNotFoundAction), "Allow", "Deny")
}
