// Package edit changes values in the text of a YAML document and leaves
// everything else as it stands: comments, order, indentation, quotes and line
// endings.
//
// A document is never written anew. Its nodes say where a value is; the fewest
// characters are inserted, replaced or deleted there. The result is read again:
// where it would differ from the document in more than what was asked for, as
// when a value is shared through an anchor, there is an error instead.
package edit

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A Verb says what an [Op] does.
type Verb string

// The verbs.
const (
	VerbSet    Verb = "set"    // a value, with the mappings around it that are missing
	VerbDelete Verb = "delete" // a key, and the mappings that it leaves empty
	VerbAppend Verb = "append" // an item to a list of texts, which is made if it is missing
	VerbRemove Verb = "remove" // an item from a list of texts, and the list if it is left empty
)

// An Op is one change. What holds already is left alone.
type Op struct {
	Verb  Verb
	Path  []any  // from the root of the document: keys, and ints for items of lists
	Value any    // a text or a bool; for VerbSet also a []string
	After string // the key that a new key is put behind, if it is there; else it comes last
}

// Set puts a value at a path.
func Set(value any, path ...any) Op { return Op{Verb: VerbSet, Path: path, Value: value} }

// Delete removes the key at a path.
func Delete(path ...any) Op { return Op{Verb: VerbDelete, Path: path} }

// Append adds an item to the list at a path.
func Append(item string, path ...any) Op { return Op{Verb: VerbAppend, Path: path, Value: item} }

// Remove takes an item out of the list at a path.
func Remove(item string, path ...any) Op { return Op{Verb: VerbRemove, Path: path, Value: item} }

// String says what the change is, as "set spec.hostPID to false".
func (o Op) String() string {
	at := Name(o.Path)
	switch o.Verb {
	case VerbSet:
		return fmt.Sprintf("set %s to %v", at, o.Value)
	case VerbDelete:
		return "delete " + at
	case VerbAppend:
		return fmt.Sprintf("add %v to %s", o.Value, at)
	}
	return fmt.Sprintf("remove %v from %s", o.Value, at)
}

// Name writes a path as users know it: spec.containers[0].image.
func Name(path []any) string {
	var b strings.Builder
	for _, step := range path {
		if i, ok := step.(int); ok {
			fmt.Fprintf(&b, "[%d]", i)
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		fmt.Fprint(&b, step)
	}
	return b.String()
}

// Apply makes ops, one after the other, in the text of one YAML document. The
// result reads as the document with exactly these changes; else there is an
// error, and no result.
func Apply(doc []byte, ops ...Op) ([]byte, error) {
	want, err := decode(doc)
	if err != nil {
		return nil, err
	}
	edited, shared := doc, ""
	for _, op := range ops {
		if want, err = op.Apply(want); err != nil {
			return nil, fmt.Errorf("%s: %w", op, err)
		}
		t, err := parse(edited)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", op, err)
		}
		if edited, err = t.edit(op); err != nil {
			return nil, fmt.Errorf("%s: %w", op, err)
		}
		if t.shared != nil {
			shared = fmt.Sprintf("the value is shared through the anchor &%s of line %d", t.shared.Anchor, t.shared.Line)
		}
	}
	got, err := decode(edited)
	switch {
	case err == nil && reflect.DeepEqual(got, want):
		return edited, nil
	case shared != "":
		return nil, fmt.Errorf("%s, and other places would change too", shared)
	}
	return nil, errors.New("the text cannot be changed without changing more")
}

// decode reads the only document of a text.
func decode(doc []byte) (any, error) {
	var value any
	dec := yaml.NewDecoder(bytes.NewReader(doc))
	if err := dec.Decode(&value); err != nil {
		return nil, fmt.Errorf("read document: %w", err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("read document: there is more than one")
	}
	return value, nil
}

// Apply makes the change in a value as YAML or JSON is decoded, and returns it.
// The mappings and lists of value are not changed.
func (o Op) Apply(value any) (any, error) {
	if len(o.Path) == 0 {
		return nil, errors.New("no path")
	}
	out, _, err := o.within(value, o.Path)
	return out, err
}

// within returns value with the change at path; gone is true if nothing of it is
// left.
func (o Op) within(value any, path []any) (out any, gone bool, err error) {
	if len(path) == 0 {
		return o.at(value)
	}
	switch step := path[0].(type) {
	case int:
		list, ok := value.([]any)
		if !ok || step < 0 || step >= len(list) {
			return nil, false, errors.New("there is no such item")
		}
		item, gone, err := o.within(list[step], path[1:])
		if err != nil || gone {
			return nil, false, cmp.Or(err, errors.New("the item would be empty"))
		}
		list = slices.Clone(list)
		list[step] = item
		return list, false, nil
	case string:
		return o.inMapping(value, step, path[1:])
	}
	return nil, false, fmt.Errorf("a path has keys and ints, not %T", path[0])
}

func (o Op) inMapping(value any, key string, rest []any) (out any, gone bool, err error) {
	m, ok := value.(map[string]any)
	if !ok && value != nil {
		return nil, false, errors.New("what is there is not a mapping")
	}
	old, have := m[key]
	if !have && (o.Verb == VerbDelete || o.Verb == VerbRemove) {
		return value, false, nil
	}
	item, gone, err := o.within(old, rest)
	if err != nil {
		return nil, false, err
	}
	next := make(map[string]any, len(m)+1)
	for k, v := range m {
		next[k] = v
	}
	next[key] = item
	if gone {
		delete(next, key)
	}
	return next, len(next) == 0, nil
}

// at makes the change in what the path leads to.
func (o Op) at(value any) (out any, gone bool, err error) {
	switch o.Verb {
	case VerbSet:
		if texts, ok := o.Value.([]string); ok {
			return list(texts), false, nil
		}
		return o.Value, false, nil
	case VerbDelete:
		return nil, true, nil
	}
	items, ok := value.([]any)
	if !ok && value != nil {
		return nil, false, errors.New("what is there is not a list")
	}
	if o.Verb == VerbAppend {
		if slices.Contains(items, o.Value) {
			return value, false, nil
		}
		return append(slices.Clone(items), o.Value), false, nil
	}
	left := slices.DeleteFunc(slices.Clone(items), func(v any) bool { return v == o.Value })
	if len(left) == len(items) {
		return value, false, nil
	}
	return left, len(left) == 0, nil
}

func list(texts []string) []any {
	out := make([]any, len(texts))
	for i, s := range texts {
		out[i] = s
	}
	return out
}
