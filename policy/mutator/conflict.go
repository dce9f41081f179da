package mutator

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// maxNodes bounds the steps of all locations, counted once for each kind and
// operation.
const maxNodes = 500_000

// A nodeType is what a location says of a field.
type nodeType int

// The types. Of a field that is assigned any value nothing is known, so that it
// contradicts nothing.
const (
	unknownType nodeType = iota
	objectType
	listType
	setType
	textType
)

// typeAt returns what a mutator says of the field at a step.
func (m *mutator) typeAt(i int) nodeType {
	switch {
	case i+1 == len(m.location):
		return m.end
	case m.location[i+1].item:
		return listType
	}
	return objectType
}

// closed reports whether no other location may lead beyond that of a mutator,
// because it makes text.
func (m *mutator) closed() bool { return m.end == textType || m.external != nil }

// A schemaKey is what has a schema of its own.
type schemaKey struct {
	kind      schema.GroupVersionKind
	operation admissionv1.Operation
}

// A node is a place in the schema that the locations of mutators imply. There is
// one for each type that they say a field has.
type node struct {
	by       []*mutator // whose locations lead here
	closed   []*mutator // those that end here, and want nothing beyond
	children map[string]map[nodeType]*node
}

// A schemaSet collects what mutators imply.
type schemaSet struct {
	roots map[schemaKey]*node
	nodes int
}

// add adds the location of a mutator, once for each kind that it is for.
func (s *schemaSet) add(m *mutator) error {
	for _, key := range m.schemaKeys() {
		if s.nodes += len(m.location); s.nodes > maxNodes {
			return m.document.At("spec.applyTo", "%s: the locations of all mutators have more than %d steps, counted for each kind", m, maxNodes)
		}
		if s.roots[key] == nil {
			s.roots[key] = &node{}
		}
		s.roots[key].add(m, 0)
	}
	return nil
}

// schemaKeys returns the kinds and operations that a mutator is for, each once.
func (m *mutator) schemaKeys() []schemaKey {
	seen := map[schemaKey]bool{}
	var out []schemaKey
	for _, to := range m.applyTo {
		for _, kind := range to.combine() {
			for _, operation := range to.operations() {
				if key := (schemaKey{kind, operation}); !seen[key] {
					seen[key] = true
					out = append(out, key)
				}
			}
		}
	}
	return out
}

// combine returns the kinds that the lists name.
func (a *applyTo) combine() []schema.GroupVersionKind {
	var out []schema.GroupVersionKind
	for _, group := range a.Groups {
		for _, version := range a.Versions {
			for _, kind := range a.Kinds {
				out = append(out, schema.GroupVersionKind{Group: group, Version: version, Kind: kind})
			}
		}
	}
	return out
}

// add adds what is below a node, from a step of the location.
func (n *node) add(m *mutator, i int) {
	n.by = append(n.by, m)
	if i == len(m.location) {
		if m.closed() {
			n.closed = append(n.closed, m)
		}
		return
	}
	name, typ := m.location[i].name, m.typeAt(i)
	if n.children == nil {
		n.children = map[string]map[nodeType]*node{}
	}
	if n.children[name] == nil {
		n.children[name] = map[nodeType]*node{}
	}
	if n.children[name][typ] == nil {
		n.children[name][typ] = &node{}
	}
	n.children[name][typ].add(m, i+1)
}

// disable disables the mutators that contradict each other.
func (s *schemaSet) disable() {
	for _, root := range s.roots {
		root.visit(func(group []*mutator) {
			slices.SortFunc(group, order)
			group = slices.Compact(group)
			named := group[:min(len(group), maxNamed+2)] // enough that one is left to say that there are more
			for _, m := range group {
				m.conflictWith(named)
			}
		})
	}
}

// visit calls f with the mutators of each contradiction.
func (n *node) visit(f func([]*mutator)) {
	for _, types := range n.children {
		if group := contradiction(types); len(group) > 0 {
			f(group)
		}
		for _, child := range types {
			child.visit(f)
		}
	}
}

// contradiction returns the mutators that do not agree about one field: whether
// it is an object, a list, a set or a text, by which key items of the list are
// told apart, and whether there is anything in it.
func contradiction(types map[nodeType]*node) (group []*mutator) {
	known, closed, deeper := 0, false, false
	for typ, child := range types {
		if typ != unknownType {
			known++
		}
		closed = closed || len(child.closed) > 0
		deeper = deeper || len(child.children) > 0
	}
	for typ, child := range types {
		if typ != unknownType && known > 1 || typ == listType && len(child.children) > 1 {
			group = append(group, child.by...)
		}
		if !closed || !deeper {
			continue
		}
		group = append(group, child.closed...)
		for _, below := range child.children {
			for _, n := range below {
				group = append(group, n.by...)
			}
		}
	}
	return group
}

// conflictWith adds others to the conflicts of a mutator.
func (m *mutator) conflictWith(others []*mutator) {
	for _, other := range others {
		if at, found := slices.BinarySearchFunc(m.conflicts, other, order); !found && other != m {
			m.conflicts = slices.Insert(m.conflicts, at, other)
		}
	}
}

// order is that in which mutators are applied.
func order(a, b *mutator) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.name, b.name))
}

// maxNamed bounds the names in one error.
const maxNamed = 10

// conflict says with which others a mutator is in conflict.
func (m *mutator) conflict() error {
	var others []string
	for i, other := range m.conflicts {
		if i == maxNamed {
			others = append(others, "and more")
			break
		}
		others = append(others, fmt.Sprintf("%s (%s)", other, other.document.Place("spec.location")))
	}
	return fmt.Errorf("its location %s contradicts that of %s", m.location, strings.Join(others, ", "))
}
