package inventory

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// The bounds of one document.
const (
	maxValues  = 2_000_000 // lines and commas of a file: each can be a value, which takes much more memory than text
	maxDepth   = 256       // nesting; Kubernetes' own deepest types need less than 60
	maxAliased = 200_000   // values that come from aliases: few lines could make billions
)

// A source is a text of manifests, and where it stands.
type source struct {
	name  string
	named bool               // the user named the file, or it is stdin
	from  string             // the chart or kustomization that made the text, if one did
	chart bool               // it was a chart, whose tests are left out
	line  func(line int) int // leads from its lines to those of the file called name; nil if they are the same
}

// at returns "file:line" for a line of the text, or the file if it stands on
// no line of it.
func (s source) at(line int) string {
	if s.line != nil {
		line = s.line(line)
	}
	if line < 1 {
		return s.name
	}
	return s.name + ":" + strconv.Itoa(line)
}

// after returns the source of what stands behind some of its lines.
func (s source) after(lines int) source {
	if lines == 0 {
		return s
	}
	of := s.line
	s.line = func(line int) int {
		if line < 1 {
			return line
		}
		if line += lines; of != nil {
			return of(line)
		}
		return line
	}
	return s
}

// parse reads the documents of one file. One that cannot be parsed hides no
// other: the next begins where its line says so.
func (r *reader) parse(src source, data []byte) {
	if err := readable(src.name, data); err != nil {
		r.failPart(src.name, holds(data), err)
		return
	}
	data = joinSurrogates(data)
	found := len(r.objects) + len(r.errs) + r.more + len(r.skipped)
	for part := range split(data) {
		if r.ctx.Err() != nil || !r.part(src.after(part.before), part, data) {
			return
		}
	}
	if found == len(r.objects)+len(r.errs)+r.more+len(r.skipped) {
		r.noObject(src, 0, "empty")
	}
}

// part reads one document, and reports whether another may follow.
func (r *reader) part(src source, part document, data []byte) bool {
	dec := yaml.NewDecoder(bytes.NewReader(part.text))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return true
		}
		if err != nil {
			r.failPart(src.at(part.first), holds(part.text), syntaxError(src, data, err))
			return true
		}
		if !r.count(src, doc.Line) {
			return false
		}
		r.document(src, &doc, part)
	}
}

// readable refuses what is no text, and text of so many parts that it would
// take far more memory than its size.
func readable(name string, data []byte) error {
	if bytes.IndexByte(data, 0) >= 0 || !utf8.Valid(data) {
		return fmt.Errorf("%s: not a text file in UTF-8", name)
	}
	if bytes.Count(data, []byte("\n"))+bytes.Count(data, []byte(",")) > maxValues {
		return hint(fmt.Errorf("%s: more than %d lines and commas", name, maxValues), splitHint)
	}
	return nil
}

// harmless checks YAML that a library will decode: it is within the bounds of a
// manifest.
func harmless(name string, data []byte) error {
	if err := readable(name, data); err != nil {
		return err
	}
	src := source{name: name}
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return syntaxError(src, nil, err)
		}
		c := converter{fail: func(line int, problem string) { err = fmt.Errorf("%s: %s", src.at(line), problem) }}
		if c.value(doc.Content[0], 0); c.beyond {
			return err
		}
	}
}

// count reports whether one more document or list item is within the bounds.
func (r *reader) count(src source, line int) bool {
	if r.documents++; r.documents <= maxDocuments {
		return true
	}
	if r.documents == maxDocuments+1 {
		r.fail(src.name, hint(fmt.Errorf("%s: more than %d documents", src.at(line), maxDocuments), "scan the folders one by one"))
	}
	return false
}

// noObject records a document that is well formed but nothing that a cluster
// could hold. A chart may render to nothing; a file that is named must not.
func (r *reader) noObject(src source, line int, reason string) {
	place := src.name
	if line > 0 {
		place = src.at(line)
	}
	switch {
	case src.named:
		r.report(fmt.Errorf("%s: %w: %s", place, ErrNoObjects, reason))
	case src.from == "" || reason != "empty":
		r.skipped = append(r.skipped, Skip{Source: place, Reason: reason})
	}
}

func (r *reader) document(src source, doc *yaml.Node, part document) {
	root := doc.Content[0]
	var errs []error
	c := converter{
		fail:   func(line int, problem string) { errs = append(errs, fmt.Errorf("%s: %s", src.at(line), problem)) },
		shared: r.shared,
	}
	value := c.value(root, 0)
	if len(errs) > 0 {
		r.failPart(src.at(part.first), holds(part.text), errs...)
		return
	}
	switch value := value.(type) {
	case map[string]any:
		r.object(manifest{source: src, node: root, value: value})
	case nil: // only comments, or nothing between two separators
	case []any:
		r.noObject(src, root.Line, "a list, not an object")
	default:
		r.noObject(src, root.Line, "plain text, not an object")
	}
}

var yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)

// syntaxError puts file and line in front. The YAML package counts lines from 0
// in the errors of its parser, and from 1 in those of its scanner.
func syntaxError(src source, data []byte, err error) error {
	line, problem := 1, err.Error()
	if m := yamlError.FindStringSubmatch(problem); m != nil {
		problem = m[2]
		line, _ = strconv.Atoi(cmp.Or(m[1], "1"))
		if m[1] != "" && strings.HasPrefix(problem, "did not find expected") {
			line++
		}
	}
	err = fmt.Errorf("%s: %s", src.at(line), problem)
	if src.from == "" && bytes.Contains(data, []byte("{{")) {
		return hint(err, "a Helm template must be rendered: scan the folder of its chart, which has Chart.yaml")
	}
	return err
}

var surrogates = regexp.MustCompile(`\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|.)`)

