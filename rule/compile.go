package rule

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule/condition"
)

// maxChecks is how many checks the conditions of a set may have once macros are
// put in.
const maxChecks = 100_000

// Options say how rules are loaded.
type Options struct {
	// Minimum is the least urgent priority at which rules match; nil means all.
	Minimum *alert.Priority
	// Select switches rules on and off, in order, after they are loaded.
	Select []Selection
	// Append adds to outputs, in order.
	Append []Append
	// Static has the values of the fields static.<name>.
	Static map[string]string
}

// A Selection switches rules on or off: those whose name matches a pattern with
// *, or those with a tag.
type Selection struct {
	Rule, Tag string
	On        bool
}

// Load reads and compiles rule files, in order, into one set, with the zero
// [Options]. The error is of type [Errors] and has all mistakes.
func Load(files ...File) (*Set, error) {
	set, results := Options{}.Load(files...)
	if set == nil {
		return nil, Mistakes(results)
	}
	return set, nil
}

// Load reads and compiles rule files, in order, into one set. Lists, macros and
// rules of all files share their names: a later definition takes the place of an
// earlier one. It returns a result for each file; the set is nil if one of them
// has errors.
func (o Options) Load(files ...File) (*Set, []Result) {
	s := &spec{order: map[string]int{}, skipped: map[string]bool{}}
	for _, f := range files {
		s.read(f)
	}
	c := newCompiler(s, o)
	set := &Set{spec: s}
	for _, r := range s.rules.order {
		if compiled := c.rule(r); compiled != nil {
			set.rules = append(set.rules, compiled)
		}
	}
	c.unused()
	results := s.results(files)
	if len(s.errs) > 0 {
		return nil, results
	}
	o.selectRules(set.rules)
	set.warnings = s.sorted(s.warnings)
	set.build()
	return set, results
}

// results sorts mistakes by file.
func (s *spec) results(files []File) []Result {
	s.errs, s.warnings = s.sorted(s.errs), s.sorted(s.warnings)
	var out []Result
	for i, f := range files {
		if s.order[f.Name] < i && slices.ContainsFunc(out, func(r Result) bool { return r.Name == f.Name }) {
			continue
		}
		r := Result{Name: f.Name}
		of := func(e *Error) bool { return e.File == f.Name }
		r.Errors, r.Warnings = filter(s.errs, of), filter(s.warnings, of)
		out = append(out, r)
	}
	return out
}

func filter(es Errors, keep func(*Error) bool) Errors {
	var out Errors
	for _, e := range es {
		if keep(e) {
			out = append(out, e)
		}
	}
	return out
}

// selectRules switches rules on and off.
func (o Options) selectRules(rules []*compiledRule) {
	for _, r := range rules {
		for _, s := range o.Select {
			if s.Rule != "" && condition.Wildcard(s.Rule, r.Name) ||
				s.Tag != "" && slices.Contains(r.Tags, s.Tag) {
				r.Enabled = s.On
			}
		}
		r.live = r.Enabled && (o.Minimum == nil || r.Priority <= *o.Minimum)
	}
}

// A compiler turns syntax trees into resolved ones.
type compiler struct {
	*spec
	Options
	trees    map[*condition.Text]condition.Expr // parsed; nil for a condition with mistakes
	resolved map[macroOf]condition.Expr         // by source
	sizes    map[macroOf]int                    // checks of a macro with all that is in it
	reported map[string]bool                    // mistakes in macros, which each rule that uses them meets again
	checked  map[*macro]bool                    // whose references are sound or reported; false while that is found out
	checks   int                                // compiled so far
	source   string                             // of the rule that is being compiled
	unknown  *Error                             // what made the rule that is being compiled one to skip
	skip     bool                               // the rule is skipped if it names what is not known
}

type macroOf struct {
	source string
	*macro
}

