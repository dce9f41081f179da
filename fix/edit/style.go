package edit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A style is how a document is written.
type style struct {
	newline  string
	step     int  // spaces between a key and the keys below it
	dash     int  // spaces between a key and the dashes below it
	flowList bool // lists of texts are written as [a, b]
	quoted   bool // keys and texts are quoted, as in JSON
	colon    string
}

func styleOf(t *text) style {
	s := style{newline: "\n", step: 2, colon: ": "}
	if i := bytes.IndexByte(t.data, '\n'); i > 0 && t.data[i-1] == '\r' {
		s.newline = "\r\n"
	}
	if t.root.Kind == yaml.MappingNode && t.root.Style&yaml.FlowStyle != 0 && len(t.root.Content) > 0 {
		key := t.root.Content[0]
		s.quoted = key.Style&yaml.DoubleQuotedStyle != 0
		if after := t.colon(key); s.quoted && after < len(t.data) && !space(t.data[after]) {
			s.colon = ":"
		}
	}
	steps, dashes, lists := map[int]int{}, map[int]int{}, map[bool]int{}
	count(t.root, steps, dashes, lists)
	if n, ok := most(steps); ok && n > 0 {
		s.step = n
	}
	if n, ok := most(dashes); ok && n >= 0 {
		s.dash = n
	}
	s.flowList = lists[true] > lists[false]
	return s
}

// count notes how far keys and dashes are indented below a key, and how lists
// of texts are written.
func count(n *yaml.Node, steps, dashes map[int]int, lists map[bool]int) {
	for i, child := range n.Content {
		if child.Kind == yaml.SequenceNode && len(child.Content) > 0 && child.Content[0].Kind == yaml.ScalarNode {
			lists[child.Style&yaml.FlowStyle != 0]++
		}
		if n.Kind == yaml.MappingNode && i%2 == 1 && child.Style&yaml.FlowStyle == 0 && len(child.Content) > 0 && child.Content[0].Line > n.Content[i-1].Line {
			switch child.Kind {
			case yaml.MappingNode:
				steps[child.Content[0].Column-n.Content[i-1].Column]++
			case yaml.SequenceNode:
				if child.Anchor == "" {
					dashes[child.Column-n.Content[i-1].Column]++
				}
			}
		}
		count(child, steps, dashes, lists)
	}
}

// most returns the commonest value, of several the smallest.
func most(counts map[int]int) (best int, ok bool) {
	for v, n := range counts {
		if !ok || n > counts[best] || n == counts[best] && v < best {
			best, ok = v, true
		}
	}
	return best, ok
}

// An entry is a mapping of one key that is still to be written.
type entry struct {
	key   string
	value any // an entry, a text, a bool, a []string
}

// nest wraps a value in mappings, one for each key.
func nest(keys []any, value any) (any, error) {
	for i := len(keys) - 1; i >= 0; i-- {
		key, ok := keys[i].(string)
		if !ok {
			return nil, fmt.Errorf("there is no item %v", keys[i])
		}
		value = entry{key, value}
	}
	return value, nil
}

// block writes an entry on lines of its own.
func (s style) block(indent int, e entry) string {
	lead := strings.Repeat(" ", indent)
	switch v := e.value.(type) {
	case entry:
		return lead + s.scalar(e.key) + ":" + s.newline + s.block(indent+s.step, v)
	case []string:
		if s.flowList || len(v) == 0 {
			break
		}
		out := lead + s.scalar(e.key) + ":" + s.newline
		for _, item := range v {
			out += lead + strings.Repeat(" ", s.dash) + "- " + s.scalar(item) + s.newline
		}
		return out
	}
	return lead + s.flow(e) + s.newline
}

// flow writes an entry without its braces, on one line.
func (s style) flow(e entry) string { return s.scalar(e.key) + s.colon + s.inline(e.value) }

// comma stands between two items on one line.
func (s style) comma() string {
	if s.colon == ":" {
		return ","
	}
	return ", "
}

// inline writes a value within a line.
func (s style) inline(value any) string {
	switch v := value.(type) {
	case entry:
		return "{" + s.flow(v) + "}"
	case []string:
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = s.scalar(item)
		}
		return "[" + strings.Join(items, s.comma()) + "]"
	}
	return s.scalar(value)
}

func (s style) scalar(value any) string {
	if v, ok := value.(string); ok && s.quoted {
		return quote(v)
	}
	return Scalar(value)
}

var plain = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./@-]*(?::[A-Za-z0-9_./@-]+)*$`)

// Scalar writes a text, a bool or an int in YAML, in quotes where it needs them.
func Scalar(value any) string {
	v, ok := value.(string)
	if !ok {
		return fmt.Sprint(value)
	}
	var read any
	if plain.MatchString(v) && yaml.Unmarshal([]byte(v), &read) == nil && read == v && !oldBoolean(v) {
		return v
	}
	return quote(v)
}

// oldBoolean reports whether YAML 1.1, and so kubectl, reads a word as a bool.
func oldBoolean(word string) bool {
	switch strings.ToLower(word) {
	case "y", "n", "yes", "no", "on", "off":
		return true
	}
	return false
}

func quote(text string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(text); err != nil {
		panic(err) // a string can be encoded
	}
	return strings.TrimSuffix(b.String(), "\n")
}
