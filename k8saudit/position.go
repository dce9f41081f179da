package k8saudit

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A Position says how far a log has been read. It names the file by what does
// not change when the file is renamed or packed.
type Position struct {
	Device uint64    `json:"device"`
	Inode  uint64    `json:"inode"`
	Print  Print     `json:"print"`
	Offset int64     `json:"offset"` // in the log, unpacked; always behind a line
	Time   time.Time `json:"time"`   // when the file was last written, as far as it was read
}

// A Print tells files apart by how they begin.
type Print struct {
	Size int    `json:"size"` // bytes that it is of; 0 says nothing
	Sum  string `json:"sum"`
}

// printSize is as much of a file as its print is of. The audit IDs of its
// first events are in it.
const printSize = 2048

func newPrint(start []byte) Print {
	if len(start) == 0 {
		return Print{}
	}
	sum := sha256.Sum256(start)
	return Print{len(start), hex.EncodeToString(sum[:16])}
}

// Positions keeps the position in a log.
type Positions interface {
	// Position returns what was saved last; known is false if nothing was.
	Position(ctx context.Context, log string) (p Position, known bool, err error)
	// SavePosition keeps a position. It is on the disk when it returns.
	SavePosition(ctx context.Context, log string, p Position) error
}

// A logFile is one of the files of a log: the live one, or one that was live.
type logFile struct {
	path          string
	device, inode uint64
	written       time.Time
	size          int64
}

func newLogFile(path string, info fs.FileInfo) logFile {
	f := logFile{path: path, written: info.ModTime(), size: info.Size()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		f.device, f.inode = sys.Dev, sys.Ino
	}
	return f
}

func (f logFile) packed() bool { return strings.HasSuffix(f.path, ".gz") }

// errMoved says that a file is no longer where it was listed: list them again.
var errMoved = fmt.Errorf("it was renamed or removed meanwhile: %w", fs.ErrNotExist)

// logFiles returns the files of a log, oldest first. Those that are no longer
// live are named after it, with a time or number before or after the
// extension, and may be packed. None is left out because it was renamed while
// they were listed: what is returned was found twice.
func logFiles(live string) ([]logFile, error) {
	before, err := listFiles(live)
	for range 10 {
		if err != nil {
			return nil, err
		}
		var again []logFile
		if again, err = listFiles(live); err == nil && slices.EqualFunc(before, again, logFile.is) {
			return again, nil
		}
		before = again
	}
	return nil, cmp.Or(err, errMoved)
}

// is reports whether two are the same file under the same name.
func (f logFile) is(g logFile) bool {
	return f.path == g.path && f.device == g.device && f.inode == g.inode
}

func listFiles(live string) ([]logFile, error) {
	dir, base := filepath.Split(live)
	entries, err := os.ReadDir(filepath.Clean(dir + "."))
	if err != nil {
		return nil, err
	}
	var files []logFile
	for _, e := range entries {
		if style, _ := formerName(e.Name(), base); style == other && e.Name() != base {
			continue
		}
		info, err := os.Stat(filepath.Join(dir, e.Name())) // the live one may be a link
		if errors.Is(err, fs.ErrNotExist) {                // removed meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			continue
		}
		files = append(files, newLogFile(filepath.Join(dir, e.Name()), info))
	}
	files = slices.DeleteFunc(files, func(f logFile) bool { // that is just being packed
		plain := strings.TrimSuffix(f.path, ".gz")
		return f.packed() && slices.ContainsFunc(files, func(g logFile) bool { return g.path == plain })
	})
	slices.SortFunc(files, func(a, b logFile) int { return older(a, b, base) })
	return files, nil
}

