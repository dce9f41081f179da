package fix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/fix/edit"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// maxFileSize bounds what is read, as the inventory does.
const maxFileSize = 32 << 20

// stdin is how the inventory calls standard input.
const stdin = "stdin"

// A source is one file under repair.
type source struct {
	name      string
	data      []byte // as it was read; nil for a new file
	documents []*document
	added     []byte // whole documents that come last
}

// A document is one document of a file.
type document struct {
	begin, end int    // in the file
	line       int    // of the file, on which it begins, from 0
	text       []byte // as it is now
	first, now []*inventory.Object
	paths      [][]any // of the objects, in the document
	broken     error   // why it cannot be changed
}

// A located object is one that was found in the text of its file.
type located struct {
	document *document
	index    int
}

func newJob(ctx context.Context, in Input) (*job, error) {
	if err := refuseRendered(in.Paths); err != nil {
		return nil, err
	}
	j := &job{in: in, sources: map[string]*source{}, objects: map[*inventory.Object]*located{}}
	var text []byte
	if slices.Contains(in.Paths, "-") {
		var err error
		if text, err = io.ReadAll(io.LimitReader(in.Stdin, maxFileSize+1)); err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		j.sources[stdin] = newSource(stdin, text)
	}
	var err error
	if j.inv, err = inventory.FromFiles(ctx, in.Paths, bytes.NewReader(text)); err != nil {
		return nil, err
	}
	j.pins = pins(j.inv)
	return j, nil
}

// A hinted error also says what the user can do.
type hinted struct {
	error
	hint string
}

func (h hinted) Hint() string { return h.hint }

// refuseRendered names what cannot be changed in place: the objects of a chart
// or a kustomization are written nowhere.
func refuseRendered(paths []string) error {
	var errs []error
	for _, root := range paths {
		if root == "-" {
			continue
		}
		err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			dir := filepath.Dir(name)
			switch {
			case err != nil:
				return nil // the inventory says what is wrong with it
			case d.IsDir() && name != root && strings.HasPrefix(d.Name(), "."):
				return fs.SkipDir
			case d.Name() == "Chart.yaml":
				errs = append(errs, hinted{fmt.Errorf("%s: a Helm chart cannot be changed in place: its templates are not manifests", dir),
					"see what its objects need, and change its templates or values: helm template " + dir + " | kubeguardian fix -"})
				return fs.SkipDir
			case slices.Contains([]string{"kustomization.yaml", "kustomization.yml", "Kustomization"}, d.Name()):
				errs = append(errs, hinted{fmt.Errorf("%s: a kustomization cannot be changed in place: its objects are made of several files", dir),
					"see what its objects need, and add a patch to it: kubectl kustomize " + dir + " | kubeguardian fix -"})
				return fs.SkipDir
			}
			return nil
		})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func newSource(name string, data []byte) *source {
	s := &source{name: name, data: data}
	lines := edit.Lines(data)
	bom := len(data) - len(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	begin := 0
	for i, start := range lines {
		if i > 0 && marker(data[start:]) {
			s.documents = append(s.documents, &document{begin: lines[begin], end: start, line: begin})
			begin = i
		}
	}
	s.documents = append(s.documents, &document{begin: lines[begin], end: len(data), line: begin})
	s.documents[0].begin = bom
	for _, d := range s.documents {
		d.text = data[d.begin:d.end]
	}
	return s
}

// marker reports whether a line begins a document.
func marker(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0)
}

