package config

import (
	"fmt"
	"reflect"

	"go.yaml.in/yaml/v3"
)

// A Section is a part of the file that only its reader knows the keys of, such
// as the configuration of one kind of destination. The zero value is an empty
// one.
type Section struct {
	file string
	path string // of the section in the file
	node *yaml.Node
}

// Decode fills the struct that v points to, as strictly as the rest of the file
// is read: errors have file and line, all of them at once.
func (s Section) Decode(v any) error {
	if s.node == nil {
		return nil
	}
	d := decoder{name: s.file, lines: map[string]int{}}
	d.mapping(s.node, reflect.ValueOf(v).Elem(), s.path)
	return d.err()
}

// Wrap adds file, line and key of the section to an error that its reader has
// found with it.
func (s Section) Wrap(err error) error {
	if err == nil || s.node == nil {
		return err
	}
	return fmt.Errorf("%s:%d: %s: %w", s.file, s.node.Line, s.path, err)
}

// section keeps a part of the file for its reader.
func (d *decoder) section(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.errorf(n.Line, "%s: want keys and values, have %s", path, describe(n))
		return
	}
	v.Set(reflect.ValueOf(Section{d.name, path, n}))
}

// table fills a map from names to text.
func (d *decoder) table(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.errorf(n.Line, "%s: want keys and values, have %s", path, describe(n))
		return
	}
	out := reflect.MakeMap(v.Type())
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name := reflect.ValueOf(key.Value).Convert(v.Type().Key())
		switch at := join(path, key.Value); {
		case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
			d.errorf(key.Line, "%s: want a name in text, have %s", path, describe(key))
		case out.MapIndex(name).IsValid():
			d.errorf(key.Line, "key %q is there twice", clip(at))
		default:
			d.lines[at] = key.Line
			one := reflect.New(v.Type().Elem()).Elem()
			d.value(value, one, clip(at))
			out.SetMapIndex(name, one)
		}
	}
	v.Set(out)
}

// A Text is text in a language that only its reader knows, such as a template,
// with its place in the file.
type Text struct {
	Text string
	file string
	path string
	line int
}

// String returns the text.
func (t Text) String() string { return t.Text }

// Wrap adds file, line and key of the text to an error that its reader has found
// in it.
func (t Text) Wrap(err error) error {
	if err == nil || t.line == 0 {
		return err
	}
	return fmt.Errorf("%s:%d: %s: %w", t.file, t.line, t.path, err)
}

// text keeps text with its place for its reader.
func (d *decoder) text(n *yaml.Node, v reflect.Value, path string) {
	t := Text{file: d.name, path: path, line: n.Line}
	d.scalar(n, reflect.ValueOf(&t.Text).Elem(), path)
	v.Set(reflect.ValueOf(t))
}
