// Package rule evaluates Falco rules: it reads rule files, compiles them into
// an immutable set, and matches the set against events.
//
// A file is parsed into items, conditions into syntax trees (parse.go); lists
// are put into conditions as text and macros as trees; every field is resolved
// and every operator checked when rules are loaded (compile.go), so that
// matching (match.go) cannot fail.
package rule

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
)

// A File is a rule file.
type File struct {
	Name string // for error messages
	Data []byte
}

const maxFile = 1 << 20 // bytes of a rule file

// A spec is what the rule files of one load say, before conditions are parsed.
type spec struct {
	lists  named[list]
	macros named[macro]
	rules  named[ruleItem]
	count  int // items read
	errs   Errors
}

// A named holds the items of one kind in the order of their first definition.
type named[T any] struct {
	order  []*T
	byName map[string]*T
}

// define adds an item. If there is one of this name, it calls again with it
// instead.
func (n *named[T]) define(name string, item *T, again func(old *T)) {
	if old := n.byName[name]; old != nil {
		again(old)
		return
	}
	if n.byName == nil {
		n.byName = map[string]*T{}
	}
	n.byName[name] = item
	n.order = append(n.order, item)
}

type list struct {
	name           string
	items          []string
	index, visible int // positions of the first and of the latest definition
}

type macro struct {
	name           string
	condition      *text
	index, visible int
}

type ruleItem struct {
	Rule
	condition, output *text
}

func (s *spec) add(e *Error) {
	if len(s.errs) < maxErrors {
		s.errs = append(s.errs, e)
	}
}

// lineBreak is what YAML takes for the end of a line.
var lineBreak = regexp.MustCompile("\r\n|[\r\n\u0085\u2028\u2029]")

func (s *spec) read(f File) {
	file := &sourceFile{name: f.Name}
	if len(f.Data) > maxFile {
		s.add(&Error{File: f.Name, Line: 1, Column: 1, Message: fmt.Sprintf("file is larger than %d bytes", maxFile)})
		return
	}
	file.lines = lineBreak.Split(string(f.Data), -1)
	documents := yaml.NewDecoder(bytes.NewReader(f.Data))
	for {
		var doc yaml.Node
		err := documents.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			s.add(yamlError(file, err))
			return
		}
		if len(doc.Content) == 0 {
			continue
		}
		s.readDocument(file, doc.Content[0])
	}
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

func yamlError(file *sourceFile, err error) *Error {
	message, line := err.Error(), 1
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		message = message[len(m[0]):]
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
		}
	}
	return &Error{File: file.name, Line: line, Column: 1, Message: "parse YAML: " + message, Source: file.line(line)}
}

func (s *spec) readDocument(file *sourceFile, root *yaml.Node) {
	root = resolve(root)
	if isNull(root) {
		return
	}
	if root.Kind != yaml.SequenceNode {
		s.add(nodeError(file, "", root, "want a list of rules, macros and lists"))
		return
	}
	for _, n := range root.Content {
		if n = resolve(n); !isNull(n) {
			s.readItem(file, n)
		}
	}
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func nodeError(file *sourceFile, item string, n *yaml.Node, message string) *Error {
	return &Error{
		File: file.name, Line: n.Line, Column: byteColumn(file.line(n.Line), n.Column) + 1,
		Item: item, Message: message, Source: file.line(n.Line),
	}
}

// itemKinds has the kinds of item, in the order in which Falco looks for their
// keys, with all keys of each.
var itemKinds = []struct {
	name string
	keys []string
}{
	{"required_engine_version", nil},
	{"required_plugin_versions", nil},
	{"list", []string{"items", "append", "override"}},
	{"macro", []string{"condition", "append", "override"}},
	{"rule", []string{
		"condition", "output", "desc", "priority", "source", "enabled", "tags", "exceptions", "append", "override",
		"warn_evttypes", "skip-if-unknown-filter", "capture", "capture_duration",
	}},
}

// unsupported has what Falco knows and this engine does not yet.
var unsupported = []string{
	"required_engine_version", "required_plugin_versions", "append", "override", "exceptions",
	"warn_evttypes", "skip-if-unknown-filter", "capture", "capture_duration",
}

func (s *spec) readItem(file *sourceFile, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		s.add(nodeError(file, "", n, "want a rule, macro or list"))
		return
	}
	it := &item{spec: s, file: file, node: n, values: map[string]*yaml.Node{}}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if _, twice := it.values[key.Value]; twice {
			it.fail(key, fmt.Sprintf("key %q is there twice", key.Value))
		}
		it.values[key.Value] = resolve(n.Content[i+1])
	}
	for _, kind := range itemKinds {
		if _, ok := it.values[kind.name]; ok {
			it.read(kind.name, kind.keys)
			return
		}
	}
	it.fail(n, "unknown item: want a rule, macro or list")
}

// An item is one rule, macro or list while it is read.
type item struct {
	spec   *spec
	file   *sourceFile
	title  string
	node   *yaml.Node
	values map[string]*yaml.Node
	failed bool
}

func (it *item) fail(n *yaml.Node, message string) {
	it.failed = true
	it.spec.add(nodeError(it.file, it.title, n, message))
}

