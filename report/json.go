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
	head := *r
	head.Findings = nil
	text, err := encode(head)
	if err != nil {
		return err
	}
	out.Write(bytes.TrimSuffix(text, []byte("null}"))) // findings are the last field
	out.WriteByte('[')
	for i, f := range r.Findings {
		if text, err = encode(f); err != nil {
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

// encode is json.Marshal with all that a terminal would obey escaped: JSON
// itself lets some control characters stand for themselves.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode report: %w", err)
	}
	text := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	out := make([]byte, 0, len(text))
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
	return out, nil
}
