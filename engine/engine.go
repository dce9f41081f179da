// Package engine joins policies of all kinds into one set with one verdict: the
// webhook, the review of files and the tests of policies use it.
//
// [Load] gives each document to the engine whose kind it is. (*Set).Evaluate
// asks the engines one after the other, always in the same order. They share
// the request and only read it, so that a policy judges the same alone and
// beside all others.
package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/externaldata"
	"github.com/kubeguardian/kubeguardian/policy/gatekeeper"
	"github.com/kubeguardian/kubeguardian/policy/image"
	"github.com/kubeguardian/kubeguardian/policy/mutator"
	"github.com/kubeguardian/kubeguardian/policy/referential"
)

// An evaluator judges requests by the policies of one engine. It is immutable.
type evaluator interface {
	Len() int
	Enforced(tell func(policy, binding, enforcement string))
	WebhookRules() []admissionregistrationv1.RuleWithOperations
	Evaluate(ctx context.Context, req policy.Request) ([]finding.Violation, error)
}

// A changer changes the objects of requests. An evaluator may be one.
type changer interface {
	MutatingWebhookRules() []admissionregistrationv1.RuleWithOperations
	Mutate(ctx context.Context, req policy.Request) (*unstructured.Unstructured, []policy.Change, error)
}

// An engine is a way to judge: the kinds of objects that say how, and their
// loader.
type engine struct {
	kinds  string // what it judges by, for who gives something else
	owns   func(schema.GroupVersionKind) bool
	load   func(files ...policy.File) (evaluator, error)
	beside func(policy.File) bool // a file that its policies name; nil: none
}

// engines returns all of them in the order in which they judge.
func engines() []engine { return new(Loader).engines() }

func (l *Loader) engines() []engine {
	return []engine{
		{"ValidatingAdmissionPolicy, MutatingAdmissionPolicy", native, loader(policy.Load), nil},
		{"ConstraintTemplate and its constraints", gatekeeper.Handles, loader(l.templates.Load), nil},
		{"Gatekeeper's mutators", mutator.Handles, mutators(mutator.Load), nil},
		{"Gatekeeper's Providers", externaldata.Handles, loadProviders, nil},
		{"ImagePolicy", image.Handles, loader(l.loadImages), image.IsMaterial},
	}
}

// Handles reports whether objects of a kind are policies, or belong to some.
func Handles(kind schema.GroupVersionKind) bool {
	return slices.ContainsFunc(engines(), func(e engine) bool { return e.owns(kind) })
}

// loader lets the Load function of an engine return any evaluator.
func loader[E evaluator](load func(...policy.File) (E, error)) func(...policy.File) (evaluator, error) {
	return func(files ...policy.File) (evaluator, error) { return load(files...) }
}

// mutators lets the Load function of an engine that only changes objects return
// an evaluator.
func mutators[M changer](load func(...policy.File) (M, error)) func(...policy.File) (evaluator, error) {
	return func(files ...policy.File) (evaluator, error) {
		loaded, err := load(files...)
		return changes{loaded}, err
	}
}

// Changes are policies that only change objects: they find nothing wrong, and
// are asked for nothing but changes.
type changes struct{ changer }

// WebhookRules implements evaluator.
func (changes) WebhookRules() []admissionregistrationv1.RuleWithOperations { return nil }

// Len implements evaluator: none of them judges.
func (changes) Len() int { return 0 }

// Enforced implements evaluator: nothing is held against an object.
func (changes) Enforced(func(policy, binding, enforcement string)) {}

func (changes) Evaluate(context.Context, policy.Request) ([]finding.Violation, error) {
	return nil, nil
}

// Providers are whom policies may ask: they find nothing wrong themselves.
type providers struct{ *externaldata.Set }

func loadProviders(files ...policy.File) (evaluator, error) {
	set, err := externaldata.Load(files...)
	return providers{set}, err
}

// WebhookRules implements evaluator.
func (providers) WebhookRules() []admissionregistrationv1.RuleWithOperations { return nil }

