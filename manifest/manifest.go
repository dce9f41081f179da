// Package manifest changes the YAML documents of policies and leaves the rest of
// their text as it is: comments, order and anchors stay.
package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/policy"
)

// An Object is one document of a file.
type Object struct {
	Source string // "file:line"
	file   string
	root   *yaml.Node
}

// Place returns file and line of the value of a key.
func (o *Object) Place(key string) string {
	if n := Value(o.root, key); n != nil {
		return fmt.Sprintf("%s:%d", o.file, n.Line)
	}
	return o.Source
}

// maxBytes bounds a file, as the loaders of policies do.
const maxBytes = 3 << 20

// Read parses the documents of a file. What is no mapping is left out.
func Read(f policy.File) (out []*Object, err error) {
	if len(f.Data) > maxBytes {
		return nil, fmt.Errorf("%s: file has %d bytes, more than the limit of %d", f.Name, len(f.Data), maxBytes)
	}
	for decoder := yaml.NewDecoder(bytes.NewReader(f.Data)); ; {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		if root := document.Content[0]; root.Kind == yaml.MappingNode {
			out = append(out, &Object{fmt.Sprintf("%s:%d", f.Name, root.Line), f.Name, root})
		}
	}
}

// Kind returns the kind of the object, or "".
func (o *Object) Kind() string { return o.Text("kind") }

// Group returns the API group of the object.
func (o *Object) Group() string {
	group, _, ok := strings.Cut(o.Text("apiVersion"), "/")
	if !ok {
		return ""
	}
	return group
}

// Name returns the name of the object, or "".
func (o *Object) Name() string { return o.Text("metadata", "name") }

// Text returns the text at a path, or "".
func (o *Object) Text(path ...string) string {
	if n := o.Find(path...); n != nil {
		return n.Value
	}
	return ""
}

// Find returns the value at a path, or nil. What an alias stands for is in its
// place.
func (o *Object) Find(path ...string) *yaml.Node {
	n := o.root
	for _, key := range path {
		if n = Value(n, key); n == nil {
			return nil
		}
	}
	return n
}

// Value returns the value of a key of a mapping, or nil. What an alias stands for
// is in its place.
func Value(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != key {
			continue
		}
		if v := n.Content[i+1]; v.Kind == yaml.AliasNode {
			return v.Alias
		}
		return n.Content[i+1]
	}
	return nil
}

// Set puts a value at a path, with the mappings on the way. What is shared by
// aliases cannot be changed in one place.
func (o *Object) Set(value any, path ...string) error {
	node := &yaml.Node{}
	if err := node.Encode(value); err != nil {
		return fmt.Errorf("%s: set %s: %w", o.Source, strings.Join(path, "."), err)
	}
	if node.Kind != yaml.ScalarNode {
		node.Style = yaml.FlowStyle
	}
	at := o.root
	for i, key := range path {
		last := i == len(path)-1
		n := slices.IndexFunc(at.Content, func(n *yaml.Node) bool { return n.Value == key })
		switch {
		case at.Kind != yaml.MappingNode:
			return fmt.Errorf("%s: set %s: %s is no mapping", o.Source, strings.Join(path, "."), strings.Join(path[:i], "."))
		case n >= 0 && n%2 == 0 && (at.Content[n+1].Kind == yaml.AliasNode || at.Content[n+1].Anchor != ""):
			return fmt.Errorf("%s: set %s: %s is shared by an alias: write it out", o.Source, strings.Join(path, "."), key)
		case n >= 0 && n%2 == 0 && last:
			at.Content[n+1] = node
		case n >= 0 && n%2 == 0 && at.Content[n+1].ShortTag() != "!!null":
			at = at.Content[n+1]
		default:
			at = add(at, key, n, node, last)
		}
	}
	return nil
}

// add gives a mapping a key, with a value or a mapping for what comes next; a key
// without a value is at n.
func add(at *yaml.Node, key string, n int, value *yaml.Node, last bool) *yaml.Node {
	if !last {
		value = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	}
	if n >= 0 && n%2 == 0 {
		at.Content[n+1] = value
	} else {
		at.Content = append(at.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, value)
	}
	return value
}

// Remove removes a key of a mapping.
func Remove(n *yaml.Node, key string) {
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content = slices.Delete(n.Content, i, i+2)
			return
		}
	}
}

// Drop removes what a cluster adds to its objects.
func (o *Object) Drop() {
	Remove(o.root, "status")
	if metadata := o.Find("metadata"); metadata != nil {
		for _, key := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink"} {
			Remove(metadata, key)
		}
		if annotations := Value(metadata, "annotations"); annotations != nil {
			Remove(annotations, "kubectl.kubernetes.io/last-applied-configuration")
		}
	}
}

// Write returns the object as YAML, and makes sure that it says the same.
func (o *Object) Write() ([]byte, error) {
	unfold(o.root)
	var want map[string]any
	if err := o.root.Decode(&want); err != nil {
		return nil, fmt.Errorf("%s: %w", o.Source, err)
	}
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := errors.Join(encoder.Encode(o.root), encoder.Close()); err != nil {
		return nil, fmt.Errorf("%s: write %s %q: %w", o.Source, o.Kind(), o.Name(), err)
	}
	var have map[string]any
	if err := yaml.Unmarshal(text.Bytes(), &have); err != nil || !reflect.DeepEqual(have, want) {
		return nil, fmt.Errorf("%s: write %s %q: the text would not say the same: %v", o.Source, o.Kind(), o.Name(), err)
	}
	return text.Bytes(), nil
}

// unfold writes folded text as literal text: the library would add lines to what
// is indented in it.
func unfold(n *yaml.Node) {
	if n.Style&yaml.FoldedStyle != 0 {
		n.Style = n.Style&^yaml.FoldedStyle | yaml.LiteralStyle
	}
	for _, child := range n.Content {
		unfold(child)
	}
}

// Join writes documents into one text.
func Join(texts ...[]byte) []byte { return bytes.Join(texts, []byte("---\n")) }
