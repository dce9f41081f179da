package edit

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// edit returns the text with one change.
func (t *text) edit(op Op) ([]byte, error) {
	chain, rest, err := t.walk(op.Path)
	if err != nil {
		return nil, err
	}
	last := chain[len(chain)-1]
	switch op.Verb {
	case VerbSet:
		return t.set(last, rest, op.Value, op.After)
	case VerbDelete:
		if len(rest) > 0 {
			return t.data, nil
		}
		return t.remove(chain)
	case VerbAppend:
		if len(rest) > 0 || empty(last.value) && last.value.Kind != yaml.SequenceNode {
			return t.set(last, rest, []string{op.Value.(string)}, op.After)
		}
		return t.add(last.value, op.Value.(string))
	}
	if len(rest) > 0 || empty(last.value) {
		return t.data, nil
	}
	return t.take(chain, op.Value)
}

// A place is one step of a path: the entry of a mapping, the item of a list
// (which has no key), or the root (which has no parent).
type place struct {
	parent, key, value *yaml.Node
}

// walk follows a path as far as the document has it, and returns what is left
// of the path. A key that only a merge brings counts as missing at the end of a
// path: a key of the mapping's own overrides it.
func (t *text) walk(path []any) (chain []place, rest []any, err error) {
	chain = []place{{value: t.root}}
	for i, step := range path {
		at := &chain[len(chain)-1]
		if empty(at.value) {
			return chain, path[i:], nil
		}
		n := t.follow(at.value)
		var next place
		switch step := step.(type) {
		case int:
			if n.Kind != yaml.SequenceNode || step < 0 || step >= len(n.Content) {
				return nil, nil, fmt.Errorf("%s has no item %d", Name(path[:i]), step)
			}
			next = place{parent: n, value: n.Content[step]}
		case string:
			if n.Kind != yaml.MappingNode {
				return nil, nil, fmt.Errorf("%s is not a mapping", Name(path[:i]))
			}
			key, value, own := lookup(n, step)
			if key == nil || !own && i == len(path)-1 {
				at.value = n
				return chain, path[i:], nil
			}
			if !own {
				t.shared = firstAnchor(n)
			}
			next = place{parent: n, key: key, value: value}
		}
		at.value = n
		chain = append(chain, next)
	}
	return chain, nil, nil
}

// follow returns what an alias stands for, and remembers anchors on the way.
func (t *text) follow(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Anchor != "" {
		t.shared = n
	}
	return n
}

// empty reports whether a value is null, however it is written.
func empty(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// lookup finds a key of a mapping: its own, or one that a merge key brings.
func lookup(m *yaml.Node, name string) (key, value *yaml.Node, own bool) {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == name && m.Content[i].ShortTag() != "!!merge" {
			return m.Content[i], m.Content[i+1], true
		}
	}
	for _, source := range merged(m) {
		if key, value, _ := lookup(source, name); key != nil {
			return key, value, false
		}
	}
	return nil, nil, false
}

// merged returns the mappings that a mapping merges.
func merged(m *yaml.Node) []*yaml.Node {
	var out []*yaml.Node
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].ShortTag() != "!!merge" {
			continue
		}
		sources := []*yaml.Node{m.Content[i+1]}
		if sources[0].Kind == yaml.SequenceNode {
			sources = sources[0].Content
		}
		for _, s := range sources {
			for s.Kind == yaml.AliasNode {
				s = s.Alias
			}
			if s.Kind == yaml.MappingNode {
				out = append(out, s)
			}
		}
	}
	return out
}

// firstAnchor returns the first anchored mapping that m merges.
func firstAnchor(m *yaml.Node) *yaml.Node {
	for _, s := range merged(m) {
		if s.Anchor != "" {
			return s
		}
	}
	return nil
}

// set writes a value at a place, or below it where a path is left.
func (t *text) set(at place, rest []any, value any, after string) ([]byte, error) {
	if len(rest) == 0 {
		return t.replace(at, value)
	}
	wrapped, err := nest(rest, value)
	if err != nil {
		return nil, err
	}
	e := wrapped.(entry)
	switch {
	case !empty(at.value):
		return t.insert(at.value, e, after)
	case at.key != nil && blank(at.value) && at.parent.Style&yaml.FlowStyle == 0:
		line := t.lineEnd(t.colon(at.key))
		return t.line(line, t.style.block(at.key.Column-1+t.style.step, e))
	}
	return t.replace(at, e)
}