// Len implements evaluator: none of them judges.
func (providers) Len() int { return 0 }

// Enforced implements evaluator: nothing is held against an object.
func (providers) Enforced(func(policy, binding, enforcement string)) {}

func (providers) Evaluate(context.Context, policy.Request) ([]finding.Violation, error) {
	return nil, nil
}

// native reports whether a kind is one of Kubernetes' own policies, or a
// misspelt one: its group has nothing else but the registrations of webhooks.
func native(kind schema.GroupVersionKind) bool {
	return kind.Group == "admissionregistration.k8s.io" && !strings.HasSuffix(kind.Kind, "WebhookConfiguration")
}

// An UnknownKindError names a document of a kind that no engine judges by.
type UnknownKindError struct {
	Source string // "file:line"
	Kind   schema.GroupVersionKind
}

// Error says where the document stands and which kinds could stand there.
func (e *UnknownKindError) Error() string {
	var kinds []string
	for _, engine := range engines() {
		kinds = append(kinds, engine.kinds)
	}
	return fmt.Sprintf("%s: kind %s of %s is not supported as a policy: want %s", e.Source, e.Kind.Kind, e.Kind.GroupVersion(), strings.Join(kinds, ", "))
}

// A Set is an immutable collection of policies of all kinds. It is safe for
// concurrent use.
type Set struct {
	evaluators []evaluator // in the order of engines
}

// New returns the set of native policies that are loaded already.
func New(native *policy.Set) *Set { return &Set{evaluators: []evaluator{native}} }

// Len returns the number of policies and constraints that judge.
func (s *Set) Len() (n int) {
	for _, e := range s.evaluators {
		n += e.Len()
	}
	return n
}

// Enforced returns what is done about violations of each policy, binding by
// binding, in the order of the engines.
func (s *Set) Enforced() (out []finding.Enforced) {
	for _, e := range s.evaluators {
		e.Enforced(func(policy, binding, enforcement string) {
			out = append(out, finding.Enforced{Policy: policy, Binding: binding, Enforcement: enforcement})
		})
	}
	return out
}

// Served returns the set that a webhook judges by, which is registered by
// [Set.WebhookRules]: a Gatekeeper template that names no operations is not asked
// about deletions that are sent because of another policy.
func (s *Set) Served() *Set { return s.with((*gatekeeper.Set).Served) }

// WebhookRules returns the union of what all policies that judge match, for the
// registration of a webhook that serves the set.
func (s *Set) WebhookRules() []admissionregistrationv1.RuleWithOperations {
	var lists [][]admissionregistrationv1.RuleWithOperations
	for _, e := range s.evaluators {
		lists = append(lists, e.WebhookRules())
	}
	return policy.JoinRules(lists...)
}

// MutatingWebhookRules returns the same of the policies that change objects.
func (s *Set) MutatingWebhookRules() []admissionregistrationv1.RuleWithOperations {
	var lists [][]admissionregistrationv1.RuleWithOperations
	for _, e := range s.evaluators {
		if m, ok := e.(changer); ok {
			lists = append(lists, m.MutatingWebhookRules())
		}
	}
	return policy.JoinRules(lists...)
}

// ReadsInventory reports whether a policy reads data.inventory, which is empty
// without [Set.WithInventory].
func (s *Set) ReadsInventory() bool {
	return slices.ContainsFunc(s.evaluators, func(e evaluator) bool {
		g, ok := e.(*gatekeeper.Set)
		return ok && g.ReadsInventory()
	})
}

// Runaways returns how many evaluations nobody waits for any more, and that cannot
// be stopped.
func (s *Set) Runaways() (n int) {
	for _, e := range s.evaluators {
		if r, ok := e.(interface{ Runaways() int }); ok {
			n += r.Runaways()
		}
	}
	return n
}

// Synced returns the kinds that Gatekeeper's Config and SyncSet documents want in
// data.inventory; none means all.
func (s *Set) Synced() (kinds []schema.GroupVersionKind) {
	for _, e := range s.evaluators {
		if g, ok := e.(*gatekeeper.Set); ok {
			kinds = append(kinds, g.Synced()...)
		}
	}
	return kinds
}

