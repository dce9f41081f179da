package rule

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
)

// maxChecks is how many checks the conditions of a set may have once macros are
// put in.
const maxChecks = 100_000

// Load reads and compiles rule files, in order, into one set. Lists, macros
// and rules of all files share their names: a later definition takes the place
// of an earlier one. The error is of type [Errors] and has all mistakes.
func Load(files ...File) (*Set, error) {
	s := &spec{}
	for _, f := range files {
		s.read(f)
	}
	set, c := &Set{}, newCompiler(s)
	for _, r := range s.rules.order {
		if compiled := c.rule(r); compiled != nil {
			set.rules = append(set.rules, compiled)
		}
	}
	if len(s.errs) > 0 {
		s.errs.sort(files)
		return nil, s.errs
	}
	set.refs = c.refs
	return set, nil
}

// A compiler turns syntax trees into matchers. Its slots are shared by all
// rules of a set.
type compiler struct {
	*spec
	trees    map[*text]expr // parsed; nil for a condition with mistakes
	slots    map[slotKey]int
	refs     []event.Ref
	reported map[string]bool // mistakes in macros, which each rule that uses them meets again

	checked map[*macro]bool // whose references are sound or reported; false while that is found out
	checks  int             // compiled so far
	source  string          // of the rule that is being compiled
}

type slotKey struct{ source, ref string }

func newCompiler(s *spec) *compiler {
	c := &compiler{spec: s, trees: map[*text]expr{}, slots: map[slotKey]int{}, reported: map[string]bool{}, checked: map[*macro]bool{}}
	for _, m := range s.macros.order {
		c.parse(m.condition)
	}
	for _, r := range s.rules.order {
		c.parse(r.condition)
	}
	for _, m := range s.macros.order {
		c.macro(m)
	}
	return c
}

// parse puts the lists into a condition and parses it.
func (c *compiler) parse(t *text) {
	c.trees[t] = nil
	for _, l := range c.lists.order {
		if !t.replace(l.name, c.listText(l)) {
			c.report(t.errorAt(0, fmt.Sprintf("condition is longer than %d bytes with its lists", maxText)))
			return
		}
	}
	tree, err := parse(t)
	if err != nil {
		c.report(err)
		return
	}
	c.trees[t] = tree
}

// listText returns what stands for a list in a condition. A list in a list is
// replaced by its own items, one level deep, if it was there first.
func (c *compiler) listText(l *list) string {
	var items []string
	for _, item := range l.items {
		if o := c.lists.byName[item]; o != nil && o != l && o.index < l.visible {
			items = append(items, o.items...)
			continue
		}
		items = append(items, item)
	}
	for i, item := range items {
		if strings.ContainsAny(item, " \t\r\n") && item[0] != '"' && item[0] != '\'' {
			items[i] = `"` + item + `"`
		}
	}
	return strings.Join(items, ", ")
}

func (c *compiler) report(err *Error) {
	if key := err.Error(); !c.reported[key] {
		c.reported[key] = true
		c.add(err)
	}
}

func (c *compiler) fail(at place, format string, args ...any) {
	c.report(at.text.errorAt(at.offset, fmt.Sprintf(format, args...)))
}

// macro checks the references of a macro: those to macros that it does not see,
// and those that lead back to it.
func (c *compiler) macro(m *macro) {
	c.checked[m] = false
	visit(c.trees[m.condition], func(ref *macroRef) {
		to := c.macros.byName[ref.name]
		if to == nil || to.index >= m.visible {
			c.undefined(ref)
			c.trees[m.condition] = nil
			return
		}
		switch done, met := c.checked[to]; {
		case !met:
			c.macro(to)
		case !done:
			c.fail(ref.place, "reference loop in macro %q", to.name)
			c.trees[m.condition] = nil
		}
	})
	c.checked[m] = true
}

func (c *compiler) undefined(ref *macroRef) {
	names := slices.Sorted(maps.Keys(c.macros.byName))
	c.fail(ref.place, "undefined macro %q%s", ref.name, didYouMean(ref.name, names))
}

