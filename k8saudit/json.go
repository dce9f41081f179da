package k8saudit

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// A span is the place of a JSON value in a document. That of a string has no
// quotes. The zero span is that of an absent value.
type span struct {
	start, end uint32
	form       form
}

// A form says how the text of a value is had.
type form uint8

const (
	absent    form = iota
	plain          // a string that reads as it is written
	encoded        // a string with escapes or bytes beyond ASCII
	container      // an object or array
	atom           // a number, true or false
	null
)

// reader walks a JSON document once. It takes what encoding/json takes, and
// nothing else: whoever can send a patch writes a part of an event, and must
// not be able to make us see something else than the API server. Its first
// error is final; from then on it only reports the end.
type reader struct {
	b   []byte
	i   int
	err error
}

// fail ends the walk at the byte that cannot be.
func (r *reader) fail() {
	if r.err != nil {
		return
	}
	r.err = errUnfinished
	if r.i < len(r.b) {
		r.err = badJSON("unexpected character %q", r.b[r.i])
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

// peek skips blanks and returns the next byte, 0 at the end.
func (r *reader) peek() byte {
	for r.i < len(r.b) {
		if c := r.b[r.i]; c > ' ' || !isSpace(c) {
			return c
		}
		r.i++
	}
	return 0
}

// open takes the first bracket of an object or array; more is false if it is
// empty, and taken whole.
func (r *reader) open(opening, closing byte) (more bool) {
	if r.err != nil || r.peek() != opening {
		r.fail()
		return false
	}
	r.i++
	if r.peek() == closing {
		r.i++
		return false
	}
	return true
}

// more takes what follows a value in an object or array: a comma, or the last
// bracket.
func (r *reader) more(closing byte) bool {
	if r.err != nil {
		return false
	}
	switch c := r.peek(); c {
	case ',':
		r.i++
		return true
	case closing:
		r.i++
		return false
	}
	r.fail()
	return false
}

// key takes the name of a member and its colon.
func (r *reader) key() span {
	if r.err != nil || r.peek() != '"' {
		r.fail()
		return span{}
	}
	k := r.text()
	if r.err == nil && r.peek() != ':' {
		r.fail()
	}
	r.i++
	return k
}

// text takes a string, at its first quote.
func (r *reader) text() span {
	start := r.i + 1
	end, f := skipText(r.b, start)
	if f == absent {
		r.i = end
		r.fail()
		return span{}
	}
	r.i = end + 1
	return span{uint32(start), uint32(end), f}
}

// value takes a value whose brackets may be nested in each other up to a depth.
func (r *reader) value(depth int) span {
	if r.err != nil {
		return span{}
	}
	f := atom
	switch r.peek() {
	case '"':
		return r.text()
	case '{', '[':
		f = container
	case 'n':
		f = null
	}
	start := r.i
	end, err := skipValue(r.b, start, depth)
	r.i = end
	if err != nil {
		r.err = err
		if errors.Is(err, errSyntax) {
			r.err = nil
			r.fail()
		}
		return span{}
	}
	return span{uint32(start), uint32(end), f}
}

// end checks that nothing follows.
func (r *reader) end() error {
	if r.err == nil && r.peek() != 0 || r.i < len(r.b) {
		r.fail()
	}
	return r.err
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// skipText returns where the quote is that ends the string beginning at i, and
// how it is written. The form is absent if it is no string, and end is then the
// byte at fault. It looks at eight bytes at a time.
func skipText(b []byte, i int) (end int, f form) {
	f = plain
	for {
		for i+8 <= len(b) {
			w := binary.LittleEndian.Uint64(b[i:])
			quote, escape := w^('"'*ones), w^('\\'*ones)
			// In each of the three, the lowest byte that is marked is right.
			stop := ((quote-ones)&^quote | (escape-ones)&^escape | (w-' '*ones)&^w) & highs
			if stop == 0 {
				if w&highs != 0 {
					f = encoded
				}
				i += 8
				continue
			}
			if w&highs&(stop-1) != 0 {
				f = encoded
			}
			i += bits.TrailingZeros64(stop) / 8
			break
		}
		if i >= len(b) {
			return i, absent
		}
		switch c := b[i]; {
		case c == '"':
			return i, f
		case c == '\\':
			n := escapeLen(b, i)
			if n == 0 {
				return min(i+1, len(b)), absent
			}
			f = encoded
			i += n
		case c < ' ':
			return i, absent
		default: // in the last seven bytes
			if c >= 0x80 {
				f = encoded
			}
			i++
		}
	}
}

// escapeLen returns the length of the escape at i, 0 if it is none.
func escapeLen(b []byte, i int) int {
	if i+1 >= len(b) {
		return 0
	}
	switch b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if _, ok := hex4(b, i+2); ok {
			return 6
		}
	}
	return 0
}

// hex4 reads four hexadecimal digits.
func hex4(b []byte, i int) (r rune, ok bool) {
	if i+4 > len(b) {
		return 0, false
	}
	for _, c := range b[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

var errSyntax = errors.New("unexpected character")

// skipValue returns the end of the value at i. On an error, end is the byte at
// fault. A stack of bits remembers which brackets are open: set for an object.
func skipValue(b []byte, i, limit int) (end int, err error) {
	var objects [(maxDepth + 63) / 64]uint64
	depth, object := 0, false
	for {
		for i < len(b) && b[i] <= ' ' && isSpace(b[i]) {
			i++
		}
		if i >= len(b) {
			return i, errSyntax
		}
		opened := false
		switch c := b[i]; c {
		case '"':
			e, f := skipText(b, i+1)
			if f == absent {
				return e, errSyntax
			}
			i = e + 1
		case '{', '[':
			if depth == limit {
				return i, errTooDeep
			}
			object = c == '{'
			if bit := uint64(1) << (depth & 63); object {
				objects[depth>>6] |= bit
			} else {
				objects[depth>>6] &^= bit
			}
			depth++
			i++
			opened = true
		default:
			if i = skipAtom(b, i); i < 0 {
				return -i - 1, errSyntax
			}
		}
		if i, depth, object = closeAll(b, i, depth, &objects, opened); i < 0 {
			return -i - 1, errSyntax
		}
		if depth == 0 {
			return i, nil
		}
		if object {
			if i = skipKey(b, i); i < 0 {
				return -i - 1, errSyntax
			}
		}
	}
}

// closeAll takes the brackets that close after a value, and the comma before
// the next one. Right after a bracket has opened there is no comma. A negative
// result is the place of a fault, less one, negated.
func closeAll(b []byte, i, depth int, objects *[(maxDepth + 63) / 64]uint64, opened bool) (int, int, bool) {
	for depth > 0 {
		object := objects[(depth-1)>>6]>>((depth-1)&63)&1 != 0
		for i < len(b) && b[i] <= ' ' && isSpace(b[i]) {
			i++
		}
		if i >= len(b) {
			return -len(b) - 1, depth, object
		}
		switch c := b[i]; {
		case object && c == '}' || !object && c == ']':
			depth--
			i++
			opened = false
			continue
		case opened:
		case c == ',':
			i++
		default:
			return -i - 1, depth, object
		}
		return i, depth, object
	}
	return i, 0, false
}

// skipKey takes a name and its colon.
func skipKey(b []byte, i int) int {
	for i < len(b) && b[i] <= ' ' && isSpace(b[i]) {
		i++
	}
	if i >= len(b) || b[i] != '"' {
		return -i - 1
	}
	e, f := skipText(b, i+1)
	if f == absent {
		return -e - 1
	}
	i = e + 1
	for i < len(b) && b[i] <= ' ' && isSpace(b[i]) {
		i++
	}
	if i >= len(b) || b[i] != ':' {
		return -i - 1
	}
	return i + 1
}

// skipAtom takes a number or one of the three words.
func skipAtom(b []byte, i int) int {
	word := ""
	switch b[i] {
	case 't':
		word = "true"
	case 'f':
		word = "false"
	case 'n':
		word = "null"
	default:
		return skipNumber(b, i)
	}
	for k := range len(word) {
		if i+k >= len(b) || b[i+k] != word[k] {
			return -(i + k) - 1
		}
	}
	return i + len(word)
}

func skipNumber(b []byte, i int) int {
	if i < len(b) && b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if i = skipDigits(b, i); i < 0 {
		return i
	}
	if i < len(b) && b[i] == '.' {
		if i = skipDigits(b, i+1); i < 0 {
			return i
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		i = skipDigits(b, i)
	}
	return i
}

// skipDigits takes one digit or more.
func skipDigits(b []byte, i int) int {
	start := i
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	if i == start {
		return -i - 1
	}
	return i
}
