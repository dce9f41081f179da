package edit

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// A text is one document, as text and as nodes.
type text struct {
	data   []byte
	lines  []int // where each line begins
	root   *yaml.Node
	style  style
	shared *yaml.Node // the anchored node that the last walk went into
}

func parse(data []byte) (*text, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("read document: %w", err)
	}
	if len(doc.Content) == 0 {
		return nil, errors.New("read document: it is empty")
	}
	t := &text{data: data, lines: Lines(data), root: doc.Content[0]}
	t.style = styleOf(t)
	return t, nil
}

// Lines returns where lines begin, by what YAML counts as a line break.
func Lines(data []byte) []int {
	starts := []int{0}
	for i := 0; i < len(data); i++ {
		if n := breakAt(data, i); n > 0 {
			starts = append(starts, i+n)
			i += n - 1
		}
	}
	return starts
}

// breakAt returns the length of the line break at i, or 0.
func breakAt(data []byte, i int) int {
	rest := data[i:]
	switch {
	case bytes.HasPrefix(rest, []byte("\r\n")):
		return 2
	case len(rest) > 0 && (rest[0] == '\n' || rest[0] == '\r'):
		return 1
	case bytes.HasPrefix(rest, []byte("\u0085")):
		return 2
	case bytes.HasPrefix(rest, []byte("\u2028")), bytes.HasPrefix(rest, []byte("\u2029")):
		return 3
	}
	return 0
}

// offset returns where a node begins, its anchor and tag included.
func (t *text) offset(n *yaml.Node) int {
	if n.Line < 1 || n.Line > len(t.lines) {
		return len(t.data)
	}
	at := t.lines[n.Line-1]
	for range n.Column - 1 { // columns count characters
		_, size := utf8.DecodeRune(t.data[at:])
		at += size
	}
	return min(at, len(t.data))
}

// content returns where the value of a node begins, behind its anchor and tag.
func (t *text) content(n *yaml.Node) int {
	at := t.offset(n)
	for at < len(t.data) && (t.data[at] == '&' || t.data[at] == '!') {
		for at < len(t.data) && !space(t.data[at]) {
			at++
		}
		at = t.skip(at)
	}
	return at
}

func space(b byte) bool { return b == ' ' || b == '\t' || b == '\n' || b == '\r' }

// skip moves over white space and comments.
func (t *text) skip(at int) int {
	for at < len(t.data) {
		switch {
		case space(t.data[at]):
			at++
		case t.data[at] == '#' && at > 0 && space(t.data[at-1]):
			at = t.lineEnd(at)
		default:
			return at
		}
	}
	return at
}

// lineEnd returns where the break of the line of at is, or the end of the text.
func (t *text) lineEnd(at int) int {
	for ; at < len(t.data); at++ {
		if breakAt(t.data, at) > 0 {
			return at
		}
	}
	return at
}

// lineOf returns the number of the line of at, from 0.
func (t *text) lineOf(at int) int {
	i, exact := slices.BinarySearch(t.lines, at)
	if exact {
		return i
	}
	return i - 1
}

// end returns where a node ends.
func (t *text) end(n *yaml.Node) int {
	at := t.content(n)
	switch {
	case n.Kind == yaml.AliasNode:
		return at + 1 + len(n.Value)
	case n.Kind == yaml.ScalarNode:
		return t.scalarEnd(n, at)
	case n.Style&yaml.FlowStyle != 0:
		closing, _ := t.closing(n)
		return closing + 1
	case len(n.Content) == 0:
		return at
	case n.Kind == yaml.MappingNode:
		return t.entryEnd(n.Content[len(n.Content)-2], n.Content[len(n.Content)-1])
	}
	return t.end(n.Content[len(n.Content)-1])
}

func (t *text) scalarEnd(n *yaml.Node, at int) int {
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		return t.quoteEnd(at, '"')
	case n.Style&yaml.SingleQuotedStyle != 0:
		return t.quoteEnd(at, '\'')
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return t.blockEnd(at)
	}
	// A plain text has no escapes, and only its white space can be written
	// otherwise.
	end := at
	for _, r := range n.Value {
		if r == ' ' || r == '\n' || r == '\t' {
			continue
		}
		for end < len(t.data) && space(t.data[end]) {
			end++
		}
		end += utf8.RuneLen(r)
	}
	return min(end, len(t.data))
}

func (t *text) quoteEnd(at int, quote byte) int {
	for at++; at < len(t.data); at++ {
		switch {
		case quote == '"' && t.data[at] == '\\':
			at++
		case t.data[at] == quote:
			if quote == '\'' && at+1 < len(t.data) && t.data[at+1] == quote {
				at++
				continue
			}
			return at + 1
		}
	}
	return len(t.data)
}

// blockEnd returns the end of the last line of a text in the styles | and >.
func (t *text) blockEnd(at int) int {
	end := t.lineEnd(at)
	keep := bytes.IndexByte(t.data[at:end], '+') >= 0
	indent := -1
	for i := t.lineOf(at) + 1; i < len(t.lines); i++ {
		start := t.lines[i]
		stop := t.lineEnd(start)
		line := strings.TrimLeft(string(t.data[start:stop]), " ")
		switch lead := stop - start - len(line); {
		case line == "":
			if keep && stop < len(t.data) {
				end = stop
			}
			continue
		case indent < 0:
			indent = lead
		case lead < indent:
			return end
		}
		if indent == 0 {
			return end
		}
		end = stop
	}
	return end
}

// entryEnd returns where an entry of a mapping ends. A value may be left out.
func (t *text) entryEnd(key, value *yaml.Node) int {
	if !blank(value) {
		return t.end(value)
	}
	return t.colon(key)
}

// blank reports whether a value is left out: nothing is written of it.
func blank(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Value == "" && n.Style&^yaml.TaggedStyle == 0 && n.Anchor == "" && n.ShortTag() == "!!null"
}

// colon returns the place behind the colon of a key, or the end of the key.
func (t *text) colon(key *yaml.Node) int {
	end := t.end(key)
	if at := t.skip(end); at < len(t.data) && t.data[at] == ':' {
		return at + 1
	}
	return end
}

// closing returns where the bracket is that closes a flow collection, and
// whether a comma stands before it.
func (t *text) closing(n *yaml.Node) (at int, comma bool) {
	at = t.content(n) + 1
	if last := len(n.Content); last > 0 && n.Kind == yaml.MappingNode {
		at = t.entryEnd(n.Content[last-2], n.Content[last-1])
	} else if last > 0 {
		at = t.end(n.Content[last-1])
	}
	at = t.skip(min(at, len(t.data)))
	if at < len(t.data) && t.data[at] == ',' {
		return t.skip(at + 1), true
	}
	return at, false
}

// splice returns the text with data[from:to] replaced.
func (t *text) splice(from, to int, by string) ([]byte, error) {
	if from < 0 || to < from || to > len(t.data) {
		return nil, errors.New("the place in the text cannot be found")
	}
	return slices.Concat(t.data[:from], []byte(by), t.data[to:]), nil
}
