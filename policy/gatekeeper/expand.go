package gatekeeper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/policy"
)

// An expansion says which objects another object will make: the Pods of a
// Deployment are judged when the Deployment is.
type expansion struct {
	document *policy.Document
	name     string
	applyTo  []schema.GroupVersionKind
	source   []string // the path of what the new object is made of
	makes    schema.GroupVersionKind
	action   string // of its violations; empty: that of the constraint
}

// An expansionDocument is an ExpansionTemplate.
type expansionDocument struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ObjectMeta `json:"metadata"`
	Status          map[string]any    `json:"status"`
	Spec            struct {
		ApplyTo []struct {
			Groups   []string `json:"groups"`
			Versions []string `json:"versions"`
			Kinds    []string `json:"kinds"`
		} `json:"applyTo"`
		TemplateSource    string                  `json:"templateSource"`
		GeneratedGVK      metav1.GroupVersionKind `json:"generatedGVK"`
		EnforcementAction string                  `json:"enforcementAction"`
	} `json:"spec"`
}

func newExpansion(d *policy.Document) (*expansion, error) {
	var doc expansionDocument
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	c := constraintChecker{d: d}
	x := &expansion{
		document: d, name: doc.Metadata.Name, makes: schema.GroupVersionKind(doc.Spec.GeneratedGVK),
		source: strings.Split(doc.Spec.TemplateSource, "."), action: doc.Spec.EnforcementAction,
	}
	if x.name == "" || len(x.name) > 63 {
		c.bad("metadata.name", "want a name of at most 63 characters")
	}
	if doc.Spec.TemplateSource == "" {
		c.bad("spec.templateSource", "a value is required")
	}
	if x.makes.Kind == "" || x.makes.Version == "" {
		c.bad("spec.generatedGVK", "version and kind are required")
	}
	if x.action != "" {
		c.oneOf("spec.enforcementAction", x.action, "deny", "warn", "dryrun")
	}
	for _, to := range doc.Spec.ApplyTo {
		for _, group := range to.Groups {
			for _, version := range to.Versions {
				for _, kind := range to.Kinds {
					x.applyTo = append(x.applyTo, schema.GroupVersionKind{Group: group, Version: version, Kind: kind})
				}
			}
		}
	}
	if len(x.applyTo) == 0 {
		c.bad("spec.applyTo", "at least one of groups, versions and kinds each is required")
	}
	return x, errors.Join(c.errs...)
}

// addExpansion takes a template that makes no circle with those before it.
func (c *compiled) addExpansion(d *policy.Document) error {
	x, err := newExpansion(d)
	if err != nil {
		return err
	}
	for _, other := range c.expansions {
		if other.name == x.name {
			return policy.Coded(policy.CodeDefined, d.At("metadata.name", "expansion %q is already defined at %s", x.name, other.document.Place("metadata.name")))
		}
	}
	c.expansions = append(c.expansions, x)
	if c.makesItself(x.makes, x.makes, nil) {
		c.expansions = c.expansions[:len(c.expansions)-1]
		return d.At("spec.generatedGVK", "spec.generatedGVK: expansions would make objects of %s without an end", x.makes.Kind)
	}
	return nil
}

// makesItself reports whether objects of a kind lead to others of the kind.
func (c *compiled) makesItself(from, to schema.GroupVersionKind, seen []schema.GroupVersionKind) bool {
	for _, x := range c.expansions {
		if !slices.Contains(x.applyTo, from) {
			continue
		}
		if x.makes == to {
			return true
		}
		if !slices.Contains(seen, x.makes) && c.makesItself(x.makes, to, append(seen, x.makes)) {
			return true
		}
	}
	return false
}

// A made object is one that the object of a request will make.
type made struct {
	*expansion
	request policy.Request
}

// A Mutator changes objects that ExpansionTemplates make, before they are judged.
type Mutator interface {
	// MutateGenerated returns what becomes of the object of a request. The error
	// is a [*policy.DeniedError] when it is refused.
	MutateGenerated(ctx context.Context, req policy.Request) (*unstructured.Unstructured, error)
}

// WithMutator returns a set that has what objects make changed before it judges
// it.
func (s *Set) WithMutator(m Mutator) *Set {
	variant := *s
	variant.mutator = m
	return &variant
}

// expand returns what the object of a request makes, and what that makes.
func (s *Set) expand(ctx context.Context, req *policy.Request) ([]made, error) {
	object := req.Object
	if req.Operation == admissionv1.Delete {
		object = req.OldObject
	}
	if object == nil || len(s.expansions) == 0 {
		return nil, nil
	}
	return s.expandObject(ctx, req, req.Kind, object)
}

func (s *Set) expandObject(ctx context.Context, req *policy.Request, kind schema.GroupVersionKind, object *unstructured.Unstructured) ([]made, error) {
	var out []made
	for _, x := range s.expansions {
		if !slices.Contains(x.applyTo, kind) {
			continue
		}
		child, err := x.make(kind, object, req.Namespace)
		if err == nil && s.mutator != nil {
			child, err = x.mutate(ctx, s.mutator, req, child)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, made{x, x.request(req, child)})
		further, err := s.expandObject(ctx, req, x.makes, child)
		if err != nil {
			return nil, err
		}
		out = append(out, further...)
	}
	return out, nil
}

// make returns the object that another one makes, with a name of its kind and
// the other one as its owner.
func (x *expansion) make(kind schema.GroupVersionKind, from *unstructured.Unstructured, namespace string) (*unstructured.Unstructured, error) {
	content, found, err := unstructured.NestedMap(from.Object, x.source...) // a copy
	if err == nil && !found {
		err = errors.New("it is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("expand %s %q by %q: read %s: %w", kind.Kind, from.GetName(), x.name, strings.Join(x.source, "."), err)
	}
	o := &unstructured.Unstructured{Object: content}
	o.SetGroupVersionKind(x.makes)
	if namespace == "" {
		namespace = from.GetNamespace()
	}
	if namespace != "" {
		o.SetNamespace(namespace)
	}
	o.SetName(strings.ToLower(from.GetName() + "-" + x.makes.Kind))
	owner := metav1.OwnerReference{APIVersion: kind.GroupVersion().String(), Kind: kind.Kind, Name: from.GetName()}
	if owner.Name != "" {
		o.SetOwnerReferences(append(o.GetOwnerReferences(), owner))
	}
	return o, nil
}

// mutate returns what mutators make of the new object, for the user of the
// request. They act at whatever operation.
func (x *expansion) mutate(ctx context.Context, m Mutator, from *policy.Request, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	req := x.request(from, o)
	req.Operation, req.Object, req.OldObject, req.User = "", o, nil, from.User
	o, err := m.MutateGenerated(ctx, req)
	if denied := (*policy.DeniedError)(nil); errors.As(err, &denied) {
		said := made{expansion: &expansion{name: x.name}}
		return nil, &policy.DeniedError{Violations: said.implied(denied.Violations)}
	}
	if err != nil {
		return nil, fmt.Errorf("mutate what %q makes of %s %q: %w", x.name, from.Kind.Kind, from.Name, err)
	}
	return o, nil
}

// request returns the request that the new object is judged by.
func (x *expansion) request(from *policy.Request, o *unstructured.Unstructured) policy.Request {
	req := policy.Request{
		Operation: from.Operation, Kind: x.makes, Namespace: o.GetNamespace(), Name: o.GetName(), Object: o,
		Namespaces: from.Namespaces, Unjudged: from.Unjudged,
	}
	if req.Operation == admissionv1.Delete {
		req.Object, req.OldObject = nil, o
	}
	return req
}
