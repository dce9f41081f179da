package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	kjson "sigs.k8s.io/json"
)

// Bounds of a policy file. The API server refuses requests over 3 MiB, so no
// policy that it takes is larger.
const (
	maxFileBytes = 3 << 20
	maxNodes     = 200_000 // YAML values of a document, aliases expanded
	maxDepth     = 100
)

// A document is one parsed object of a file; it knows the lines of its fields.
// One of the four objects is there.
type document struct {
	file            string
	root            *yaml.Node
	policy          *admissionregistrationv1.ValidatingAdmissionPolicy
	binding         *admissionregistrationv1.ValidatingAdmissionPolicyBinding
	mutating        *admissionregistrationv1.MutatingAdmissionPolicy
	mutatingBinding *admissionregistrationv1.MutatingAdmissionPolicyBinding
}

// name returns the name of the object.
func (d *document) name() string {
	switch {
	case d.policy != nil:
		return d.policy.Name
	case d.binding != nil:
		return d.binding.Name
	case d.mutating != nil:
		return d.mutating.Name
	}
	return d.mutatingBinding.Name
}

// binds returns the name of the policy that a binding is for, and "" for a
// policy.
func (d *document) binds() string {
	switch {
	case d.binding != nil:
		return d.binding.Spec.PolicyName
	case d.mutatingBinding != nil:
		return d.mutatingBinding.Spec.PolicyName
	}
	return ""
}

// mutates reports whether the object belongs to the mutating policies.
func (d *document) mutates() bool { return d.mutating != nil || d.mutatingBinding != nil }

// documents parses a file. What is wrong with one document does not hide what
// is wrong with the others.
func documents(f File) (docs []*document, err error) {
	err = eachDocument(f, func(root *yaml.Node) error {
		d := &document{file: f.Name, root: root}
		if err := d.decode(); err != nil {
			return err
		}
		docs = append(docs, d)
		return nil
	})
	return docs, err
}

// eachDocument calls read with each document of a file that is not empty, and
// joins its errors. Nothing can be read after a syntax error.
func eachDocument(f File, read func(*yaml.Node) error) error {
	if len(f.Data) > maxFileBytes {
		return Coded(CodeTooLarge, fmt.Errorf("%s: file has %d bytes, more than the limit of %d", f.Name, len(f.Data), maxFileBytes))
	}
	var mistakes Mistakes
	for decoder := yaml.NewDecoder(bytes.NewReader(f.Data)); ; {
		var node yaml.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			return mistakes.joined()
		}
		if err != nil {
			mistakes.Add(syntaxError(f.Name, err))
			return mistakes.joined()
		}
		if !empty(&node) {
			mistakes.Add(read(node.Content[0]))
		}
	}
}

func empty(doc *yaml.Node) bool {
	return len(doc.Content) == 0 || doc.Content[0].Tag == "!!null"
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

// syntaxError moves the line in an error of the YAML parser to the front. The
// parser leaves out line 1, and has no line for bytes that are not text.
func syntaxError(file string, err error) error {
	text := err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		return fmt.Errorf("%s:%s: parse YAML: %s", file, m[1], text[len(m[0]):])
	}
	text = strings.TrimPrefix(text, "yaml: ")
	if strings.Contains(text, "control characters") || strings.Contains(text, "UTF-") {
		return fmt.Errorf("%s: parse YAML: %s", file, text)
	}
	return fmt.Errorf("%s:1: parse YAML: %s", file, text)
}

// at returns an error that carries the line of the field at path, or of the
// closest field that exists.
func (d *document) at(path, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", d.file, find(d.root, path).Line, fmt.Sprintf(format, args...))
}

// decode fills policy or binding from the YAML tree.
func (d *document) decode() error {
	c := converter{file: d.file}
	value, err := c.value(d.root, 0)
	if err != nil {
		return err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return d.at("", "want an object with apiVersion and kind")
	}
	into, err := d.target(object)
	if err != nil {
		return err
	}
	data, err := json.Marshal(object)
	if err != nil {
		return d.at("", "convert to JSON: %v", err)
	}
	strict, err := kjson.UnmarshalStrict(data, into)
	if err != nil {
		return d.typeError(err)
	}
	return d.unknownFields(strict)
}