// joinSurrogates replaces JSON's two-part escapes ("\ud83d\ude00"), which YAML
// does not have, by the character they stand for.
func joinSurrogates(data []byte) []byte {
	if start := bytes.TrimSpace(data); len(start) == 0 || start[0] != '{' && start[0] != '[' || !bytes.Contains(data, []byte(`\u`)) {
		return data
	}
	return surrogates.ReplaceAllFunc(data, func(escape []byte) []byte {
		if len(escape) < 12 {
			return escape
		}
		high, _ := strconv.ParseUint(string(escape[2:6]), 16, 16)
		low, _ := strconv.ParseUint(string(escape[8:12]), 16, 16)
		return []byte(string(utf16.DecodeRune(rune(high), rune(low))))
	})
}

// A converter turns YAML nodes into the values that encoding/json makes of the
// equivalent JSON, with int64 where a number is one. Plain yes, no, on and off
// are booleans, as kubectl and the API server read them.
type converter struct {
	fail    func(line int, problem string)
	beyond  bool // a bound was exceeded, and the value is cut off
	within  int  // aliases around the current node
	aliased int  // nodes visited within aliases
	failed  bool
	shared  *sharedValues // nil for none
}

func (c *converter) problem(n *yaml.Node, format string, args ...any) {
	c.failed = true
	c.fail(n.Line, fmt.Sprintf(format, args...))
}

func (c *converter) value(n *yaml.Node, depth int) any {
	if c.within > 0 {
		c.aliased++
	}
	switch {
	case c.beyond:
		return nil
	case c.aliased > maxAliased:
		c.problem(n, "aliases expand to more than %d values", maxAliased)
		c.beyond = true
		return nil
	case depth > maxDepth:
		c.problem(n, "nested more than %d levels deep", maxDepth)
		c.beyond = true
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		return c.shared.mapping(n, func() map[string]any {
			m := make(map[string]any, len(n.Content)/2)
			c.mapping(n, m, depth)
			return m
		}, &c.failed)
	case yaml.SequenceNode:
		s := make([]any, len(n.Content))
		for i, item := range n.Content {
			s[i] = c.value(item, depth+1)
		}
		return s
	case yaml.AliasNode:
		c.within++
		defer func() { c.within-- }()
		return c.value(n.Alias, depth+1)
	}
	return c.scalar(n)
}

// mapping fills m. Keys of merged mappings ("<<") yield to the mapping's own.
func (c *converter) mapping(n *yaml.Node, m map[string]any, depth int) {
	var lines map[string]int // known once a key is given twice
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.ShortTag() == "!!merge" {
			merges = append(merges, value)
			continue
		}
		name, ok := c.key(key)
		if _, again := m[name]; ok && again {
			if lines == nil {
				lines = firstLines(n)
			}
			c.problem(key, "duplicate key %q: first on line %d", name, lines[name])
			ok = false
		}
		if ok {
			m[c.shared.key(name)] = c.value(value, depth+1)
		}
	}
	for _, value := range merges {
		c.merge(value, m, depth)
	}
}

// firstLines returns the line of each key of a mapping, where it is first given.
func firstLines(n *yaml.Node) map[string]int {
	quiet := converter{fail: func(int, string) {}}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if name, ok := quiet.key(key); ok && lines[name] == 0 && key.ShortTag() != "!!merge" {
			lines[name] = key.Line
		}
	}
	return lines
}

func (c *converter) merge(n *yaml.Node, m map[string]any, depth int) {
	value := c.value(n, depth+1)
	sources, ok := value.([]any)
	if !ok {
		sources = []any{value}
	}
	for _, source := range sources {
		merged, ok := source.(map[string]any)
		if !ok && !c.beyond {
			c.problem(n, "merge (<<) of a value that is not a mapping")
		}
		for name, value := range merged {
			if _, own := m[name]; !own {
				m[name] = value
			}
		}
	}
}

func (c *converter) key(n *yaml.Node) (name string, ok bool) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode {
		switch v := c.scalar(n).(type) {
		case string:
			return v, true
		case bool:
			return strconv.FormatBool(v), true
		case int64:
			return strconv.FormatInt(v, 10), true
		}
	}
	c.problem(n, "a key must be text")
	return "", false
}

func (c *converter) scalar(n *yaml.Node) any {
	switch tag := n.ShortTag(); tag {
	case "!!str":
		if v, ok := oldBooleans[n.Value]; ok && n.Style == 0 {
			return v
		}
		return n.Value
	case "!!timestamp", "!!merge":
		return n.Value
	case "!!null":
		return nil
	case "!!bool", "!!int", "!!float":
		return c.number(n)
	case "!!binary":
		data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), ""))
		if err != nil || !utf8.Valid(data) {
			c.problem(n, "!!binary is not text in base64")
		}
		return string(data)
	default:
		c.problem(n, "unknown tag %s", tag)
		return nil
	}
}

// oldBooleans are the words of YAML 1.1 that YAML 1.2 took for text.
var oldBooleans = map[string]bool{
	"y": true, "Y": true, "yes": true, "Yes": true, "YES": true, "on": true, "On": true, "ON": true,
	"n": false, "N": false, "no": false, "No": false, "NO": false, "off": false, "Off": false, "OFF": false,
}

func (c *converter) number(n *yaml.Node) any {
	var v any
	if err := n.Decode(&v); err != nil {
		c.problem(n, "%q is not a %s", n.Value, strings.TrimPrefix(n.ShortTag(), "!!"))
		return nil
	}
	switch v := v.(type) {
	case int:
		return int64(v)
	case uint64:
		return float64(v)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			c.problem(n, "%s is not a number that JSON has", n.Value)
		}
		if v == math.Trunc(v) && math.Abs(v) < 1<<63 {
			return int64(v)
		}
		return v
	}
	return v
}
