package policy

import (
	"errors"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
)

// Load parses, checks and compiles policy files into a set. The error holds
// one line for each mistake found, with file and line, at most 100 of them.
// Policies and bindings may stand in different files; one without the other is
// a mistake, because it would do nothing.
func Load(files ...File) (*Set, error) {
	var l loader
	for _, f := range files {
		docs, err := documents(f)
		l.fail(err)
		for _, d := range docs {
			l.add(d)
		}
	}
	lang, err := newLanguage()
	if err != nil {
		return nil, err
	}
	compiled := make([]*Policy, 0, len(l.policies))
	for _, d := range l.policies {
		p, err := compile(d, l.bindings[d.policy.Name], lang)
		l.fail(err)
		compiled = append(compiled, p)
	}
	l.orphans()
	if err := l.err(); err != nil {
		return nil, err
	}
	return newSet(compiled), nil
}

// A loader collects the documents of a load and what is wrong with them.
type loader struct {
	policies     []*document
	bindings     map[string][]*document // by the policy they name
	policyNames  map[string]*document
	bindingNames map[string]*document
	errs         []error
}

// fail keeps an error; a joined error counts as its parts.
func (l *loader) fail(err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, part := range joined.Unwrap() {
			l.fail(part)
		}
	} else if err != nil {
		l.errs = append(l.errs, err)
	}
}

func (l *loader) err() error {
	if extra := len(l.errs) - maxErrors; extra > 0 {
		l.errs = append(l.errs[:maxErrors], fmt.Errorf("and %d more errors", extra))
	}
	return errors.Join(l.errs...)
}

func (l *loader) add(d *document) {
	if d.policy != nil {
		defaultPolicy(d.policy)
		l.fail(d.checkPolicy())
		if l.unique(&l.policyNames, d, "policy", d.policy.Name) {
			l.policies = append(l.policies, d)
		}
		return
	}
	defaultBinding(d.binding)
	l.fail(d.checkBinding())
	if l.unique(&l.bindingNames, d, "binding", d.binding.Name) {
		if l.bindings == nil {
			l.bindings = map[string][]*document{}
		}
		name := d.binding.Spec.PolicyName
		l.bindings[name] = append(l.bindings[name], d)
	}
}

// unique reports whether a name is new, and keeps an error if it is not.
func (l *loader) unique(names *map[string]*document, d *document, what, name string) bool {
	if *names == nil {
		*names = map[string]*document{}
	}
	if first := (*names)[name]; first != nil {
		l.fail(d.at("metadata.name", "%s %q is already defined at %s:%d", what, name, first.file, find(first.root, "metadata.name").Line))
		return false
	}
	(*names)[name] = d
	return true
}

// orphans reports policies and bindings that would do nothing.
func (l *loader) orphans() {
	for _, d := range l.policies {
		if len(l.bindings[d.policy.Name]) == 0 {
			l.fail(d.at("metadata.name", "policy %q has no ValidatingAdmissionPolicyBinding", d.policy.Name))
		}
	}
	for _, d := range l.bindingNames {
		if l.policyNames[d.binding.Spec.PolicyName] == nil {
			l.fail(d.at("spec.policyName", "binding %q names policy %q, which is not defined", d.binding.Name, d.binding.Spec.PolicyName))
		}
	}
}

// defaultPolicy sets what the API server sets when it stores a policy.
func defaultPolicy(p *admissionregistrationv1.ValidatingAdmissionPolicy) {
	if p.Spec.FailurePolicy == nil {
		p.Spec.FailurePolicy = new(admissionregistrationv1.Fail)
	}
	if p.Spec.MatchConstraints != nil {
		defaultMatch(p.Spec.MatchConstraints)
	}
}

func defaultBinding(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) {
	if b.Spec.MatchResources != nil {
		defaultMatch(b.Spec.MatchResources)
	}
}

func defaultMatch(m *admissionregistrationv1.MatchResources) {
	if m.MatchPolicy == nil {
		m.MatchPolicy = new(admissionregistrationv1.Equivalent)
	}
	for _, rules := range [][]admissionregistrationv1.NamedRuleWithOperations{m.ResourceRules, m.ExcludeResourceRules} {
		for i := range rules {
			if rules[i].Scope == nil {
				rules[i].Scope = new(admissionregistrationv1.AllScopes)
			}
		}
	}
}
