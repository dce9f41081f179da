// Package rule evaluates Falco rules: it reads rule files, compiles them into
// an immutable set, and matches the set against events.
//
// A file is parsed into items (file.go, item.go), which later files change
// (override.go, exception.go). Package condition parses their conditions; lists
// are put into them as text and macros as trees, and every field is resolved and
// every operator checked when rules are loaded (compile.go), so that matching
// (match.go) cannot fail. Package match evaluates all conditions of a set at
// once; package plain evaluates one, and explains it.
package rule

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/rule/condition"
)

// A File is a rule file.
type File struct {
	Name string // for error messages
	Data []byte
}

const (
	maxFile = 1 << 20 // bytes of a rule file
	maxWork = 1 << 30 // what a load may cost: bytes that are looked through for one list
)

// A spec is what the rule files of one load say, before conditions are parsed.
type spec struct {
	lists    named[list]
	macros   named[macro]
	rules    named[ruleItem]
	count    int // items read
	work     int // see maxWork
	parts    []part
	skipped  map[string]bool // rules of unknown sources
	errs     Errors
	warnings Errors
	order    map[string]int // of the files
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
	used           bool
	from           *item
}

type macro struct {
	name           string
	condition      *condition.Text
	index, visible int
	used           bool
	from           *item
}

type ruleItem struct {
	Rule
	condition, output *condition.Text
	exceptions        []*exception
	warnTypes         bool
	skipUnknown       bool
	visible           int
	from              *item
}

func (s *spec) add(to *Errors, e *Error) {
	if len(*to) < maxErrors {
		*to = append(*to, e)
	}
}

// spend counts work, and reports false when there was too much: then a mistake
// is reported for the item, once.
func (s *spec) spend(it *item, n int) bool {
	if s.work > maxWork {
		return false
	}
	if s.work += n; s.work <= maxWork {
		return true
	}
	it.wrong(it.node, "rules, lists and macros up to here are too large to be loaded")
	return false
}

// sorted puts mistakes in the order of the files.
func (s *spec) sorted(es Errors) Errors {
	slices.SortStableFunc(es, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(s.order[a.File], s.order[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return es
}

func (s *spec) read(f File) {
	if _, again := s.order[f.Name]; !again {
		s.order[f.Name] = len(s.order)
	}
	if len(f.Data) > maxFile {
		s.add(&s.errs, &Error{Code: "LOAD_ERR_FILE_READ", File: f.Name, Line: 1, Column: 1, Message: fmt.Sprintf("file is larger than %d bytes", maxFile)})
		return
	}
	file := newSourceFile(f, len(s.order))
	documents := yaml.NewDecoder(bytes.NewReader(f.Data))
	for {
		var doc yaml.Node
		err := documents.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			s.add(&s.errs, yamlError(file, err))
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
	e := &Error{Code: "LOAD_ERR_YAML_PARSE", File: file.name, Line: line, Column: 1, Message: "parse YAML: " + message, Source: file.line(line)}
	e.at = []location{{"rules content", "", line - 1, 0, file.offset(line, 1)}}
	return e
}

// invalid is the code of a file whose structure is wrong.
const invalid = "LOAD_ERR_YAML_VALIDATE"

func (s *spec) readDocument(file *sourceFile, root *yaml.Node) {
	root = resolve(root)
	if isNull(root) {
		return
	}
	it := &item{spec: s, file: file, node: root}
	if root.Kind != yaml.SequenceNode {
		message := "Rules content is not yaml array of objects"
		if root.Kind == yaml.ScalarNode {
			message = "Rules content is not yaml"
		}
		it.fail(root, message)
		return
	}
	for _, n := range root.Content {
		n = resolve(n)
		if !s.spend(it, 1000) {
			return
		}
		switch {
		case isNull(n):
		case n.Kind != yaml.MappingNode:
			it.fail(n, "Unexpected element type. Each element should be a yaml associative array.")
		default:
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

// itemKinds has the kinds of item, in the order in which Falco looks for their
// keys, with all keys of each.
var itemKinds = []struct {
	name string
	keys []string
	read func(*item)
}{
	{"required_engine_version", nil, (*item).readEngineVersion},
	{"required_plugin_versions", nil, (*item).readPluginVersions},
	{"list", []string{"items", "append", "override"}, (*item).readList},
	{"macro", []string{"condition", "append", "override"}, (*item).readMacro},
	{"rule", []string{
		"condition", "output", "desc", "priority", "source", "enabled", "tags", "exceptions", "append", "override",
		"warn_evttypes", "skip-if-unknown-filter", "capture", "capture_duration",
	}, (*item).readRule},
}

func (s *spec) readItem(file *sourceFile, n *yaml.Node) {
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
			s.count++
			it.kind = kind.name
			if len(kind.keys) > 0 {
				it.name = it.scalar(kind.name)
			}
			it.unknownKeys(kind.keys)
			kind.read(it)
			return
		}
	}
	it.kind = "rules content item"
	it.warn("LOAD_UNKNOWN_ITEM", n, "Unknown top level item")
}