// source returns a file of the inventory, which is read once.
func (j *job) source(name string) (*source, error) {
	if s := j.sources[name]; s != nil {
		return s, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	j.sources[name] = newSource(name, data)
	return j.sources[name], nil
}

// place splits "file:line".
func place(source string) (file string, line int) {
	i := strings.LastIndexByte(source, ':')
	if i < 0 {
		return source, 0
	}
	line, _ = strconv.Atoi(source[i+1:])
	return source[:i], line
}

// locate finds an object of the inventory in the text of its file.
func (j *job) locate(ctx context.Context, o *inventory.Object) (*located, error) {
	if at := j.objects[o]; at != nil {
		return at, nil
	}
	if o.RenderedFrom != "" {
		return nil, fmt.Errorf("%s makes it: change its templates, values or patches", o.RenderedFrom)
	}
	name, line := place(o.Source)
	s, err := j.source(name)
	if err != nil {
		return nil, err
	}
	i := len(s.documents) - 1
	for i > 0 && s.documents[i].line >= line {
		i--
	}
	d := s.documents[i]
	d.read(ctx)
	if d.broken != nil {
		return nil, d.broken
	}
	at := -1
	for i, found := range d.first {
		_, l := place(found.Source)
		if l+d.line == line && reflect.DeepEqual(found.Object, o.Object) {
			if at >= 0 {
				return nil, errors.New("it is written twice at the same place")
			}
			at = i
		}
	}
	if at < 0 {
		return nil, errors.New("it is not found in its file: was the file changed meanwhile?")
	}
	j.objects[o] = &located{d, at}
	return j.objects[o], nil
}

// read takes the objects out of a document, once.
func (d *document) read(ctx context.Context) {
	if d.first != nil || d.broken != nil {
		return
	}
	if d.first, d.broken = objectsIn(ctx, d.text); d.broken != nil {
		return
	}
	d.now = d.first
	d.paths, d.broken = pathsIn(d.text, d.first)
}

func objectsIn(ctx context.Context, text []byte) ([]*inventory.Object, error) {
	inv, err := inventory.FromFiles(ctx, []string{"-"}, bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read the document by itself: %w", err)
	}
	return inv.Objects(), nil
}

// pathsIn returns where in a document each object is: at its root, or among the
// items of a list.
func pathsIn(text []byte, objects []*inventory.Object) ([][]any, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil || len(root.Content) == 0 {
		return nil, errors.New("the document cannot be read by itself")
	}
	var found []item
	items(root.Content[0], nil, &found)
	paths := make([][]any, len(objects))
	for i, o := range objects {
		for n, it := range found {
			if _, line := place(o.Source); !it.taken && it.line == line && it.name == o.GetName() && it.namespace == o.GetNamespace() {
				paths[i], found[n].taken = it.path, true
				break
			}
		}
		if paths[i] == nil {
			return nil, fmt.Errorf("%s is not found in the document", o.Subject())
		}
	}
	return paths, nil
}

// An item is a mapping that may be an object.
type item struct {
	path            []any
	line            int
	namespace, name string
	taken           bool
}

func items(n *yaml.Node, path []any, out *[]item) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if list := child(n, "items"); list != nil && list.Kind == yaml.SequenceNode && strings.HasSuffix(text(child(n, "kind")), "List") {
		for i, item := range list.Content {
			items(item, append(path[:len(path):len(path)], "items", i), out)
		}
		return
	}
	meta := child(n, "metadata")
	*out = append(*out, item{
		path: append([]any{}, path...), line: n.Line,
		namespace: text(child(meta, "namespace")), name: text(child(meta, "name")),
	})
}

func child(n *yaml.Node, key string) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func text(n *yaml.Node) string {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil {
		return ""
	}
	return n.Value
}

// change makes ops in an object of a document. It fails, and changes nothing,
// unless the document then holds the same objects but for the ops.
func (d *document) change(ctx context.Context, index int, ops []edit.Op) error {
	here := slices.Clone(ops)
	for i := range here {
		here[i].Path = slices.Concat(d.paths[index], here[i].Path)
	}
	next, err := edit.Apply(d.text, here...)
	if err != nil {
		return err
	}
	now, err := objectsIn(ctx, next)
	if err != nil {
		return err
	}
	want, err := applied(d.now[index].Object, ops)
	if err != nil {
		return err
	}
	if len(now) != len(d.now) {
		return errors.New("the document would hold other objects")
	}
	for i, o := range now {
		expected := d.now[i].Object
		if i == index {
			expected = want
		}
		if !reflect.DeepEqual(o.Object, expected) {
			return fmt.Errorf("%s would change in more than was asked for", o.Subject())
		}
	}
	d.text, d.now = next, now
	return nil
}

// applied returns the content of an object after ops.
func applied(content map[string]any, ops []edit.Op) (map[string]any, error) {
	var value any = content
	for _, op := range ops {
		var err error
		if value, err = op.Apply(value); err != nil {
			return nil, fmt.Errorf("%s: %w", op, err)
		}
	}
	return value.(map[string]any), nil
}

// A File is one that changes.
type File struct {
	Name          string
	Before, After []byte
	New           bool
}

// file returns the file as it is now.
func (s *source) file() (File, bool) {
	f := File{Name: s.name, Before: s.data, New: s.data == nil}
	at := 0
	for _, d := range s.documents {
		f.After = append(f.After, s.data[at:d.begin]...)
		f.After = append(f.After, d.text...)
		at = d.end
	}
	if len(s.added) > 0 && len(f.After) > 0 && f.After[len(f.After)-1] != '\n' {
		f.After = append(f.After, '\n')
	}
	f.After = append(f.After, s.added...)
	return f, !bytes.Equal(f.Before, f.After)
}

// reset takes all changes back.
func (s *source) reset() {
	s.added = nil
	for _, d := range s.documents {
		d.text, d.now = s.data[d.begin:d.end], d.first
	}
}