// replace writes a value in the place of another.
func (t *text) replace(at place, value any) ([]byte, error) {
	n := at.value
	if n.Kind == yaml.ScalarNode && !empty(n) && (n.Value == value || n.Value == fmt.Sprint(value) && n.ShortTag() == "!!bool") {
		return t.data, nil
	}
	if blank(n) && at.key != nil {
		colon := t.colon(at.key)
		return t.splice(colon, colon, " "+t.style.inline(value))
	}
	from, to := t.content(n), t.end(n)
	switch {
	case n.Kind == yaml.ScalarNode && n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0,
		n.Kind != yaml.ScalarNode && n.Kind != yaml.AliasNode:
		return nil, errors.New("the value is not on one line")
	case n.Anchor != "":
		t.shared = n
	}
	by := t.style.inline(value)
	if text, ok := value.(string); ok && n.Style&yaml.DoubleQuotedStyle != 0 {
		by = quote(text)
	} else if ok && n.Style&yaml.SingleQuotedStyle != 0 {
		by = "'" + strings.ReplaceAll(text, "'", "''") + "'"
	}
	return t.splice(from, to, by)
}

// insert puts an entry into a mapping: behind the key after, else last.
func (t *text) insert(m *yaml.Node, e entry, after string) ([]byte, error) {
	if m.Kind != yaml.MappingNode {
		return nil, errors.New("what is there is not a mapping")
	}
	if m.Style&yaml.FlowStyle != 0 || len(m.Content) == 0 {
		return t.insertFlow(m, t.style.flow(e))
	}
	key, value, own := lookup(m, after)
	if !own {
		key, value = m.Content[len(m.Content)-2], m.Content[len(m.Content)-1]
	}
	return t.line(t.lineEnd(t.entryEnd(key, value)), t.style.block(m.Content[0].Column-1, e))
}

// line puts whole lines behind the one that ends at a place.
func (t *text) line(end int, lines string) ([]byte, error) {
	if n := breakAt(t.data, min(end, len(t.data))); n > 0 {
		return t.splice(end+n, end+n, lines)
	}
	return t.splice(end, end, t.style.newline+strings.TrimSuffix(lines, t.style.newline))
}

// insertFlow puts an item last into a flow collection.
func (t *text) insertFlow(n *yaml.Node, item string) ([]byte, error) {
	closing, comma := t.closing(n)
	if closing >= len(t.data) || t.data[closing] != '}' && t.data[closing] != ']' {
		return nil, errors.New("the end of the value cannot be found")
	}
	if len(n.Content) == 0 {
		return t.splice(t.content(n)+1, closing, item)
	}
	last := n.Content[len(n.Content)-1]
	end, lead := t.end(last), last
	if n.Kind == yaml.MappingNode {
		lead = n.Content[len(n.Content)-2]
		end = t.entryEnd(lead, last)
	}
	if comma {
		end = t.skip(end) + 1
	}
	switch {
	case t.lineOf(closing) > t.lineOf(end):
		return t.insertFlowLine(end, comma, lead, item)
	case comma:
		return t.splice(end, end, " "+item)
	}
	return t.splice(end, end, t.style.comma()+item)
}

// insertFlowLine puts an item on a line of its own, below the last one.
func (t *text) insertFlowLine(end int, comma bool, last *yaml.Node, item string) ([]byte, error) {
	begin := t.lines[last.Line-1]
	lead := t.data[begin : begin+len(t.data[begin:])-len(bytes.TrimLeft(t.data[begin:], " \t"))]
	line := t.lineEnd(end)
	added := t.style.newline + string(lead) + item
	if comma {
		return t.splice(line, line, added+",")
	}
	return t.splice(end, line, ","+string(t.data[end:line])+added)
}