// target returns the Go object for the apiVersion and kind of the document. The
// fields of mutating policies are the same in v1beta1.
func (d *document) target(object map[string]any) (into any, err error) {
	const v1, v1beta1 = "admissionregistration.k8s.io/v1", "admissionregistration.k8s.io/v1beta1"
	versions := []string{v1}
	kind, _ := object["kind"].(string)
	switch kind {
	case "ValidatingAdmissionPolicy":
		d.policy = &admissionregistrationv1.ValidatingAdmissionPolicy{}
		into = d.policy
	case "ValidatingAdmissionPolicyBinding":
		d.binding = &admissionregistrationv1.ValidatingAdmissionPolicyBinding{}
		into = d.binding
	case "MutatingAdmissionPolicy":
		d.mutating = &admissionregistrationv1.MutatingAdmissionPolicy{}
		into, versions = d.mutating, append(versions, v1beta1)
	case "MutatingAdmissionPolicyBinding":
		d.mutatingBinding = &admissionregistrationv1.MutatingAdmissionPolicyBinding{}
		into, versions = d.mutatingBinding, append(versions, v1beta1)
	default:
		return nil, d.at("kind", "kind %q is not supported: want ValidatingAdmissionPolicy, MutatingAdmissionPolicy or the binding of one", kind)
	}
	if got, _ := object["apiVersion"].(string); !slices.Contains(versions, got) {
		return nil, d.at("apiVersion", "apiVersion %v is not supported: want %s", object["apiVersion"], strings.Join(versions, " or "))
	}
	return into, nil
}

// typeError reports a value of the wrong type.
func (d *document) typeError(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return d.at(wrong.Field, "%s: want %s, have %s", wrong.Field, wrong.Type, wrong.Value)
	}
	return d.at("", "decode: %v", err)
}

func (d *document) unknownFields(strict []error) error {
	var errs []error
	for _, err := range strict {
		var field interface{ FieldPath() string }
		if errors.As(err, &field) {
			errs = append(errs, d.at(field.FieldPath(), "%v", err))
		} else {
			errs = append(errs, d.at("", "%v", err))
		}
	}
	return errors.Join(errs...)
}

// find returns the node at a path like spec.validations[0].expression, or the
// deepest node on the way that exists. For a mapping entry that is the key if
// the value is a collection, so that the line is the one where the field begins.
func find(node *yaml.Node, path string) *yaml.Node {
	found := node
	for step := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		key, value := child(node, step)
		if value == nil {
			break
		}
		found, node = value, value
		if value.Kind != yaml.ScalarNode {
			found = key
		}
	}
	return found
}

// child returns the key and the value of one step below a node.
func child(node *yaml.Node, step string) (key, value *yaml.Node) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == step {
				return node.Content[i], node.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(node.Content) {
			return node.Content[i], node.Content[i]
		}
	}
	return nil, nil
}

// A converter turns a YAML tree into JSON values, bounded in depth and size.
type converter struct {
	file  string
	nodes int
}

func (c *converter) errorf(node *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", c.file, node.Line, fmt.Sprintf(format, args...))
}

func (c *converter) value(node *yaml.Node, depth int) (any, error) {
	if c.nodes++; c.nodes > maxNodes || depth > maxDepth {
		return nil, Coded(CodeTooLarge, c.errorf(node, "document is too large or too deep: the limits are %d values and %d levels", maxNodes, maxDepth))
	}
	switch node.Kind {
	case yaml.AliasNode:
		return c.value(node.Alias, depth+1)
	case yaml.MappingNode:
		return c.mapping(node, depth)
	case yaml.SequenceNode:
		list := make([]any, len(node.Content))
		for i, item := range node.Content {
			v, err := c.value(item, depth+1)
			if err != nil {
				return nil, err
			}
			list[i] = v
		}
		return list, nil
	default:
		return c.scalar(node)
	}
}

func (c *converter) mapping(node *yaml.Node, depth int) (any, error) {
	object := make(map[string]any, len(node.Content)/2)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		if key.Kind != yaml.ScalarNode || key.Tag != "!!str" {
			return nil, c.errorf(key, "key %q is not a string", key.Value)
		}
		if _, ok := object[key.Value]; ok {
			return nil, c.errorf(key, "field %q is given twice", key.Value)
		}
		v, err := c.value(node.Content[i+1], depth+1)
		if err != nil {
			return nil, err
		}
		object[key.Value] = v
	}
	return object, nil
}

func (c *converter) scalar(node *yaml.Node) (any, error) {
	var v any
	var err error
	switch node.Tag {
	case "!!null":
		return nil, nil
	case "!!bool":
		v, err = strconv.ParseBool(strings.ToLower(node.Value))
	case "!!int", "!!float":
		err = node.Decode(&v)
	case "!!str", "!!timestamp": // Kubernetes reads a bare date as text
		if v, ok := legacyBool(node); ok {
			return v, nil
		}
		return node.Value, nil
	default:
		return nil, c.errorf(node, "YAML tag %s is not supported", node.Tag)
	}
	if err != nil {
		return nil, c.errorf(node, "value %q: %v", node.Value, err)
	}
	return v, nil
}

// legacyBool returns what Kubernetes, which reads YAML 1.1, makes of a bare yes
// or no. A policy has no field for it, so that it becomes an error rather than
// another text than the API server would take.
func legacyBool(node *yaml.Node) (value, ok bool) {
	if node.Style != 0 {
		return false, false
	}
	switch strings.ToLower(node.Value) {
	case "y", "yes", "on":
		return true, true
	case "n", "no", "off":
		return false, true
	}
	return false, false
}
