package rule

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule/condition"
)

// An item is one rule, macro or list while it is read, and then where it was.
type item struct {
	spec   *spec
	file   *sourceFile
	kind   string
	name   string
	node   *yaml.Node
	values map[string]*yaml.Node
	failed bool
}

// mistake returns a mistake at a place in the item.
func (it *item) mistake(code, part string, line, column int, message string) *Error {
	e := &Error{
		Code: code, File: it.file.name, Line: line, Column: column, Part: part, Message: message,
		Source: it.file.line(line), offset: it.file.offset(line, column),
	}
	if it.name != "" {
		e.Item = fmt.Sprintf("%s %q", it.kind, it.name)
	}
	if it.kind == "" {
		e.at = []location{{"rules content", "", line - 1, column - 1, e.offset}}
		return e
	}
	begin := byteColumn(it.file.line(it.node.Line), it.node.Column)
	kind := strings.ReplaceAll(it.kind, "required_plugin_versions", "required plugin versions")
	e.at = []location{{kind, it.name, it.node.Line - 1, begin, it.file.offset(it.node.Line, begin+1)}}
	if part != "" {
		e.at = append(e.at, location{part, "", line - 1, column - 1, e.offset})
	}
	return e
}

func (it *item) at(code, part string, n *yaml.Node, message string) *Error {
	return it.mistake(code, part, n.Line, byteColumn(it.file.line(n.Line), n.Column)+1, message)
}

// fail reports a mistake in the structure of the item.
func (it *item) fail(n *yaml.Node, message string) { it.failIn("value for", n, message) }

func (it *item) failIn(part string, n *yaml.Node, message string) {
	it.failed = true
	it.spec.add(&it.spec.errs, it.at(invalid, part, n, message))
}

// wrong reports that the item does not fit what is there.
func (it *item) wrong(n *yaml.Node, message string) {
	it.failed = true
	it.spec.add(&it.spec.errs, it.at("LOAD_ERR_VALIDATE", "", n, message))
}

func (it *item) warn(code string, n *yaml.Node, message string) {
	it.spec.add(&it.spec.warnings, it.at(code, "", n, message))
}

func (it *item) unknownKeys(keys []string) {
	for i := 0; i < len(it.node.Content); i += 2 {
		key := it.node.Content[i]
		if key.Value != it.kind && !slices.Contains(keys, key.Value) {
			it.warn("LOAD_UNKNOWN_KEY", key, fmt.Sprintf("Unknown key '%s'. The key will be ignored.%s",
				key.Value, strings.Replace(condition.DidYouMean(key.Value, keys), "; did", " Did", 1)))
		}
	}
}

// scalar returns the value of a key that must be there and not be empty.
func (it *item) scalar(key string) string {
	if n := it.scalarNode(key); n != nil {
		return n.Value
	}
	return ""
}

func (it *item) scalarNode(key string) *yaml.Node {
	n, ok := it.values[key]
	switch {
	case !ok:
		it.fail(it.node, fmt.Sprintf("Item has no mapping for key '%s'", key))
	case isNull(n):
		it.fail(n, fmt.Sprintf("Mapping for key '%s' is empty", key))
	case n.Kind != yaml.ScalarNode:
		it.fail(n, "Value is not a scalar value")
	case strings.TrimSpace(n.Value) == "":
		it.fail(n, "Value must be non-empty")
	default:
		return n
	}
	return nil
}

// flag returns the value of a key that holds true or false.
func (it *item) flag(key string, otherwise bool) bool {
	n, ok := it.values[key]
	if !ok {
		return otherwise
	}
	var on bool
	if it.scalarNode(key) != nil && n.Decode(&on) != nil {
		it.fail(n, "Can't decode YAML scalar value")
	}
	return on
}

// strings returns the value of a key that holds a list of scalars.
func (it *item) strings(key string) []string {
	n, ok := it.values[key]
	switch {
	case !ok:
		it.fail(it.node, fmt.Sprintf("Item has no mapping for key '%s'", key))
		return nil
	case n.Kind != yaml.SequenceNode:
		it.fail(n, "Value is not a sequence")
		return nil
	}
	return it.sequence(n)
}

func (it *item) sequence(n *yaml.Node) []string {
	var out []string
	for _, e := range n.Content {
		e = resolve(e)
		switch {
		case e.Kind != yaml.ScalarNode:
			it.fail(e, "Value is not a scalar value")
		case isNull(e) || e.Value == "":
			it.fail(e, "Value must be non-empty")
		default:
			out = append(out, e.Value)
		}
	}
	return out
}

var (
	listName  = regexp.MustCompile(`^[^()"'\s=,]+$`)
	macroName = regexp.MustCompile(`^[a-zA-Z]+[a-zA-Z0-9_]*$`)
)

func (it *item) readList() {
	if it.name != "" && !listName.MatchString(it.name) {
		it.warn("LOAD_INVALID_LIST_NAME", it.values["list"], "List has an invalid name. List names should match a regular expression: "+listName.String())
	}
	n := it.spec.count
	adds := it.appends("items")
	l := &list{name: it.name, items: it.strings("items"), index: n, visible: n, from: it}
	if it.failed || l.name == "" {
		return
	}
	old := it.spec.lists.byName[l.name]
	switch {
	case adds && old == nil:
		it.wrong(it.node, "List uses 'append' or 'override.items: append' but no list by that name already exists")
	case adds:
		old.items, old.visible = append(old.items, l.items...), n
	default:
		it.spec.lists.define(l.name, l, func(old *list) { old.items, old.visible, old.from = l.items, n, it })
	}
}

