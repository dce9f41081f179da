// Package spool keeps records on disk, in order, until they have been delivered.
//
// It is bounded: when it is full the oldest records are dropped, and counted. When
// its disk is full, new ones are refused, and counted, too.
// A record is in the kernel's hands when [Spool.Append] returns, so that it
// survives the end of the process, however that comes; it is on the disk within
// [SyncInterval], so that a power cut costs no more than that. What was delivered
// shortly before the process was killed may be read again.
//
// # On disk
//
// A folder holds segments. A segment is named by the number of its first record,
// and is a line that says what it is, and records: their length and a CRC-32C of
// number and content, both 4 bytes, little endian, and the content. The end of a
// segment that was torn by a crash is cut off when the spool is opened.
package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Bounds of a spool.
const (
	MaxRecord = 1 << 20 // bytes of a record
	MinBytes  = 1 << 20 // the least bound of a spool
)

// SyncInterval is how often what was written is forced to the disk.
const SyncInterval = time.Second

// segments is in how many parts a full spool is.
const segments = 16

const (
	magic      = "kubeguardian spool 1\n"
	headerSize = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrTooLarge says that a record is larger than [MaxRecord].
var ErrTooLarge = errors.New("the record is too large")

// Stats are what became of records. Counts are since the folder was made, but for
// what the last second before a crash had counted.
type Stats struct {
	Waiting uint64 // that are not delivered yet
	Bytes   int64  // on disk
	Dropped uint64 // as the spool was full
	Refused uint64 // as the disk did not take them
	Damaged uint64 // whose content was not what was written, and those behind them in a segment
	Torn    uint64 // bytes that were cut off when the spool was opened
}

// A Spool is an open folder. It is safe for concurrent use; records are read by
// one goroutine.
type Spool struct {
	dir       string
	max       int64
	lock      *os.File
	stateFile *os.File

	mu       sync.Mutex
	segments []*segment // the oldest first; records are added to the last one
	next     uint64     // number of the next record; they begin at 1
	read     position
	state    state
	saved    state
	torn     uint64
	dirty    bool
	ready    chan struct{}
	err      error // of the disk, the last time it was forced
	closing  chan struct{}
	closed   sync.WaitGroup
}

// state is what outlasts the process besides the records.
type state struct{ Delivered, Dropped, Refused, Damaged uint64 }

// A position is where the next record is read.
type position struct {
	number uint64
	in     *segment // that offset is in; nil: both are to be looked for
	offset int64
}

// A segment is one file.
type segment struct {
	file  *os.File
	first uint64 // number of the first record
	count uint64
	size  int64
}

func (s *segment) end() uint64 { return s.first + s.count }

// Open opens the spool in a folder, which is made if there is none. Its segments
// take at most maxBytes, or [MinBytes] if that is more, and a record. A folder
// that another process has open is refused.
func Open(dir string, maxBytes int64) (_ *Spool, err error) {
	s := &Spool{dir: dir, max: max(maxBytes, MinBytes), next: 1, ready: make(chan struct{}, 1), closing: make(chan struct{})}
	defer func() {
		if err != nil {
			s.release()
			err = fmt.Errorf("open spool %s: %w", dir, err)
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if s.lock, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("another process uses it: %w", err)
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	s.read.number = s.state.Delivered + 1
	s.forget()
	s.closed.Go(s.syncing)
	return s, nil
}

// Append adds a record. The error is [ErrTooLarge] or of the disk; then the
// record is not in the spool, and, when it is of the disk, counted.
func (s *Spool) Append(data []byte) error {
	if len(data) > MaxRecord {
		return fmt.Errorf("spool a record of %d bytes, at most %d: %w", len(data), MaxRecord, ErrTooLarge)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.append(data); err != nil {
		s.state.Refused++
		return fmt.Errorf("spool a record: %w", err)
	}
	select {
	case s.ready <- struct{}{}:
	default:
	}
	return nil
}

func (s *Spool) append(data []byte) error {
	g, err := s.room(int64(headerSize + len(data)))
	if err != nil {
		return err
	}
	buf := make([]byte, headerSize, headerSize+len(data))
	binary.LittleEndian.PutUint32(buf, uint32(len(data)))
	binary.LittleEndian.PutUint32(buf[4:], checksum(s.next, data))
	if _, err := g.file.WriteAt(append(buf, data...), g.size); err != nil {
		return errors.Join(err, g.file.Truncate(g.size))
	}
	g.size += int64(headerSize + len(data))
	g.count++
	s.next++
	s.dirty = true
	return nil
}

func checksum(number uint64, data []byte) uint32 {
	return crc32.Update(crc32.Checksum(binary.LittleEndian.AppendUint64(nil, number), castagnoli), castagnoli, data)
}

// room returns the segment that a record of so many bytes goes into. It drops the
// oldest records if there is no room for it.
func (s *Spool) room(size int64) (*segment, error) {
	for len(s.segments) > 1 && s.bytes()+size > s.max {
		first := s.segments[0]
		if end := first.end() - 1; end > s.state.Delivered {
			s.state.Dropped += end - max(s.state.Delivered, first.first-1)
			s.state.Delivered = end
		}
		s.remove(first)
	}
	if n := len(s.segments); n > 0 && s.segments[n-1].end() == s.next && s.segments[n-1].size+size <= s.max/segments {
		return s.segments[n-1], nil
	}
	return s.add()
}

func (s *Spool) bytes() (n int64) {
	for _, g := range s.segments {
		n += g.size
	}
	return n
}

// Next returns the next record and its number; false if there is none. After an
// error of the disk the same record is tried again.
func (s *Spool) Next() (number uint64, data []byte, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.read.number <= s.state.Delivered {
			s.read = position{number: s.state.Delivered + 1}
		}
		g := s.holding(s.read.number)
		if g == nil {
			return 0, nil, false, nil
		}
		if s.read.number < g.first { // what was between is gone
			s.read = position{number: g.first}
		}
		if err := s.find(g); err != nil {
			return 0, nil, false, err
		}
		data, err := g.record(s.read.offset, s.read.number)
		switch {
		case errors.Is(err, errDamaged):
			s.state.Damaged += g.end() - s.read.number
			s.read = position{number: g.end()}
			continue
		case err != nil:
			return 0, nil, false, fmt.Errorf("read spool: %w", err)
		}
		number = s.read.number
		s.read.number++
		s.read.offset += int64(headerSize + len(data))
		return number, data, true, nil
	}
}

// holding returns the first segment with a record of this number or a later one.
func (s *Spool) holding(number uint64) *segment {
	for _, g := range s.segments {
		if g.end() > number {
			return g
		}
	}
	return nil
}

// find sets the offset of the record that is read next.
func (s *Spool) find(g *segment) error {
	if s.read.in == g {
		return nil
	}
	offset := int64(len(magic))
	for n := g.first; n < s.read.number; n++ {
		var h [headerSize]byte
		if _, err := g.file.ReadAt(h[:], offset); err != nil {
			return fmt.Errorf("read spool: %w", err)
		}
		offset += int64(headerSize + binary.LittleEndian.Uint32(h[:]))
	}
	s.read.in, s.read.offset = g, offset
	return nil
}

var errDamaged = errors.New("the record is damaged")

// record reads the record of this number at an offset.
func (s *segment) record(offset int64, number uint64) ([]byte, error) {
	var h [headerSize]byte
	if _, err := s.file.ReadAt(h[:], offset); err != nil {
		return nil, damagedAtEnd(err)
	}
	size := binary.LittleEndian.Uint32(h[:])
	if size > MaxRecord {
		return nil, errDamaged
	}
	data := make([]byte, size)
	if _, err := s.file.ReadAt(data, offset+headerSize); err != nil {
		return nil, damagedAtEnd(err)
	}
	if checksum(number, data) != binary.LittleEndian.Uint32(h[4:]) {
		return nil, errDamaged
	}
	return data, nil
}

func damagedAtEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return errDamaged
	}
	return err
}

// Rewind makes [Spool.Next] go on behind the last record that was delivered.
func (s *Spool) Rewind() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read = position{number: s.state.Delivered + 1}
}

