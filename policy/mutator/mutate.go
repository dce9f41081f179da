package mutator

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/externaldata"
	"github.com/kubeguardian/kubeguardian/policy/gatekeeper"
)

// Mutate applies the mutators that match to the object of a request that creates
// or updates it, and returns what becomes of it, with one change for each mutator
// that had a part in it, in their order. In a [policy.Change], Policy is the kind
// of the mutator and Binding its name. The object of the request is never
// changed; it is returned itself when no mutator changes it. Gatekeeper's own
// objects are left alone.
//
// The mutators are applied in the order of kind and name. Each sees what those
// before it did, also when it is matched. When one changed something, all are
// applied once more, until a round leaves the object as it was: with n mutators,
// n+1 rounds at most.
//
// The error is a [*policy.DeniedError] when a mutator cannot be matched or
// applied, or when the object does not settle; it names the mutators, as
// Gatekeeper then refuses the request. It wraps the error of ctx when the time
// ran out, and then nothing is decided.
//
// Then providers are asked for external data, all at the same time.
//
// When req.Unjudged is not nil, it is told of each mutator that would match but
// is disabled or may ask no provider, and of each that cannot be matched, which
// is then left out.
func (s *Set) Mutate(ctx context.Context, req policy.Request) (*unstructured.Unstructured, []policy.Change, error) {
	if req.Object == nil || req.Object.Object == nil || !slices.Contains(operations(), req.Operation) || strings.HasSuffix(req.Kind.Group, ".gatekeeper.sh") {
		return req.Object, nil, nil
	}
	return s.mutate(ctx, &req, false)
}

// MutateGenerated is Mutate for an object that an ExpansionTemplate has made: the
// mutators apply whose match is for generated objects, and that are for all
// operations. It implements [gatekeeper.Mutator].
func (s *Set) MutateGenerated(ctx context.Context, req policy.Request) (*unstructured.Unstructured, error) {
	object, _, err := s.mutate(ctx, &req, true)
	return object, err
}

func (s *Set) mutate(ctx context.Context, req *policy.Request, generated bool) (*unstructured.Unstructured, []policy.Change, error) {
	r := &run{
		Context: ctx, mutators: s.mutators, providers: s.providers, req: req, object: req.Object,
		candidate: gatekeeper.NewCandidate(ctx, req, generated), changed: map[*mutator]bool{}, unjudged: map[*mutator]bool{},
	}
	if err := r.settle(); err != nil {
		return nil, nil, err
	}
	if err := r.resolve(); err != nil {
		return nil, nil, err
	}
	return r.object, r.changes, nil
}

// A run is one request on its way through the mutators.
type run struct {
	context.Context
	mutators  []*mutator
	providers *externaldata.Client // nil: none may be asked
	req       *policy.Request
	object    *unstructured.Unstructured // as it is now
	candidate *gatekeeper.Candidate      // of object
	copied    int                        // bytes, in this round
	changes   []policy.Change
	changed   map[*mutator]bool // those in changes
	unjudged  map[*mutator]bool // those that were told of
}

// settle applies all mutators until a round changes nothing.
func (r *run) settle() error {
	var last []*mutator
	for range len(r.mutators) + 1 {
		before := r.object
		changers, err := r.round()
		if err != nil {
			return err
		}
		if len(changers) == 0 || reflect.DeepEqual(before.Object, r.object.Object) {
			r.object = before
			return nil
		}
		for _, m := range changers {
			if !r.changed[m] {
				r.changed[m] = true
				r.changes = append(r.changes, policy.Change{Policy: m.kind, Binding: m.name})
			}
		}
		last = changers
	}
	return r.unsettled(last)
}

// unsettled returns the error for mutators that change what others did, without
// an end.
func (r *run) unsettled(by []*mutator) error {
	denied := &policy.DeniedError{}
	var names []string
	for _, m := range by[:min(len(by), maxNamed)] {
		names = append(names, m.String())
	}
	message := fmt.Sprintf("the object does not settle in %d rounds: the last was changed by %s", len(r.mutators)+1, strings.Join(names, ", "))
	for _, m := range by {
		denied.Violations = append(denied.Violations, m.denied(message))
	}
	return denied
}

// denied returns the violation of a mutator that cannot do what it is for.
func (m *mutator) denied(message string) finding.Violation {
	return finding.Violation{Policy: m.kind, Binding: m.name, Enforcement: "deny", Message: message}
}

// round applies each mutator once and returns those that changed something.
func (r *run) round() (changers []*mutator, err error) {
	before := r.object
	r.copied = 0
	for _, m := range r.mutators {
		if err := r.Err(); err != nil {
			return nil, fmt.Errorf("apply %s: %w", m, err)
		}
		matched, err := r.matches(m)
		if err != nil {
			return nil, err
		}
		if !matched {
			continue
		}
		if r.object == before {
			r.object = copyOf(before)
		}
		changed, err := m.apply(r)
		if err != nil {
			return nil, &policy.DeniedError{Violations: []finding.Violation{m.denied(err.Error())}}
		}
		if changed {
			changers = append(changers, m)
			r.candidate.Become(r.object)
		}
	}
	return changers, nil
}

// matches reports whether a mutator is to be applied to the object.
func (r *run) matches(m *mutator) (bool, error) {
	if !m.applies(r.object.GroupVersionKind(), r.req.Operation) {
		return false, nil
	}
	if len(m.conflicts) > 0 && r.req.Unjudged == nil {
		return false, nil
	}
	if m.match != nil {
		matched, err := m.match.Selects(r.candidate)
		switch {
		case r.Err() != nil:
			return false, fmt.Errorf("match %s: %w", m, r.Err())
		case err != nil && r.req.Unjudged != nil:
			r.tell(m, err)
			return false, nil
		case err != nil:
			return false, &policy.DeniedError{Violations: []finding.Violation{m.denied("match the object: " + err.Error())}}
		case !matched:
			return false, nil
		}
	}
	if len(m.conflicts) > 0 {
		r.tell(m, m.conflict())
		return false, nil
	}
	if m.external != nil && r.providers == nil && r.req.Unjudged != nil {
		r.tell(m, fmt.Errorf("assign external data: %w", externaldata.ErrNotAsked))
		return false, nil
	}
	return true, nil
}

// tell tells once of a mutator that is left out.
func (r *run) tell(m *mutator, why error) {
	if !r.unjudged[m] {
		r.unjudged[m] = true
		r.req.Unjudged(m.kind+"/"+m.name, why)
	}
}
