package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/policy/matching"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy/deadline"
	"github.com/kubeguardian/kubeguardian/policy/equivalent"
	"github.com/kubeguardian/kubeguardian/policy/expression"
)

// maxAnnotationBytes is where the API server cuts an audit annotation.
const maxAnnotationBytes = 10 << 10

// An IncompleteError says that the time ran out, or that there was no turn, before
// all policies that matter were judged.
type IncompleteError struct {
	// Policies are the names of those that were not judged, in their order.
	Policies []string
	// Decided reports whether it is known if the request is denied: it is by
	// the violations so far, or the policies that were not judged have no
	// binding that denies.
	Decided bool

	cause error // of the context, or why there is no turn
}

// Error names the first policy that was not judged.
func (e *IncompleteError) Error() string {
	return fmt.Sprintf("evaluate policy %q: %v", e.Policies[0], e.cause)
}

// Unwrap returns the error of the context, or why the policies got no turn.
func (e *IncompleteError) Unwrap() error { return e.cause }

// Evaluate judges a request: first by the policies with a binding that denies,
// which matter most should the time run out, then by those that can only warn or
// audit. Whoever is denied hears all warnings, as from the API server. A policy
// that cannot be evaluated violates according to its failurePolicy, as in the
// API server, whatever its bindings. Within each of the two groups the violations are ordered by policy
// name, then binding, then validation; there is one for each action of the
// binding.
//
// When ctx ends first, Evaluate returns the violations of the policies that were
// judged and an [*IncompleteError] that wraps the error of ctx. The request must
// then not be changed any more: a function that cannot be stopped may read it for
// a while. While too many of these run, nothing is judged, and the error wraps
// [deadline.ErrRunaways].
func (s *Set) Evaluate(ctx context.Context, req Request) ([]finding.Violation, error) {
	candidates := s.candidates(&req)
	if len(candidates) == 0 {
		return nil, nil
	}
	in := newInput(ctx, &req)
	var out []finding.Violation
	denied := false
	judged, err := deadline.Run(ctx, s.pool, deadline.Work[[]finding.Violation]{
		Items: len(candidates),
		Do: func(i int) ([]finding.Violation, error) {
			found := candidates[i].violations(in)
			return found, ctx.Err() // found may be of an evaluation that was cut
		},
		Take: func(_ int, found []finding.Violation) {
			out = append(out, found...)
			denied = denied || slices.ContainsFunc(found, func(v finding.Violation) bool { return v.Enforcement == "deny" })
		},
	})
	if err == nil {
		return out, nil
	}
	incomplete := &IncompleteError{Decided: denied || !candidates[judged].denies, cause: err}
	for _, p := range candidates[judged:] {
		incomplete.Policies = append(incomplete.Policies, p.name)
	}
	return out, incomplete
}

// Runaways returns how many evaluations go on, though nobody waits for them any
// more: one function of CEL cannot be stopped. While they are as many as may be,
// nothing is judged.
func (s *Set) Runaways() int { return s.pool.Runaways() }

// A Case is one request that several policies judge, one after the other. What
// their expressions have in common is evaluated once. It belongs to one
// goroutine, and to the time of ctx.
type Case struct{ in *input }

// NewCase returns the case of a request.
func NewCase(ctx context.Context, req Request) *Case { return &Case{newInput(ctx, &req)} }

// Check judges a request by this policy alone: see [Policy.Judge].
func (p *Policy) Check(ctx context.Context, req Request) (applies bool, violations []finding.Violation, err error) {
	return p.Judge(NewCase(ctx, req))
}

// Judge judges a request by this policy alone, whatever its bindings say:
// Binding and Enforcement of the violations are empty. applies is false when
// the match constraints or conditions leave the object out. Unlike Evaluate it
// returns an error when the policy cannot be evaluated, whatever the failure
// policy: then nothing is known.
func (p *Policy) Judge(c *Case) (applies bool, violations []finding.Violation, err error) {
	in := c.in
	if reserved(in.req.Resource.GroupResource()) {
		return false, nil, nil
	}
	matched, err := in.matching(p.criteria)
	if matched == nil || err != nil {
		return false, nil, err
	}
	results, err := p.allResults(in, matched)
	if err != nil {
		return false, nil, err
	}
	for _, result := range results {
		found, err := p.judged(result)
		if err != nil {
			return false, nil, err
		}
		violations = append(violations, found...)
		applies = applies || len(result.Decisions)+len(result.AuditAnnotations) > 0
	}
	return applies, violations, nil
}

