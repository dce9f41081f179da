package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/policy"
)

// The bounds of a file that is taken apart. What is larger goes whole to the
// first engine, whose loader refuses it by name.
const (
	maxBytes     = 3 << 20
	maxDocuments = 10_000
)

// A document is one of a file. Its text begins with the line that separates it
// from the one before.
type document struct {
	text     []byte
	line     int // of its text in the file, counted from 1
	kindLine int
	kind     schema.GroupVersionKind
	empty    bool // it holds nothing
	broken   bool // it is no object with apiVersion and kind
}

// documents takes a file apart. In YAML a line that begins with --- ends a
// document whatever is around it, so that no more than the lines need be looked
// at.
func documents(data []byte) ([]document, error) {
	var out []document
	line := 1
	for len(data) > 0 {
		end := nextSeparator(data)
		d := document{text: data[:end], line: line}
		line += bytes.Count(d.text, []byte("\n"))
		data = data[end:]
		d.look()
		if out = append(out, d); len(out) > maxDocuments {
			return nil, fmt.Errorf("%d: more than %d documents", d.line, maxDocuments)
		}
	}
	return out, nil
}

// nextSeparator returns where the document that data begins with ends.
func nextSeparator(data []byte) int {
	for at := 0; ; {
		next := bytes.IndexByte(data[at:], '\n')
		if next < 0 {
			return len(data)
		}
		at += next + 1
		if rest, ok := bytes.CutPrefix(data[at:], []byte("---")); ok && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0) {
			return at
		}
	}
}

// look finds the kind of a document.
func (d *document) look() {
	decoder := yaml.NewDecoder(bytes.NewReader(d.text))
	var node, second yaml.Node
	err := decoder.Decode(&node)
	switch {
	case errors.Is(err, io.EOF), err == nil && (len(node.Content) == 0 || node.Content[0].ShortTag() == "!!null"):
		d.empty = true
		return
	case err != nil || node.Content[0].Kind != yaml.MappingNode || decoder.Decode(&second) != io.EOF:
		d.broken = true
		return
	}
	var apiVersion, kind string
	for i, root := 0, node.Content[0]; i+1 < len(root.Content); i += 2 {
		switch key, value := root.Content[i], root.Content[i+1]; key.Value {
		case "apiVersion":
			apiVersion = value.Value
		case "kind":
			kind, d.kindLine = value.Value, d.line+value.Line-1
		}
	}
	d.kind = schema.FromAPIVersionAndKind(apiVersion, kind)
	d.broken = apiVersion == "" || kind == ""
}

// An assortment is what files hold, by the engine whose it is. Each engine gets
// the files with the documents of others blanked out, so that its errors name
// the lines of the file.
type assortment struct {
	byEngine [][]policy.File
	others   []policy.File // what no engine judges by
	unknown  []error       // one for each document in others
}

// assort takes files apart.
func assort(engines []engine, files []policy.File) assortment {
	out := assortment{byEngine: make([][]policy.File, len(engines))}
	for _, f := range files {
		out.add(engines, f)
	}
	return out
}

// whole returns the engine that gets a file in one piece, or -1.
func whole(engines []engine, f policy.File) int {
	if len(f.Data) > maxBytes {
		return 0
	}
	return slices.IndexFunc(engines, func(e engine) bool { return e.beside != nil && e.beside(f) })
}

func (a *assortment) add(engines []engine, f policy.File) {
	if i := whole(engines, f); i >= 0 {
		a.byEngine[i] = append(a.byEngine[i], f)
		return
	}
	docs, err := documents(f.Data)
	if err != nil {
		a.unknown = append(a.unknown, fmt.Errorf("%s:%w", f.Name, err))
		return
	}
	owners := make([]int, len(docs)) // the engine of each, or one of the following
	const nobody, someoneElse = -1, -2
	for i, d := range docs {
		switch {
		case d.empty:
			owners[i] = nobody
		case d.broken:
			owners[i] = 0 // whose loader says what is wrong
		default:
			if owners[i] = slices.IndexFunc(engines, func(e engine) bool { return e.owns(d.kind) }); owners[i] < 0 {
				owners[i] = someoneElse
				a.unknown = append(a.unknown, &UnknownKindError{Source: fmt.Sprintf("%s:%d", f.Name, d.kindLine), Kind: d.kind})
			}
		}
	}
	for i := range engines {
		a.byEngine[i] = appendSelection(a.byEngine[i], f.Name, docs, owners, i)
	}
	a.others = appendSelection(a.others, f.Name, docs, owners, someoneElse)
}

// appendSelection appends the file with the documents of one owner, if it has
// any. Of the others the line breaks are left.
func appendSelection(to []policy.File, name string, docs []document, owners []int, owner int) []policy.File {
	if !slices.Contains(owners, owner) {
		return to
	}
	var text bytes.Buffer
	for i, d := range docs {
		if owners[i] == owner {
			text.Write(d.text)
		} else {
			text.Write(bytes.Repeat([]byte("\n"), bytes.Count(d.text, []byte("\n"))))
		}
	}
	return append(to, policy.File{Name: name, Data: text.Bytes()})
}