func newCompiler(s *spec, o Options) *compiler {
	c := &compiler{
		spec: s, Options: o, trees: map[*condition.Text]condition.Expr{}, resolved: map[macroOf]condition.Expr{},
		sizes: map[macroOf]int{}, reported: map[string]bool{}, checked: map[*macro]bool{},
	}
	for _, m := range s.macros.order {
		c.parse(m.condition, m.from)
	}
	for _, r := range s.rules.order {
		r.condition = r.withExceptions()
		c.skip, c.unknown = r.skipUnknown, nil
		c.parse(r.condition, r.from)
		c.skip = false
	}
	for _, m := range s.macros.order {
		c.macro(m)
	}
	return c
}

// parse puts the lists into a condition and parses it.
func (c *compiler) parse(t *condition.Text, of *item) {
	c.trees[t] = nil
	for _, l := range c.lists.order {
		if !c.spend(of, len(t.S)+10) {
			return
		}
		if !strings.Contains(t.S, l.name) {
			continue
		}
		before, items := t.S, c.listText(l)
		if !c.spend(of, 10*(len(before)+len(items))) {
			return
		}
		if !t.Replace(l.name, items) {
			c.fail("LOAD_ERR_COMPILE_CONDITION", condition.Place{Text: t}, fmt.Sprintf("condition is longer than %d bytes with its lists", condition.MaxText))
			return
		}
		l.used = l.used || t.S != before
	}
	tree, err := condition.Parse(t)
	if err != nil {
		c.fail("LOAD_ERR_COMPILE_CONDITION", err.Place, err.Message)
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
		items[i] = quoteBlank(item)
	}
	return strings.Join(items, ", ")
}

// problem returns a mistake at a place of a text.
func (c *compiler) problem(code string, at condition.Place, message string) *Error {
	p, line, column := c.locate(at)
	kind := p.kind
	if code == "LOAD_ERR_COMPILE_CONDITION" && kind != "exception" {
		kind = "condition expression"
	}
	if code == "LOAD_ERR_COMPILE_OUTPUT" {
		kind = "rule output expression"
	}
	return p.mistake(code, kind, line, column, message)
}

func (c *compiler) fail(code string, at condition.Place, message string) {
	e := c.problem(code, at, message)
	if c.skip && isUnknown(message) {
		c.unknown = e
		return
	}
	if key := e.Error(); !c.reported[key] {
		c.reported[key] = true
		c.add(&c.errs, e)
	}
}

// isUnknown reports whether a mistake is one for which a rule may ask to be
// skipped.
func isUnknown(message string) bool {
	return slices.ContainsFunc([]string{"nonexistent field", "invalid formatting token", "unknown event type", "unknown filter:"},
		func(s string) bool { return strings.Contains(message, s) })
}

func (c *compiler) suspect(at condition.Place, code, message string) {
	e := c.problem(code, at, message)
	if key := code + e.Error(); !c.reported[key] {
		c.reported[key] = true
		c.add(&c.warnings, e)
	}
}

// macro checks the references of a macro: those to macros that it does not see,
// and those that lead back to it.
func (c *compiler) macro(m *macro) {
	c.checked[m] = false
	visit(c.trees[m.condition], func(ref *condition.Macro) {
		to := c.macros.byName[ref.Name]
		if to == nil || to.index >= m.visible {
			c.undefined(ref)
			c.trees[m.condition] = nil
			return
		}
		to.used = true
		switch done, met := c.checked[to]; {
		case !met:
			c.macro(to)
		case !done:
			c.fail("LOAD_ERR_VALIDATE", ref.Place, fmt.Sprintf("reference loop in macro '%s'", to.name))
			c.trees[m.condition] = nil
		}
	})
	c.checked[m] = true
}

func (c *compiler) undefined(ref *condition.Macro) {
	hint := " A macro sees only macros that are defined before it."
	if c.macros.byName[ref.Name] == nil {
		names := slices.Sorted(maps.Keys(c.macros.byName))
		hint = strings.Replace(condition.DidYouMean(ref.Name, names), "; did", " Did", 1)
	}
	c.fail("LOAD_ERR_VALIDATE", ref.Place, fmt.Sprintf("Undefined macro '%s' used in filter.%s", ref.Name, hint))
}

// visit calls f for each macro reference of a tree.
func visit(e condition.Expr, f func(*condition.Macro)) {
	switch e := e.(type) {
	case *condition.Logical:
		for _, kid := range e.Kids {
			visit(kid, f)
		}
	case *condition.Not:
		visit(e.Kid, f)
	case *condition.Macro:
		f(e)
	}
}

