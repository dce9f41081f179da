package rule

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The keys of a rule that a later item may add to, or replace.
var (
	appendable  = []string{"condition", "output", "desc", "tags", "exceptions"}
	replaceable = []string{
		"condition", "output", "desc", "tags", "exceptions",
		"priority", "capture", "capture_duration", "enabled", "warn_evttypes", "skip-if-unknown-filter",
	}
)

// appends reports whether a list or a macro adds to an earlier one. key is what
// it may override.
func (it *item) appends(key string) bool {
	adds, ops := it.operations([]string{key}, []string{key})
	return adds || ops[key] == "append"
}

// changes returns what a rule does to an earlier one: append by the deprecated
// key, or the operation for each key under override.
func (it *item) changes() (adds bool, ops map[string]string) {
	return it.operations(appendable, replaceable)
}

func (it *item) operations(appendable, replaceable []string) (adds bool, ops map[string]string) {
	if adds = it.flag("append", false); adds {
		it.warn("LOAD_DEPRECATED_ITEM", it.values["append"], "'append' key is deprecated. Add an 'append' entry (e.g. 'condition: append') under 'override' instead.")
	}
	n, ok := it.values["override"]
	if !ok {
		return adds, nil
	}
	if adds {
		it.failIn("overrides", n, "Keys 'override' and 'append: true' cannot be used together. Add an append entry (e.g. 'condition: append') under override instead.")
		return adds, nil
	}
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		it.failIn("overrides", n, "Expected a map with a key and an operation for each overridden key")
		return false, nil
	}
	ops = map[string]string{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, op := n.Content[i], resolve(n.Content[i+1])
		if message := it.operation(key.Value, op.Value, appendable, replaceable); message != "" {
			it.failIn("overrides", key, message)
		}
		ops[key.Value] = op.Value
	}
	for i := 0; i < len(it.node.Content); i += 2 {
		key := it.node.Content[i]
		if slices.Contains(replaceable, key.Value) && ops[key.Value] == "" {
			it.failIn("overrides", key, fmt.Sprintf("Unexpected key '%s': no corresponding entry under 'override' is defined.", key.Value))
		}
	}
	return false, ops
}

// operation returns what is wrong with one operation, or "".
func (it *item) operation(key, op string, appendable, replaceable []string) string {
	_, defined := it.values[key]
	switch {
	case op != "append" && op != "replace":
		allowed := "replace"
		if slices.Contains(appendable, key) {
			allowed = "append, replace"
		}
		return fmt.Sprintf("Invalid override operation for key '%s': '%s'. Allowed values are: %s", key, op, allowed)
	case op == "append" && !slices.Contains(appendable, key) && slices.Contains(replaceable, key):
		return fmt.Sprintf("Key '%s' cannot be appended to, use 'replace' instead", key)
	case op == "append" && !slices.Contains(appendable, key):
		return fmt.Sprintf("Key '%s' cannot be appended to", key)
	case op == "replace" && !slices.Contains(replaceable, key):
		return fmt.Sprintf("Key '%s' cannot be replaced", key)
	case !defined && op == "append":
		return fmt.Sprintf("An append override for '%s' was specified but '%s' is not defined", key, key)
	case !defined:
		return fmt.Sprintf("A replace override for '%s' was specified but '%s' is not defined", key, key)
	}
	return ""
}

// earlier returns the rule that the item changes, or nil if there is none; then
// it reports it, unless the rule was left out for its source.
func (it *item) earlier(message string) *ruleItem {
	old := it.spec.rules.byName[it.name]
	if old == nil && !it.spec.skipped[it.name] {
		it.wrong(it.node, message)
	}
	return old
}

const appendToNothing = "Rule uses 'append' or 'override.<key>: append' but no rule by that name already exists"

// appendRule adds to a rule by the deprecated key.
func (it *item) appendRule() {
	_, hasCondition := it.values["condition"]
	_, hasExceptions := it.values["exceptions"]
	if !hasCondition && !hasExceptions {
		it.fail(it.node, "Appended rule must have exceptions or condition property")
		return
	}
	old := it.earlier(appendToNothing)
	if old == nil {
		return
	}
	if hasCondition {
		it.appendText(old, "condition")
	}
	if hasExceptions {
		it.appendExceptions(old)
	}
	old.visible = it.spec.count
}

// overrideRule changes the keys of a rule that are named under override.
func (it *item) overrideRule(ops map[string]string) {
	for _, key := range replaceable {
		message := "An 'override.<key>: replace' to a rule was requested but no rule by that name already exists"
		if ops[key] == "append" {
			message = appendToNothing
		}
		if ops[key] == "" {
			continue
		}
		old := it.earlier(strings.ReplaceAll(message, "<key>", key))
		if old == nil {
			return
		}
		if ops[key] == "append" {
			it.appendKey(old, key)
		} else {
			it.replaceKey(old, key)
		}
		old.visible = it.spec.count
	}
}

func (it *item) appendKey(old *ruleItem, key string) {
	switch key {
	case "condition", "output":
		it.appendText(old, key)
	case "desc":
		old.Desc = strings.TrimSpace(old.Desc + " " + it.scalar("desc"))
	case "tags":
		tags := append(slices.Clone(old.Tags), it.tags()...)
		slices.Sort(tags)
		old.Tags = slices.Compact(tags)
	case "exceptions":
		it.appendExceptions(old)
	}
}

func (it *item) appendText(old *ruleItem, key string) {
	t := it.text(key, "rule "+key)
	switch {
	case t == nil || !it.spec.spend(it, 10*len(old.condition.S)+10*len(old.output.S)):
	case key == "condition":
		old.condition = old.condition.Join(" ", t)
	default:
		old.output = old.output.Join(" ", t)
	}
}

func (it *item) replaceKey(old *ruleItem, key string) {
	switch key {
	case "condition":
		if t := it.text(key, "rule condition"); t != nil {
			old.condition = t
		}
	case "output":
		if t := it.text(key, "rule output"); t != nil {
			old.output = t
		}
	case "desc":
		old.Desc = strings.TrimSpace(it.scalar(key))
	case "tags":
		old.Tags = it.tags()
	case "exceptions":
		old.exceptions = it.exceptions(old.Source)
	case "priority":
		old.Priority = it.priority()
	case "enabled":
		old.Enabled = it.flag(key, true)
	case "warn_evttypes":
		old.warnTypes = it.flag(key, true)
	case "skip-if-unknown-filter":
		old.skipUnknown = it.flag(key, false)
	default:
		it.capture()
	}
}
