package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxErrors bounds what a file that is something else altogether can print.
const maxErrors = 100

// A decoder fills a struct from YAML nodes and remembers the line of each key,
// so that validation can point at it.
type decoder struct {
	name  string
	lines map[string]int // by dotted key
	errs  []error
}

func (d *decoder) errorf(line int, format string, args ...any) {
	if len(d.errs) < maxErrors {
		d.errs = append(d.errs, fmt.Errorf("%s:%d: %s", d.name, line, fmt.Sprintf(format, args...)))
	}
}

func (d *decoder) err() error { return errors.Join(d.errs...) }

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

// parseYAML returns the top node of the only document, or nil when the file
// holds nothing but comments.
func parseYAML(name string, data []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, syntaxError(name, err)
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		return nil, fmt.Errorf("%s:%d: second YAML document: a configuration file has one", name, second.Line)
	case !errors.Is(err, io.EOF):
		return nil, syntaxError(name, err)
	}
	root := doc.Content[0]
	if root.ShortTag() == "!!null" {
		return nil, nil
	}
	return root, nil
}

func syntaxError(name string, err error) error {
	text, line := err.Error(), "1"
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		text, line = text[len(m[0]):], m[1]
	}
	return fmt.Errorf("%s:%s: not YAML: %s", name, line, strings.TrimPrefix(text, "yaml: "))
}

// decode fills cfg from the top node.
func (d *decoder) decode(root *yaml.Node, cfg *Config) {
	d.mapping(root, reflect.ValueOf(cfg).Elem(), "")
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.errorf(n.Line, "%swant keys and values, have %s", prefix(path), describe(n))
		return
	}
	fields := map[string]reflect.Value{}
	var names []string
	for f, value := range v.Fields() {
		key := f.Tag.Get("yaml")
		fields[key], names = value, append(names, key)
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		field, known := fields[key.Value]
		first, again := seen[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || !known:
			d.errorf(key.Line, "unknown key %q%s", clip(join(path, key.Value)), didYouMean(key.Value, names))
		case again:
			d.errorf(key.Line, "key %q is already in line %d", join(path, key.Value), first)
		default:
			d.lines[join(path, key.Value)] = key.Line
			d.value(value, field, join(path, key.Value))
		}
		seen[key.Value] = key.Line
	}
}

// value fills one field. Aliases are refused rather than followed: nothing in
// this file is worth sharing, and they make the size of a document unbounded.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string) {
	switch {
	case n.Kind == yaml.AliasNode:
		d.errorf(n.Line, "%s: YAML aliases are not supported here: repeat the value", path)
	case n.ShortTag() == "!!null":
		d.errorf(n.Line, "%s has no value: give one or remove the key", path)
	case v.Type() == reflect.TypeFor[Section]():
		d.section(n, v, path)
	case v.Type() == reflect.TypeFor[Text]():
		d.text(n, v, path)
	case v.Kind() == reflect.Pointer: // nil: the file does not have it
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), path)
	case v.Kind() == reflect.Struct:
		d.mapping(n, v, path)
	case v.Kind() == reflect.Map:
		d.table(n, v, path)
	case v.Kind() == reflect.Slice:
		d.list(n, v, path)
	default:
		d.scalar(n, v, path)
	}
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.errorf(n.Line, "%s: want a list, have %s", path, describe(n))
		return
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		at := index(path, i)
		d.lines[at] = item.Line
		d.value(item, list.Index(i), at)
	}
	v.Set(list)
}

var durationType = reflect.TypeFor[time.Duration]()

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string) {
	want, ok := "text", n.ShortTag() == "!!str"
	switch {
	case v.Type() == durationType:
		want = "a duration such as 30s, 10m or 720h"
		if ok {
			t, err := time.ParseDuration(n.Value)
			ok = err == nil
			v.SetInt(int64(t))
		}
	case v.Kind() == reflect.Bool:
		want, ok = "true or false", n.ShortTag() == "!!bool" && n.Decode(v.Addr().Interface()) == nil
	case v.Kind() == reflect.Float64:
		want, ok = "a number", (n.ShortTag() == "!!float" || n.ShortTag() == "!!int") && n.Decode(v.Addr().Interface()) == nil
	case v.Kind() == reflect.Int:
		want, ok = "a whole number", n.ShortTag() == "!!int" && n.Decode(v.Addr().Interface()) == nil
	case ok:
		v.SetString(n.Value)
	case n.Kind == yaml.ScalarNode:
		want = "text: put it in quotes"
	}
	if !ok {
		d.errorf(n.Line, "%s: want %s, have %s", path, want, describe(n))
	}
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	return fmt.Sprintf("%q", clip(n.Value))
}

// clip keeps an error at one readable line whatever the file holds.
func clip(s string) string {
	const limit = 60
	if r := []rune(s); len(r) > limit {
		return string(r[:limit]) + "…"
	}
	return s
}

func prefix(path string) string {
	if path == "" {
		return ""
	}
	return path + ": "
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// didYouMean suggests the nearest of the known words, or lists them when none
// is near.
func didYouMean(word string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if n := editDistance(strings.ToLower(clip(word)), strings.ToLower(k)); n < distance {
			best, distance = k, n
		}
	}
	if best != "" {
		return fmt.Sprintf(": did you mean %q?", best)
	}
	return ": want one of " + strings.Join(known, ", ")
}

// editDistance is the number of letters to insert, delete or replace.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