func (it *item) read(kind string, keys []string) {
	it.spec.count++
	name := ""
	if !slices.Contains(unsupported, kind) {
		name = it.scalar(kind)
		it.title = fmt.Sprintf("%s %q", kind, name)
	}
	for i := 0; i < len(it.node.Content); i += 2 {
		key := it.node.Content[i]
		switch known := key.Value == kind || slices.Contains(keys, key.Value); {
		case !known:
			it.fail(key, fmt.Sprintf("unknown key %q%s", key.Value, didYouMean(key.Value, keys)))
		case slices.Contains(unsupported, key.Value):
			it.fail(key, fmt.Sprintf("%q is not supported yet", key.Value))
		}
	}
	switch kind {
	case "list":
		it.readList(name)
	case "macro":
		it.readMacro(name)
	case "rule":
		it.readRule(name)
	}
}

// scalar returns the value of a key that must be there and not be empty.
func (it *item) scalar(key string) string {
	if n := it.scalarNode(key); n != nil {
		return n.Value
	}
	return ""
}

func (it *item) scalarNode(key string) *yaml.Node {
	n, ok := it.values[key]
	switch {
	case !ok:
		it.fail(it.node, fmt.Sprintf("key %q is missing", key))
	case n.Kind != yaml.ScalarNode:
		it.fail(n, fmt.Sprintf("%q must be a single value", key))
	case isNull(n) || strings.TrimSpace(n.Value) == "":
		it.fail(n, fmt.Sprintf("%q must not be empty", key))
	default:
		return n
	}
	return nil
}

// strings returns the value of a key that holds a list of scalars.
func (it *item) strings(key string) []string {
	n := it.values[key]
	if n.Kind != yaml.SequenceNode {
		it.fail(n, fmt.Sprintf("%q must be a list", key))
		return nil
	}
	var out []string
	for _, e := range n.Content {
		e = resolve(e)
		if e.Kind != yaml.ScalarNode || isNull(e) || e.Value == "" {
			it.fail(e, fmt.Sprintf("each of %q must be a single value that is not empty", key))
			continue
		}
		out = append(out, e.Value)
	}
	return out
}

func (it *item) text(key string) *text {
	if n := it.scalarNode(key); n != nil {
		return newText(it.file, it.title, n)
	}
	return nil
}

var (
	listName  = regexp.MustCompile(`^[^()"'\s=,]+$`)
	macroName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_]*$`)
)

func (it *item) readList(name string) {
	if name != "" && !listName.MatchString(name) {
		it.fail(it.values["list"], "the name of a list must not contain blanks, quotes, parentheses, = or ,")
	}
	if _, ok := it.values["items"]; !ok {
		it.fail(it.node, `key "items" is missing`)
		return
	}
	n := it.spec.count
	l := &list{name: name, items: it.strings("items"), index: n, visible: n}
	if it.failed {
		return
	}
	it.spec.lists.define(name, l, func(old *list) { old.items, old.visible = l.items, n })
}

func (it *item) readMacro(name string) {
	if name != "" && !macroName.MatchString(name) {
		it.fail(it.values["macro"], "the name of a macro must be letters, then letters, digits and _")
	}
	n := it.spec.count
	m := &macro{name: name, condition: it.text("condition"), index: n, visible: n}
	if m.condition == nil || name == "" {
		return
	}
	it.spec.macros.define(name, m, func(old *macro) { old.condition, old.visible = m.condition, n })
}

func (it *item) readRule(name string) {
	rules := &it.spec.rules
	if name == "" {
		return
	}
	if it.isSwitch() {
		on := it.enabled()
		if old := rules.byName[name]; old != nil {
			old.Enabled = on
		} else {
			it.fail(it.node, `rule is switched by "enabled" but is not defined before`)
		}
		return
	}
	r := it.rule(name)
	if it.failed {
		return
	}
	rules.define(name, r, func(old *ruleItem) {
		if old.Source != r.Source {
			it.fail(it.node, fmt.Sprintf("rule is defined again with source %q; it was %q", r.Source, old.Source))
		}
		*old = *r
	})
}

// isSwitch reports whether the item only switches an earlier rule on or off.
func (it *item) isSwitch() bool {
	for _, key := range []string{"condition", "output", "desc", "priority"} {
		if _, ok := it.values[key]; ok {
			return false
		}
	}
	_, ok := it.values["enabled"]
	return ok
}

func (it *item) rule(name string) *ruleItem {
	r := &ruleItem{Rule: Rule{Name: name, File: it.file.name, Line: it.node.Line}}
	r.Desc = strings.TrimSpace(it.scalar("desc"))
	r.condition, r.output = it.text("condition"), it.text("output")
	r.Source, r.Enabled = it.source(), it.enabled()
	if _, ok := it.values["tags"]; ok {
		r.Tags = it.strings("tags")
		slices.Sort(r.Tags)
		r.Tags = slices.Compact(r.Tags)
	}
	if n := it.scalarNode("priority"); n != nil {
		p, err := alert.ParsePriority(n.Value)
		if err != nil {
			it.fail(n, err.Error())
		}
		r.Priority = p
	}
	return r
}

// source returns the source of a rule. Falco takes a missing one for syscall.
func (it *item) source() string {
	known := strings.Join(event.Sources(), ", ")
	if _, ok := it.values["source"]; !ok {
		it.fail(it.node, fmt.Sprintf(`key "source" is missing, which means syscall; supported: %s`, known))
		return ""
	}
	n := it.scalarNode("source")
	if n == nil {
		return ""
	}
	if !slices.Contains(event.Sources(), n.Value) {
		it.fail(n, fmt.Sprintf("source %q is not supported; supported: %s", n.Value, known))
	}
	return n.Value
}

func (it *item) enabled() bool {
	n, ok := it.values["enabled"]
	if !ok {
		return true
	}
	var on bool
	if err := n.Decode(&on); err != nil {
		it.fail(n, `"enabled" must be true or false`)
	}
	return on
}
