package gatekeeper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubeguardian/kubeguardian/policy"
)

// A wildcard is a text that may start and end in *.
type wildcard string

// matches reports whether the text is, starts, ends or contains what the
// wildcard says.
func (w wildcard) matches(text string) bool {
	rest, front := strings.CutPrefix(string(w), "*")
	rest, back := strings.CutSuffix(rest, "*")
	switch {
	case front && (back || w == "*"):
		return strings.Contains(text, rest)
	case front:
		return strings.HasSuffix(text, rest)
	case back:
		return strings.HasPrefix(text, rest)
	}
	return text == rest
}

// matchesPrefix is matches for the beginning of a name that the API server will
// complete: what needs its end does not match.
func (w wildcard) matchesPrefix(text string) bool {
	return strings.HasSuffix(string(w), "*") && w.matches(text)
}

// exact reports whether the wildcard is none.
func (w wildcard) exact() bool {
	return !strings.HasPrefix(string(w), "*") && !strings.HasSuffix(string(w), "*")
}

func anyMatches(list []wildcard, text string) bool {
	return slices.ContainsFunc(list, func(w wildcard) bool { return w.matches(text) })
}

// A source says who made an object.
type source string

// The sources: a request, or the expansion of an object that makes others.
const (
	original  source = "Original"
	generated source = "Generated"
)

// A match says for which objects a constraint is.
type match struct {
	Source             source                `json:"source"` // or All
	Kinds              []kinds               `json:"kinds"`
	Scope              string                `json:"scope"`
	Namespaces         []wildcard            `json:"namespaces"`
	ExcludedNamespaces []wildcard            `json:"excludedNamespaces"`
	LabelSelector      *metav1.LabelSelector `json:"labelSelector"`
	NamespaceSelector  *metav1.LabelSelector `json:"namespaceSelector"`
	Name               wildcard              `json:"name"`

	labels, namespaceLabels labels.Selector // parsed; nil: not given
}

type kinds struct {
	APIGroups []string `json:"apiGroups"`
	Kinds     []string `json:"kinds"`
}

// A subject is what constraints match of one object.
type subject struct {
	group, kind  string
	name, prefix string // prefix: generateName
	namespace    string // empty for a cluster-scoped object; its own for none else
	isNamespace  bool
	labels       labels.Set
}

// newSubject reads an object; nil stays nil. The namespace of the request counts
// over that of the object, which a file may leave out.
func newSubject(o *unstructured.Unstructured, namespace string) *subject {
	if o == nil || o.Object == nil {
		return nil
	}
	kind := o.GroupVersionKind()
	s := &subject{
		group: kind.Group, kind: kind.Kind,
		name: o.GetName(), prefix: o.GetGenerateName(),
		namespace:   namespace,
		isNamespace: kind.Group == "" && kind.Kind == "Namespace",
		labels:      o.GetLabels(),
	}
	if s.isNamespace {
		s.namespace = ""
	} else if s.namespace == "" {
		s.namespace = o.GetNamespace()
	}
	return s
}

// namespaceName is what lists of namespaces are about: the namespace that an
// object is in, or is.
func (s *subject) namespaceName() string {
	if s.isNamespace {
		return s.name
	}
	return s.namespace
}

// The texts of what keeps a constraint from being matched. Suites look for them.
var (
	errNoObject    = errors.New("unable to match constraints: invalid request object: neither object nor old object are defined")
	errNoNamespace = "unable to match constraints: error matching the requested object: %s :failed to run Match criteria: namespace selector for namespace-scoped object but missing Namespace"
)

// matches reports whether a constraint is for one of the objects of a request.
// An error means that it cannot be told, because the namespace is not known.
func (m *match) matches(r *review) (bool, error) {
	if m == nil {
		return true, nil
	}
	if r.object == nil && r.old == nil {
		return false, errNoObject
	}
	for _, s := range []*subject{r.object, r.old} {
		if s == nil || !m.selects(s) {
			continue
		}
		found, err := m.inNamespace(s, r)
		if err != nil {
			return false, err
		}
		if found && m.named(s) && (m.Source == "" || m.Source == "All" || m.Source == r.source) {
			return true, nil
		}
	}
	return false, nil
}

