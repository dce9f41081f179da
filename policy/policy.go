// Package policy loads and evaluates Kubernetes ValidatingAdmissionPolicies and
// MutatingAdmissionPolicies, unmodified, with the API server's own CEL
// libraries. The webhook, the scan and the command line share it, so that one
// policy gives one verdict.
//
// [Load] turns files into an immutable [Set]: documents are parsed strictly,
// defaulted as the API server defaults them, compiled and type-checked, so that
// a policy that loads fails only for what an object holds. (*Set).Evaluate then
// judges one [Request] by all bindings of all policies, (*Set).Review says
// besides what goes to the audit log, and (*Set).Mutate applies the mutating
// policies.
//
// What policies ask for besides the object comes from the sources of the
// request: namespaces, parameters, the authorizer, schemas of custom kinds; the
// package source has some. What a policy asks for and no source knows is a
// failure of that policy, never a quiet pass.
//
// Policies remember what decided, and do not evaluate what they have seen
// ([memory.Memory]).
//
// # Where it differs from the API server
//
// All denials are reported, not only the first. An object of another version
// than a policy names is converted where the fields of both have the same
// meaning; for other kinds that is a failure of the policy, because only the API
// server can convert them, which it does before it calls a webhook. What a
// mutation adds gets no defaults here.
package policy

import (
	"cmp"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"

	"github.com/kubeguardian/kubeguardian/policy/deadline"
	"github.com/kubeguardian/kubeguardian/policy/expression"
	"github.com/kubeguardian/kubeguardian/policy/memory"
)

// A File is the text of a policy file. Name appears in errors.
type File struct {
	Name string
	Data []byte
}

// A Set is an immutable collection of compiled policies with their bindings.
// It is safe for concurrent use.
type Set struct {
	policies []*Policy
	byName   map[string]*Policy
	index    map[target][]*Policy                // without wildcards; holds wildcard policies too, in the order of judging
	wildcard map[admissionv1.Operation][]*Policy // for resources that no rule names
	mutating []*mutatingPolicy                   // by name
	pool     *deadline.Pool
}

// A target is what the index finds policies by. The subresource is left to the
// rules: few of them name one.
type target struct {
	operation admissionv1.Operation
	resource  schema.GroupResource
}

// A Policy is one compiled ValidatingAdmissionPolicy with its bindings. It is
// safe for concurrent use.
type Policy struct {
	name        string
	annotations map[string]string
	failOpen    bool // failurePolicy Ignore
	criteria    *criteria
	validator   validating.Validator
	paramKind   *schema.GroupVersionKind // nil: it has no parameters
	reads       expression.Reads
	bindings    []binding
	denies      bool                                      // one of the bindings does
	memory      *memory.Memory[validating.ValidateResult] // nil if expressions see more than the request
}

type binding struct {
	name     string
	actions  []admissionregistrationv1.ValidationAction
	criteria *criteria // nil: all that the policy matches
	params   *paramRef // nil: none
}

// Name returns the name of the policy.
func (p *Policy) Name() string { return p.name }

// Annotation returns the annotation of the policy with this key, or "".
func (p *Policy) Annotation(key string) string { return p.annotations[key] }

// Enforced tells what each binding does about violations.
func (s *Set) Enforced(tell func(policy, binding, enforcement string)) {
	for _, p := range s.policies {
		for _, b := range p.bindings {
			for _, a := range b.actions {
				tell(p.name, b.name, strings.ToLower(string(a)))
			}
		}
	}
}

// Mutating returns the names of the mutating policies, in the order in which
// they are applied.
func (s *Set) Mutating() (names []string) {
	for _, p := range s.mutating {
		names = append(names, p.name)
	}
	return names
}

// Policies returns the validating policies in the order of their names. The
// slice belongs to the caller.
func (s *Set) Policies() []*Policy { return slices.Clone(s.policies) }

// Policy returns the validating policy with this name, or nil.
func (s *Set) Policy(name string) *Policy { return s.byName[name] }

// Len returns the number of validating policies.
func (s *Set) Len() int { return len(s.policies) }