// judged returns the violations of a result, or why it says nothing.
func (p *Policy) judged(result *validating.ValidateResult) (violations []finding.Violation, err error) {
	for _, d := range result.Decisions {
		if d.Evaluation == validating.EvalError {
			return nil, fmt.Errorf("evaluate policy %q: %s", p.name, oneLine(d.Message))
		}
		if d.Action == validating.ActionDeny {
			violations = append(violations, finding.Violation{Policy: p.name, Message: d.Message})
		}
	}
	details, failed := annotations(result)
	if len(failed) > 0 {
		return nil, fmt.Errorf("evaluate policy %q: %s", p.name, oneLine(failed[0]))
	}
	for i := range violations {
		violations[i].Details = details
	}
	return violations, nil
}

// violations evaluates the policy for all its bindings that match, once with
// each parameter.
func (p *Policy) violations(in *input) []finding.Violation {
	matched, err := in.matching(p.criteria)
	if err == nil && matched != nil && p.paramKind != nil {
		_, err = in.params.namespaced(*p.paramKind)
	}
	if err != nil {
		return p.unusable(in, "", fmt.Errorf("failed to configure policy: %w", err))
	}
	if matched == nil {
		return nil
	}
	var out []finding.Violation
	done := results{}
	for _, b := range p.bindings {
		bound, err := in.matching(b.criteria)
		var found []*validating.ValidateResult
		if err == nil && bound != nil {
			found, err = done.of(p, b, in, matched)
		}
		if err != nil {
			out = append(out, p.unusable(in, b.name, fmt.Errorf("failed to configure binding: %w", err))...)
		}
		for _, result := range found {
			out = append(out, p.enforce(b, result)...)
			if in.audit != nil {
				in.audit.add(p, b, result)
			}
		}
	}
	return out
}

// results are those of one policy for one request, by parameter.
type results map[*unstructured.Unstructured]*validating.ValidateResult

// of returns the results for a binding, one for each of its parameters. What
// was evaluated for another binding is not evaluated again.
func (r results) of(p *Policy, b binding, in *input, matched *match) (found []*validating.ValidateResult, err error) {
	params, err := in.params.collect(p.paramKind, b.params, in.req.Namespace)
	if err != nil || len(params) == 0 {
		return nil, err
	}
	as, err := in.as(matched)
	if err != nil {
		return nil, err
	}
	for _, param := range params {
		if r[param] == nil {
			if r[param], err = p.validate(as, param); err != nil {
				return nil, err
			}
		}
		found = append(found, r[param])
	}
	return found, nil
}

// allResults returns the results with every parameter that a binding names,
// whether or not the binding matches.
func (p *Policy) allResults(in *input, matched *match) (found []*validating.ValidateResult, err error) {
	bindings := p.bindings
	if p.paramKind == nil {
		bindings = []binding{{}}
	}
	done, seen := results{}, map[*validating.ValidateResult]bool{}
	for _, b := range bindings {
		of, err := done.of(p, b, in, matched)
		if err != nil {
			return nil, err
		}
		for _, result := range of {
			if !seen[result] {
				found = append(found, result)
			}
			seen[result] = true
		}
	}
	return found, nil
}

// unusable returns the violation for a policy whose inputs cannot be had.
func (p *Policy) unusable(in *input, binding string, err error) []finding.Violation {
	if in.req.Unjudged != nil && in.Err() == nil {
		in.req.Unjudged(p.name, err)
		return nil
	}
	if p.failOpen {
		return nil
	}
	return []finding.Violation{{Policy: p.name, Binding: binding, Enforcement: "deny", Message: err.Error()}}
}

