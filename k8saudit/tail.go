package k8saudit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/kubeguardian/kubeguardian/event"
)

// TailOptions are what [NewTail] needs.
type TailOptions struct {
	Path      string // of the live file, as given to --audit-log-path
	Handle    Handle
	Positions Positions
	Compat    Compat
	Poll      time.Duration // how often to look for more; 0 means 250ms
	Log       *slog.Logger  // nil: nobody is told
}

// A Tail follows the audit log of an API server in its files, through renaming,
// truncation after a copy, packing and restarts of ours. Its position is saved
// after what follows from the events before it is safe: an event may be handled
// twice, but none is left out unless its file is removed before it was read,
// which is counted.
type Tail struct {
	opts   TailOptions
	parser *parser
	ctx    context.Context // of Run, for the handler

	file    logFile
	in      io.ReadCloser // nil: no file is open
	pos     Position
	buf     []byte // what has been read and is behind pos
	begin   []byte // of the file, for its print
	skips   bool   // a line over the limit
	saved   Position
	savedAt time.Time

	mu       sync.Mutex
	counters TailCounters
}

// TailCounters says what a [Tail] has seen since it was made.
type TailCounters struct {
	Events uint64
	Faults Faults
	Gaps   uint64    // times that a file was gone before it was read to its end
	Failed uint64    // times that events could not be handled, or the files not read, and were tried again
	Read   time.Time // when the end of the live file was reached last
}

