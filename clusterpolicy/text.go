package clusterpolicy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// text writes an object as the document that policies are loaded from: what its
// author wrote, without what the API server and controllers add. Text of several
// lines stands in a block, line by line, so that the lines of errors are those of
// the code in it.
func text(o *unstructured.Unstructured) ([]byte, error) {
	metadata := map[string]any{"name": o.GetName()}
	if o.GetNamespace() != "" {
		metadata["namespace"] = o.GetNamespace()
	}
	if labels := o.GetLabels(); len(labels) > 0 {
		metadata["labels"] = labels
	}
	annotations := maps.Clone(o.GetAnnotations())
	delete(annotations, "kubectl.kubernetes.io/last-applied-configuration")
	if len(annotations) > 0 {
		metadata["annotations"] = annotations
	}
	document := map[string]any{"metadata": metadata}
	for field, value := range o.Object {
		if field != "metadata" && field != "status" {
			document[field] = value
		}
	}
	var w bytes.Buffer
	if err := write(&w, document, ""); err != nil {
		return nil, fmt.Errorf("write %s %q: %w", o.GetKind(), o.GetName(), err)
	}
	return w.Bytes(), nil
}

// write writes a value that begins on the line that is open, and ends the line.
func write(w *bytes.Buffer, value any, indent string) error {
	switch value := value.(type) {
	case map[string]string:
		fields := make(map[string]any, len(value))
		for key, text := range value {
			fields[key] = text
		}
		return write(w, fields, indent)
	case map[string]any:
		if len(value) > 0 {
			return writeFields(w, value, indent)
		}
	case []any:
		if len(value) > 0 {
			return writeItems(w, value, indent)
		}
	case string:
		if block(value) {
			writeBlock(w, value, indent)
			return nil
		}
	}
	data, err := quote(value)
	if err != nil {
		return err
	}
	w.WriteString(" " + data + "\n")
	return nil
}

// quote returns the JSON of a value, which is YAML too once what YAML reads as a
// line break, or not at all, is escaped.
func quote(value any) (string, error) {
	data, err := json.Marshal(value)
	if err != nil || !bytes.ContainsFunc(data, special) {
		return string(data), err
	}
	var out strings.Builder
	for _, r := range string(data) {
		if special(r) {
			fmt.Fprintf(&out, "\\u%04x", r)
		} else {
			out.WriteRune(r)
		}
	}
	return out.String(), nil
}

// special reports whether YAML does not read a character as it is; JSON has seen
// to those below the space.
func special(r rune) bool {
	return r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfeff || r == 0xfffe || r == 0xffff
}

func writeFields(w *bytes.Buffer, fields map[string]any, indent string) error {
	if indent != "" {
		w.WriteByte('\n')
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		key, err := quote(name)
		if err != nil {
			return err
		}
		w.WriteString(indent + key + ":")
		if err := write(w, fields[name], indent+"  "); err != nil {
			return err
		}
	}
	return nil
}

func writeItems(w *bytes.Buffer, items []any, indent string) error {
	w.WriteByte('\n')
	for _, item := range items {
		w.WriteString(indent)
		w.WriteByte('-')
		if err := write(w, item, indent+"  "); err != nil {
			return err
		}
	}
	return nil
}

// block reports whether a text can stand as it is in a literal block.
func block(text string) bool {
	return strings.Contains(text, "\n") && strings.Trim(text, "\n") != "" && utf8.ValidString(text) &&
		!strings.ContainsFunc(text, func(r rune) bool {
			return r < ' ' && r != '\n' && r != '\t' || special(r)
		})
}

// writeBlock writes a literal block. How deep it is indented is said, because its
// first line may begin with spaces. An empty line follows, which is where a parser
// finds that the text has ended too early.
func writeBlock(w *bytes.Buffer, text, indent string) {
	chomp := "-"
	switch body := strings.TrimRight(text, "\n"); len(text) - len(body) {
	case 0:
	case 1:
		chomp = ""
	default:
		chomp = "+"
	}
	w.WriteString(" |2" + chomp + "\n")
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		if line != "" {
			w.WriteString(indent)
		}
		w.WriteString(line + "\n")
	}
	if chomp != "+" {
		w.WriteByte('\n')
	}
}

// place returns what stands in a line of a document, and for a block of text the
// line in it, counted from 1; else 0.
func place(document []byte, line int) (path string, row int) {
	var root yaml.Node
	if yaml.Unmarshal(document, &root) != nil || len(root.Content) == 0 {
		return "", 0
	}
	return placeIn(root.Content[0], "", line)
}

// placeIn goes down to the last field that begins in the line or before it.
func placeIn(n *yaml.Node, path string, line int) (string, int) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := len(n.Content) - 2; i >= 0; i -= 2 {
			if n.Content[i].Line <= line {
				return placeIn(n.Content[i+1], strings.TrimPrefix(path+"."+n.Content[i].Value, "."), line)
			}
		}
	case yaml.SequenceNode:
		for i, item := range slices.Backward(n.Content) {
			if item.Line <= line {
				return placeIn(item, fmt.Sprintf("%s[%d]", path, i), line)
			}
		}
	case yaml.ScalarNode:
		if n.Style&yaml.LiteralStyle != 0 && line > n.Line {
			return path, line - n.Line
		}
	}
	return path, 0
}
