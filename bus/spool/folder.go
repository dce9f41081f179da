package spool

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxNumber is more than any spool gives: numbers beyond it are garbage.
const maxNumber = 1 << 62

const (
	suffix    = ".seg"
	stateFile = "state"
)

// load reads the state and all segments.
func (s *Spool) load() error {
	if err := s.loadState(); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.dir) // sorted by name, which sorts by number
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, is := strings.CutSuffix(e.Name(), suffix)
		if !is || len(name) != 16 {
			continue
		}
		first, err := strconv.ParseUint(name, 16, 64)
		if err != nil || first == 0 || first > maxNumber {
			continue
		}
		if err := s.loadSegment(e.Name(), first); err != nil {
			return err
		}
	}
	s.next = max(s.next, s.state.Delivered+1)
	return nil
}

// stateSize is that of the state file. A write of it is whole, and takes no space
// that it has not taken already: what is lost while the disk is full is counted.
const stateSize = 256

// loadState reads the state, and opens its file. One that cannot be read is as none:
// records are delivered again rather than not at all.
func (s *Spool) loadState() (err error) {
	if s.stateFile, err = os.OpenFile(filepath.Join(s.dir, stateFile), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	data := make([]byte, stateSize)
	n, err := s.stateFile.ReadAt(data, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if json.Unmarshal(data[:n], &s.state) != nil || s.state.Delivered > maxNumber {
		s.state = state{}
	}
	if s.saved = s.state; n < stateSize { // new, or of a version before: takes its space
		s.err = s.save(s.state)
	}
	return nil
}

// loadSegment takes a segment over, up to the first record that is not whole.
func (s *Spool) loadSegment(name string, first uint64) error {
	f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	g := &segment{file: f, first: first}
	info, err := f.Stat()
	if err == nil {
		err = g.scan()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("read %s: %w", name, err), f.Close())
	}
	if info.Size() > g.size {
		s.torn += uint64(info.Size() - g.size)
	}
	if g.count == 0 || first < s.next {
		// Nothing whole in it, or records that another segment has: numbers are
		// never given twice.
		return errors.Join(f.Close(), os.Remove(f.Name()))
	}
	if err := f.Truncate(g.size); err != nil {
		return errors.Join(fmt.Errorf("cut %s: %w", name, err), f.Close())
	}
	if n := len(s.segments); n > 0 && first > s.next {
		s.state.Damaged += first - s.next
	}
	s.segments, s.next = append(s.segments, g), g.end()
	return nil
}

// scan counts the records of a segment that are whole.
func (s *segment) scan() error {
	head := make([]byte, len(magic))
	if n, err := s.file.ReadAt(head, 0); n < len(head) {
		if damagedAtEnd(err) == errDamaged {
			return nil
		}
		return err
	}
	if string(head) != magic {
		return nil
	}
	s.size = int64(len(magic))
	for {
		data, err := s.record(s.size, s.end())
		if errors.Is(err, errDamaged) {
			return nil
		}
		if err != nil {
			return err
		}
		s.size += int64(headerSize + len(data))
		s.count++
	}
}

// add begins a segment. The one before is forced to the disk.
func (s *Spool) add() (*segment, error) {
	if n := len(s.segments); n > 0 {
		if err := s.segments[n-1].file.Sync(); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(filepath.Join(s.dir, fmt.Sprintf("%016x%s", s.next, suffix)), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteAt([]byte(magic), 0); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	g := &segment{file: f, first: s.next, size: int64(len(magic))}
	s.segments = append(s.segments, g)
	return g, s.syncFolder()
}

// forget removes the segments whose records are all delivered. The last one stays
// until the next begins.
func (s *Spool) forget() {
	for len(s.segments) > 1 && s.segments[0].end()-1 <= s.state.Delivered {
		s.remove(s.segments[0])
	}
}

// remove removes a segment. One that stays on disk is found, delivered already,
// when the spool is opened.
func (s *Spool) remove(g *segment) {
	s.segments = slices.DeleteFunc(s.segments, func(other *segment) bool { return other == g })
	if err := errors.Join(g.file.Close(), os.Remove(g.file.Name())); err != nil {
		s.err = err
	}
	if s.read.number < g.end() {
		s.read = position{number: g.end()}
	}
}

// save writes the state over the one before.
func (s *Spool) save(st state) error {
	data, err := json.Marshal(st)
	if err != nil {
		return err
	}
	_, err = s.stateFile.WriteAt(append(bytes.Repeat([]byte{' '}, stateSize-len(data)), data...), 0)
	return err
}

func (s *Spool) syncFolder() error {
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