// Delivered says that all records up to this number are delivered: they are not
// read again.
func (s *Spool) Delivered(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Delivered = max(s.state.Delivered, min(number, s.next-1))
	s.forget()
}

// Ready is sent to after records were added.
func (s *Spool) Ready() <-chan struct{} { return s.ready }

// Stats returns what became of records.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Bytes: s.bytes(), Dropped: s.state.Dropped, Refused: s.state.Refused, Damaged: s.state.Damaged, Torn: s.torn}
	for _, g := range s.segments {
		if end := g.end() - 1; end > s.state.Delivered {
			st.Waiting += end - max(s.state.Delivered, g.first-1)
		}
	}
	return st
}

// syncing forces what was written to the disk, again and again.
func (s *Spool) syncing() {
	tick := time.NewTicker(SyncInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.closing:
			return
		case <-tick.C:
			s.sync()
		}
	}
}

// sync forces the last segment and the state to the disk, without keeping others
// from adding records meanwhile.
func (s *Spool) sync() {
	s.mu.Lock()
	var last *os.File
	if n := len(s.segments); s.dirty && n > 0 {
		last = s.segments[n-1].file
	}
	state, dirty := s.state, s.dirty
	s.dirty = false
	s.mu.Unlock()
	var err error
	if last != nil {
		if err = last.Sync(); errors.Is(err, os.ErrClosed) {
			err = nil // delivered meanwhile
		}
	}
	if state != s.saved {
		if saveErr := s.save(state); saveErr == nil {
			s.saved = state
		} else {
			err = errors.Join(err, saveErr)
		}
	}
	s.mu.Lock()
	s.dirty = s.dirty || dirty && err != nil
	s.err = err
	s.mu.Unlock()
}

// Err returns why records could not be forced to the disk the last time; nil if
// they were.
func (s *Spool) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close forces everything to the disk. It is called once.
func (s *Spool) Close() error {
	close(s.closing)
	s.closed.Wait()
	s.sync()
	if err := errors.Join(s.Err(), s.release()); err != nil {
		return fmt.Errorf("close spool %s: %w", s.dir, err)
	}
	return nil
}

func (s *Spool) release() error {
	var errs []error
	for _, g := range s.segments {
		errs = append(errs, g.file.Close())
	}
	s.segments = nil
	for _, f := range []*os.File{s.stateFile, s.lock} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