// validate runs the compiled policy with a parameter, which may be nil. The
// error is a namespace that a policy needs and nobody knows, or an answer of the
// authorizer; errors of expressions are in the result.
func (p *Policy) validate(in *input, param *unstructured.Unstructured) (*validating.ValidateResult, error) {
	var namespace *corev1.Namespace
	if name := in.namespaceName(); p.reads.Namespace && name != "" {
		var err error
		if namespace, err = in.namespaces.Get(name); err != nil {
			return nil, err
		}
	}
	if p.reads.Namespace {
		in.RememberNamespace(namespace)
	}
	return expression.Recall(in.View, p.memory, func(v *expression.View) (*validating.ValidateResult, error) {
		return p.run(v, in, namespace, param)
	})
}

func (p *Policy) run(v *expression.View, in *input, namespace *corev1.Namespace, param *unstructured.Unstructured) (*validating.ValidateResult, error) {
	in.rights.err = nil
	result := p.validator.Validate(v, in.matched.resource, in.attr, runtimeObject(param), namespace, celconfig.RuntimeCELCostBudget, in.rights)
	if in.rights.err != nil {
		return nil, in.rights.err
	}
	return &result, nil
}

// enforce turns what failed into violations, one for each action of a binding.
func (p *Policy) enforce(b binding, result *validating.ValidateResult) []finding.Violation {
	details, failed := annotations(result)
	var out []finding.Violation
	add := func(enforcement, message string) {
		out = append(out, finding.Violation{
			Policy: p.name, Binding: b.name, Enforcement: enforcement, Message: message, Details: details,
		})
	}
	for _, d := range result.Decisions {
		if d.Action != validating.ActionDeny {
			continue
		}
		for _, action := range b.actions {
			add(strings.ToLower(string(action)), d.Message)
		}
	}
	for _, message := range failed { // the API server denies, whatever the actions
		add(strings.ToLower(string(admissionregistrationv1.Deny)), message)
	}
	return out
}

// annotations returns the audit annotations of a result, and the messages of
// those that cannot be evaluated.
func annotations(result *validating.ValidateResult) (values map[string]string, failed []string) {
	for _, a := range result.AuditAnnotations {
		switch a.Action {
		case validating.AuditAnnotationActionPublish:
			if values == nil {
				values = map[string]string{}
			}
			values[a.Key] = a.Value[:min(len(a.Value), maxAnnotationBytes)]
		case validating.AuditAnnotationActionError:
			failed = append(failed, a.Error)
		}
	}
	return values, failed
}

// An input is one request in the form that the API server's libraries take. It
// belongs to one goroutine: the CEL form of the objects is made once, on first
// use, and shared by all policies, and so are the values of expressions.
type input struct {
	*expression.View
	req        *Request
	attr       *admission.VersionedAttributes
	matched    match            // in what the policy wants to see the object
	others     map[match]*input // the request in other versions of its kind
	namespaces *namespaceCache
	params     *paramSource
	rights     *rights
	audit      *audit // nil when nobody asks for it
	matcher    *matching.Matcher
	interfaces admission.ObjectInterfaces
}

func newInput(ctx context.Context, req *Request) *input {
	object, oldObject := runtimeObject(req.Object), runtimeObject(req.OldObject)
	in := &input{
		req: req,
		attr: &admission.VersionedAttributes{
			Attributes: admission.NewAttributesRecord(object, oldObject, req.Kind, req.Namespace, req.Name, req.Resource,
				req.Subresource, admission.Operation(req.Operation), runtimeObject(req.Options), req.DryRun, userInfo(req)),
			VersionedObject:    admission.NewLazyObject(object),
			VersionedOldObject: admission.NewLazyObject(oldObject),
			VersionedKind:      req.Kind,
		},
		matched:    match{req.Resource, req.Kind},
		namespaces: &namespaceCache{ctx: ctx, source: req.Namespaces},
		params:     &paramSource{ctx: ctx, source: req.Params},
		rights:     newRights(req.Authorizer),
		interfaces: equivalent.Interfaces(),
	}
	in.View = expression.NewView(ctx, in.shows)
	in.matcher = matching.NewMatcher(in.namespaces, nil)
	if (req.RequestKind.Empty() || req.RequestKind == req.Kind) && (req.RequestResource.Empty() || req.RequestResource == req.Resource) {
		in.Remember(in.attr)
	}
	return in
}

// runtimeObject keeps a nil object a nil interface.
func runtimeObject(u *unstructured.Unstructured) runtime.Object {
	if u == nil {
		return nil
	}
	return u
}

