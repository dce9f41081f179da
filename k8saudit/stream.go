package k8saudit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/kubeguardian/kubeguardian/event"
)

// Stats says what [Decode] found.
type Stats struct {
	Events    int
	Malformed int     // items that are no audit event, and events without a body that was over the limits
	Problems  []error // why the first malformed items are malformed, and where
}

const maxProblems = 10

// Decode reads events from a file of the audit log: JSON lines of an Event,
// an EventList or an array of events each, or one such JSON value over several
// lines. It calls yield for each event in order and stops at its first error.
//
// A line, or an event in a list, that is no audit event is counted and skipped.
// An event that is over the limits is counted and given without its bodies.
// Input that is not JSON lines and not JSON either ends in an error.
func Decode(r io.Reader, yield func(*event.Event) error) (Stats, error) {
	d := decoder{in: bufio.NewReaderSize(r, 64<<10), yield: yield}
	err := d.run()
	return d.stats, err
}

type decoder struct {
	in    *bufio.Reader
	yield func(*event.Event) error
	stats Stats
	line  int
}

func (d *decoder) run() error {
	for first := true; ; {
		line, err := d.readLine()
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errTooLong) {
			return fmt.Errorf("read audit events: line %d: %w", d.line, err)
		}
		trimmed := bytes.TrimSpace(line)
		switch {
		case errors.Is(err, errTooLong):
			d.problem(fmt.Errorf("longer than %d bytes", maxDocument))
		case len(trimmed) == 0:
		case first && opens(trimmed) && !complete(trimmed):
			return d.document(line)
		default:
			first = false
			if err := d.value(trimmed); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
	}
}

// opens reports whether a line that is not complete JSON may be the first of a
// JSON value over several lines.
func opens(line []byte) bool { return line[0] == '{' || line[0] == '[' }

var errTooLong = errors.New("line too long")

// readLine returns the next line. After a line over the limit, which it skips,
// it returns errTooLong.
func (d *decoder) readLine() ([]byte, error) {
	d.line++
	var line []byte
	long := false
	for {
		part, err := d.in.ReadSlice('\n')
		if long = long || len(line)+len(part) > maxDocument; !long {
			line = append(line, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if long && err == nil {
			return nil, errTooLong
		}
		if long && errors.Is(err, io.EOF) {
			d.problem(fmt.Errorf("longer than %d bytes", maxDocument))
			line = nil
		}
		return line, err
	}
}

// document reads the rest of the input as JSON values over several lines.
func (d *decoder) document(start []byte) error {
	rest := io.LimitReader(d.in, int64(maxDocument-len(start))+1)
	data, err := io.ReadAll(io.MultiReader(bytes.NewReader(start), rest))
	if err != nil {
		return fmt.Errorf("read audit events: %w", err)
	}
	if len(data) > maxDocument {
		return fmt.Errorf("read audit events: line %d: JSON over several lines is longer than %d bytes: write one event on each line", d.line, maxDocument)
	}
	first, values := d.line, json.NewDecoder(bytes.NewReader(data))
	for {
		begin := values.InputOffset()
		var raw json.RawMessage
		err := values.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read audit events: line %d: %w", first+lineOf(data, begin, err), describe(err))
		}
		d.line = first + bytes.Count(data[:values.InputOffset()-int64(len(raw))], []byte("\n"))
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

func (d *decoder) value(data []byte) error {
	items, err := decodeDocument(data)
	if err != nil {
		d.problem(err)
		return nil
	}
	for _, it := range items {
		if it.err != nil {
			d.problem(it.err)
		}
		if it.event == nil {
			continue
		}
		d.stats.Events++
		if err := d.yield(it.event); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) problem(err error) {
	d.stats.Malformed++
	if len(d.stats.Problems) < maxProblems {
		d.stats.Problems = append(d.stats.Problems, fmt.Errorf("line %d: %w", d.line, err))
	}
}
