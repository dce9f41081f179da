package inventory

import (
	"bytes"
	"iter"
	"regexp"
)

// A document is the text of one document of a stream.
type document struct {
	text   []byte
	before int // lines before it
	lines  int
	first  int // line of it on which its content begins; 0 without content
}

// split cuts a stream at the lines that begin and end documents. YAML
// allows such lines nowhere else, not even in quotes, so that a document that
// cannot be parsed does not hide where the next begins.
func split(data []byte) iter.Seq[document] {
	return func(yield func(document) bool) {
		var d document
		from, to, begun := 0, 0, false
		flush := func() bool {
			d.text = data[from:to]
			more := yield(d)
			d, from, begun = document{before: d.before + d.lines}, to, false
			return more
		}
		for line := range bytes.Lines(data) {
			begins := marks(line, "---")
			if begins && begun && !flush() {
				return
			}
			to += len(line)
			d.lines++
			text := bytes.TrimSpace(line)
			if len(text) > 0 && text[0] != '#' && (begun || line[0] != '%') {
				begun = true
				if d.first == 0 && (!begins || len(text) > len("---")) {
					d.first = d.lines
				}
			}
			if marks(line, "...") && !flush() {
				return
			}
		}
		if from < to {
			flush()
		}
	}
}

// marks reports whether a line begins (---) or ends (...) a document.
func marks(line []byte, mark string) bool {
	rest, ok := bytes.CutPrefix(line, []byte(mark))
	return ok && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0)
}

var (
	kindKey  = regexp.MustCompile(`\bkind["']?\s*:`)
	metaKey  = regexp.MustCompile(`\bmetadata["']?\s*:`)
	aliasing = regexp.MustCompile(`(?:^|[\s\[,:-])\*[^\s*]`)
)

// holds returns how many objects a text may hold at most that is not parsed: an
// object has a kind and metadata, and only the items of some lists have no kind.
// It returns 0 if there is no telling, because text that stands once may be
// meant several times.
func holds(text []byte) int {
	if aliasing.Match(text) {
		return 0
	}
	return max(1, len(kindKey.FindAllIndex(text, -1)), len(metaKey.FindAllIndex(text, -1)))
}

// holdsValue returns how many objects a value may hold at most.
func holdsValue(value any) int {
	var kinds, metas int
	var count func(any)
	count = func(value any) {
		switch value := value.(type) {
		case map[string]any:
			for key, v := range value {
				switch key {
				case "kind":
					kinds++
				case "metadata":
					metas++
				}
				count(v)
			}
		case []any:
			for _, v := range value {
				count(v)
			}
		}
	}
	count(value)
	return max(1, kinds, metas)
}
