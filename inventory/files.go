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

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/helm"
)

// ErrNoObjects says that the input holds nothing to judge. It is an error
// because an empty input must not look like a clean one.
var ErrNoObjects = errors.New("no Kubernetes objects")

// The bounds of what is read from files.
const (
	maxFileSize  = 32 << 20 // bytes of one file
	maxDocuments = 100_000  // documents and list items of all files
)

// A FileInput says which files to read, and how to render charts among them.
type FileInput struct {
	Paths  []string  // files, folders, charts and kustomizations; "-" for stdin
	Stdin  io.Reader // may be nil if no path is "-"
	Values []string  // files with values for charts; later ones win
	Set    []string  // single values for charts, as "key=value"; they win over files

	Texts   []Text // manifests that were read elsewhere
	Reviews bool   // AdmissionReviews, which have no name, are objects too
	Loose   bool   // every kind is decoded as custom resources are, and workloads may lack containers
}

// A Text is the text of manifests. Name is the file it is of.
type Text struct {
	Name string
	Data []byte
}

// FromFiles reads manifests as [Read] does, but the result is whole or there is
// none: the error joins everything that was found wrong. Workloads may lack
// containers.
func FromFiles(ctx context.Context, paths []string, stdin io.Reader) (*Inventory, error) {
	r := newReader(ctx, FileInput{Paths: paths, Stdin: stdin})
	if err := r.all(); err != nil {
		return nil, err
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return r.inventory()
}

// Read reads manifests: files, folders and, for "-", stdin. In a folder it
// reads *.yaml, *.yml and *.json at any depth, except in hidden folders; a
// document there that is no Kubernetes object becomes a [Skip], while in a file
// that is named itself it is a problem. A file is read once, however often it is
// named or linked to.
//
// A Helm chart, as a folder or an archive, is rendered, and a kustomization is
// built: see package helm and buildKustomizations. Neither runs a program nor
// uses the network. The files that they are made of are not read as manifests.
//
// Documents of Kubernetes' own kinds are decoded strictly, custom resources
// loosely but for their metadata. What is wrong is in Problems, and the part of
// the input that it hides in Unreadable; a workload without containers is wrong
// too. If nothing could be read, the problems
// are the error; input without any object gives [ErrNoObjects]. An error may
// have a method Hint() string that says what to do.
func Read(ctx context.Context, in FileInput) (*Inventory, error) {
	r := newReader(ctx, in)
	if err := r.all(); err != nil {
		return nil, err
	}
	inv, err := r.inventory()
	if err != nil {
		return nil, err
	}
	if in.Loose {
		return inv, nil
	}
	if r.dropHollow(inv); len(r.objects) < len(inv.objects) {
		return r.inventory()
	}
	return inv, nil
}

func newReader(ctx context.Context, in FileInput) *reader {
	return &reader{
		ctx: ctx, in: in, seen: map[string]bool{}, consumed: map[string]bool{},
		fields: map[reflect.Type]map[string]reflect.Type{}, unread: map[finding.Subject]bool{},
		shared: newSharedValues(),
	}
}

// all reads everything. Its error is that of the context.
func (r *reader) all() error {
	for _, p := range r.in.Paths {
		if p == "-" {
			r.standardInput()
		} else {
			r.path(filepath.Clean(p), true)
		}
	}
	for _, text := range r.in.Texts {
		r.parse(source{name: text.Name}, text.Data)
	}
	r.buildKustomizations()
	r.renderCharts()
	for _, f := range r.files {
		if !r.consumed[f.real] && r.ctx.Err() == nil {
			r.file(f)
		}
	}
	if err := r.ctx.Err(); err != nil {
		return fmt.Errorf("read manifests: %w", err)
	}
	return nil
}

func (r *reader) inventory() (*Inventory, error) {
	if len(r.objects) == 0 {
		if err := r.err(); err != nil {
			return nil, err
		}
		err := fmt.Errorf("%w in %s", ErrNoObjects, strings.Join(r.in.Paths, ", "))
		return nil, hint(err, "name files or folders with manifests (*.yaml, *.yml, *.json), or pipe them: kubectl get … -o yaml | kubeguardian scan -")
	}
	inv, err := New(Files, r.objects, nil)
	if err != nil {
		return nil, err
	}
	inv.Skipped, inv.Unreadable, inv.Problems = r.skipped, r.unreadable, r.err()
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
	ctx            context.Context // of the one call that the reader serves
	in             FileInput
	seen           map[string]bool // resolved names of files and folders
	consumed       map[string]bool // resolved names of what a chart or kustomization is made of
	files          []found         // that may hold manifests
	charts         []found         // folders and archives
	kustomizations []found         // folders
	fields         map[reflect.Type]map[string]reflect.Type
	shared         *sharedValues
	pool           pool
	documents      int
	objects        []*Object
	skipped        []Skip
	unreadable     []Unreadable
	unread         map[finding.Subject]bool
	errs           []error
	more           int // errors beyond maxErrors
}

// A found is a file or folder that is to be read.
type found struct {
	name  string // as the user would write it
	real  string // resolved
	size  int64
	named bool // by the user, not found in a folder
}

// path notes what name stands for. Named is true for what the user named, and
// false for what was found in a folder.
func (r *reader) path(name string, named bool) {
	f, info, err := resolve(name, named)
	if err != nil {
		r.fail(name, pathError(name, err))
		return
	}
	if slices.Contains(kustomizationNames, filepath.Base(name)) || filepath.Base(name) == helm.ChartFile {
		r.path(filepath.Dir(name), named)
		return
	}
	if r.seen[f.real] {
		return
	}
	r.seen[f.real] = true
	switch {
	case info.IsDir():
		r.folder(f)
	case !info.Mode().IsRegular():
		r.fail(name, hint(fmt.Errorf("%s: not a regular file (%s)", name, fileType(info.Mode())),
			"pipe manifests into standard input instead: … | kubeguardian scan -"))
	case helm.IsArchive(name):
		r.charts = append(r.charts, f)
	default:
		r.files = append(r.files, f)
	}
}

func resolve(name string, named bool) (found, fs.FileInfo, error) {
	info, err := os.Stat(name)
	if err != nil {
		return found{}, nil, err
	}
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return found{}, nil, err
	}
	if real, err = filepath.Abs(real); err != nil {
		return found{}, nil, err
	}
	return found{name, real, info.Size(), named}, info, nil
}

