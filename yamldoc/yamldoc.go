// Package yamldoc reads YAML documents of our own formats strictly: unknown
// keys and wrong types are errors, each with file and line in plain words.
package yamldoc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// An Item is one document of a file.
type Item[T any] struct {
	Value T
	Line  int        // at which its content begins
	Root  *yaml.Node // its content as written
}

// All reads the documents of a file, at most most of them. Documents that hold
// nothing are left out. All errors are returned together.
func All[T any](name string, data []byte, most int) ([]Item[T], error) {
	dec, places := decoder(data), decoder(data)
	var items []Item[T]
	var errs []error
	for {
		var item Item[T]
		var node yaml.Node
		err := dec.Decode(&item.Value)
		if errors.Is(err, io.EOF) {
			return items, errors.Join(errs...)
		}
		typed := (*yaml.TypeError)(nil)
		if err != nil && !errors.As(err, &typed) {
			return items, errors.Join(append(errs, Plain(name, err))...)
		}
		if placed := places.Decode(&node); placed != nil {
			return items, errors.Join(append(errs, Plain(name, placed))...)
		}
		root := node.Content[0]
		if item.Line, item.Root = root.Line, root; err != nil {
			errs = append(errs, Plain(name, err))
		} else if root.ShortTag() != "!!null" {
			items = append(items, item)
		}
		if len(items) > most {
			return nil, fmt.Errorf("%s:%d: more than %d documents", name, item.Line, most)
		}
	}
}

// One reads the only document of a file.
func One(name string, data []byte, into any) error {
	dec := decoder(data)
	if err := dec.Decode(into); errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: file is empty", name)
	} else if err != nil {
		return Plain(name, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: want one YAML document", name)
	}
	return nil
}

func decoder(data []byte) *yaml.Decoder {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	return dec
}

var (
	yamlLine = regexp.MustCompile(`^(?:yaml: )?line ([0-9]+): `)
	goField  = regexp.MustCompile(`field (\S+) not found in type \S+`)
	goTarget = regexp.MustCompile(` into \S+$`)
)

// Plain puts an error of the YAML library in plain words: each mistake with
// file and line, and without the names of Go types.
func Plain(name string, err error) error {
	messages := []string{err.Error()}
	if typed := (*yaml.TypeError)(nil); errors.As(err, &typed) {
		messages = typed.Errors
	}
	var errs []error
	for _, m := range messages {
		place := name
		if at := yamlLine.FindStringSubmatch(m); at != nil {
			place, m = name+":"+at[1], m[len(at[0]):]
		}
		m = goField.ReplaceAllString(strings.TrimPrefix(m, "yaml: "), "unknown key $1")
		errs = append(errs, fmt.Errorf("%s: %s", place, goTarget.ReplaceAllString(m, "")))
	}
	return errors.Join(errs...)
}

// Line returns the line at which the field at path, like spec.rules[0].name, is
// written, or that of the deepest field on the way that exists.
func Line(root *yaml.Node, path string) int {
	line, node := root.Line, root
	for step := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		if node.Kind == yaml.AliasNode {
			node = node.Alias
		}
		key, value := child(node, step)
		if value == nil {
			break
		}
		line, node = key.Line, value
	}
	return line
}

// child returns the key and the value of one step below a node, nil if there is
// none. The key of a list item is the item.
func child(node *yaml.Node, step string) (key, value *yaml.Node) {
	if node.Kind == yaml.SequenceNode {
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(node.Content) {
			return node.Content[i], node.Content[i]
		}
		return nil, nil
	}
	for i := 0; node.Kind == yaml.MappingNode && i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == step {
			return node.Content[i], node.Content[i+1]
		}
	}
	return nil, nil
}

// Known refuses keys of a mapping that are not among those given. A type that
// decodes itself needs it: it loses the strictness of its decoder.
func Known(n *yaml.Node, keys ...string) error {
	known := map[string]bool{}
	for _, k := range keys {
		known[k] = true
	}
	for i := 0; n.Kind == yaml.MappingNode && i < len(n.Content); i += 2 {
		if key := n.Content[i]; !known[key.Value] {
			return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: unknown key %s", key.Line, key.Value)}}
		}
	}
	return nil
}
