// Package export writes lists as files for other programs.
package export

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Writer writes a whole list, page by page, as it is read.
type Writer struct {
	W       http.ResponseWriter
	Send    func(http.ResponseWriter, []byte) error
	Name    string // of the list, and the file
	CSV     bool   // else JSON
	Columns []string
	Rows    int  // so far
	Begun   bool // something was sent
	buffer  bytes.Buffer
}

// chunk is how much is collected before it is sent.
const chunk = 64 << 10

// Add writes one record: in JSON as it is, in CSV by its cells.
func (e *Writer) Add(record any, cells ...string) error {
	e.begin()
	if e.CSV {
		e.line(cells)
	} else {
		data, err := json.Marshal(record)
		if err != nil {
			return fmt.Errorf("export %s: %w", e.Name, err)
		}
		if e.Rows > 0 {
			e.buffer.WriteString(",\n")
		}
		e.buffer.Write(data)
	}
	if e.Rows++; e.buffer.Len() < chunk {
		return nil
	}
	return e.flush()
}

// line writes a row of CSV. A cell that a spreadsheet would take for a formula,
// some of them after spaces too, begins with an apostrophe, which makes it a text.
func (e *Writer) line(cells []string) {
	for i, cell := range cells {
		if formula(cell) {
			cells[i] = "'" + cell
		}
	}
	w := csv.NewWriter(&e.buffer)
	w.Write(cells) // a buffer has no errors
	w.Flush()
}

// formula reports whether some spreadsheet may take a cell for one.
func formula(cell string) bool {
	unseen := func(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) || unicode.Is(unicode.Cf, c) }
	if first, _ := utf8.DecodeRuneInString(cell); cell != "" && strings.ContainsRune("\t\r\n", first) {
		return true
	}
	text := strings.TrimLeftFunc(cell, unseen)
	first, _ := utf8.DecodeRuneInString(text)
	return text != "" && strings.ContainsRune("=+-@＝＋－＠", first)
}

func (e *Writer) begin() {
	if e.Begun {
		return
	}
	e.Begun = true
	format, kind := "json", "application/json"
	if e.CSV {
		format, kind = "csv", "text/csv; charset=utf-8"
	}
	e.W.Header().Set("Content-Type", kind)
	e.W.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s.%s"`, e.Name, format))
	if e.CSV {
		e.line(slices.Clone(e.Columns))
	} else {
		e.buffer.WriteString("[")
	}
}

func (e *Writer) flush() error {
	defer e.buffer.Reset()
	return e.Send(e.W, e.buffer.Bytes())
}

// End sends what is left.
func (e *Writer) End() error {
	e.begin()
	if !e.CSV {
		e.buffer.WriteString("]\n")
	}
	return e.flush()
}
