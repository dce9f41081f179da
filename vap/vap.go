// Package vap writes policies as native ValidatingAdmissionPolicies with their
// bindings: for a cluster, or as static manifests that an API server reads from
// its own disk (ManifestBasedAdmissionControlConfig, Kubernetes 1.36 and later),
// which nobody can delete through its API.
package vap

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/policy"
)

// StaticSuffix is how the names of static policies and bindings end; the API
// server refuses it for all others.
const StaticSuffix = ".static.k8s.io"

// A Manifest is one policy with its bindings, as YAML.
type Manifest struct {
	Name string // of the policy
	Data []byte
}

// An UnsupportedError names a document that cannot be exported.
type UnsupportedError struct {
	Source string // "file:line"
	Kind   string
	Name   string
	Reason string
}

// Error says what cannot be exported and why.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s: %s cannot be exported: %s", e.Source, strings.TrimSpace(e.Kind+" "+e.Name), e.Reason)
}

// Export returns the policies in files, ordered by name, each followed by its
// bindings, ordered by name. The text is that of the files, but for what a
// cluster adds to its objects. When they are to be static, names end in
// [StaticSuffix].
//
// What cannot be exported is in unsupported, each an [*UnsupportedError]. The
// error is for policies that do not load at all.
func Export(files []policy.File, static bool) (manifests []Manifest, unsupported []error, err error) {
	unsupported, err = load(files)
	if err != nil {
		return nil, nil, err
	}
	policies, _, err := engine.Split(files...)
	if err != nil {
		return nil, nil, err
	}
	var all []*object
	for _, f := range policies {
		objects, err := read(f)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, objects...)
	}
	slices.SortStableFunc(all, func(a, b *object) int { return cmp.Compare(a.name(), b.name()) })
	for _, o := range all {
		if o.kind() == "ValidatingAdmissionPolicyBinding" {
			continue // with its policy
		}
		if reason := o.obstacle(static); reason != "" {
			unsupported = append(unsupported, &UnsupportedError{o.source, o.kind(), o.name(), reason})
			continue
		}
		manifest, err := export(o, all, static)
		if err != nil {
			return nil, nil, err
		}
		manifests = append(manifests, manifest)
	}
	return manifests, unsupported, nil
}

// load checks the policies. Documents of other kinds are not supported.
func load(files []policy.File) (unsupported []error, err error) {
	_, err = engine.Load(files...)
	var errs []error
	for _, e := range flatten(err) {
		if unknown := (*engine.UnknownKindError)(nil); errors.As(e, &unknown) {
			unsupported = append(unsupported, &UnsupportedError{Source: unknown.Source, Kind: unknown.Kind.Kind, Reason: "it is no policy"})
		} else {
			errs = append(errs, e)
		}
	}
	return unsupported, errors.Join(errs...)
}

// flatten returns the errors that are joined in one.
func flatten(err error) (all []error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			all = append(all, flatten(e)...)
		}
		return all
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// export writes a policy and its bindings.
func export(p *object, all []*object, static bool) (Manifest, error) {
	out := []*object{p}
	for _, o := range all {
		if o.kind() == "ValidatingAdmissionPolicyBinding" && o.text("spec", "policyName") == p.name() {
			out = append(out, o)
		}
	}
	suffix := ""
	if static && !strings.HasSuffix(p.name(), StaticSuffix) {
		suffix = StaticSuffix
	}
	manifest := Manifest{Name: p.name() + suffix}
	var text bytes.Buffer
	for i, o := range out {
		if i > 0 {
			text.WriteString("---\n")
		}
		data, err := o.write(static)
		if err != nil {
			return Manifest{}, err
		}
		text.Write(data)
	}
	manifest.Data = text.Bytes()
	return manifest, nil
}

// An object is one document of a file.
type object struct {
	source string // "file:line"
	root   *yaml.Node
}

// read parses the documents of a file that has been loaded.
func read(f policy.File) (out []*object, err error) {
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
			out = append(out, &object{fmt.Sprintf("%s:%d", f.Name, root.Line), root})
		}
	}
}

func (o *object) kind() string { return o.text("kind") }
func (o *object) name() string { return o.text("metadata", "name") }

// text returns the text at a path, or "".
func (o *object) text(path ...string) string {
	if n := o.find(path...); n != nil {
		return n.Value
	}
	return ""
}

// find returns the value at a path, or nil.
func (o *object) find(path ...string) *yaml.Node {
	n := o.root
	for _, key := range path {
		if n = value(n, key); n == nil {
			return nil
		}
	}
	return n
}

// value returns the value of a key, or nil. What an alias stands for is in its
// place.
func value(n *yaml.Node, key string) *yaml.Node {
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

// obstacle returns why the object cannot be exported, or "".
func (o *object) obstacle(static bool) string {
	switch {
	case o.kind() != "ValidatingAdmissionPolicy":
		return "no ValidatingAdmissionPolicy does what it does"
	case static && o.find("spec", "paramKind") != nil:
		return "a static policy cannot have parameters: the API server reads it before there are any"
	case static && len(o.name())+len(StaticSuffix) > 253:
		return "its name is too long for the suffix " + StaticSuffix
	}
	return ""
}

// write returns the object as YAML, and makes sure that it says the same.
func (o *object) write(static bool) ([]byte, error) {
	o.drop()
	unfold(o.root)
	var want map[string]any
	if static {
		for _, path := range [][]string{{"metadata", "name"}, {"spec", "policyName"}} {
			if n := o.find(path...); n != nil && !strings.HasSuffix(n.Value, StaticSuffix) {
				n.Value += StaticSuffix
			}
		}
	}
	if err := o.root.Decode(&want); err != nil {
		return nil, fmt.Errorf("%s: %w", o.source, err)
	}
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := errors.Join(encoder.Encode(o.root), encoder.Close()); err != nil {
		return nil, fmt.Errorf("%s: write %s %q: %w", o.source, o.kind(), o.name(), err)
	}
	var have map[string]any
	if err := yaml.Unmarshal(text.Bytes(), &have); err != nil || !reflect.DeepEqual(have, want) {
		return nil, fmt.Errorf("%s: write %s %q: the text would not say the same: %v", o.source, o.kind(), o.name(), err)
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

// drop removes what a cluster adds to its objects.
func (o *object) drop() {
	remove(o.root, "status")
	if metadata := o.find("metadata"); metadata != nil {
		for _, key := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink"} {
			remove(metadata, key)
		}
		if annotations := value(metadata, "annotations"); annotations != nil {
			remove(annotations, "kubectl.kubernetes.io/last-applied-configuration")
		}
	}
}

func remove(n *yaml.Node, key string) {
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
