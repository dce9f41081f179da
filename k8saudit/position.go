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

// logFiles returns the files of a log, oldest first. Those that are no longer
// live are named after it, with a time or number before or after the
// extension, and may be packed.
func logFiles(live string) ([]logFile, error) {
	dir, base := filepath.Split(live)
	entries, err := os.ReadDir(filepath.Clean(dir + "."))
	if err != nil {
		return nil, err
	}
	var files []logFile
	for _, e := range entries {
		if e.Name() != base && !formerly(e.Name(), base) {
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
	slices.SortFunc(files, func(a, b logFile) int {
		if last := cmp.Compare(bit(filepath.Base(a.path) == base), bit(filepath.Base(b.path) == base)); last != 0 {
			return last
		}
		return cmp.Or(a.written.Compare(b.written), cmp.Compare(a.path, b.path))
	})
	return files, nil
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// formerly reports whether name is that of a file which was the live one:
// audit-2026-11-26T10-00-00.000.log, audit.log.1, each also with .gz.
func formerly(name, base string) bool {
	name = strings.TrimSuffix(name, ".gz")
	ext := filepath.Ext(base)
	stem := strings.TrimSuffix(base, ext)
	if rest, ok := strings.CutPrefix(name, base); ok {
		return len(rest) > 1 && strings.ContainsRune(".-", rune(rest[0])) && isDigit(rest[1])
	}
	rest, ok := strings.CutPrefix(name, stem+"-")
	return ok && strings.HasSuffix(rest, ext) && isDigit(rest[0])
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// begins reports whether a file begins as a print says.
func (f logFile) begins(p Print) (bool, error) {
	in, err := f.open(0)
	if err != nil {
		return false, err
	}
	defer in.Close()
	start := make([]byte, p.Size)
	if n, err := io.ReadFull(in, start); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return false, nil
		}
		return false, fmt.Errorf("read %d bytes of %s: %w", n, f.path, err)
	}
	return newPrint(start) == p, nil
}

// open opens a file at an offset, unpacked.
func (f logFile) open(offset int64) (io.ReadCloser, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, err
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
	if err != nil && (!errors.Is(err, io.EOF) || in == nil) {
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
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
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