// older compares the age of files. Their names say more than the time of the
// last write, which packing changes; between different ways of naming that is
// all there is.
func older(a, b logFile, base string) int {
	nameA, nameB := filepath.Base(a.path), filepath.Base(b.path)
	if nameA == base || nameB == base {
		return cmp.Compare(bit(nameA == base), bit(nameB == base)) // the live one is the youngest
	}
	styleA, keyA := formerName(nameA, base)
	styleB, keyB := formerName(nameB, base)
	if styleA != styleB {
		return cmp.Or(a.written.Compare(b.written), cmp.Compare(nameA, nameB))
	}
	if styleA == numbered {
		return -cmp.Or(cmp.Compare(len(keyA), len(keyB)), cmp.Compare(keyA, keyB), cmp.Compare(nameA, nameB))
	}
	return cmp.Or(cmp.Compare(keyA, keyB), cmp.Compare(nameA, nameB))
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A nameStyle is how files are named that are no longer live.
type nameStyle uint8

const (
	other    nameStyle = iota
	numbered           // audit.log.1, the lower the younger
	dated              // audit-2026-11-26T10-00-00.000.log, audit.log-20261126
)

// formerName returns the part of a name that tells files apart which were the
// live one, without .gz; the style is other if it is none of them.
func formerName(name, base string) (nameStyle, string) {
	name = strings.TrimSuffix(name, ".gz")
	ext := filepath.Ext(base)
	if n, ok := strings.CutPrefix(name, base+"."); ok && strings.Trim(n, "0123456789") == "" && n != "" {
		return numbered, n
	}
	date, ok := strings.CutPrefix(name, base+"-")
	if !ok {
		date, ok = strings.CutPrefix(strings.TrimSuffix(name, ext), strings.TrimSuffix(base, ext)+"-")
		ok = ok && strings.HasSuffix(name, ext)
	}
	if ok && date != "" && date[0] >= '0' && date[0] <= '9' {
		return dated, date
	}
	return other, ""
}

// begins reports whether a file begins as a print says.
func (f logFile) begins(p Print) (bool, error) {
	in, err := f.open(0)
	if f.packed() && err != nil && !errors.Is(err, fs.ErrNotExist) { // damaged
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer in.Close()
	start := make([]byte, p.Size)
	if n, err := io.ReadFull(in, start); err != nil {
		if f.packed() || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return false, nil
		}
		return false, fmt.Errorf("read %d bytes of %s: %w", n, f.path, err)
	}
	return newPrint(start) == p, nil
}

// begin returns the first bytes of a file, unpacked; of a packed one that is
// damaged later, those that there are.
func (f logFile) begin() ([]byte, error) {
	in, err := f.open(0)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	start, err := io.ReadAll(io.LimitReader(in, printSize))
	if err != nil && (!f.packed() || len(start) == 0) {
		return nil, fmt.Errorf("read %s: %w", f.path, err)
	}
	return start, nil
}

// open opens a file at an offset, unpacked; [errMoved] if another one, or none, has
// its name by now.
func (f logFile) open(offset int64) (io.ReadCloser, error) {
	file, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open %s: %w", f.path, errMoved)
	}
	if err != nil {
		return nil, err
	}
	if info, err := file.Stat(); err != nil || !newLogFile(f.path, info).is(f) {
		file.Close()
		return nil, cmp.Or(err, fmt.Errorf("open %s: %w", f.path, errMoved))
	}
	if !f.packed() {
		if _, err := file.Seek(offset, io.SeekStart); err != nil {
			file.Close()
			return nil, err
		}
		return file, nil
	}
	in, err := gzip.NewReader(file)
	if err == nil {
		_, err = io.CopyN(io.Discard, in, offset)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("unpack %s: %w", f.path, err)
	}
	return unpacked{in, file}, nil
}

// unpacked reads a packed file.
type unpacked struct {
	io.Reader
	file *os.File
}

func (u unpacked) Close() error { return u.file.Close() }

// locate returns which of the files a position is in, -1 if in none. Of a file
// and its copy it prefers the very file.
func locate(files []logFile, p Position) (int, error) {
	found := -1
	for i, f := range files {
		same := f.device == p.Device && f.inode == p.Inode
		if p.Print.Size == 0 {
			if same && f.size >= p.Offset {
				found = i
			}
			continue
		}
		if found >= 0 && !same {
			continue
		}
		ok, err := f.begins(p.Print)
		if err != nil {
			return -1, err
		}
		if ok && (f.packed() || f.size >= p.Offset) {
			found = i
		}
	}
	return found, nil
}

// lastLine returns where the last whole line of data ends.
func lastLine(data []byte) int { return bytes.LastIndexByte(data, '\n') + 1 }
