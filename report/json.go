package report

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/kubeguardian/kubeguardian/finding"
)

// JSON is the format for programs. It writes finding by finding, so that a
// large report is never in memory twice.
type JSON struct{}

// Write writes one object and a line break.
func (JSON) Write(w io.Writer, r *Report) error {
	out := bufio.NewWriterSize(w, 64<<10)
	head := *r
	head.Findings = nil
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(head); err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	out.Write(harmless(bytes.TrimSuffix(text.Bytes(), []byte("null}\n")))) // findings are the last field
	out.WriteByte('[')
	var findings finding.Encoder
	var one []byte
	for i := range r.Findings {
		var err error
		if one, err = findings.Append(one[:0], &r.Findings[i]); err != nil {
			return fmt.Errorf("encode report: %w", err)
		}
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString("\n")
		out.Write(harmless(one))
	}
	out.WriteString("]}\n")
	return out.Flush()
}

// harmless returns JSON with all that a terminal would obey escaped: JSON itself
// lets DEL and what is beyond ASCII stand for themselves.
func harmless(text []byte) []byte {
	if ascii(text) && bytes.IndexByte(text, 0x7f) < 0 {
		return text
	}
	return escape(nil, text)
}

// ascii looks at eight bytes at a time: reports are large.
func ascii(text []byte) bool {
	const high = 0x8080808080808080
	for ; len(text) >= 8; text = text[8:] {
		if binary.LittleEndian.Uint64(text)&high != 0 {
			return false
		}
	}
	for _, b := range text {
		if b >= 0x80 {
			return false
		}
	}
	return true
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
