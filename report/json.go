package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// JSON is the format for programs. It writes finding by finding, so that a
// large report is never in memory twice.
type JSON struct{}

// Write writes one object and a line break.
func (JSON) Write(w io.Writer, r *Report) error {
	out := bufio.NewWriter(w)
	e := newEncoder()
	head := *r
	head.Findings = nil
	text, err := e.encode(head)
	if err != nil {
		return err
	}
	out.Write(bytes.TrimSuffix(text, []byte("null}"))) // findings are the last field
	out.WriteByte('[')
	for i := range r.Findings {
		if text, err = e.encode(&r.Findings[i]); err != nil {
			return err
		}
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString("\n")
		out.Write(text)
	}
	out.WriteString("]}\n")
	return out.Flush()
}

// An encoder is json.Marshal with all that a terminal would obey escaped: JSON
// itself lets some control characters stand for themselves.
type encoder struct {
	json *json.Encoder
	text bytes.Buffer
	safe []byte
}

func newEncoder() *encoder {
	e := &encoder{}
	e.json = json.NewEncoder(&e.text)
	e.json.SetEscapeHTML(false)
	return e
}

// encode returns the text of v, which is good until the next call.
func (e *encoder) encode(v any) ([]byte, error) {
	e.text.Reset()
	if err := e.json.Encode(v); err != nil {
		return nil, fmt.Errorf("encode report: %w", err)
	}
	text := bytes.TrimSuffix(e.text.Bytes(), []byte("\n"))
	plain := true
	for _, b := range text {
		plain = plain && b < 0x7f
	}
	if plain { // JSON escapes what is hidden below 0x20
		return text, nil
	}
	e.safe = escape(e.safe[:0], text)
	return e.safe, nil
}

func escape(out, text []byte) []byte {
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case r < 0x7f || !hidden(r):
			out = append(out, text[:n]...)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		text = text[n:]
	}
	return out
}
