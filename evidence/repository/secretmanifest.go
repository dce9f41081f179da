package repository

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxDocuments bounds the documents of one file.
const maxDocuments = 1000

// secretLines returns the lines at which manifests with plain secrets begin.
// Base64 is plain; what SOPS has encrypted, what another object holds sealed,
// and what is filled in later is not. A file that is no YAML, such as a
// template, has none.
func secretLines(data []byte) []int {
	if !bytes.Contains(data, []byte("Secret")) && !bytes.Contains(data, []byte("secretGenerator")) {
		return nil
	}
	var lines []int
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for range maxDocuments {
		var n yaml.Node
		if dec.Decode(&n) != nil {
			break
		}
		for _, object := range objects(&n) {
			if holdsSecret(object) {
				lines = append(lines, object.Line)
			}
		}
	}
	return lines
}

// objects returns the object of a document, or those of a list.
func objects(n *yaml.Node) []*yaml.Node {
	if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		n = n.Content[0]
	}
	if items := value(n, "items"); text(n, "kind") == "List" && items != nil {
		return items.Content
	}
	return []*yaml.Node{n}
}

func holdsSecret(n *yaml.Node) bool {
	if value(n, "sops") != nil {
		return false
	}
	switch {
	case text(n, "kind") == "Secret" && text(n, "apiVersion") == "v1":
		return secretIn(value(n, "data"), true) || secretIn(value(n, "stringData"), false)
	case text(n, "kind") == "Kustomization" || text(n, "kind") == "":
		generators := value(n, "secretGenerator")
		return generators != nil && slices.ContainsFunc(generators.Content, generates)
	}
	return false
}

// generates reports whether a generator of Kustomize has a literal.
func generates(generator *yaml.Node) bool {
	literals := value(generator, "literals")
	return literals != nil && slices.ContainsFunc(literals.Content, func(l *yaml.Node) bool {
		_, v, ok := strings.Cut(l.Value, "=")
		return ok && plain(v)
	})
}

// secretIn reports whether some entry of a mapping is a plain secret.
// Certificates are public.
func secretIn(entries *yaml.Node, encoded bool) bool {
	if entries == nil || entries.Kind != yaml.MappingNode {
		return false
	}
	for i := 0; i+1 < len(entries.Content); i += 2 {
		key, v := entries.Content[i].Value, entries.Content[i+1].Value
		if encoded {
			decoded, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(v), ""))
			if err != nil {
				continue // filled in later
			}
			v = string(decoded)
		}
		if !slices.Contains([]string{"ca.crt", "tls.crt", "ca-bundle.crt"}, key) && plain(v) {
			return true
		}
	}
	return false
}

// filledIn matches what is no secret yet: references that another program
// resolves, and what it has encrypted.
var filledIn = regexp.MustCompile(`^\s*(ENC\[.*|<[^>]*>|\$\{.*|\$\(.*|\{\{.*|ref\+.*|vault:.*|op://.*|\s*)\s*$`)

func plain(v string) bool { return !filledIn.MatchString(v) }

func value(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			v := n.Content[i+1]
			if v.Kind == yaml.AliasNode {
				v = v.Alias
			}
			return v
		}
	}
	return nil
}

// text returns a scalar under a key.
func text(n *yaml.Node, key string) string {
	if v := value(n, key); v != nil && v.Kind == yaml.ScalarNode {
		return v.Value
	}
	return ""
}
