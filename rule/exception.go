package rule

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/rule/condition"
)

// An exception is a case in which a rule does not match. It becomes part of the
// text of the condition.
type exception struct {
	name   string
	fields []string
	comps  []string
	scalar bool      // fields and comps are scalars, values is a flat list
	values [][]value // tuples, or one value each
	origin condition.Origin
}

// A value is a scalar or a list of an exception.
type value struct {
	items []string
	list  bool
}

// exceptions reads the exceptions of a rule, which may be null.
func (it *item) exceptions(source string) []*exception {
	var out []*exception
	for _, e := range it.readExceptions() {
		if slices.ContainsFunc(out, func(o *exception) bool { return o.name == e.name }) {
			it.warn("LOAD_EXCEPTION_NAME_NOT_UNIQUE", e.node, fmt.Sprintf("Multiple definitions of exception '%s' in the same exceptions block", e.name))
		}
		if x := e.define(source); x != nil {
			out = append(out, x)
		}
	}
	return out
}

// appendExceptions adds to the exceptions of a rule: values to those that are
// there, and new ones.
func (it *item) appendExceptions(old *ruleItem) {
	for _, e := range it.readExceptions() {
		i := slices.IndexFunc(old.exceptions, func(o *exception) bool { return o.name == e.name })
		if e.values == nil {
			it.warn("LOAD_APPEND_NO_VALUES", e.node, "Overriding/appending exception with no values")
		}
		switch {
		case i >= 0 && (e.fields != nil || e.comps != nil):
			e.fail(e.node, "Can not append exception fields or comps to existing exception, only values")
		case i >= 0:
			more := *old.exceptions[i]
			if values, ok := e.tuples(&more); ok {
				more.values = append(slices.Clone(more.values), values...)
				old.exceptions = slices.Clone(old.exceptions)
				old.exceptions[i] = &more
			}
		default:
			if x := e.define(old.Source); x != nil && e.values != nil {
				old.exceptions = append(slices.Clone(old.exceptions), x)
			}
		}
	}
}

// An exceptionItem is an exception while it is read.
type exceptionItem struct {
	*item
	node                  *yaml.Node
	name                  string
	fields, comps, values *yaml.Node
}

func (e *exceptionItem) fail(n *yaml.Node, message string) { e.failIn("exception", n, message) }

func (it *item) readExceptions() []*exceptionItem {
	n, ok := it.values["exceptions"]
	if !ok || isNull(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		it.failIn("exceptions", n, "Rule exceptions must be a sequence")
		return nil
	}
	var out []*exceptionItem
	for _, node := range n.Content {
		e := &exceptionItem{item: it, node: resolve(node)}
		if e.node.Kind != yaml.MappingNode {
			e.fail(e.node, "Rule exception must be a map")
			continue
		}
		for i := 0; i+1 < len(e.node.Content); i += 2 {
			e.key(e.node.Content[i], resolve(e.node.Content[i+1]))
		}
		if e.name == "" {
			e.fail(e.node, "Rule exception item must have name property")
			continue
		}
		out = append(out, e)
	}
	return out
}

func (e *exceptionItem) key(key, n *yaml.Node) {
	if isNull(n) {
		return
	}
	switch key.Value {
	case "name":
		if e.name = n.Value; n.Kind != yaml.ScalarNode {
			e.name = ""
		}
	case "fields":
		e.fields = n
	case "comps":
		e.comps = n
	case "values":
		e.values = n
	default:
		e.warn("LOAD_UNKNOWN_KEY", key, fmt.Sprintf("Unknown key '%s'. The key will be ignored.", key.Value))
	}
}

// define returns a whole exception, or nil after a mistake.
func (e *exceptionItem) define(source string) *exception {
	if e.fields == nil {
		e.fail(e.node, "Rule exception item must have fields property with a list of fields")
		return nil
	}
	x := &exception{name: e.name, scalar: e.fields.Kind == yaml.ScalarNode}
	e.spec.parts = append(e.spec.parts, part{e.item, e.node, "exception"})
	x.origin = condition.Origin{Part: int32(len(e.spec.parts) - 1)}
	mistakes := len(e.spec.errs)
	x.fields = e.words(e.fields)
	e.setComps(x)
	if len(e.spec.errs) > mistakes {
		return nil
	}
	e.check(x, source)
	if e.values != nil {
		x.values, _ = e.tuples(x)
	}
	if len(e.spec.errs) > mistakes {
		return nil
	}
	return x
}

// words returns a scalar or the items of a list, trimmed.
func (e *exceptionItem) words(n *yaml.Node) []string {
	var words []string
	switch n.Kind {
	case yaml.ScalarNode:
		words = []string{n.Value}
	case yaml.SequenceNode:
		words = e.sequence(n)
	default:
		e.fail(n, "Value is neither a scalar nor a sequence")
	}
	for i, w := range words {
		words[i] = strings.TrimSpace(w)
	}
	return words
}

