package k8saudit

import (
	"bytes"
	"encoding/json"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// An arena is memory for what is made of events: it is taken piece by piece,
// given back as a whole, and then used again. What grows out of it stays valid.
type arena struct {
	bytes []byte
	texts []string

	compat Compat // of the fields

	cells    []cell
	siblings []cell  // while their parent is taken apart
	owner    *record // whose body is taken apart
	era      uint32  // counts how often the cells were given back
}

// enter says whose body is taken apart next. After a large one its cells are
// given back, so that memory is bounded by one event and not by a batch; should
// it be asked again, it is taken apart again.
func (a *arena) enter(r *record) {
	if a.owner != r && len(a.cells) > keepCells {
		a.resetCells()
	}
	a.owner = r
	if r.era != a.era {
		r.era, r.roots = a.era, [rootCount]uint32{}
	}
}

// resetCells gives the cells back. Cell 0 is nobody's: it stands for what is
// absent.
func (a *arena) resetCells() {
	if a.cells = append(a.cells[:0], cell{}); cap(a.cells) > 4*keepCells {
		a.cells, a.siblings = make([]cell, 1, keepCells), nil
	}
	a.owner = nil
	a.era++
}

// What an arena keeps for the next use; a rare giant must not stay.
const (
	keepBytes = 4 << 20
	keepTexts = 1 << 16
	keepCells = 1 << 14
)

// reset gives all back.
func (a *arena) reset() {
	a.bytes, a.texts = a.bytes[:0], a.texts[:0]
	a.resetCells()
	if cap(a.bytes) > keepBytes {
		a.bytes = nil
	}
	if cap(a.texts) > keepTexts {
		a.texts = nil
	}
}

// since returns what has been added to the bytes from a length on.
func (a *arena) since(start int) string { return alias(a.bytes[start:len(a.bytes):len(a.bytes)]) }

// alias returns bytes as a string without a copy. They must not change while
// the string is in use.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// text returns the text of a value in a document: a string without its quotes,
// and any other value as compact JSON whose strings have no escapes that they
// do not need.
func (a *arena) text(doc []byte, s span) string {
	raw := doc[s.start:s.end]
	switch s.form {
	case encoded:
		if bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
			return alias(raw)
		}
		start := len(a.bytes)
		a.bytes = appendUnquoted(a.bytes, raw)
		return a.since(start)
	case container:
		start := len(a.bytes)
		a.bytes = appendCompact(a.bytes, raw)
		return a.since(start)
	}
	return alias(raw)
}

// appendUnquoted adds what a string stands for: without escapes, and with
// U+FFFD for what is not Unicode, as encoding/json has it.
func appendUnquoted(out, s []byte) []byte {
	for len(s) > 0 {
		switch c := s[0]; {
		case c == '\\' && s[1] == 'u':
			r, _ := hex4(s, 2)
			s = s[6:]
			if utf16.IsSurrogate(r) {
				low, ok := rune(0), len(s) >= 6 && s[0] == '\\' && s[1] == 'u'
				if ok {
					low, _ = hex4(s, 2)
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					s = s[6:]
				}
			}
			out = utf8.AppendRune(out, r)
		case c == '\\':
			out = append(out, unescaped(s[1]))
			s = s[2:]
		case c < utf8.RuneSelf:
			k := 1
			for k < len(s) && s[k] != '\\' && s[k] < utf8.RuneSelf {
				k++
			}
			out = append(out, s[:k]...)
			s = s[k:]
		default:
			r, n := utf8.DecodeRune(s)
			out = utf8.AppendRune(out, r)
			s = s[n:]
		}
	}
	return out
}

func unescaped(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c // one of " \ /
}

// appendCompact adds JSON without blanks, and each string in its one plain
// form. A patch is logged as the client sent it, so that "privi\u006ceged"
// would hide from a rule that looks for the word.
func appendCompact(out, raw []byte) []byte {
	for i := 0; i < len(raw); {
		c := raw[i]
		switch {
		case c == '"':
			end, f := skipText(raw, i+1)
			if f == encoded && bytes.IndexByte(raw[i:end], '\\') >= 0 {
				out = appendPlain(out, raw[i+1:end])
			} else {
				out = append(out, raw[i:end+1]...)
			}
			i = end + 1
			continue
		case c > ' ':
			out = append(out, c)
		}
		i++
	}
	return out
}

// appendPlain writes a string again that has escapes.
func appendPlain(out, s []byte) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(string(appendUnquoted(nil, s))); err != nil {
		return out // a string can be encoded
	}
	return append(out, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}

// indent returns JSON indented by two blanks.
func indent(raw []byte) string {
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return string(raw) // it has been checked
	}
	return b.String()
}