// visit calls f for each macro reference of a tree.
func visit(e expr, f func(*macroRef)) {
	switch e := e.(type) {
	case *logical:
		for _, kid := range e.kids {
			visit(kid, f)
		}
	case *negation:
		visit(e.kid, f)
	case *macroRef:
		f(e)
	}
}

// rule compiles a rule, or returns nil after a mistake.
func (c *compiler) rule(r *ruleItem) *compiledRule {
	mistakes := len(c.errs)
	c.source = r.Source
	out := &compiledRule{Rule: r.Rule}
	out.condition = c.expr(c.trees[r.condition])
	if c.checks > maxChecks {
		c.report(r.condition.errorAt(0, fmt.Sprintf("conditions up to here have more than %d checks with their macros", maxChecks)))
	}
	out.output = c.output(r.output)
	for _, ref := range event.AlertFields(r.Source) {
		out.fields = append(out.fields, c.slot(ref))
	}
	for _, part := range out.output {
		if part.slot >= 0 {
			out.fields = append(out.fields, part.slot)
		}
	}
	if len(c.errs) > mistakes || out.condition == nil {
		return nil
	}
	return out
}

// expr compiles a tree. It returns nil after a mistake, but looks for further
// ones.
func (c *compiler) expr(e expr) matcher {
	if c.checks > maxChecks {
		return nil
	}
	switch e := e.(type) {
	case *logical:
		return c.logical(e)
	case *negation:
		if kid := c.expr(e.kid); kid != nil {
			return not{kid}
		}
	case *macroRef:
		m := c.macros.byName[e.name]
		if m == nil {
			c.undefined(e)
			return nil
		}
		return c.expr(c.trees[m.condition])
	case *check:
		c.checks++
		return c.check(e)
	}
	return nil
}

func (c *compiler) logical(e *logical) matcher {
	kids := make([]matcher, len(e.kids))
	bad := false
	for i, kid := range e.kids {
		kids[i] = c.expr(kid)
		bad = bad || kids[i] == nil
	}
	switch {
	case bad:
		return nil
	case e.or:
		return anyOf(kids)
	}
	return allOf(kids)
}

func (c *compiler) slot(ref event.Ref) int {
	key := slotKey{c.source, ref.Text}
	slot, ok := c.slots[key]
	if !ok {
		slot = len(c.refs)
		c.slots[key] = slot
		c.refs = append(c.refs, ref)
	}
	return slot
}

// field resolves a field. It returns false after a mistake.
func (c *compiler) field(f fieldRef) (slot int, typ event.Type, ok bool) {
	field, ok := event.Lookup(c.source, f.name)
	if !ok {
		c.fail(f.place, "unknown field %q%s", f.name, didYouMean(f.name, fieldNames(c.source)))
		return 0, 0, false
	}
	ref, err := event.Resolve(field, f.arg)
	if err != nil {
		c.fail(f.place, "%s", err)
		return 0, 0, false
	}
	return c.slot(ref), field.Type, true
}

func fieldNames(source string) []string {
	var names []string
	for _, f := range event.Fields(source) {
		names = append(names, f.Name)
	}
	return names
}

// check compiles a comparison.
func (c *compiler) check(e *check) matcher {
	slot, typ, ok := c.field(e.field)
	if !ok {
		return nil
	}
	if _, ok := operators[typ][e.op.name]; !ok {
		c.fail(e.op.place, "operator %s does not work on %s, a %s", e.op.name, e.field.name, typ)
		return nil
	}
	if e.right != nil {
		return c.fields(e, slot, typ)
	}
	test, at, err := operators[typ][e.op.name].constants(e.items)
	if err != nil {
		c.fail(at, "%s", err)
		return nil
	}
	return &constCheck{slot, test}
}

// fields compiles the comparison of two fields.
func (c *compiler) fields(e *check, left int, typ event.Type) matcher {
	compare := operators[typ][e.op.name].fields
	if compare == nil {
		c.fail(e.op.place, "operator %s does not compare with val()", e.op.name)
		return nil
	}
	right, rightType, ok := c.field(*e.right)
	if !ok {
		return nil
	}
	if rightType != typ {
		c.fail(e.right.place, "%s is a %s and %s is a %s: val() needs the same type", e.field.name, typ, e.right.name, rightType)
		return nil
	}
	return &fieldCheck{left, right, compare}
}
