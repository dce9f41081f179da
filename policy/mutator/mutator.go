// Package mutator loads and applies Gatekeeper's mutators, unmodified: Assign,
// AssignMetadata, ModifySet and AssignImage.
//
// [Load] turns files into an immutable [Set]. (*Set).Mutate then changes a copy
// of the object of one request: the mutators that match are applied in the order
// of kind and name, again and again until a round leaves the object as it was.
//
// # Conflicts
//
// A location says of the fields on its way whether they are objects or lists.
// Mutators for the same kind of object whose locations contradict each other are
// all disabled, as in Gatekeeper; (*Set).Conflicts names them.
//
// # Where it differs from Gatekeeper
//
// Mistakes that would show with the first request are found at load: an empty
// location, a ModifySet without values, a test that a path exists below one that
// must not. Path tests are held against each other by their paths, whatever
// their order. A key of a list that is a number is that of an object to assign
// which has the same number. What a mutator makes of a Namespace, by another
// kind, is in no namespace. Answers of providers are kept, see package
// externaldata.
package mutator

import (
	"fmt"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/externaldata"
	"github.com/kubeguardian/kubeguardian/policy/gatekeeper"
)

const group = "mutations.gatekeeper.sh"

// The kinds of mutators.
const (
	assignKind   = "Assign"
	imageKind    = "AssignImage"
	metadataKind = "AssignMetadata"
	setKind      = "ModifySet"
)

func kinds() []string { return []string{assignKind, imageKind, metadataKind, setKind} }

// Handles reports whether [Load] takes documents of a kind.
func Handles(kind schema.GroupVersionKind) bool {
	return kind.Group == group && slices.Contains(kinds(), kind.Kind)
}

// A Set is an immutable collection of mutators. It is safe for concurrent use.
type Set struct {
	mutators  []*mutator // by kind, then name
	providers *externaldata.Client
}

// Len returns the number of mutators, with those that are disabled.
func (s *Set) Len() int { return len(s.mutators) }

// Conflicts returns an error for each mutator that is disabled, because its
// location contradicts those of others. It has the place of the mutator and
// names the others.
func (s *Set) Conflicts() []error {
	var out []error
	for _, m := range s.mutators {
		if len(m.conflicts) > 0 {
			out = append(out, policy.Coded(policy.CodeConflict, m.document.At("spec.location", "%s is disabled: %v", m, m.conflict())))
		}
	}
	return out
}

// A mutator is one document, checked.
type mutator struct {
	document   *policy.Document
	kind, name string
	applyTo    []applyTo // without any: to all objects
	match      *gatekeeper.Match
	location   location
	tests      []condition // by step of the location
	action     action
	external   *externalSpec // nil: the action needs none
	end        nodeType      // of the last field of the location
	conflicts  []*mutator    // by kind, then name
}

// String returns what errors call a mutator.
func (m *mutator) String() string { return fmt.Sprintf("%s %q", m.kind, m.name) }

// applies reports whether a mutator is for objects of a kind at all. Without an
// operation it must be for all of them.
func (m *mutator) applies(kind schema.GroupVersionKind, operation admissionv1.Operation) bool {
	return m.kind == metadataKind || slices.ContainsFunc(m.applyTo, func(a applyTo) bool {
		return slices.Contains(a.Groups, kind.Group) && slices.Contains(a.Versions, kind.Version) &&
			slices.Contains(a.Kinds, kind.Kind) && a.at(operation)
	})
}

// An applyTo names kinds of objects, by all combinations of its lists.
type applyTo struct {
	Groups     []string                `json:"groups"`
	Versions   []string                `json:"versions"`
	Kinds      []string                `json:"kinds"`
	Operations []admissionv1.Operation `json:"operations"`
}

// at reports whether a mutator acts at an operation, or, without one, at all.
func (a *applyTo) at(operation admissionv1.Operation) bool {
	if operation == "" {
		return !slices.ContainsFunc(operations(), func(o admissionv1.Operation) bool { return !slices.Contains(a.operations(), o) })
	}
	return slices.Contains(a.operations(), operation)
}

// operations returns those at which a mutator acts: without a list at all.
func (a *applyTo) operations() []admissionv1.Operation {
	if len(a.Operations) == 0 || slices.Contains(a.Operations, "*") {
		return operations()
	}
	return a.Operations
}

// operations returns those at which mutators act.
func operations() []admissionv1.Operation {
	return []admissionv1.Operation{admissionv1.Create, admissionv1.Update}
}
