package rule

import (
	"regexp"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/rule/condition"
)

// A sourceFile is a rule file as it was read, for the places of mistakes.
type sourceFile struct {
	name  string
	order int // among the files
	lines []string
	begin []int // offset of each line
}

// lineBreak is what YAML takes for the end of a line.
var lineBreak = regexp.MustCompile("\r\n|[\r\n\u0085\u2028\u2029]")

func newSourceFile(f File, order int) *sourceFile {
	s := string(f.Data)
	file, from := &sourceFile{name: f.Name, order: order}, 0
	for _, at := range lineBreak.FindAllStringIndex(s, -1) {
		file.lines, file.begin = append(file.lines, s[from:at[0]]), append(file.begin, from)
		from = at[1]
	}
	file.lines, file.begin = append(file.lines, s[from:]), append(file.begin, from)
	return file
}

func (f *sourceFile) line(n int) string {
	if n < 1 || n > len(f.lines) {
		return ""
	}
	return f.lines[n-1]
}

func (f *sourceFile) offset(line, column int) int {
	if line < 1 || line > len(f.begin) {
		return 0
	}
	return f.begin[line-1] + column - 1
}

// A part is a scalar of a file that became part of a condition or an output.
type part struct {
	*item
	node *yaml.Node
	kind string // by Falco's words
}

// text returns the text of a scalar.
func (it *item) text(key, kind string) *condition.Text {
	n := it.scalarNode(key)
	if n == nil || !it.spec.spend(it, 100*len(n.Value)) {
		it.failed = true
		return nil
	}
	return it.spec.newText(part{it, n, kind})
}

func (s *spec) newText(p part) *condition.Text {
	s.parts = append(s.parts, p)
	return condition.NewText(p.node.Value, len(s.parts)-1)
}

// locate returns the part, line and column of what a text has at a place.
func (s *spec) locate(at condition.Place) (p part, line, column int) {
	origin := at.Origin()
	p = s.parts[origin.Part]
	line, column = p.file.locate(p.node, int(origin.Offset))
	return p, line, column
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