// count returns the checks of a tree with those of its macros.
func (c *compiler) count(e condition.Expr) int {
	n := 0
	switch e := e.(type) {
	case *condition.Logical:
		for _, kid := range e.Kids {
			n = min(n+c.count(kid), 2*maxChecks)
		}
	case *condition.Not:
		return c.count(e.Kid)
	case *condition.Macro:
		m := c.macros.byName[e.Name]
		if m == nil {
			return 1
		}
		key := macroOf{"", m}
		if known, ok := c.sizes[key]; ok {
			return known
		}
		c.sizes[key] = 1 // of a loop
		c.sizes[key] = c.count(c.trees[m.condition])
		return c.sizes[key]
	case *condition.Check:
		return 1
	}
	return n
}

// rule compiles a rule, or returns nil after a mistake.
func (c *compiler) rule(r *ruleItem) *compiledRule {
	mistakes := len(c.errs)
	if c.unknown = nil; r.skipUnknown {
		c.skip = true
		defer func() { c.skip = false }()
	}
	c.source = r.Source
	out := &compiledRule{Rule: r.Rule, from: r}
	tree := c.trees[r.condition]
	if c.checks = min(c.checks+c.count(tree), 2*maxChecks); c.checks > maxChecks {
		c.fail("LOAD_ERR_COMPILE_CONDITION", condition.Place{Text: r.condition}, fmt.Sprintf("conditions up to here have more than %d checks with their macros", maxChecks))
		return nil
	}
	out.condition = c.resolver().Resolve(tree)
	c.compileOutput(out, r)
	if c.unknown != nil {
		c.unknown.Code = "LOAD_UNKNOWN_FILTER"
		c.add(&c.warnings, c.unknown)
		return nil
	}
	if len(c.errs) > mistakes || out.condition == nil {
		return nil
	}
	c.eventTypes(out, r)
	return out
}

// resolver returns the resolver of the rule that is being compiled.
func (c *compiler) resolver() *condition.Resolver {
	return &condition.Resolver{
		Source: c.source, Static: c.Static, Macro: c.resolveMacro,
		Fail: func(at condition.Place, message string) { c.fail("LOAD_ERR_COMPILE_CONDITION", at, message) },
		Warn: c.suspect,
	}
}

func (c *compiler) resolveMacro(ref *condition.Macro) condition.Expr {
	m := c.macros.byName[ref.Name]
	if m == nil {
		c.undefined(ref)
		return nil
	}
	m.used = true
	key := macroOf{c.source, m}
	e, ok := c.resolved[key]
	if !ok || e == nil {
		c.resolved[key] = nil
		e = c.resolver().Resolve(c.trees[m.condition])
		c.resolved[key] = e
	}
	return e
}

// unused warns of macros and lists that nothing refers to.
func (c *compiler) unused() {
	for _, l := range c.lists.order {
		for _, item := range l.items {
			if o := c.lists.byName[item]; o != nil && o != l && o.index < l.visible {
				o.used = true
			}
		}
	}
	for _, m := range c.macros.order {
		if !m.used {
			m.from.warn("LOAD_UNUSED_MACRO", m.from.node, "Macro not referred to by any other rule/macro")
		}
	}
	for _, l := range c.lists.order {
		if !l.used {
			l.from.warn("LOAD_UNUSED_LIST", l.from.node, "List not referred to by any other rule/macro")
		}
	}
}

// eventTypes warns of a rule for system calls that must look at too many types
// of events.
func (c *compiler) eventTypes(out *compiledRule, r *ruleItem) {
	types := event.Types(r.Source)
	if types == nil || !r.warnTypes {
		return
	}
	if n := typesOf(out.condition, types).len(); n > 100 {
		r.from.spec.add(&c.warnings, r.from.mistake("LOAD_NO_EVTTYPE", "", r.from.node.Line, byteColumn(r.from.file.line(r.from.node.Line), r.from.node.Column)+1,
			fmt.Sprintf("Rule matches too many evt.type values (%d). This has a significant performance penalty.", n)))
	}
}