func (e *exceptionItem) setComps(x *exception) {
	switch {
	case e.comps == nil && x.scalar:
		x.comps = []string{"in"}
	case e.comps == nil:
		x.comps = slices.Repeat([]string{"="}, len(x.fields))
	case x.scalar && e.comps.Kind != yaml.ScalarNode:
		e.fail(e.comps, "Fields and comps must both be strings")
	default:
		if x.comps = e.words(e.comps); len(x.comps) != len(x.fields) {
			e.fail(e.comps, "Fields and comps lists must have equal length")
		}
	}
}

// check checks fields and comparisons.
func (e *exceptionItem) check(x *exception, source string) {
	for _, field := range x.fields {
		if !knownTerm(source, field) {
			e.fail(e.fields, fmt.Sprintf("'%s' is not a supported filter field", field))
		}
	}
	for _, comp := range x.comps {
		if !condition.IsOperator(comp) || x.scalar && !condition.TakesList(comp) || comp == "exists" {
			e.fail(e.node, fmt.Sprintf("'%s' is not a supported comparison operator", comp))
		}
	}
}

// knownTerm reports whether a text is a field of a source, or a transformer of
// such.
func knownTerm(source, s string) bool {
	text := condition.NewText(s, 0)
	term, end, err := condition.ParseTerm(text, 0, nil)
	if err != nil || end != len(s) {
		return false
	}
	ok := true
	r := condition.Resolver{
		Source: source,
		Fail:   func(condition.Place, string) { ok = false },
		Warn:   func(condition.Place, string, string) {},
	}
	return r.Term(&term) != nil && ok
}

// tuples returns the values of an exception.
func (e *exceptionItem) tuples(x *exception) (out [][]value, ok bool) {
	if e.values == nil {
		return nil, true
	}
	if e.values.Kind != yaml.SequenceNode {
		e.failIn("exception values", e.values, "Rule exception values must be a sequence")
		return nil, false
	}
	ok = true
	for _, n := range e.values.Content {
		n = resolve(n)
		var tuple []value
		switch {
		case x.scalar && n.Kind == yaml.ScalarNode:
			tuple = []value{{items: []string{n.Value}}}
		case x.scalar || n.Kind != yaml.SequenceNode:
			e.failIn("exception values", n, "Expected values array to contain a list of strings")
			ok = false
			continue
		default:
			tuple = e.tuple(n)
			if len(tuple) != len(x.fields) {
				e.failIn("exception values", n, "Fields and values lists must have equal length")
				ok = false
			}
		}
		out = append(out, tuple)
	}
	return out, ok
}

func (e *exceptionItem) tuple(n *yaml.Node) []value {
	var tuple []value
	for _, v := range n.Content {
		switch v = resolve(v); v.Kind {
		case yaml.ScalarNode:
			tuple = append(tuple, value{items: []string{v.Value}})
		case yaml.SequenceNode:
			tuple = append(tuple, value{e.sequence(v), true})
		default:
			e.failIn("exception value", v, "Value is neither a scalar nor a sequence")
		}
	}
	return tuple
}

// withExceptions returns the condition of a rule with its exceptions.
func (r *ruleItem) withExceptions() *condition.Text {
	if !slices.ContainsFunc(r.exceptions, func(x *exception) bool { return len(x.values) > 0 }) {
		return r.condition
	}
	out := &condition.Text{}
	out.Add("(", r.condition.Origin(0))
	out = out.Join("", r.condition)
	out.Add(")", r.condition.Origin(len(r.condition.S)))
	for _, x := range r.exceptions {
		if len(x.values) > 0 {
			out.Add(" and not "+x.text(), x.origin)
		}
	}
	return out
}

// text returns an exception as a condition.
func (x *exception) text() string {
	if x.scalar {
		words := make([]string, len(x.values))
		for i, v := range x.values {
			words[i] = quoteBlank(v[0].items[0])
		}
		return fmt.Sprintf("(%s %s (%s))", x.fields[0], x.comps[0], strings.Join(words, ", "))
	}
	cases := make([]string, len(x.values))
	for i, tuple := range x.values {
		checks := make([]string, len(tuple))
		for j, v := range tuple {
			checks[j] = fmt.Sprintf("%s %s %s", x.fields[j], x.comps[j], v.text(x.comps[j]))
		}
		cases[i] = "(" + strings.Join(checks, " and ") + ")"
	}
	return "(" + strings.Join(cases, " or ") + ")"
}

func (v value) text(comp string) string {
	if v.list {
		words := make([]string, len(v.items))
		for i, item := range v.items {
			words[i] = quoteBlank(item)
		}
		return "(" + strings.Join(words, ", ") + ")"
	}
	s := quoteBlank(v.items[0])
	if condition.TakesList(comp) && !strings.HasPrefix(s, "(") {
		return "(" + s + ")"
	}
	return s
}

// quoteBlank puts quotes around a value that has a blank and does not begin with
// one.
func quoteBlank(s string) string {
	if strings.ContainsAny(s, " \t\r\n") && s[0] != '"' && s[0] != '\'' {
		return `"` + s + `"`
	}
	return s
}
