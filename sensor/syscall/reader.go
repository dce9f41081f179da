package syscall

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/kubeguardian/kubeguardian/event"
)

// Read calls see with each recorded event that r holds, one line of JSON each.
// Lines without one are skipped. It stops at the first error, which names name
// and the line. An event that has no id is told apart by them; one that has no
// number is counted, from 1; one that does not say when the event before happened
// is told.
func Read(name string, r io.Reader, see func(*event.Event) error) (events int, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	var previous Instant
	for line := 1; ; line++ {
		data, err := readLine(in)
		if err != nil && !errors.Is(err, io.EOF) {
			return events, fmt.Errorf("%s:%d: %w", name, line, err)
		}
		if text := bytes.TrimSpace(data); len(text) > 0 {
			e, err := Decode(text)
			if err != nil {
				return events, fmt.Errorf("%s:%d: %w", name, line, err)
			}
			events++
			if e.ID == "" {
				e.ID = fmt.Sprintf("%s:%d", name, line)
			}
			if e.Num == 0 {
				e.Num = uint64(events)
			}
			s := e.Record.(*Event)
			if s.Previous == 0 {
				s.Previous = previous
			}
			previous = s.Time
			if err := see(e); err != nil {
				return events, err
			}
		}
		if err != nil {
			return events, nil
		}
	}
}

// readLine returns a line; with io.EOF the last one.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if line = append(line, part...); len(line) > MaxLine {
			return nil, fmt.Errorf("line is over the limit of %d bytes", MaxLine)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}
