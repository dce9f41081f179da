package inventory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// ErrNoObjects says that the input holds nothing to judge. It is an error
// because an empty input must not look like a clean one.
var ErrNoObjects = errors.New("no Kubernetes objects")

// The bounds of what FromFiles reads.
const (
	maxFileSize  = 32 << 20 // bytes of one file
	maxDocuments = 100_000  // documents and list items of all files
	maxErrors    = 100      // errors that are reported one by one
)

// FromFiles reads manifests: files, folders and, for "-", stdin. In a folder it
// reads *.yaml, *.yml and *.json at any depth, except in hidden folders; a
// document there that is no Kubernetes object becomes a [Skip], while in a file
// that is named itself it is an error. A file is read once, however often it is
// named or linked to.
//
// Documents of Kubernetes' own kinds are decoded strictly, custom resources
// loosely but for their metadata. The result is whole or there is none: the
// error joins everything that was found wrong. Parts of it may have a method
// Hint() string that says what to do. Input without any object gives
// [ErrNoObjects].
func FromFiles(ctx context.Context, paths []string, stdin io.Reader) (*Inventory, error) {
	r := &reader{ctx: ctx, stdin: stdin, seen: map[string]bool{}, fields: map[reflect.Type]map[string]reflect.Type{}}
	for _, p := range paths {
		if p == "-" {
			r.standardInput()
		} else {
			r.path(filepath.Clean(p), true)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	if len(r.objects) == 0 {
		err := fmt.Errorf("%w in %s", ErrNoObjects, strings.Join(paths, ", "))
		return nil, hint(err, "name files or folders with manifests (*.yaml, *.yml, *.json), or pipe them: kubectl get … -o yaml | kubeguardian scan -")
	}
	inv, err := New(Files, r.objects, nil)
	if err != nil {
		return nil, err
	}
	inv.Skipped = r.skipped
	return inv, nil
}

// A hinted error also says what the user can do.
type hinted struct {
	error
	hint string
}

func hint(err error, hint string) error { return hinted{err, hint} }
func (h hinted) Hint() string           { return h.hint }
func (h hinted) Unwrap() error          { return h.error }

// A reader gathers the objects and problems of all paths.
type reader struct {
	ctx       context.Context // of the one call that the reader serves
	stdin     io.Reader
	seen      map[string]bool // resolved names of files and folders
	fields    map[reflect.Type]map[string]reflect.Type
	documents int
	objects   []*Object
	skipped   []Skip
	errs      []error
	more      int // errors beyond maxErrors
}

func (r *reader) fail(err error) {
	if len(r.errs) < maxErrors {
		r.errs = append(r.errs, err)
	} else {
		r.more++
	}
}

func (r *reader) err() error {
	if r.more > 0 {
		return errors.Join(append(r.errs, fmt.Errorf("and %d more errors", r.more))...)
	}
	return errors.Join(r.errs...)
}

// path reads what name stands for. Named is true for what the user named, and
// false for what was found in a folder.
func (r *reader) path(name string, named bool) {
	info, err := os.Stat(name)
	if err != nil {
		r.fail(pathError(name, err))
		return
	}
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		r.fail(pathError(name, err))
		return
	}
	if real, err = filepath.Abs(real); err != nil {
		r.fail(pathError(name, err))
		return
	}
	if r.seen[real] {
		return
	}
	r.seen[real] = true
	switch {
	case info.IsDir():
		r.folder(name)
	case !info.Mode().IsRegular():
		r.fail(hint(fmt.Errorf("%s: not a regular file (%s)", name, fileType(info.Mode())),
			"pipe manifests into standard input instead: … | kubeguardian scan -"))
	default:
		r.file(name, info.Size(), named)
	}
}

func (r *reader) folder(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		r.fail(pathError(dir, err))
		return
	}
	for _, e := range entries {
		if err := needsRendering(dir, e.Name()); err != nil {
			r.fail(err)
			return
		}
	}
	for _, e := range entries {
		if r.ctx.Err() != nil {
			return
		}
		name := filepath.Join(dir, e.Name())
		if isFolder(name, e) {
			if !strings.HasPrefix(e.Name(), ".") {
				r.path(name, false)
			}
		} else if slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(name))) {
			r.path(name, false)
		}
	}
}

// isFolder follows links; a link that leads nowhere is no folder, and is
// reported as a file if its name says that it holds manifests.
func isFolder(name string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// needsRendering refuses a folder whose files are not the objects that reach
// the cluster: they would be judged wrongly.
func needsRendering(dir, entry string) error {
	switch entry {
	case "Chart.yaml":
		return hint(fmt.Errorf("%s: a Helm chart must be rendered before it is scanned", dir),
			"helm template "+dir+" | kubeguardian scan -")
	case "kustomization.yaml", "kustomization.yml", "Kustomization":
		return hint(fmt.Errorf("%s: a kustomization must be built before it is scanned", dir),
			"kubectl kustomize "+dir+" | kubeguardian scan -")
	}
	return nil
}

func (r *reader) file(name string, size int64, named bool) {
	if err := needsRendering(filepath.Dir(name), filepath.Base(name)); err != nil {
		r.fail(err)
		return
	}
	if size > maxFileSize {
		r.fail(tooLarge(name, fmt.Sprintf("%d MiB", (size+1<<20-1)>>20)))
		return
	}
	f, err := os.Open(name)
	if err != nil {
		r.fail(pathError(name, err))
		return
	}
	defer f.Close()
	r.read(name, f, named)
}

func (r *reader) standardInput() {
	if !r.seen["-"] {
		r.seen["-"] = true
		r.read("stdin", r.stdin, true)
	}
}

// read takes at most the limit and one byte: a file can grow, and stdin has no
// size.
func (r *reader) read(name string, from io.Reader, named bool) {
	data, err := io.ReadAll(io.LimitReader(from, maxFileSize+1))
	switch {
	case err != nil:
		r.fail(pathError(name, err))
	case len(data) > maxFileSize:
		r.fail(tooLarge(name, "the input"))
	default:
		r.parse(name, data, named)
	}
}

const splitHint = "split the file; several files and folders can be scanned together"

func tooLarge(name, size string) error {
	return hint(fmt.Errorf("%s: %s is over the limit of %d MiB for one file", name, size, maxFileSize>>20), splitHint)
}

// pathError puts the name first, as in all other messages about input.
func pathError(name string, err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		if target, e := os.Readlink(name); e == nil && errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: dangling link to %s", name, target)
		}
		err = path.Err
	}
	return fmt.Errorf("%s: %w", name, err)
}

func fileType(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return mode.Type().String()
}
