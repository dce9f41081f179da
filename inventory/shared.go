package inventory

import (
	"strconv"

	"go.yaml.in/yaml/v3"
)

// maxShared bounds what is remembered, so that it costs little where nothing
// repeats.
const maxShared = 4096

// sharedValues lets equal mappings be one: manifests repeat themselves, and a
// mapping takes more than its text. Objects are read-only, so nobody can tell.
type sharedValues struct {
	mappings map[string]map[string]any // of plain values only, by their text
	keys     map[string]string
	text     []byte
}

func newSharedValues() *sharedValues {
	return &sharedValues{mappings: map[string]map[string]any{}, keys: map[string]string{}}
}

// key returns the one copy of a name.
func (s *sharedValues) key(name string) string {
	if s == nil {
		return name
	}
	if known, ok := s.keys[name]; ok {
		return known
	}
	if len(s.keys) < maxShared {
		s.keys[name] = name
	}
	return name
}

// mapping returns what make makes of a node, or an equal mapping made before.
// What has failed is not remembered, so that it fails at each place.
func (s *sharedValues) mapping(n *yaml.Node, make func() map[string]any, failed *bool) map[string]any {
	if s == nil || !s.plain(n) {
		return make()
	}
	if known, ok := s.mappings[string(s.text)]; ok {
		return known
	}
	text, before := "", *failed
	if len(s.mappings) < maxShared {
		text = string(s.text)
	}
	*failed = false
	m := make()
	if text != "" && !*failed {
		s.mappings[text] = m
	}
	*failed = *failed || before
	return m
}

// plain reports whether a mapping has nothing but scalars, and writes them into
// text with all that decides what they are.
func (s *sharedValues) plain(n *yaml.Node) bool {
	s.text = s.text[:0]
	for _, c := range n.Content {
		if c.Kind != yaml.ScalarNode {
			return false
		}
		s.text = strconv.AppendInt(s.text, int64(c.Style), 10)
		s.text = strconv.AppendInt(append(s.text, c.Tag...), int64(len(c.Value)), 10)
		s.text = append(append(s.text, ':'), c.Value...)
	}
	return len(n.Content) > 0
}
