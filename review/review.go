// Package review judges objects of files by admission policies, as an API
// server would judge the requests for them.
//
// What a policy asks for beyond the object, such as its namespace, is looked up
// among the objects that are given. A policy that asks for something that is not
// there is refused by name: without it nobody knows what the API server would
// say.
package review

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/externaldata"
	"github.com/kubeguardian/kubeguardian/policy/source"
)

// maxTime is what an object may take: as long as an API server waits at most for
// a webhook.
const maxTime = 30 * time.Second

// A Reviewer judges one object after the other. It is safe for concurrent use.
type Reviewer struct {
	Old       *inventory.Inventory  // the objects as they were before an update; may be nil
	Operation admissionv1.Operation // CREATE if empty
	User      authenticationv1.UserInfo

	policies *engine.Set
	known    *inventory.Inventory
	given    given
}

// New returns a reviewer whose policies may ask for the known objects. When there
// are ProviderResponses among them, policies that ask for external data get these
// answers, and nobody is asked.
func New(policies *engine.Set, known *inventory.Inventory) (*Reviewer, error) {
	objects, err := source.NewObjects(slices.Collect(Contents(known.Objects()))...)
	if err != nil {
		return nil, fmt.Errorf("read what policies may ask for: %w", err)
	}
	var responses []*unstructured.Unstructured
	for _, o := range known.Objects() {
		if externaldata.IsGiven(o.Unstructured) {
			responses = append(responses, o.Unstructured)
		}
	}
	if len(responses) > 0 {
		answers, err := externaldata.NewGiven(responses...)
		if err != nil {
			return nil, err
		}
		policies = policies.WithExternalData(answers)
	}
	return &Reviewer{policies: policies, known: known, given: given{objects}}, nil
}

// given are the objects that policies may ask for. In a cluster there may be
// others, so that a parameter that is not among them is an error.
type given struct{ *source.Objects }

// Namespace implements [policy.Namespaces].
func (g given) Namespace(ctx context.Context, name string) (*corev1.Namespace, error) {
	namespace, err := g.Objects.Namespace(ctx, name)
	if err != nil {
		return nil, errors.New("it is not given")
	}
	return namespace, nil
}

// Params implements [policy.Params].
func (g given) Params(ctx context.Context, kind schema.GroupVersionKind, namespace, name string, selector labels.Selector) ([]*unstructured.Unstructured, error) {
	found, err := g.Objects.Params(ctx, kind, namespace, name, selector)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%s %s is not given", kind.Kind, cmp.Or(name, fmt.Sprint(selector)))
	}
	return found, err
}

// A Violation is one admission policy that an object does not satisfy.
type Violation struct {
	Policy      string            `json:"policy"`
	Constraint  string            `json:"constraint"` // the binding or constraint that applies the policy
	Enforcement string            `json:"enforcement"`
	Subject     finding.Subject   `json:"subject"`
	Message     string            `json:"message"`
	Details     map[string]string `json:"details"`
}

// Denies reports whether the violation alone refuses the request.
func (v *Violation) Denies() bool { return v.Enforcement == "deny" }

// An UnjudgedError names a policy that cannot judge an object, because something
// that it asks for is not given.
type UnjudgedError struct {
	Policy  string
	Subject finding.Subject
	Err     error
}

// Error says which policy, which object and what is missing.
func (e *UnjudgedError) Error() string {
	return fmt.Sprintf("%s: policy %q cannot judge %s: %v", e.Subject.Source, e.Policy, e.Subject, e.Err)
}

// Hint says how to give what is missing.
func (e *UnjudgedError) Hint() string {
	if errors.Is(e.Err, externaldata.ErrNotAsked) {
		return "give answers as ProviderResponses, or let kubeguardian review --ask-providers ask the Providers among the policies"
	}
	return "give namespaces, parameters and other objects that policies ask for by --context"
}

// Object judges an object, or the request of an AdmissionReview as it is. The
// violations are ordered as the engines order them. The error joins an
// [*UnjudgedError] for each policy that cannot judge the object; the violations
// of the others come with it.
func (r *Reviewer) Object(ctx context.Context, o *inventory.Object) ([]Violation, error) {
	req, err := r.request(o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Source, err)
	}
	subject := subjectOf(o, &req)
	var unjudged []error
	req.Unjudged = func(policy string, err error) {
		unjudged = append(unjudged, &UnjudgedError{policy, subject, err})
	}
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	found, err := r.judge(ctx, req)
	if err != nil {
		unjudged = append(unjudged, fmt.Errorf("%s: judge %s: %w", o.Source, subject, err))
	}
	out := make([]Violation, 0, len(found))
	for _, v := range found {
		out = append(out, newViolation(subject, v))
	}
	return out, errors.Join(unjudged...)
}

