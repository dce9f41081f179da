package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// maxItems bounds the documents in one file.
const maxItems = 10_000

// An item is one of several documents in a file.
type item struct {
	line int
	data []byte
}

// sequence splits a list of JSON mappings, and JSON lines, into their items; of
// anything else it returns none. Several tools print a document for each of
// what they found: cosign, gh, registries.
func sequence(name string, data []byte) ([]item, error) {
	trimmed := bytes.TrimLeft(data, " \t\r\n")
	list := bytes.HasPrefix(trimmed, []byte("[")) && bytes.HasPrefix(bytes.TrimLeft(trimmed[1:], " \t\r\n"), []byte("{"))
	if !list {
		first, rest, _ := bytes.Cut(trimmed, []byte("\n"))
		if !bytes.HasPrefix(first, []byte("{")) || len(bytes.TrimSpace(rest)) == 0 || !json.Valid(first) {
			return nil, nil
		}
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if list {
		dec.Token() // the bracket that was seen
	}
	var items []item
	for dec.More() {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, 1+bytes.Count(data[:min(int(dec.InputOffset()), len(data))], []byte("\n")), err)
		}
		if len(items) == maxItems {
			return nil, fmt.Errorf("%s: more than %d documents", name, maxItems)
		}
		start := int(dec.InputOffset()) - len(raw)
		items = append(items, item{1 + bytes.Count(data[:start], []byte("\n")), raw})
	}
	if list {
		if _, err := dec.Token(); err != nil {
			return nil, fmt.Errorf("%s: the list does not end: %w", name, err)
		}
	}
	return items, nil
}

// readAll reads every item of a file.
func readAll(name string, items []item) (*Set, error) {
	set := &Set{}
	for _, it := range items {
		one, err := readOne(fmt.Sprintf("%s:%d", name, it.line), it.data)
		if err != nil {
			return nil, err
		}
		set.add(one)
	}
	return set, nil
}