func (it *item) readMacro() {
	if it.name != "" && !macroName.MatchString(it.name) {
		it.warn("LOAD_INVALID_MACRO_NAME", it.values["macro"], "Macro has an invalid name. Macro names should match a regular expression: "+macroName.String())
	}
	n := it.spec.count
	adds := it.appends("condition")
	m := &macro{name: it.name, condition: it.text("condition", "macro condition"), index: n, visible: n, from: it}
	if it.failed || m.name == "" {
		return
	}
	old := it.spec.macros.byName[m.name]
	switch {
	case adds && old == nil:
		it.wrong(it.node, "Macro uses 'append' or 'override.condition: append' but no macro by that name already exists")
	case adds && it.spec.spend(it, 10*len(old.condition.S)):
		old.condition, old.visible = old.condition.Join(" ", m.condition), n
	case adds:
	default:
		it.spec.macros.define(m.name, m, func(old *macro) { old.condition, old.visible, old.from = m.condition, n, it })
	}
}

func (it *item) readRule() {
	if it.name == "" {
		return
	}
	adds, changes := it.changes()
	switch {
	case it.failed:
	case adds:
		it.appendRule()
	case len(changes) > 0:
		it.overrideRule(changes)
	case it.isSwitch():
		it.switchRule()
	default:
		it.defineRule()
	}
}

// isSwitch reports whether the item only switches an earlier rule on or off.
func (it *item) isSwitch() bool {
	return !slices.ContainsFunc([]string{"condition", "output", "desc", "priority"}, func(key string) bool {
		_, ok := it.values[key]
		return ok
	})
}

func (it *item) switchRule() {
	if it.scalarNode("enabled") == nil {
		return
	}
	on := it.flag("enabled", true)
	old := it.spec.rules.byName[it.name]
	switch {
	case old != nil:
		old.Enabled = on
		it.warn("LOAD_DEPRECATED_ITEM", it.node, "The standalone 'enabled' key usage is deprecated. The correct approach requires also a 'replace' entry under the 'override' key (i.e. 'enabled: replace').")
	case !it.spec.skipped[it.name]:
		it.wrong(it.node, "Rule has 'enabled' key only, but no rule by that name already exists")
	}
}

func (it *item) defineRule() {
	rules := &it.spec.rules
	r := it.rule()
	if r == nil || it.failed {
		return
	}
	n := it.spec.count
	r.visible = n
	delete(it.spec.skipped, it.name)
	rules.define(it.name, r, func(old *ruleItem) {
		if old.Source != r.Source {
			it.wrong(it.node, fmt.Sprintf("Rule has been re-defined with a different source: %q, it was %q", r.Source, old.Source))
		}
		*old = *r
	})
}

// rule reads a whole rule. It returns nil if its source is not known.
func (it *item) rule() *ruleItem {
	r := &ruleItem{Rule: Rule{Name: it.name, File: it.file.name, Line: it.node.Line, Source: event.Syscall}, from: it}
	if _, ok := it.values["source"]; ok {
		r.Source = it.scalar("source")
	}
	if r.Source != "" && !slices.Contains(event.Sources(), r.Source) {
		it.warn("LOAD_UNKNOWN_SOURCE", it.values["source"], fmt.Sprintf("Unknown source %s, skipping", r.Source))
		it.spec.skipped[it.name] = true
		return nil
	}
	r.condition = it.text("condition", "rule condition")
	r.output = it.text("output", "rule output")
	r.Desc = strings.TrimSpace(it.scalar("desc"))
	r.Priority = it.priority()
	r.Enabled = it.flag("enabled", true)
	r.Tags = it.tags()
	r.warnTypes = it.flag("warn_evttypes", true)
	r.skipUnknown = it.flag("skip-if-unknown-filter", false)
	it.capture()
	r.exceptions = it.exceptions(r.Source)
	return r
}

// capture checks the keys of captures, which this engine does not make.
func (it *item) capture() {
	if it.flag("capture", false) {
		it.warn("LOAD_WARNING_EXTENSION", it.values["capture"], "captures are not made: 'capture' has no effect")
	}
	if n, ok := it.values["capture_duration"]; ok && it.scalarNode("capture_duration") != nil {
		if _, err := strconv.ParseUint(n.Value, 10, 64); err != nil {
			it.fail(n, "Can't decode YAML scalar value")
		}
	}
}

func (it *item) priority() alert.Priority {
	n := it.scalarNode("priority")
	if n == nil {
		return 0
	}
	p, err := alert.ParsePriority(n.Value)
	if err != nil {
		it.failIn("rule priority", n, "Invalid priority: "+err.Error())
	}
	return p
}

func (it *item) tags() []string {
	if _, ok := it.values["tags"]; !ok {
		return nil
	}
	tags := it.strings("tags")
	slices.Sort(tags)
	return slices.Compact(tags)
}
