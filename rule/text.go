package rule

import (
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// A sourceFile is a rule file as it was read, for the places of mistakes.
type sourceFile struct {
	name  string
	lines []string
}

func (f *sourceFile) line(n int) string {
	if n < 1 || n > len(f.lines) {
		return ""
	}
	return f.lines[n-1]
}

// A text is a condition or an output of a rule file. It knows where in the
// file each of its bytes comes from, also after lists were put into it.
type text struct {
	file   *sourceFile
	item   string // for error messages: rule "X"
	node   *yaml.Node
	s      string
	origin []int // for each byte of s, its offset in the scalar; nil means the same
}

func newText(file *sourceFile, item string, node *yaml.Node) *text {
	return &text{file: file, item: item, node: node, s: node.Value}
}

// errorAt returns a mistake at an offset of the text.
func (t *text) errorAt(offset int, message string) *Error {
	if t.origin != nil && offset < len(t.origin) {
		offset = t.origin[offset]
	} else if t.origin != nil {
		offset = len(t.node.Value)
	}
	line, column := t.file.locate(t.node, offset)
	return &Error{File: t.file.name, Line: line, Column: column, Item: t.item, Message: message, Source: t.file.line(line)}
}

// replace puts items in the place of each occurrence of a list's name, as
// Falco does: blind to what the text means there. It reports false if the
// result is over the limit, and then leaves the text as it is.
func (t *text) replace(name, items string) bool {
	if !strings.Contains(t.s, name) {
		return true
	}
	out := builder{from: t}
	for i := 0; i < len(t.s); {
		if !strings.HasPrefix(t.s[i:], name) || !t.delimited(i, i+len(name)) {
			out.copy(i)
			i++
			continue
		}
		out.trim(" \t\r\n")
		next := i + len(name)
		for next < len(t.s) && strings.IndexByte(" \t\r\n", t.s[next]) >= 0 {
			next++
		}
		if items != "" {
			out.insert(" "+items+" ", i)
		} else if !out.drop(',') && next < len(t.s) && t.s[next] == ',' {
			next++
		}
		if i = next; len(out.s) > maxText {
			return false
		}
	}
	t.s, t.origin = string(out.s), out.origin
	return true
}

const maxText = 1 << 20 // bytes of a condition with its lists

func (t *text) delimited(begin, end int) bool {
	const delimiters = " \t\n\r(),="
	return (begin == 0 || strings.IndexByte(delimiters, t.s[begin-1]) >= 0) &&
		(end == len(t.s) || strings.IndexByte(delimiters, t.s[end]) >= 0)
}

// A builder makes a text out of another and keeps the origins.
type builder struct {
	from   *text
	s      []byte
	origin []int
}

func (b *builder) originOf(i int) int {
	if b.from.origin == nil {
		return i
	}
	return b.from.origin[i]
}

func (b *builder) copy(i int) {
	b.s = append(b.s, b.from.s[i])
	b.origin = append(b.origin, b.originOf(i))
}

func (b *builder) insert(s string, at int) {
	at = b.originOf(at)
	for i := range len(s) {
		b.s = append(b.s, s[i])
		b.origin = append(b.origin, at)
	}
}

func (b *builder) trim(cut string) {
	for len(b.s) > 0 && strings.IndexByte(cut, b.s[len(b.s)-1]) >= 0 {
		b.s, b.origin = b.s[:len(b.s)-1], b.origin[:len(b.origin)-1]
	}
}

func (b *builder) drop(c byte) bool {
	if len(b.s) == 0 || b.s[len(b.s)-1] != c {
		return false
	}
	b.s, b.origin = b.s[:len(b.s)-1], b.origin[:len(b.origin)-1]
	return true
}

// locate returns the line and column, from 1, of the byte at an offset of a
// scalar. YAML folds lines, strips indentation and resolves escapes, so it
// walks through file and scalar side by side. Where the two part, it returns
// the place up to which they agree.
func (f *sourceFile) locate(node *yaml.Node, offset int) (line, column int) {
	c := cursor{file: f, line: node.Line, column: byteColumn(f.line(node.Line), node.Column)}
	switch node.Style {
	case yaml.LiteralStyle, yaml.FoldedStyle:
		c.line, c.column = c.line+1, 0
	case yaml.DoubleQuotedStyle, yaml.SingleQuotedStyle:
		c.column++
	}
	for i := 0; i <= offset && i < len(node.Value); i++ {
		b := node.Value[i]
		if b == ' ' || b == '\n' || b == '\t' {
			if i == offset {
				break
			}
			continue
		}
		if !c.seek(b) {
			return node.Line, node.Column
		}
		if i == offset {
			break
		}
		c.column++
	}
	return c.line, c.column + 1
}

// A cursor is a place in a file.
type cursor struct {
	file         *sourceFile
	line, column int // column in bytes, from 0
}

// seek moves to the next byte that is neither blank nor the mark of an escape,
// and reports whether it is b.
func (c *cursor) seek(b byte) bool {
	for c.line <= len(c.file.lines) {
		line := c.file.line(c.line)
		for ; c.column < len(line); c.column++ {
			switch line[c.column] {
			case b:
				return true
			case ' ', '\t', '\\', '\'':
				continue
			}
			return false
		}
		c.line, c.column = c.line+1, 0
	}
	return false
}

// byteColumn turns a column in characters, from 1, into one in bytes, from 0.
func byteColumn(line string, column int) int {
	offset := 0
	for i := 1; i < column && offset < len(line); i++ {
		_, size := utf8.DecodeRuneInString(line[offset:])
		offset += size
	}
	return offset
}