// Asks returns the kinds of parameters that policies of the set have, and
// whether one of them asks the authorizer: what a caller needs sources for.
func (s *Set) Asks() (params []schema.GroupVersionKind, authorizer bool) {
	add := func(kind *schema.GroupVersionKind, r expression.Reads) {
		if kind != nil && !slices.Contains(params, *kind) {
			params = append(params, *kind)
		}
		authorizer = authorizer || r.Authorizer
	}
	for _, p := range s.policies {
		add(p.paramKind, p.reads)
	}
	for _, p := range s.mutating {
		add(p.paramKind, p.reads)
	}
	return params, authorizer
}

// newSet orders and indexes compiled policies.
func newSet(policies []*Policy, mutating []*mutatingPolicy) *Set {
	slices.SortFunc(mutating, func(a, b *mutatingPolicy) int { return cmp.Compare(a.name, b.name) })
	slices.SortFunc(policies, func(a, b *Policy) int { return cmp.Compare(a.name, b.name) })
	s := &Set{
		pool:     deadline.NewPool(),
		policies: policies,
		mutating: mutating,
		byName:   map[string]*Policy{},
		index:    map[target][]*Policy{},
		wildcard: map[admissionv1.Operation][]*Policy{},
	}
	for _, p := range policies {
		s.byName[p.name] = p
		for t := range p.criteria.targets() {
			if t.resource.Group == "*" || t.resource.Resource == "*" {
				s.wildcard[t.operation] = appendNew(s.wildcard[t.operation], p)
			} else {
				s.index[t] = appendNew(s.index[t], p)
			}
		}
	}
	for operation, all := range s.wildcard {
		s.wildcard[operation] = merge(nil, all)
	}
	for t, named := range s.index {
		s.index[t] = merge(named, s.wildcard[t.operation])
	}
	return s
}

// targets returns what the rules name, operations spelled out.
func (c *criteria) targets() map[target]bool {
	out := map[target]bool{}
	if c == nil { // a policy without rules does not load
		return out
	}
	for _, rule := range c.resources.ResourceRules {
		for _, op := range spellOut(rule.Operations) {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					base, _, _ := strings.Cut(resource, "/")
					for _, r := range c.equivalents(schema.GroupResource{Group: group, Resource: base}) {
						out[target{admissionv1.Operation(op), r}] = true
					}
				}
			}
		}
	}
	return out
}

func spellOut(ops []admissionregistrationv1.OperationType) []admissionregistrationv1.OperationType {
	if slices.Contains(ops, admissionregistrationv1.OperationAll) {
		return []admissionregistrationv1.OperationType{
			admissionregistrationv1.Connect, admissionregistrationv1.Create,
			admissionregistrationv1.Delete, admissionregistrationv1.Update,
		}
	}
	return ops
}

func appendNew(list []*Policy, p *Policy) []*Policy {
	if slices.Contains(list, p) {
		return list
	}
	return append(list, p)
}

// merge joins two lists in the order of judging: policies that deny first, then
// by name.
func merge(a, b []*Policy) []*Policy {
	out := slices.Clone(a)
	for _, p := range b {
		out = appendNew(out, p)
	}
	slices.SortFunc(out, func(a, b *Policy) int {
		switch {
		case a.denies && !b.denies:
			return -1
		case b.denies && !a.denies:
			return 1
		}
		return cmp.Compare(a.name, b.name)
	})
	return out
}

// candidates returns the policies that may match a request, in the order of
// judging.
func (s *Set) candidates(req *Request) []*Policy {
	resource := req.Resource.GroupResource()
	if reserved(resource) {
		return nil
	}
	if found, ok := s.index[target{req.Operation, resource}]; ok {
		return found
	}
	return s.wildcard[req.Operation]
}

// reserved reports whether the API server keeps a resource from all admission
// policies: reviews, whose interception breaks a cluster, and the policies
// themselves, so that a policy can always be taken back.
func reserved(r schema.GroupResource) bool {
	switch r.Group {
	case "authentication.k8s.io", "authorization.k8s.io": // reviews only
		return true
	case "admissionregistration.k8s.io":
		return strings.Contains(r.Resource, "admissionpolic")
	}
	return false
}
