package k8saudit

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/kubeguardian/kubeguardian/event"
)

// A node is a JSON value that is decoded one level at a time, each at most
// once, when a rule asks for something below it. The nil node is absent. Its
// text stays as the API server wrote it, which a decoded tree would not keep;
// only escapes in strings are undone.
type node struct {
	raw      json.RawMessage
	expanded bool
	fields   map[string]*node
	items    []*node
}

func (n *node) expand() {
	if n.expanded {
		return
	}
	n.expanded = true
	// The event has been parsed before, so these cannot fail.
	switch raw := bytes.TrimLeft(n.raw, " \t\r\n"); {
	case bytes.HasPrefix(raw, []byte("{")):
		var fields map[string]json.RawMessage
		_ = json.Unmarshal(raw, &fields)
		n.fields = make(map[string]*node, len(fields))
		for name, value := range fields {
			n.fields[name] = &node{raw: value}
		}
	case bytes.HasPrefix(raw, []byte("[")):
		var items []json.RawMessage
		_ = json.Unmarshal(raw, &items)
		for _, value := range items {
			n.items = append(n.items, &node{raw: value})
		}
	}
}

// at returns the node at a path of keys and positions, or nil.
func (n *node) at(path ...string) *node {
	for _, key := range path {
		if n == nil {
			return nil
		}
		n.expand()
		if n.fields != nil {
			n = n.fields[key]
			continue
		}
		i, err := strconv.ParseUint(key, 10, 31)
		if err != nil || int(i) >= len(n.items) {
			return nil
		}
		n = n.items[i]
	}
	return n
}

// list returns the elements of an array, or nil.
func (n *node) list() []*node {
	if n == nil {
		return nil
	}
	n.expand()
	return n.items
}

// keys returns the keys of an object, in no order.
func (n *node) keys() []string {
	if n == nil {
		return nil
	}
	n.expand()
	var keys []string
	for key := range n.fields {
		keys = append(keys, key)
	}
	return keys
}

// text returns a string without quotes and any other value as compact JSON; ok
// is false if the node is absent.
func (n *node) text() (s string, ok bool) {
	if n == nil || len(n.raw) == 0 {
		return "", false
	}
	if json.Unmarshal(n.raw, &s) == nil && n.raw[0] == '"' {
		return s, true
	}
	var b bytes.Buffer
	if err := json.Compact(&b, n.raw); err != nil {
		return "", false
	}
	return string(unescape(b.Bytes())), true
}

// unescape writes each string of a compact JSON text in its one plain form. A
// patch is logged as the client sent it, so that "privi\u006ceged" would hide
// from a rule that looks for the word.
func unescape(data []byte) []byte {
	if bytes.IndexByte(data, '\\') < 0 {
		return data
	}
	var out bytes.Buffer
	plain := json.NewEncoder(&out)
	plain.SetEscapeHTML(false)
	for len(data) > 0 {
		start := bytes.IndexByte(data, '"')
		if start < 0 {
			break
		}
		out.Write(data[:start])
		text := scanner{data: data, pos: start}
		v, err := text.value()
		var s string
		if err != nil || json.Unmarshal(v.raw, &s) != nil {
			data = data[start:]
			break
		}
		if bytes.IndexByte(v.raw, '\\') < 0 {
			out.Write(v.raw)
		} else if err := plain.Encode(s); err == nil {
			out.Truncate(out.Len() - 1) // the line break after a value
		}
		data = data[text.pos:]
	}
	out.Write(data)
	return out.Bytes()
}

func (n *node) value() event.Value {
	if s, ok := n.text(); ok {
		return event.Text(s)
	}
	return event.Value{}
}
