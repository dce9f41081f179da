package policy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy/equivalent"

	"github.com/kubeguardian/kubeguardian/policy/normal"
)

// A Change says which policy changed an object, and by which binding.
type Change struct{ Policy, Binding string }

// A DeniedError says that mutating policies which must not fail could not be
// applied, so that the request is refused.
type DeniedError struct {
	// Violations are one for each policy and binding that failed, all with the
	// enforcement "deny".
	Violations []finding.Violation
}

// Error says what the API server answers.
func (e *DeniedError) Error() string {
	v := e.Violations[0]
	if v.Binding == "" {
		return fmt.Sprintf("policy %q denied request: %s", v.Policy, v.Message)
	}
	return fmt.Sprintf("policy '%s' with binding '%s' denied request: %s", v.Policy, v.Binding, v.Message)
}

// Mutate applies the mutating policies to the object of a request and returns
// what becomes of it, with the changes in their order. The object of the request
// is never changed; it is returned itself when no policy changes it.
//
// Policies are applied in the order of their names, bindings and parameters, of
// which the API server promises none. When one has changed the object, all with
// the reinvocationPolicy IfNeeded are applied once more, at the end. What a
// policy adds has no defaults yet when the next one sees it: only the API server
// knows them.
//
// The error is a [*DeniedError] when policies refuse the request. It wraps the
// error of ctx when the time ran out, and then nothing is decided.
func (s *Set) Mutate(ctx context.Context, req Request) (*unstructured.Unstructured, []Change, error) {
	if req.Object == nil || req.Operation == admissionv1.Delete || reserved(req.Resource.GroupResource()) {
		return req.Object, nil, nil
	}
	var candidates []*mutatingPolicy
	for _, p := range s.mutating {
		if p.concerns(&req) {
			candidates = append(candidates, p)
		}
	}
	if len(candidates) == 0 {
		return req.Object, nil, nil
	}
	m := &mutator{policies: candidates, req: req, in: newInput(ctx, &req),
		eligible: map[invocation]bool{}, reinvoked: map[invocation]bool{}, untyped: map[*unstructured.Unstructured]*unstructured.Unstructured{}}
	m.in.req = &m.req
	for pass := range 2 {
		if pass == 1 && !m.again {
			break
		}
		if err := m.apply(pass == 1); err != nil {
			return nil, nil, err
		}
	}
	return m.req.Object, m.changes, nil
}

// A mutator is one request on its way through the policies.
type mutator struct {
	policies []*mutatingPolicy
	req      Request // with the object as it is now
	in       *input  // of req
	changes  []Change
	failures []finding.Violation                                       // of this pass
	untyped  map[*unstructured.Unstructured]*unstructured.Unstructured // parameters as shown

	again     bool                // the policies that may be are applied once more
	eligible  map[invocation]bool // those, since the last change
	reinvoked map[invocation]bool // those that saw a change after them
}

// An invocation is a policy that is applied with one parameter, or nil.
type invocation struct {
	policy  *mutatingPolicy
	binding string
	match   match
	param   *unstructured.Unstructured
}

// apply runs all policies once, or the second time those that are due.
func (m *mutator) apply(second bool) error {
	m.failures = nil
	patched := false
	for _, i := range m.invocations() {
		did, err := m.invoke(i, second)
		if err != nil {
			return err
		}
		if err := m.in.Err(); err != nil {
			return fmt.Errorf("apply policy %q: %w", i.policy.name, err)
		}
		patched = patched || did
	}
	if patched {
		m.changed()
	}
	if len(m.failures) > 0 {
		return &DeniedError{m.failures}
	}
	return nil
}

// invocations returns what is applied in a pass: which policies match is decided
// before the first of them changes the object.
func (m *mutator) invocations() (out []invocation) {
	for _, p := range m.policies {
		matched, err := m.in.matching(p.criteria)
		if err == nil && matched != nil && p.paramKind != nil {
			_, err = m.in.params.namespaced(*p.paramKind)
		}
		if err != nil {
			m.fail(p, "", fmt.Errorf("failed to configure policy: %w", err))
		} else if matched != nil {
			out = append(out, m.bound(p, matched)...)
		}
	}
	return out
}

// bound returns the invocations of one policy, which matches.
func (m *mutator) bound(p *mutatingPolicy, matched *match) (out []invocation) {
	for _, b := range p.bindings {
		bound, err := m.in.matching(b.criteria)
		if err == nil && bound == nil {
			continue
		}
		var params []*unstructured.Unstructured
		if err == nil {
			params, err = m.in.params.collect(p.paramKind, b.params, m.req.Namespace)
		}
		if err == nil {
			_, err = m.in.as(matched)
		}
		if err != nil {
			m.fail(p, b.name, fmt.Errorf("failed to configure binding: %w", err))
			continue
		}
		for _, param := range params {
			out = append(out, invocation{p, b.name, *matched, m.shown(param)})
		}
	}
	return out
}

// shown returns a parameter as the API server shows it to mutating policies: of
// a built-in kind without apiVersion and kind, which validating policies see.
func (m *mutator) shown(param *unstructured.Unstructured) *unstructured.Unstructured {
	if param == nil || !scheme.Scheme.Recognizes(param.GroupVersionKind()) {
		return param
	}
	out := m.untyped[param]
	if out == nil {
		out = &unstructured.Unstructured{Object: maps.Clone(param.Object)}
		delete(out.Object, "apiVersion")
		delete(out.Object, "kind")
		m.untyped[param] = out
	}
	return out
}

