package policy

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/kubeguardian/kubeguardian/policy/expression"
)

// Load parses, checks and compiles policy files into a set. The error holds
// one line for each mistake found, with file and line, at most 100 of them.
// Policies and bindings may stand in different files; one without the other is
// a mistake, because it would do nothing.
func Load(files ...File) (*Set, error) {
	l := loader{bindings: map[kindName][]*document{}, policy: map[kindName]*document{}, binding: map[kindName]*document{}}
	for _, f := range files {
		docs, err := documents(f)
		l.mistakes.Add(err)
		for _, d := range docs {
			l.add(d)
		}
	}
	validating, mutating, err := l.compile()
	if err != nil {
		return nil, err
	}
	l.orphans()
	if err := l.mistakes.Err(); err != nil {
		return nil, err
	}
	return newSet(validating, mutating), nil
}

// A kindName is the name of a policy of one of the two kinds, which may have
// policies of the same name.
type kindName struct {
	mutates bool
	name    string
}

// A loader collects the documents of a load and what is wrong with them.
type loader struct {
	policies []*document
	bindings map[kindName][]*document // by the policy they name
	policy   map[kindName]*document
	binding  map[kindName]*document
	mistakes Mistakes
}

func (l *loader) add(d *document) {
	d.setDefaults()
	l.mistakes.Add(d.check())
	key := kindName{d.mutates(), d.name()}
	if name := d.binds(); d.binding == nil && d.mutatingBinding == nil {
		if l.unique(l.policy, key, d, "policy") {
			l.policies = append(l.policies, d)
		}
	} else if l.unique(l.binding, key, d, "binding") {
		policy := kindName{d.mutates(), name}
		l.bindings[policy] = append(l.bindings[policy], d)
	}
}

// compile compiles all policies with their bindings.
func (l *loader) compile() (validating []*Policy, mutating []*mutatingPolicy, err error) {
	if len(l.policies) == 0 {
		return nil, nil, nil
	}
	lang, err := expression.NewLanguage()
	if err != nil {
		return nil, nil, err
	}
	for _, d := range l.policies {
		bindings := l.bindings[kindName{d.mutates(), d.name()}]
		if d.mutates() {
			p, err := compileMutating(d, bindings, lang)
			l.mistakes.Add(err)
			mutating = append(mutating, p)
		} else {
			p, err := compile(d, bindings, lang)
			l.mistakes.Add(err)
			validating = append(validating, p)
		}
	}
	return validating, mutating, nil
}

// unique reports whether a name is new, and keeps an error if it is not.
func (l *loader) unique(names map[kindName]*document, key kindName, d *document, what string) bool {
	if first := names[key]; first != nil {
		l.mistakes.Add(Coded(CodeDefined, d.at("metadata.name", "%s %q is already defined at %s:%d", what, key.name, first.file, find(first.root, "metadata.name").Line)))
		return false
	}
	names[key] = d
	return true
}

// orphans reports policies and bindings that would do nothing.
func (l *loader) orphans() {
	for _, d := range l.policies {
		if len(l.bindings[kindName{d.mutates(), d.name()}]) == 0 {
			kind := "ValidatingAdmissionPolicyBinding"
			if d.mutates() {
				kind = "MutatingAdmissionPolicyBinding"
			}
			l.mistakes.Add(d.at("metadata.name", "policy %q has no %s", d.name(), kind))
		}
	}
	for _, d := range l.binding {
		if l.policy[kindName{d.mutates(), d.binds()}] == nil {
			l.mistakes.Add(d.at("spec.policyName", "binding %q names policy %q, which is not defined", d.name(), d.binds()))
		}
	}
}

// setDefaults sets what the API server sets when it stores the object.
func (d *document) setDefaults() {
	switch {
	case d.policy != nil:
		defaultPolicy(d.policy)
	case d.binding != nil:
		defaultMatch(d.binding.Spec.MatchResources)
	case d.mutating != nil:
		if d.mutating.Spec.FailurePolicy == nil {
			d.mutating.Spec.FailurePolicy = new(admissionregistrationv1.Fail)
		}
		defaultMatch(d.mutating.Spec.MatchConstraints)
	default:
		defaultMatch(d.mutatingBinding.Spec.MatchResources)
	}
}

func defaultPolicy(p *admissionregistrationv1.ValidatingAdmissionPolicy) {
	if p.Spec.FailurePolicy == nil {
		p.Spec.FailurePolicy = new(admissionregistrationv1.Fail)
	}
	defaultMatch(p.Spec.MatchConstraints)
}

func defaultMatch(m *admissionregistrationv1.MatchResources) {
	if m == nil {
		return
	}
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