// add puts a text last into a list.
func (t *text) add(n *yaml.Node, item string) ([]byte, error) {
	n = t.follow(n)
	switch {
	case n.Kind != yaml.SequenceNode:
		return nil, errors.New("what is there is not a list")
	case slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return c.Kind == yaml.ScalarNode && c.Value == item }):
		return t.data, nil
	case n.Style&yaml.FlowStyle != 0 || len(n.Content) == 0:
		return t.insertFlow(n, t.style.scalar(item))
	}
	last := n.Content[len(n.Content)-1]
	begin := t.lines[last.Line-1]
	dash := bytes.IndexByte(t.data[begin:], '-')
	if dash < 0 || len(bytes.Trim(t.data[begin:begin+dash], " ")) > 0 {
		return nil, errors.New("the list is not written with one item on a line")
	}
	return t.line(t.lineEnd(t.end(last)), string(t.data[begin:begin+dash])+"- "+t.style.scalar(item)+t.style.newline)
}

// take removes every item of a list that is a text, or the list if it is left
// empty.
func (t *text) take(chain []place, item any) ([]byte, error) {
	n := t.follow(chain[len(chain)-1].value)
	if n.Kind != yaml.SequenceNode {
		return nil, errors.New("what is there is not a list")
	}
	var found []int
	for i, c := range n.Content {
		if c.Kind == yaml.ScalarNode && c.Value == item {
			found = append(found, i)
		}
	}
	switch {
	case len(found) == 0:
		return t.data, nil
	case len(found) == len(n.Content):
		return t.remove(chain)
	case len(found) > 1:
		return nil, fmt.Errorf("%v is there %d times", item, len(found))
	}
	i := found[0]
	if n.Style&yaml.FlowStyle != 0 {
		return t.cutFlow(n.Content, i, i, t.end)
	}
	begin := t.lines[n.Content[i].Line-1]
	if !bytes.HasPrefix(bytes.TrimLeft(t.data[begin:], " "), []byte("-")) {
		return nil, errors.New("the list is not written with one item on a line")
	}
	return t.cutLines(begin, t.end(n.Content[i]))
}

// remove deletes the last entry of a chain, and the entries around it that it
// leaves empty.
func (t *text) remove(chain []place) ([]byte, error) {
	for len(chain) > 1 && chain[len(chain)-1].parent.Kind == yaml.MappingNode && len(chain[len(chain)-1].parent.Content) == 2 {
		chain = chain[:len(chain)-1]
	}
	last := chain[len(chain)-1]
	if last.parent == nil || last.parent.Kind != yaml.MappingNode {
		return nil, errors.New("nothing would be left around it")
	}
	content := last.parent.Content
	i := slices.Index(content, last.key)
	if i < 0 {
		return nil, errors.New("a merge key brings it")
	}
	if last.parent.Style&yaml.FlowStyle != 0 {
		return t.cutFlow(content, i, i+1, func(n *yaml.Node) int { return t.entryEnd(last.key, n) })
	}
	begin, at := t.lines[last.key.Line-1], t.offset(last.key)
	if len(bytes.Trim(t.data[begin:at], " ")) == 0 {
		return t.cutLines(begin, t.entryEnd(last.key, last.value))
	}
	if i+2 >= len(content) {
		return nil, errors.New("it shares its line with something else")
	}
	next := t.offset(content[i+2])
	if next < at || bytes.IndexByte(t.data[at:next], '#') >= 0 {
		return nil, errors.New("a comment stands between it and the next key")
	}
	return t.splice(at, next, "")
}

// cutLines deletes the lines from the one that begins at a place to the one on
// which end is.
func (t *text) cutLines(begin, end int) ([]byte, error) {
	stop := t.lineEnd(end)
	if n := breakAt(t.data, stop); n > 0 || stop == len(t.data) {
		return t.splice(begin, stop+n, "")
	}
	return nil, errors.New("the end of the line cannot be found")
}

// cutFlow deletes items first to last of a flow collection, with a comma.
func (t *text) cutFlow(content []*yaml.Node, first, last int, end func(*yaml.Node) int) ([]byte, error) {
	from, to := t.offset(content[first]), end(content[last])
	if last+1 < len(content) {
		to = t.offset(content[last+1])
	} else if first > 0 {
		from = t.end(content[first-1])
	}
	if to < from || bytes.IndexByte(t.data[from:to], '#') >= 0 {
		return nil, errors.New("a comment stands beside it")
	}
	return t.splice(from, to, "")
}