// selects reports whether the criteria up to the labels hold.
func (m *match) selects(s *subject) bool {
	return m.ofKind(s) && m.inScope(s) && m.listed(s) && (m.labels == nil || m.labels.Matches(s.labels))
}

func (m *match) ofKind(s *subject) bool {
	return len(m.Kinds) == 0 || slices.ContainsFunc(m.Kinds, func(k kinds) bool {
		return has(k.Kinds, s.kind) && has(k.APIGroups, s.group)
	})
}

// has reports whether a list holds a value, or all values.
func has(list []string, value string) bool {
	return len(list) == 0 || slices.Contains(list, "*") || slices.Contains(list, value)
}

func (m *match) inScope(s *subject) bool {
	switch m.Scope {
	case "Cluster":
		return s.namespace == ""
	case "Namespaced":
		return s.namespace != ""
	}
	return true
}

// listed reports whether the lists of namespaces let the object be judged. They
// say nothing of objects without a namespace.
func (m *match) listed(s *subject) bool {
	name := s.namespaceName()
	if name == "" && !s.isNamespace {
		return true
	}
	return (len(m.Namespaces) == 0 || anyMatches(m.Namespaces, name)) && !anyMatches(m.ExcludedNamespaces, name)
}

func (m *match) inNamespace(s *subject, r *review) (bool, error) {
	switch {
	case m.namespaceLabels == nil:
		return true, nil
	case s.isNamespace:
		return m.namespaceLabels.Matches(s.labels), nil
	case s.namespace == "":
		return true, nil
	}
	namespace, err := r.namespace()
	if err != nil {
		return false, fmt.Errorf(errNoNamespace, s.name)
	}
	return m.namespaceLabels.Matches(labels.Set(namespace.Labels)), nil
}

func (m *match) named(s *subject) bool {
	return m.Name == "" || m.Name.matches(s.name) || m.Name.matchesPrefix(s.prefix)
}

// namespaceOf returns the namespace of a request, or an error that says why it
// is not known.
func (r *review) namespace() (*corev1.Namespace, error) {
	if r.lookedUp {
		return r.found, r.lookup
	}
	r.lookedUp = true
	name := r.namespaceName
	if r.req.Namespaces == nil {
		r.lookup = fmt.Errorf("look up namespace %q: no namespaces are known", name)
		return nil, r.lookup
	}
	r.found, r.lookup = r.req.Namespaces.Namespace(r, name)
	switch {
	case r.lookup != nil:
		r.found, r.lookup = nil, fmt.Errorf("look up namespace %q: %w", name, r.lookup)
	case r.found == nil:
		r.lookup = fmt.Errorf("look up namespace %q: not found", name)
	}
	return r.found, r.lookup
}

// A Match is spec.match of a constraint, for the other kinds of Gatekeeper that
// have the same criteria. It can be decoded as part of a document; Check makes
// it ready.
type Match struct{ match }

// Check checks the criteria, which stand in spec.match of a document, and makes
// them ready to be matched.
func (m *Match) Check(d *policy.Document) error {
	c := constraintChecker{d: d}
	c.match(&m.match)
	return errors.Join(c.errs...)
}

// A Candidate is the object of a request, for what matches it. It belongs to one
// goroutine, and looks up the namespace when the first match asks for it.
type Candidate struct{ review review }

// NewCandidate returns the object of a request, which has one, as a candidate.
// It is the object of a user, or what an ExpansionTemplate has made of one.
func NewCandidate(ctx context.Context, req *policy.Request, expanded bool) *Candidate {
	c := &Candidate{review{Context: ctx, req: req, source: original}}
	if expanded {
		c.review.source = generated
	}
	c.Become(req.Object)
	return c
}

// Become replaces the object by what a change made of it.
func (c *Candidate) Become(o *unstructured.Unstructured) {
	c.review.object = newSubject(o, c.review.requestNamespace())
	c.review.namespaceName = c.review.object.namespace
}

// Namespace returns the name of the namespace that the object is in.
func (c *Candidate) Namespace() string { return c.review.namespaceName }

// Selects reports whether all criteria hold for an object. An error says why the
// namespace, whose labels are asked for, is not known.
func (m *Match) Selects(c *Candidate) (bool, error) {
	found, err := m.matches(&c.review)
	if err != nil && c.review.lookup != nil {
		err = c.review.lookup
	}
	return found, err
}