// Natives returns Gatekeeper's constraints as native policies, and what cannot be
// one.
func (s *Set) Natives() (natives []gatekeeper.Native, obstacles []gatekeeper.Obstacle) {
	for _, e := range s.evaluators {
		if g, ok := e.(*gatekeeper.Set); ok {
			natives, obstacles = g.Natives()
		}
	}
	return natives, obstacles
}

// Points returns Gatekeeper's enforcement points: that of the webhook, at which
// Load has a set judge, that of the audit and that of tests.
func Points() []string {
	return []string{string(gatekeeper.Webhook), string(gatekeeper.Audit), string(gatekeeper.Gator)}
}

// Conflicts returns an error for each of Gatekeeper's mutators that is disabled
// because it contradicts others, with file and line.
func (s *Set) Conflicts() (out []error) {
	for _, e := range s.evaluators {
		if c, ok := e.(changes); ok {
			if m, ok := c.changer.(*mutator.Set); ok {
				out = append(out, m.Conflicts()...)
			}
		}
	}
	return out
}

// At returns the set in which Gatekeeper's constraints are judged at one of
// [Points].
func (s *Set) At(point string) (*Set, error) {
	if !slices.Contains(Points(), point) {
		return nil, fmt.Errorf("unknown enforcement point %q", point)
	}
	return s.with(func(g *gatekeeper.Set) *gatekeeper.Set { return g.At(gatekeeper.Point(point)) }), nil
}

// WithInventory returns the set whose policies see these objects as
// data.inventory. They are only read.
func (s *Set) WithInventory(objects iter.Seq[*unstructured.Unstructured]) (*Set, error) {
	inventory, err := referential.New(objects)
	if err != nil {
		return nil, err
	}
	return s.with(func(g *gatekeeper.Set) *gatekeeper.Set { return g.WithInventory(inventory) }), nil
}

// WithInventoryOf returns the set whose policies see the data.inventory that those
// of another one see.
func (s *Set) WithInventoryOf(other *Set) *Set {
	for _, e := range other.evaluators {
		if g, ok := e.(*gatekeeper.Set); ok {
			return s.with(func(own *gatekeeper.Set) *gatekeeper.Set { return own.WithInventoryOf(g) })
		}
	}
	return s
}

// WithChanges returns the set whose policies see what this one's see, but for the
// objects of changed, which are new or have replaced those of the same kind,
// namespace and name, and those of removed. Its cost grows with what changes.
func (s *Set) WithChanges(changed, removed iter.Seq[*unstructured.Unstructured]) (*Set, error) {
	out := &Set{evaluators: slices.Clone(s.evaluators)}
	for i, e := range out.evaluators {
		g, ok := e.(*gatekeeper.Set)
		if !ok {
			continue
		}
		next, err := g.WithChanges(changed, removed)
		if err != nil {
			return nil, err
		}
		out.evaluators[i] = next
	}
	return out, nil
}

// Providers returns whom policies may ask for external data; nil for nobody.
func (s *Set) Providers() *externaldata.Set {
	for _, e := range s.evaluators {
		if p, ok := e.(providers); ok {
			return p.Set
		}
	}
	return nil
}

// AsksProviders reports whether a template or a mutator asks for external data.
func (s *Set) AsksProviders() bool {
	return slices.ContainsFunc(s.evaluators, func(e evaluator) bool {
		if c, ok := e.(changes); ok {
			m, ok := c.changer.(*mutator.Set)
			return ok && m.AsksProviders()
		}
		g, ok := e.(*gatekeeper.Set)
		return ok && g.AsksProviders()
	})
}

