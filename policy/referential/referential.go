// Package referential is what policies see of a cluster besides the object that
// they judge, in the form that Rego reads: Gatekeeper's data.inventory.
package referential

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// An Inventory is what policies see of the cluster besides the object that they
// judge, as data.inventory: cluster[groupVersion][kind][name] and
// namespace[namespace][groupVersion][kind][name]. It is immutable and safe for
// concurrent use; With returns one that has changed.
//
// It keeps the objects in the form that Rego reads, so that a review costs
// nothing for those that no rule looks at.
type Inventory struct {
	root *branch
	data ast.Object // {"inventory": root}
}

// A branch is one level of the tree: either children or objects.
type branch struct {
	children map[string]*branch
	value    ast.Value // of an object, at the leaves
	term     *ast.Term
}

// New returns the inventory of these objects. They are only read, and
// not kept.
func New(objects iter.Seq[*unstructured.Unstructured]) (*Inventory, error) {
	return (*Inventory)(nil).With(objects, nil)
}

// With returns an inventory in which the objects of changed are new or have
// replaced those of the same kind, namespace and name, and those of removed are
// gone. It shares all that is the same; its cost grows with what changes. The nil
// Inventory has no objects.
func (v *Inventory) With(changed, removed iter.Seq[*unstructured.Unstructured]) (*Inventory, error) {
	root := &branch{}
	if v != nil {
		root = v.root
	}
	if changed != nil {
		for o := range changed {
			path, err := inventoryPath(o)
			if err != nil {
				return nil, err
			}
			value, err := Value(o.Object)
			if err != nil {
				return nil, fmt.Errorf("add %s %q to the inventory: %w", o.GetKind(), o.GetName(), err)
			}
			root = root.with(path, &branch{value: value})
		}
	}
	if removed != nil {
		for o := range removed {
			path, err := inventoryPath(o)
			if err != nil {
				return nil, err
			}
			root = root.with(path, nil)
		}
	}
	inventory := ast.NewObject([2]*ast.Term{ast.InternedTerm("inventory"), root.render()})
	return &Inventory{root: root, data: inventory}, nil
}

func inventoryPath(o *unstructured.Unstructured) ([]string, error) {
	kind := o.GroupVersionKind()
	if kind.Kind == "" || kind.Version == "" || o.GetName() == "" {
		return nil, fmt.Errorf("place %q in the inventory: apiVersion, kind and name are required", o.GetName())
	}
	tail := []string{kind.GroupVersion().String(), kind.Kind, o.GetName()}
	if ns := o.GetNamespace(); ns != "" {
		return append([]string{"namespace", ns}, tail...), nil
	}
	return append([]string{"cluster"}, tail...), nil
}

// with returns a branch with a leaf at a path; nil takes it away, and the
// branches that it leaves empty.
func (b *branch) with(path []string, leaf *branch) *branch {
	if len(path) == 0 {
		return leaf
	}
	child := b.children[path[0]]
	if child == nil {
		if leaf == nil {
			return b
		}
		child = &branch{}
	}
	next := child.with(path[1:], leaf)
	if next == child {
		return b
	}
	copied := &branch{children: maps.Clone(b.children)}
	if copied.children == nil {
		copied.children = map[string]*branch{}
	}
	copied.children[path[0]] = next
	if next == nil || next.value == nil && len(next.children) == 0 {
		delete(copied.children, path[0])
	}
	return copied
}

// render returns the branch as Rego reads it. What was rendered before stays.
func (b *branch) render() *ast.Term {
	if b.term != nil {
		return b.term
	}
	value := b.value
	if value == nil {
		pairs := make([][2]*ast.Term, 0, len(b.children))
		for _, name := range slices.Sorted(maps.Keys(b.children)) {
			pairs = append(pairs, [2]*ast.Term{ast.StringTerm(name), b.children[name].render()})
		}
		value = ast.NewObject(pairs...)
	}
	b.term = ast.NewTerm(value)
	return b.term
}

// A store lets rules read the inventory; nothing else is in it.
type store struct {
	storage.TriggersNotSupported
	storage.PolicyNotSupported
	storage.WritesNotSupported
	data ast.Object
}

// Store returns what rules read of an inventory; of none it is empty.
func (v *Inventory) Store() storage.Store {
	if v == nil {
		return &store{data: ast.NewObject([2]*ast.Term{ast.InternedTerm("inventory"), ast.NewTerm(ast.NewObject())})}
	}
	return &store{data: v.data}
}

// A Reading is a transaction: the data never changes.
type Reading struct{}

// ID implements [storage.Transaction].
func (Reading) ID() uint64 { return 0 }

// NewTransaction implements [storage.Store].
func (s *store) NewTransaction(context.Context, ...storage.TransactionParams) (storage.Transaction, error) {
	return Reading{}, nil
}

// Read implements [storage.Store].
func (s *store) Read(_ context.Context, _ storage.Transaction, path storage.Path) (any, error) {
	ref := make(ast.Ref, len(path))
	for i, name := range path {
		ref[i] = ast.StringTerm(name)
	}
	value, err := s.data.Find(ref)
	if err != nil {
		return nil, &storage.Error{Code: storage.NotFoundErr, Message: path.String()}
	}
	return value, nil
}

// Commit implements [storage.Store].
func (s *store) Commit(context.Context, storage.Transaction) error { return nil }

// Abort implements [storage.Store].
func (s *store) Abort(context.Context, storage.Transaction) {}

// Truncate implements [storage.Store].
func (s *store) Truncate(context.Context, storage.Transaction, storage.TransactionParams, storage.Iterator) error {
	return errors.ErrUnsupported
}

// Value converts a JSON value for Rego. Gatekeeper reads all numbers of
// objects as floating point, which templates see when they write them into
// messages.
func Value(v any) (ast.Value, error) {
	switch v := v.(type) {
	case map[string]any:
		return newObject(v)
	case []any:
		terms := make([]ast.Term, len(v))
		refs := make([]*ast.Term, len(v))
		for i, item := range v {
			value, err := Value(item)
			if err != nil {
				return nil, err
			}
			terms[i].Value = value
			refs[i] = &terms[i]
		}
		return ast.NewArray(refs...), nil
	case int64:
		return newNumber(float64(v)), nil
	case float64:
		return newNumber(v), nil
	case string, bool, nil:
		return ast.InterfaceToValue(v)
	}
	return nil, fmt.Errorf("a value is of type %T, which JSON does not have", v)
}

func newObject(v map[string]any) (ast.Value, error) {
	terms := make([]ast.Term, len(v))
	fields := make([][2]*ast.Term, 0, len(v))
	for key, item := range v {
		value, err := Value(item)
		if err != nil {
			return nil, err
		}
		term := &terms[len(fields)]
		term.Value = value
		fields = append(fields, [2]*ast.Term{ast.InternedTerm(key), term})
	}
	return ast.NewObject(fields...), nil
}

func newNumber(f float64) ast.Value { return ast.Number(strconv.FormatFloat(f, 'g', -1, 64)) }