func userInfo(req *Request) user.Info {
	info := &user.DefaultInfo{Name: req.User.Username, UID: req.User.UID, Groups: req.User.Groups}
	if len(req.User.Extra) > 0 {
		info.Extra = make(map[string][]string, len(req.User.Extra))
		for k, v := range req.User.Extra {
			info.Extra[k] = v
		}
	}
	return info
}

// namespaceName returns the namespace whose object policies may read: none for
// a cluster-scoped object, nor for a namespace itself.
func (in *input) namespaceName() string {
	if in.req.Kind == corev1.SchemeGroupVersion.WithKind("Namespace") {
		return ""
	}
	return in.req.Namespace
}

// criteria are match constraints with their selectors parsed.
type criteria struct {
	resources           admissionregistrationv1.MatchResources
	namespaces, objects labels.Selector
	nameOnly            bool     // namespaces looks at nothing but the name
	plain               bool     // it looks at nothing but the kind of a request
	known               sync.Map // what it said: *match by place; of as many kinds as there are
}

// newCriteria returns nil for nil. Selectors that do not parse are reported by
// the checks before.
func newCriteria(m *admissionregistrationv1.MatchResources) *criteria {
	if m == nil {
		return nil
	}
	c := &criteria{resources: *m}
	c.namespaces = selector(m.NamespaceSelector)
	c.objects = selector(m.ObjectSelector)
	c.nameOnly = nameOnly(c.namespaces)
	named := func(r admissionregistrationv1.NamedRuleWithOperations) bool { return len(r.ResourceNames) > 0 }
	c.plain = c.namespaces.Empty() && c.objects.Empty() &&
		!slices.ContainsFunc(m.ResourceRules, named) && !slices.ContainsFunc(m.ExcludeResourceRules, named)
	return c
}

// nameOnly reports whether a selector looks at no label but the one that the
// API server gives every namespace, with its name.
func nameOnly(s labels.Selector) bool {
	requirements, selectable := s.Requirements()
	return selectable && !slices.ContainsFunc(requirements, func(r labels.Requirement) bool { return r.Key() != corev1.LabelMetadataName })
}

// selector parses a selector; none given selects all, as the default {} does.
func selector(s *metav1.LabelSelector) labels.Selector {
	if s == nil {
		return labels.Everything()
	}
	parsed, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return parsed
}

// GetParsedNamespaceSelector implements [matching.MatchCriteria].
func (c *criteria) GetParsedNamespaceSelector() (labels.Selector, error) { return c.namespaces, nil }

// GetParsedObjectSelector implements [matching.MatchCriteria].
func (c *criteria) GetParsedObjectSelector() (labels.Selector, error) { return c.objects, nil }

// GetMatchResources implements [matching.MatchCriteria].
func (c *criteria) GetMatchResources() admissionregistrationv1.MatchResources { return c.resources }

// A namespaceCache looks the namespace of one request up at most once.
type namespaceCache struct {
	ctx       context.Context
	source    Namespaces
	done      bool
	namespace *corev1.Namespace
	err       error
	nameOnly  bool // who asks needs no more than the name
	named     *corev1.Namespace
}

// Get implements [corelisters.NamespaceLister]. Its error is never a NotFound,
// on which the library would turn to a client that does not exist.
func (n *namespaceCache) Get(name string) (*corev1.Namespace, error) {
	if n.nameOnly {
		if n.named == nil || n.named.Name != name {
			n.named = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelMetadataName: name}}}
		}
		return n.named, nil
	}
	if n.done {
		return n.namespace, n.err
	}
	n.done = true
	if n.source == nil {
		n.err = fmt.Errorf("look up namespace %q: no namespaces are known", name)
		return nil, n.err
	}
	namespace, err := n.source.Namespace(n.ctx, name)
	if err != nil {
		n.err = fmt.Errorf("look up namespace %q: %v", name, err)
	} else if namespace == nil {
		n.err = fmt.Errorf("look up namespace %q: not found", name)
	}
	n.namespace = namespace
	return n.namespace, n.err
}

// List implements [corelisters.NamespaceLister]; nothing here lists.
func (n *namespaceCache) List(labels.Selector) ([]*corev1.Namespace, error) {
	return nil, errors.ErrUnsupported
}