func (r *reader) folder(dir found) {
	entries, err := os.ReadDir(dir.name)
	if err != nil {
		r.fail(dir.name, pathError(dir.name, err))
		return
	}
	for _, e := range entries {
		if e.Name() == helm.ChartFile {
			r.charts = append(r.charts, dir)
			return
		}
	}
	for _, e := range entries {
		if r.ctx.Err() != nil {
			return
		}
		r.entry(dir, e)
	}
}

func (r *reader) entry(dir found, e fs.DirEntry) {
	name := filepath.Join(dir.name, e.Name())
	switch {
	case isFolder(name, e):
		if !strings.HasPrefix(e.Name(), ".") {
			r.path(name, false)
		}
	case slices.Contains(kustomizationNames, e.Name()):
		if n := len(r.kustomizations); n == 0 || r.kustomizations[n-1].real != dir.real {
			r.kustomizations = append(r.kustomizations, dir)
		}
	case helm.IsArchive(name), slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(name))):
		r.path(name, false)
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

func (r *reader) file(f found) {
	data, err := readFile(f.name)
	if err != nil {
		r.fail(f.name, err)
		return
	}
	r.parse(source{name: f.name, named: f.named}, data)
}

// readFile reads a file that is not too large. Its error names the file.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, pathError(name, err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > maxFileSize {
		return nil, tooLarge(name, fmt.Sprintf("%d MiB", (info.Size()+1<<20-1)>>20))
	}
	return readAll(name, f)
}

// readAll takes at most the limit and one byte: a file can grow, and stdin has
// no size.
func readAll(name string, from io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, maxFileSize+1))
	switch {
	case err != nil:
		return nil, pathError(name, err)
	case len(data) > maxFileSize:
		return nil, tooLarge(name, "the input")
	}
	return data, nil
}

func (r *reader) standardInput() {
	if r.seen["-"] {
		return
	}
	r.seen["-"] = true
	data, err := readAll("stdin", r.in.Stdin)
	if err != nil {
		r.fail("stdin", err)
		return
	}
	r.parse(source{name: "stdin", named: true}, data)
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
