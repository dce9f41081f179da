package policy

import (
	"encoding/json"
	"fmt"

	"go.yaml.in/yaml/v3"
	kjson "sigs.k8s.io/json"
)

// A Document is one object of a policy file that knows the lines of its fields.
// Packages that read policies of other kinds share the bounds and the error
// messages of this one through it.
type Document struct {
	source document
	object map[string]any
}

// Documents parses a file into objects, whatever their kinds, within the bounds
// of policy files. What is wrong with one document does not hide what is wrong
// with the others.
func Documents(f File) (docs []*Document, err error) {
	err = eachDocument(f, func(root *yaml.Node) error {
		d := &Document{source: document{file: f.Name, root: root}}
		if err := d.read(); err != nil {
			return err
		}
		docs = append(docs, d)
		return nil
	})
	return docs, err
}

func (d *Document) read() error {
	c := converter{file: d.source.file}
	value, err := c.value(d.source.root, 0)
	if err != nil {
		return err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return d.At("", "want an object with apiVersion and kind")
	}
	d.object = object
	return nil
}

// Object returns the object; it is only to be read.
func (d *Document) Object() map[string]any { return d.object }

// Text returns the value of a field such as "kind", or "" when it is no text.
func (d *Document) Text(field string) string {
	text, _ := d.object[field].(string)
	return text
}

// Decode fills a Go value strictly: unknown fields and wrong types are errors,
// each with its line.
func (d *Document) Decode(into any) error {
	data, err := json.Marshal(d.object)
	if err != nil {
		return d.At("", "convert to JSON: %v", err)
	}
	strict, err := kjson.UnmarshalStrict(data, into)
	if err != nil {
		return d.source.typeError(err)
	}
	return d.source.unknownFields(strict)
}

// At returns an error that carries the line of the field at path, such as
// spec.targets[0].rego, or of the closest field that exists.
func (d *Document) At(path, format string, args ...any) error {
	return d.source.at(path, format, args...)
}

// AtRow is At for a row, counted from 1, of the text at path. That is exact for
// text on one line and for a literal block.
func (d *Document) AtRow(path string, row int, format string, args ...any) error {
	line := sourceLine(find(d.source.root, path), row)
	return fmt.Errorf("%s:%d: %s", d.source.file, line, fmt.Sprintf(format, args...))
}

// Place returns file and line of the field at path.
func (d *Document) Place(path string) string {
	return fmt.Sprintf("%s:%d", d.source.file, find(d.source.root, path).Line)
}

// NewIncompleteError returns the error of a set of policies of another kind
// whose time, says cause, ran out before the policies with these names.
func NewIncompleteError(policies []string, decided bool, cause error) *IncompleteError {
	return &IncompleteError{Policies: policies, Decided: decided, cause: cause}
}