// NewTail returns a tail. Run it once.
func NewTail(opts TailOptions) *Tail {
	if opts.Poll == 0 {
		opts.Poll = 250 * time.Millisecond
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	t := &Tail{opts: opts}
	t.parser = newParser(newBatch(maxBatch, opts.Compat), func(events []*event.Event) error {
		if err := opts.Handle(t.ctx, events); err != nil {
			return err
		}
		t.count(func(c *TailCounters) { c.Events += uint64(len(events)) })
		return nil
	}, t.problem)
	return t
}

// Counters returns a snapshot of the counters.
func (t *Tail) Counters() TailCounters {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counters
}

func (t *Tail) count(f func(*TailCounters)) {
	t.mu.Lock()
	f(&t.counters)
	t.mu.Unlock()
}

func (t *Tail) problem(err error) {
	t.count(func(c *TailCounters) { c.Faults.count(err) })
	t.opts.Log.Debug("audit event is not taken as it came", "file", t.file.path, "error", err)
}

// Run follows the log until ctx ends. What cannot be read or handled is tried
// again, for as long as it takes.
func (t *Tail) Run(ctx context.Context) error {
	t.ctx = ctx
	defer t.close()
	for before := ""; ; {
		err := t.follow(ctx)
		if ctx.Err() != nil {
			ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			return t.save(ending)
		}
		t.close()
		t.count(func(c *TailCounters) { c.Failed++ })
		if err.Error() != before {
			t.opts.Log.Error("the audit log is not read", "file", t.opts.Path, "error", err)
			before = err.Error()
		}
		pause(ctx, max(t.opts.Poll, time.Second))
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (t *Tail) close() {
	if t.in != nil {
		t.in.Close() // it was only read
	}
	t.in, t.buf, t.skips = nil, t.buf[:0], false
	t.parser.failed = nil
	t.parser.batch.reset()
}

// follow reads on from the saved position until something goes wrong.
func (t *Tail) follow(ctx context.Context) error {
	pos, known, err := t.opts.Positions.Position(ctx, t.opts.Path)
	if err != nil {
		return err
	}
	t.pos, t.saved = pos, pos
	if err := t.resume(known); err != nil {
		return err
	}
	for ctx.Err() == nil {
		more, err := t.read()
		if err != nil {
			return err
		}
		if more {
			if err := t.saveNow(ctx, time.Second); err != nil {
				return err
			}
			continue
		}
		if err := t.atEnd(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// resume opens the file that the position is in, under whatever name it has
// now.
func (t *Tail) resume(known bool) error {
	files, err := logFiles(t.opts.Path)
	if err != nil {
		return err
	}
	if len(files) == 0 || files[len(files)-1].path != t.opts.Path && !known {
		return fmt.Errorf("open %s: %w", t.opts.Path, fs.ErrNotExist)
	}
	if !known { // the live file only: what is older was before our time
		return t.open(files[len(files)-1], 0)
	}
	i, err := locate(files, t.pos)
	if err != nil {
		return err
	}
	if i >= 0 {
		return t.open(files[i], t.pos.Offset)
	}
	t.count(func(c *TailCounters) { c.Gaps++ })
	t.opts.Log.Error("audit events may be lost: the file that was read last is gone", "log", t.opts.Path, "offset", t.pos.Offset, "written", t.pos.Time)
	return t.openNewer(files, t.pos.Time)
}

// openNewer opens the first file that was written to after a time.
func (t *Tail) openNewer(files []logFile, after time.Time) error {
	for _, f := range files {
		if f.written.After(after) || f.path == t.opts.Path {
			return t.open(f, 0)
		}
	}
	return fmt.Errorf("open %s: %w", t.opts.Path, fs.ErrNotExist)
}

func (t *Tail) open(f logFile, offset int64) error {
	var in io.ReadCloser
	start, err := f.begin()
	if err == nil {
		in, err = f.open(offset)
	}
	if err != nil && f.packed() && !errors.Is(err, fs.ErrNotExist) {
		t.damaged(f, err)
		start, in, err = nil, io.NopCloser(strings.NewReader("")), nil
	}
	if err != nil {
		return err
	}
	t.close()
	t.file, t.in, t.begin = f, in, start
	t.pos = Position{Device: f.device, Inode: f.inode, Print: newPrint(start), Offset: offset, Time: f.written}
	return nil
}

// damaged notes a packed file that cannot be read, or not to its end. It will
// not get better, so the log goes on behind it.
func (t *Tail) damaged(f logFile, err error) {
	t.count(func(c *TailCounters) { c.Gaps++ })
	t.opts.Log.Error("audit events are lost: a packed file is damaged", "file", f.path, "error", err)
}

// The sizes of what is read at once.
const (
	readSize = 256 << 10
	keepRead = 4 << 20
)

// read takes what there is, up to a buffer, and handles its whole lines; more
// is false at the end of the file.
func (t *Tail) read() (more bool, err error) {
	if cap(t.buf)-len(t.buf) < readSize/2 {
		t.buf = append(make([]byte, 0, max(2*cap(t.buf), readSize)), t.buf...)
	}
	n, err := t.in.Read(t.buf[len(t.buf):cap(t.buf)])
	if err != nil && !errors.Is(err, io.EOF) {
		if !t.file.packed() {
			return false, fmt.Errorf("read %s: %w", t.file.path, err)
		}
		t.damaged(t.file, err)
		t.in.Close() // it was only read
		t.in = io.NopCloser(strings.NewReader(""))
	}
	fresh := len(t.buf)
	t.buf = t.buf[:fresh+n]
	if len(t.begin) < printSize && n > 0 && !t.file.packed() {
		if err := t.noteBegin(); err != nil {
			return false, err
		}
	}
	end := lastLine(t.buf[fresh:])
	if end > 0 {
		return true, t.lines(fresh + end)
	}
	if len(t.buf) > maxDocument {
		if !t.skips {
			t.problem(errTooLong)
		}
		t.skips = true
		t.drop(len(t.buf))
	}
	return n > 0, nil
}

// noteBegin reads the begin of a file that has grown.
func (t *Tail) noteBegin() error {
	file, ok := t.in.(*os.File)
	if !ok {
		return nil
	}
	start := make([]byte, printSize)
	n, err := file.ReadAt(start, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %w", t.file.path, err)
	}
	if bytes.HasPrefix(start[:n], t.begin) { // otherwise it was written anew
		t.begin = start[:n]
		t.pos.Print = newPrint(t.begin)
	}
	return nil
}

// lines handles the lines up to an end in the buffer.
func (t *Tail) lines(end int) error {
	for data := t.buf[:end]; len(data) > 0; {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		data = rest
		if t.skips { // the end of a line over the limit
			t.skips = false
			continue
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			if err := t.parser.line(line); err != nil && t.parser.failed == nil {
				t.problem(err)
			}
		}
		if t.parser.failed != nil {
			break
		}
	}
	if err := t.parser.flush(); err != nil {
		return fmt.Errorf("handle audit events: %w", err)
	}
	t.drop(end)
	return nil
}

// drop forgets what has been handled.
func (t *Tail) drop(end int) {
	t.pos.Offset += int64(end)
	left := copy(t.buf, t.buf[end:])
	t.buf = t.buf[:left]
	if cap(t.buf) > keepRead && left < readSize {
		t.buf = append(make([]byte, 0, readSize), t.buf...)
	}
}

// atEnd decides how to go on at the end of a file: wait for more, or take the
// next one.
func (t *Tail) atEnd(ctx context.Context) error {
	if t.file.path == t.opts.Path {
		t.count(func(c *TailCounters) { c.Read = time.Now() })
		if err := t.saveNow(ctx, time.Second); err != nil {
			return err
		}
		pause(ctx, t.opts.Poll)
	}
	err := t.goOn(ctx)
	if errors.Is(err, errMoved) { // the next look tells more
		pause(ctx, t.opts.Poll)
		return nil
	}
	return err
}

func (t *Tail) goOn(ctx context.Context) error {
	state, err := t.look()
	if err != nil {
		return err
	}
	switch state {
	case replaced:
		return t.next(ctx)
	case rewritten: // after a copy was made, which has what we did not read
		t.buf = t.buf[:0]
		if err := t.saveNow(ctx, 0); err != nil {
			return err
		}
		return t.resume(true)
	}
	return nil
}

// A fileState is what has become of the file that is read.
type fileState uint8

const (
	growing fileState = iota
	replaced
	rewritten
)

func (t *Tail) look() (fileState, error) {
	if t.file.path != t.opts.Path {
		return replaced, nil
	}
	info, err := os.Stat(t.opts.Path)
	if errors.Is(err, fs.ErrNotExist) { // between renaming and creating
		return growing, nil
	}
	if err != nil {
		return growing, err
	}
	now := newLogFile(t.opts.Path, info)
	if now.device != t.file.device || now.inode != t.file.inode {
		return replaced, nil
	}
	t.pos.Time = now.written
	if now.size < t.pos.Offset+int64(len(t.buf)) {
		return rewritten, nil
	}
	if t.pos.Print.Size > 0 {
		same, err := now.begins(t.pos.Print)
		if err != nil || !same {
			return rewritten, err
		}
	}
	return growing, nil
}

// next takes the file after the one that is read, which grows no more. A last
// line without an end is taken too.
func (t *Tail) next(ctx context.Context) error {
	for { // what was written between the last read and the renaming
		more, err := t.read()
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	if len(t.buf) > 0 {
		if err := t.lines(len(t.buf)); err != nil {
			return err
		}
	}
	files, err := logFiles(t.opts.Path)
	if err != nil {
		return err
	}
	i, err := locate(files, t.pos)
	if err != nil {
		return err
	}
	if i+1 < len(files) && i >= 0 {
		err = t.open(files[i+1], 0)
	} else if i < 0 { // removed, but read to its end
		err = t.openNewer(files, t.pos.Time)
	} else { // nothing newer yet
		pause(ctx, t.opts.Poll)
	}
	return err
}

// saveNow saves the position if it has changed and the last time is that long
// ago.
func (t *Tail) saveNow(ctx context.Context, since time.Duration) error {
	if t.pos == t.saved || time.Since(t.savedAt) < since {
		return nil
	}
	return t.save(ctx)
}

func (t *Tail) save(ctx context.Context) error {
	if t.pos == t.saved || t.pos == (Position{}) {
		return nil
	}
	if err := t.opts.Positions.SavePosition(ctx, t.opts.Path, t.pos); err != nil {
		return fmt.Errorf("save position in %s: %w", t.opts.Path, err)
	}
	t.saved, t.savedAt = t.pos, time.Now()
	return nil
}
