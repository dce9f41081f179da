// Package words says which words an index has to have for a text to be found by
// it, and when a text counts as found.
//
// A word is a run of letters and digits; all that is beyond ASCII counts as
// letters. A text is found in another one where it stands there from the
// beginning of a word on, whatever the case of ASCII letters: "web-0" is found in
// "shop/web-07" and not in "shop/myweb-0". A text that begins with another
// character is found wherever it stands.
package words

import (
	"hash/fnv"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	termSize  = 12 // bytes that are kept of a term
	minPrefix = 3  // a shorter beginning of a word selects too little
	maxNames  = 4
)

// letter reports whether a byte is part of a word.
func letter(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c >= utf8.RuneSelf
}

// joined reports whether a byte is part of a name, which is made of words.
func joined(c byte) bool { return letter(c) || c == '-' || c == '_' || c == '.' }

// eachStart calls f with the beginning of each word of a text that is in lower
// case, and with the end of its name.
func eachStart(text string, f func(start, end int)) {
	for i := 0; i < len(text); {
		if !joined(text[i]) {
			i++
			continue
		}
		end := i
		for end < len(text) && joined(text[end]) {
			end++
		}
		for before := false; i < end; i++ {
			is := letter(text[i])
			if is && !before {
				f(i, end)
			}
			before = is
		}
	}
}

// cut returns the beginning of a term that is kept, whole characters of it.
func cut(term string) string {
	if len(term) <= termSize {
		return term
	}
	n := termSize
	for n > 0 && !utf8.RuneStart(term[n]) {
		n--
	}
	return term[:n]
}

// lower returns a text with its ASCII letters in lower case.
func lower(text string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
}

// Add adds to a set the terms by which a text is found: from each word on to the
// end of its name, or the beginning of that.
func Add(terms map[string]bool, text string) {
	text = lower(text)
	eachStart(text, func(start, end int) { terms[cut(text[start:end])] = true })
}

// A Term is what an index must have for a text to be found.
type Term struct {
	Text   string // letters, digits, '-', '_' and '.'
	Prefix bool   // or a longer term that begins so
}

// Key returns a term for something that is looked for as a whole, such as an object
// by its kind and name. Two may have the same term, though hardly any do.
func Key(parts ...string) Term {
	h := fnv.New64a()
	for _, part := range parts {
		io.WriteString(h, part)
		h.Write([]byte{0})
	}
	return Term{Text: "_" + strconv.FormatUint(h.Sum64(), 36)} // no word begins so
}

// A Query is a text to be found.
type Query struct{ text string }

// Parse makes a query of a text.
func Parse(text string) Query { return Query{lower(text)} }

// Terms returns terms all of which an index has where the text is found. There
// are none when the text selects too little.
func (q Query) Terms() (terms []Term) {
	eachStart(q.text, func(start, end int) {
		t := Term{Text: cut(q.text[start:end])}
		t.Prefix = end == len(q.text) && len(q.text)-start < termSize && len(t.Text) == len(q.text)-start
		if !t.Prefix || len(t.Text) >= minPrefix {
			terms = append(terms, t)
		}
	})
	return terms
}

// Names returns the longest names in the text, a few of ASCII alone; they stand as
// they are in JSON too.
func (q Query) Names() []string {
	names := strings.FieldsFunc(q.text, func(r rune) bool { return r >= utf8.RuneSelf || !joined(byte(r)) })
	slices.SortFunc(names, func(a, b string) int { return len(b) - len(a) })
	return names[:min(len(names), maxNames)]
}

// In reports whether the text is found in one of others.
func (q Query) In(texts ...string) bool {
	for _, text := range texts {
		if q.in(lower(text)) {
			return true
		}
	}
	return false
}

func (q Query) in(text string) bool {
	for from := 0; from <= len(text); {
		i := strings.Index(text[from:], q.text)
		if i < 0 {
			return false
		}
		i += from
		if q.text == "" || !letter(q.text[0]) || i == 0 || !letter(text[i-1]) {
			return true
		}
		from = i + 1
	}
	return false
}