func newViolation(subject finding.Subject, v finding.Violation) Violation {
	details := v.Details
	if details == nil {
		details = map[string]string{} // JSON has it as an object, always
	}
	return Violation{v.Policy, v.Binding, v.Enforcement, subject, v.Message, details}
}

// judge lets policies change the object, as an API server does first, and then
// judges what has become of it.
func (r *Reviewer) judge(ctx context.Context, req policy.Request) ([]finding.Violation, error) {
	object, _, err := r.policies.Mutate(ctx, req)
	if denied := (*policy.DeniedError)(nil); errors.As(err, &denied) {
		return denied.Violations, nil
	}
	if err != nil {
		return nil, err
	}
	req.Object = object
	return r.policies.Evaluate(ctx, req)
}

// Mutated returns what policies make of an object, in the form in which an API
// server shows it to policies. The error joins an [*UnjudgedError] for each policy
// that is left out.
func (r *Reviewer) Mutated(ctx context.Context, o *inventory.Object) (*unstructured.Unstructured, error) {
	req, err := r.request(o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Source, err)
	}
	subject := subjectOf(o, &req)
	var unjudged []error
	req.Unjudged = func(policy string, err error) {
		unjudged = append(unjudged, &UnjudgedError{policy, subject, err})
	}
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	object, _, err := r.policies.Mutate(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("%s: mutate %s: %w", o.Source, subject, err)
	}
	return object, errors.Join(unjudged...)
}

// Contents yields objects without their places, as policies see them.
func Contents(objects []*inventory.Object) iter.Seq[*unstructured.Unstructured] {
	return func(yield func(*unstructured.Unstructured) bool) {
		for _, o := range objects {
			if !policy.IsReview(o.Unstructured) && !yield(o.Unstructured) {
				return
			}
		}
	}
}

// request makes the request for an object.
func (r *Reviewer) request(o *inventory.Object) (policy.Request, error) {
	if policy.IsReview(o.Unstructured) {
		req, err := policy.NewReviewRequest(o.Unstructured)
		return r.with(req), err
	}
	req, err := policy.NewRequest(cmp.Or(r.Operation, admissionv1.Create), o.Unstructured, r.before(o))
	if err != nil {
		return policy.Request{}, err
	}
	if req.Namespace == "" { // of a custom kind only the definition says whether it has one
		if req.Namespace = r.known.NamespaceOf(o); req.Namespace != "" {
			req.Object, req.OldObject = inNamespace(req.Object, req.Namespace), inNamespace(req.OldObject, req.Namespace)
		}
	}
	req.User = r.User
	return r.with(req), nil
}

// with gives a request what its policies may ask for.
func (r *Reviewer) with(req policy.Request) policy.Request {
	req.Namespaces, req.Params, req.Authorizer, req.Schemas = r.given, r.given, r.given, r.given
	return req
}

// inNamespace returns a copy of an object that names its namespace.
func inNamespace(o *unstructured.Unstructured, namespace string) *unstructured.Unstructured {
	if o == nil {
		return nil
	}
	o = o.DeepCopy()
	o.SetNamespace(namespace)
	return o
}

// before returns an object as it was before an update, or nil.
func (r *Reviewer) before(o *inventory.Object) *unstructured.Unstructured {
	if r.Old == nil {
		return nil
	}
	gk := o.GroupVersionKind().GroupKind()
	if old := r.Old.Get(gk.Group, gk.Kind, o.GetNamespace(), o.GetName()); old != nil {
		return old.Unstructured
	}
	return nil
}

// subjectOf names what a request is for.
func subjectOf(o *inventory.Object, req *policy.Request) finding.Subject {
	if !policy.IsReview(o.Unstructured) {
		return o.Subject()
	}
	subject := finding.Subject{
		APIVersion: req.Kind.GroupVersion().String(), Kind: req.Kind.Kind,
		Namespace: req.Namespace, Name: req.Name, Source: o.Source,
	}
	for _, object := range []*unstructured.Unstructured{req.Object, req.OldObject} {
		if object != nil && subject.Name == "" {
			subject.Name = cmp.Or(object.GetName(), object.GetGenerateName())
		}
	}
	return subject
}
