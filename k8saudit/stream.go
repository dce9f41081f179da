package k8saudit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/kubeguardian/kubeguardian/event"
)

// Stats says what [Decode] found.
type Stats struct {
	Events    int
	Malformed int     // items that are no audit event, and events that lost a body: the sum of the faults
	Faults    Faults  // the same by cause, and what is no fault of the input
	Problems  []error // why the first malformed items are malformed, and where
}

const maxProblems = 10

// decodeBatch is how many events of a list are parsed at once; of lines it is
// one at a time anyway.
const decodeBatch = 64

// Decode reads events from a file of the audit log: JSON lines of an Event,
// an EventList or an array of events each, or one such JSON value over several
// lines; or the records that a cloud wraps them in; each also packed by gzip. It calls
// yield for each event in order and stops at its first error. An event is valid
// until yield returns, or until Decode does if yield ended it; what must live
// longer has to be copied.
//
// A line, or an event in a list, that is no audit event is counted and skipped.
// An event that is over the limits is counted and given without its bodies.
// Input that is not JSON lines and not JSON either ends in an error.
func Decode(r io.Reader, yield func(*event.Event) error) (Stats, error) {
	return decode(r, Falco, yield)
}

func decode(r io.Reader, compat Compat, yield func(*event.Event) error) (Stats, error) {
	plain, err := unpack(r)
	if err != nil {
		return Stats{}, fmt.Errorf("read audit events: %w", err)
	}
	d := decoder{lines: newLines(plain)}
	d.parser = newParser(newBatch(decodeBatch, compat), func(events []*event.Event) error {
		for _, e := range events {
			d.stats.Events++
			e.Num = uint64(d.stats.Events)
			if err := yield(e); err != nil {
				return err
			}
		}
		return nil
	}, d.problem)
	err = d.run()
	return d.stats, err
}

// unpack returns what a reader holds, which may be packed by gzip.
func unpack(r io.Reader) (io.Reader, error) {
	in := bufio.NewReaderSize(r, readSize)
	if magic, _ := in.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) { // an error comes again
		return in, nil
	}
	return gzip.NewReader(in)
}

type decoder struct {
	lines  *lines
	parser *parser
	stats  Stats
}

func (d *decoder) run() error {
	for first := true; ; {
		line, err := d.lines.next()
		trimmed := bytes.TrimSpace(line)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errTooLong):
			d.problem(err)
		case err != nil:
			return fmt.Errorf("read audit events: line %d: %w", d.lines.number, err)
		case len(trimmed) == 0:
		case first && opens(trimmed) && !complete(trimmed):
			return d.document(line)
		default:
			first = false
			if err := d.value(trimmed); err != nil {
				return err
			}
		}
	}
}

// opens reports whether a line that is not complete JSON may be the first of a
// JSON value over several lines.
func opens(line []byte) bool { return line[0] == '{' || line[0] == '[' }

// value takes one JSON value. It returns the error of the caller only.
func (d *decoder) value(data []byte) error {
	err := d.parser.line(data)
	if d.parser.failed != nil {
		return d.parser.failed
	}
	if err != nil {
		d.problem(err)
	}
	return d.parser.flush()
}

// document reads the rest of the input as JSON values over several lines.
func (d *decoder) document(start []byte) error {
	data, err := d.lines.rest(start)
	if err != nil {
		return fmt.Errorf("read audit events: line %d: %w", d.lines.number, err)
	}
	first, values := d.lines.number, json.NewDecoder(bytes.NewReader(data))
	for {
		begin := values.InputOffset()
		var raw json.RawMessage
		err := values.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read audit events: line %d: parse JSON: %w", first+lineOf(data, begin, err), err)
		}
		d.lines.number = first + bytes.Count(data[:values.InputOffset()-int64(len(raw))], []byte("\n"))
		if err := d.value(raw); err != nil {
			return err
		}
	}
}

// lineOf returns how many lines into data a JSON error lies.
func lineOf(data []byte, begin int64, err error) int {
	end := int64(len(data))
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) && begin+syntax.Offset < end {
		end = max(begin, syntax.Offset)
	}
	return bytes.Count(data[:end], []byte("\n"))
}

func (d *decoder) problem(err error) {
	if d.stats.Faults.count(err); errors.Is(err, errForeign) || errors.Is(err, errBodies) {
		return
	}
	d.stats.Malformed++
	if len(d.stats.Problems) < maxProblems {
		d.stats.Problems = append(d.stats.Problems, fmt.Errorf("line %d: %w", d.lines.number, err))
	}
}

// lines cuts a reader into lines of any length up to maxDocument.
type lines struct {
	in     *bufio.Reader
	long   []byte // a line that is longer than the buffer of in
	number int    // of the last line
}

func newLines(r io.Reader) *lines { return &lines{in: bufio.NewReaderSize(r, readSize)} }

// keepLine is what is kept for the next long line.
const keepLine = 4 << 20

// next returns the next line, which is valid until the next call. After a line
// over the limit, which it skips, it returns errTooLong; after the last one
// io.EOF.
func (l *lines) next() ([]byte, error) {
	l.number++
	line, err := l.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return l.longLine(line)
	}
	if errors.Is(err, io.EOF) && len(line) > 0 {
		err = nil
	}
	return line, err
}

func (l *lines) longLine(start []byte) ([]byte, error) {
	if cap(l.long) > keepLine {
		l.long = nil
	}
	l.long = append(l.long[:0], start...)
	for tooLong := false; ; {
		part, err := l.in.ReadSlice('\n')
		if tooLong = tooLong || len(l.long)+len(part) > maxDocument; tooLong {
			l.long = nil
		} else {
			l.long = append(l.long, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case err != nil && !errors.Is(err, io.EOF):
			return nil, err
		case tooLong:
			return nil, errTooLong
		default:
			return l.long, nil
		}
	}
}

// rest returns what is left, after the line that was read last.
func (l *lines) rest(start []byte) ([]byte, error) {
	rest := io.LimitReader(l.in, int64(maxDocument-len(start))+1)
	data, err := io.ReadAll(io.MultiReader(bytes.NewReader(bytes.Clone(start)), rest))
	if err == nil && len(data) > maxDocument {
		err = fmt.Errorf("JSON over several lines is longer than %d bytes: write one event on each line", maxDocument)
	}
	return data, err
}