// fail keeps an error of a policy, unless its failurePolicy is Ignore.
func (m *mutator) fail(p *mutatingPolicy, binding string, err error) {
	if !p.failOpen {
		m.failures = append(m.failures, finding.Violation{Policy: p.name, Binding: binding, Enforcement: "deny", Message: err.Error()})
	}
}

// changed says that what was applied before may be applied once more.
func (m *mutator) changed() {
	for i := range m.eligible {
		m.reinvoked[i] = true
	}
	clear(m.eligible)
	m.again = true
}

// invoke applies one policy. It reports whether there was a patch to apply, even
// one that changed nothing. The error ends the request, whatever the
// failurePolicy.
func (m *mutator) invoke(i invocation, second bool) (patched bool, err error) {
	as, namespace, err := m.see(i)
	if err != nil {
		m.fail(i.policy, i.binding, err)
		return false, nil
	}
	if i.policy.matcher != nil {
		as.rights.err = nil
		result := i.policy.matcher.Match(as.View, as.attr, runtimeObject(i.param), as.rights)
		if err := errors.Join(result.Error, as.rights.err); err != nil {
			m.fail(i.policy, i.binding, err)
			return false, nil
		}
		if !result.Matches {
			return false, nil
		}
	}
	if second && !m.reinvoked[i] {
		return false, nil
	}
	before := m.req.Object
	for _, patcher := range i.policy.mutations {
		did, err := m.patch(i, patcher, namespace)
		if err != nil {
			return patched, err
		}
		patched = patched || did
	}
	if !equality.Semantic.DeepEqual(before, m.req.Object) {
		m.changes = append(m.changes, Change{i.policy.name, i.binding})
		m.changed()
	}
	if i.policy.again {
		m.eligible[i] = true
	}
	return patched, nil
}

// see returns the request as a policy wants to see it, with the namespace that
// its expressions may read.
func (m *mutator) see(i invocation) (as *input, namespace *corev1.Namespace, err error) {
	if as, err = m.in.as(&i.match); err != nil {
		return nil, nil, err
	}
	if name := as.namespaceName(); i.policy.reads.Namespace && name != "" {
		namespace, err = as.namespaces.Get(name)
	}
	return as, namespace, err
}

// patch applies one mutation of a policy. What goes wrong is a failure of the
// policy, unless the patch made something that is no object of this kind: then
// the API server ends the request.
func (m *mutator) patch(i invocation, patcher patch.Patcher, namespace *corev1.Namespace) (patched bool, err error) {
	as, _, err := m.see(i)
	if err != nil {
		m.fail(i.policy, i.binding, err)
		return false, nil
	}
	as.rights.err = nil
	out, err := patcher.Patch(as.View, patch.Request{
		MatchedResource:     i.match.resource,
		VersionedAttributes: as.attr,
		ObjectInterfaces:    unstructuredInterfaces(),
		OptionalVariables:   plugincel.OptionalVariableBindings{VersionedParams: runtimeObject(i.param), Authorizer: as.rights},
		Namespace:           namespace,
		TypeConverter:       m.converter(i),
	}, celconfig.RuntimeCELCostBudget)
	if as.rights.err != nil {
		err = as.rights.err
	}
	var status *apierrors.StatusError
	if errors.As(err, &status) {
		return false, m.end(i, status)
	}
	if err != nil {
		m.fail(i.policy, i.binding, err)
		return false, nil
	}
	object, ok := out.(*unstructured.Unstructured)
	if !ok {
		return false, fmt.Errorf("apply policy %q: patched object is a %T", i.policy.name, out)
	}
	before, _ := as.attr.VersionedObject.Object().(*unstructured.Unstructured)
	if equality.Semantic.DeepEqual(before, object) {
		return true, nil
	}
	if object, err = wellFormed(object, before); err != nil {
		return false, m.end(i, apierrors.NewInternalError(err))
	}
	if err := m.become(object); err != nil {
		m.fail(i.policy, i.binding, err)
		return false, nil
	}
	return true, nil
}

func (m *mutator) end(i invocation, err error) error {
	return &DeniedError{append(m.failures, finding.Violation{Policy: i.policy.name, Binding: i.binding, Enforcement: "deny", Message: err.Error()})}
}

// become replaces the object, which the policies that follow see.
func (m *mutator) become(object *unstructured.Unstructured) error {
	object, err := equivalent.Convert(object, m.req.Object.GroupVersionKind())
	if err != nil {
		return fmt.Errorf("failed to convert object version: %w", err)
	}
	m.req.Object = object
	old := m.in
	m.in = newInput(old.Context, &m.req)
	m.in.namespaces, m.in.params, m.in.rights, m.in.matcher = old.namespaces, old.params, old.rights, old.matcher
	return nil
}

// wellFormed returns a patched object in the form in which policies see it. A
// built-in kind has no field that the API server does not know: one that was
// there before may be newer than this program and stays.
func wellFormed(object, before *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	kind := object.GroupVersionKind()
	unknown, err := unknownFields(object, kind)
	if err != nil {
		return nil, err
	}
	if len(unknown) == 0 {
		normal, _, err := normal.Object(object, kind)
		return normal, err
	}
	known, err := unknownFields(before, kind)
	if err != nil {
		return nil, err
	}
	for _, field := range unknown {
		if !slices.Contains(known, field) {
			return nil, fmt.Errorf("strict decoding error: %s", strings.Join(unknown, ", "))
		}
	}
	return object, nil
}
