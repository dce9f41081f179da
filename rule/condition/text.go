package condition

import "strings"

// MaxText is how many bytes a condition may have with its lists.
const MaxText = 1 << 20

// An Origin is where a byte of a text was read: a part, which the caller
// numbers, and the offset in it.
type Origin struct{ Part, Offset int32 }

// A Text is a condition or an output. It knows where each of its bytes comes
// from, also after other texts were joined to it and lists were put into it.
type Text struct {
	S      string
	origin []Origin
	home   Origin // of a text that has become empty
}

// NewText returns the text of one part.
func NewText(s string, part int) *Text {
	t := &Text{S: s, origin: make([]Origin, len(s)), home: Origin{Part: int32(part)}}
	for i := range t.origin {
		t.origin[i] = Origin{int32(part), int32(i)}
	}
	return t
}

// Origin returns where the byte at an offset comes from. Behind the end it is
// the place behind the last byte.
func (t *Text) Origin(offset int) Origin {
	switch {
	case offset < len(t.origin):
		return t.origin[offset]
	case len(t.origin) == 0:
		return t.home
	}
	last := t.origin[len(t.origin)-1]
	return Origin{last.Part, last.Offset + 1}
}

// Join returns a text of t, what stands between, and o.
func (t *Text) Join(between string, o *Text) *Text {
	out := &Text{S: t.S, origin: append([]Origin(nil), t.origin...), home: o.home}
	out.Add(between, t.Origin(len(t.S)))
	out.S += o.S
	out.origin = append(out.origin, o.origin...)
	return out
}

// Add appends s, all of which comes from one place.
func (t *Text) Add(s string, at Origin) {
	t.S += s
	for range len(s) {
		t.origin = append(t.origin, at)
	}
}

// Replace puts items in the place of each occurrence of a list's name, as
// Falco does: blind to what the text means there. It reports false if the
// result is over the limit, and then leaves the text as it is.
func (t *Text) Replace(name, items string) bool {
	if name == "" || !strings.Contains(t.S, name) {
		return true
	}
	out := builder{from: t}
	for i := 0; i < len(t.S); {
		if !strings.HasPrefix(t.S[i:], name) || !t.delimited(i, i+len(name)) {
			out.copy(i)
			i++
			continue
		}
		out.trim()
		next := i + len(name)
		for next < len(t.S) && strings.IndexByte(" \t\r\n", t.S[next]) >= 0 {
			next++
		}
		if items != "" {
			out.insert(" "+items+" ", i)
		} else if !out.drop(',') && next < len(t.S) && t.S[next] == ',' {
			next++
		}
		if i = next; len(out.s) > MaxText {
			return false
		}
	}
	t.S, t.origin = string(out.s), out.origin
	return true
}

func (t *Text) delimited(begin, end int) bool {
	const delimiters = " \t\n\r(),="
	return (begin == 0 || strings.IndexByte(delimiters, t.S[begin-1]) >= 0) &&
		(end == len(t.S) || strings.IndexByte(delimiters, t.S[end]) >= 0)
}

// A builder makes a text out of another and keeps the origins.
type builder struct {
	from   *Text
	s      []byte
	origin []Origin
}

func (b *builder) copy(i int) {
	b.s = append(b.s, b.from.S[i])
	b.origin = append(b.origin, b.from.origin[i])
}

func (b *builder) insert(s string, at int) {
	for i := range len(s) {
		b.s = append(b.s, s[i])
		b.origin = append(b.origin, b.from.origin[at])
	}
}

func (b *builder) trim() {
	for len(b.s) > 0 && strings.IndexByte(" \t\r\n", b.s[len(b.s)-1]) >= 0 {
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

// Truncate returns the first n bytes of a text.
func (t *Text) Truncate(n int) *Text { return &Text{S: t.S[:n], origin: t.origin[:n:n], home: t.home} }