// WithExternalData returns the set whose policies ask providers by a client.
// Without one they ask nobody: whoever reviews is told of the policies that would.
func (s *Set) WithExternalData(client *externaldata.Client) *Set {
	out := s.with(func(g *gatekeeper.Set) *gatekeeper.Set { return g.WithExternalData(client) })
	for i, e := range out.evaluators {
		c, ok := e.(changes)
		if !ok {
			continue
		}
		if m, ok := c.changer.(*mutator.Set); ok {
			m = m.WithExternalData(client)
			out.evaluators[i] = changes{m}
			out = out.with(func(g *gatekeeper.Set) *gatekeeper.Set { return g.WithMutator(m) })
		}
	}
	return out
}

// with returns the set in which Gatekeeper's policies are a variant.
func (s *Set) with(variant func(*gatekeeper.Set) *gatekeeper.Set) *Set {
	out := &Set{evaluators: slices.Clone(s.evaluators)}
	for i, e := range out.evaluators {
		if g, ok := e.(*gatekeeper.Set); ok {
			out.evaluators[i] = variant(g)
		}
	}
	return out
}

// Split takes the policies in files apart from other objects, such as the
// parameters of policies, which may stand beside them. Both keep their lines.
// An error is for a file that cannot be taken apart.
func Split(files ...policy.File) (policies, others []policy.File, err error) {
	all := engines()
	for _, f := range files {
		sorted := assort(all, []policy.File{f})
		for _, e := range sorted.unknown {
			if unknown := (*UnknownKindError)(nil); !errors.As(e, &unknown) {
				err = errors.Join(err, e)
			}
		}
		others = append(others, sorted.others...)
		for _, own := range sorted.byEngine {
			policies = append(policies, own...)
		}
	}
	return policies, others, err
}

// Evaluate judges a request by all engines, and joins their violations in the
// order of the engines. Each engine orders its own.
//
// When ctx ends first, it returns the violations of the policies that were
// judged and a [*policy.IncompleteError] for the others. Any other error is of
// an engine that could not judge at all; the violations of those before it are
// returned with it.
func (s *Set) Evaluate(ctx context.Context, req policy.Request) ([]finding.Violation, error) {
	var out []finding.Violation
	var left []*policy.IncompleteError
	for _, e := range s.evaluators {
		found, err := e.Evaluate(ctx, req)
		out = append(out, found...)
		incomplete := (*policy.IncompleteError)(nil)
		if errors.As(err, &incomplete) {
			left = append(left, incomplete)
		} else if err != nil {
			return out, err
		}
	}
	return out, join(left, out)
}

// Mutate applies the policies that change objects, engine by engine, and returns
// what becomes of the object of a request, with the changes in their order. The
// request itself is never changed; its object is returned when no policy changes
// it. An error is that of the engine: a [*policy.DeniedError] refuses the request.
func (s *Set) Mutate(ctx context.Context, req policy.Request) (*unstructured.Unstructured, []policy.Change, error) {
	var all []policy.Change
	for _, e := range s.evaluators {
		c, ok := e.(changer)
		if _, mutators := e.(changes); !ok || mutators && s.exempt(&req) {
			continue
		}
		object, changes, err := c.Mutate(ctx, req)
		if err != nil {
			return nil, nil, err
		}
		req.Object, all = object, append(all, changes...)
	}
	return req.Object, all, nil
}

// exempt reports whether Gatekeeper's Config exempts a request from mutators.
func (s *Set) exempt(req *policy.Request) bool {
	return slices.ContainsFunc(s.evaluators, func(e evaluator) bool {
		g, ok := e.(*gatekeeper.Set)
		return ok && g.ExemptsFromMutation(req)
	})
}

// join makes one error of those of all engines. What is denied by one is
// decided, whatever the others left.
func join(left []*policy.IncompleteError, violations []finding.Violation) error {
	if len(left) == 0 {
		return nil
	}
	all := *left[0] // with its cause
	all.Policies = slices.Clone(all.Policies)
	for _, l := range left[1:] {
		all.Policies = append(all.Policies, l.Policies...)
		all.Decided = all.Decided && l.Decided
	}
	all.Decided = all.Decided || slices.ContainsFunc(violations, func(v finding.Violation) bool { return v.Enforcement == "deny" })
	return &all
}
