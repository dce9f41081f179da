package terraform

import (
	"encoding/json"
	"slices"

	tfjson "github.com/hashicorp/terraform-json"

	"github.com/kubeguardian/kubeguardian/fact"
)

// A block is a mapping of attributes: a resource, or a block inside of one.
type block struct {
	values  map[string]any
	unknown any // true, or by attribute what is known only after apply
	// written is what the configuration sets; nil where it is not known, as in a
	// state.
	written map[string]*tfjson.Expression
}

// pending reports whether an attribute is known only after apply. One that the
// configuration does not set is the provider's default instead.
func (b block) pending(key string) bool {
	part := member(b.unknown, key)
	return anyTrue(part) && !(part == true && b.unset(key))
}

// unset reports whether the configuration is known not to set an attribute.
func (b block) unset(key string) bool {
	return b.written != nil && b.written[key] == nil
}

func member(of any, key string) any {
	if all, ok := of.(bool); ok {
		return all
	}
	mapping, _ := of.(map[string]any)
	return mapping[key]
}

func element(of any, i int) any {
	if list, ok := of.([]any); ok && i < len(list) {
		return list[i]
	}
	if all, ok := of.(bool); ok {
		return all
	}
	return nil
}

// anyTrue reports whether any part of an unknown is unknown.
func anyTrue(of any) bool {
	switch of := of.(type) {
	case bool:
		return of
	case []any:
		return slices.ContainsFunc(of, anyTrue)
	case map[string]any:
		for _, v := range of {
			if anyTrue(v) {
				return true
			}
		}
	}
	return false
}

// flag returns a boolean; without it, absent.
func (b block) flag(key string, absent fact.Fact) fact.Fact {
	v, ok := b.values[key].(bool)
	switch {
	case ok && v:
		return yes
	case ok:
		return no
	case b.pending(key):
		return unknown
	}
	return absent
}

// text returns a string, "" if there is none, and whether it is known.
func (b block) text(key string) (string, bool) {
	v, ok := b.values[key].(string)
	return v, ok || !b.pending(key)
}

// given reports whether an attribute has, or will have, a value.
func (b block) given(key string) bool {
	v, known := b.text(key)
	return v != "" || !known
}

// number returns an integer, absent if there is none, and whether it is known.
func (b block) number(key string, absent int) (int, bool) {
	switch v := b.values[key].(type) {
	case float64:
		return int(v), true
	case json.Number:
		n, err := v.Int64()
		return int(n), err == nil
	}
	return absent, !b.pending(key)
}

// texts returns the known strings of a list, and whether these are all.
func (b block) texts(key string) ([]string, bool) {
	list, _ := b.values[key].([]any)
	var out []string
	for _, v := range list {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out, !b.pending(key)
}

// blocks returns the blocks under a key, and whether their number is known.
func (b block) blocks(key string) ([]block, bool) {
	part := member(b.unknown, key)
	var written []map[string]*tfjson.Expression
	if e := b.written[key]; e != nil && e.ExpressionData != nil {
		written = e.NestedBlocks
	}
	var list []any
	switch v := b.values[key].(type) {
	case []any:
		list = v
	case map[string]any:
		list, part = []any{v}, []any{part}
	}
	var out []block
	for i, v := range list {
		values, ok := v.(map[string]any)
		if !ok {
			continue
		}
		inner := block{values: values, unknown: element(part, i)}
		if len(written) == len(list) {
			inner.written = written[i]
		}
		out = append(out, inner)
	}
	return out, part != true || b.unset(key)
}

// first returns the only block under a key.
func (b block) first(key string) (inner block, have, known bool) {
	all, known := b.blocks(key)
	if len(all) == 0 {
		return block{}, false, known
	}
	return all[0], true, known
}
