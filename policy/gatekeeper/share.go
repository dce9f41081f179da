package gatekeeper

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// The constraints of one template ask its rules about the same object, each
// with parameters of its own. Rules that do not depend on the parameters have
// the same value for all of them: it is kept for the request.

// A ruleTree holds rules by their paths below data.
type ruleTree struct {
	children map[string]*ruleTree
	rules    bool // there are some at this place
	shared   bool // none of them, nor below, depends on parameters
	pure     bool // functions that depend on their arguments alone
	number   int  // of the place, among those with rules
}

// find returns the place of the rule that a key of the cache is of, and the rest
// of the key. A key is a reference, or one to a function with its arguments.
func (t *ruleTree) find(key ast.Ref) (place *ruleTree, rest ast.Ref) {
	if function, ok := key[0].Value.(ast.Ref); ok {
		place, _ = t.find(function)
		return place, key[1:]
	}
	for i, term := range key[1:] {
		name, ok := term.Value.(ast.String)
		if !ok {
			return nil, nil
		}
		if t = t.children[string(name)]; t == nil {
			return nil, nil
		}
		if t.rules {
			return t, key[i+2:]
		}
	}
	return nil, nil
}

func (t *ruleTree) add(path ast.Ref, shared, pure bool) {
	for _, term := range path[1:] {
		name, ok := term.Value.(ast.String)
		if !ok {
			break
		}
		child := t.children[string(name)]
		if child == nil {
			child = &ruleTree{shared: true, pure: true}
			if t.children == nil {
				t.children = map[string]*ruleTree{}
			}
			t.children[string(name)] = child
		}
		t = child
		if t.rules { // a rule above this one gives its value too
			break
		}
	}
	t.rules = true
	t.shared = t.shared && shared && len(t.children) == 0
	t.pure = t.pure && pure && t.shared
}

// count numbers the places with rules, from n, and returns the next number.
func (t *ruleTree) count(n int) int {
	if t.rules {
		t.number = n
		n++
	}
	for _, child := range t.children {
		n = child.count(n)
	}
	return n
}

// A dependence tells what rules depend on.
type dependence struct {
	compiler *ast.Compiler
	memo     map[*ast.Rule]reach
}

// A reach says how far what a rule reads goes.
type reach int

const (
	own      reach = iota // its arguments and constants
	request               // also the review, the inventory and providers, which are the same all through a request
	anything              // also parameters, or what is not the same each time
)

// of returns the reach of a rule, itself and through others.
func (d *dependence) of(rule *ast.Rule) reach {
	if known, ok := d.memo[rule]; ok {
		return known
	}
	found := reachOf(rule)
	if rule.Else != nil {
		found = max(found, d.of(rule.Else))
	}
	for dependency := range d.compiler.Graph.Dependencies(rule) { // which has no circle
		if other, ok := dependency.(*ast.Rule); ok {
			found = max(found, d.of(other))
		}
	}
	d.memo[rule] = found
	return found
}

// onMore reports whether a rule depends on more than the request.
func (d *dependence) onMore(rule *ast.Rule) bool { return d.of(rule) == anything }

// sharedRules finds the rules that depend on the request alone, or on less, and
// how many places have rules.
func (d *dependence) sharedRules() (tree *ruleTree, places int) {
	tree = &ruleTree{}
	for _, module := range d.compiler.Modules {
		for _, rule := range module.Rules {
			pure := len(rule.Head.Args) > 0 && d.of(rule) == own
			tree.add(rule.Ref().GroundPrefix(), !d.onMore(rule), pure)
		}
	}
	return tree, tree.count(0)
}

// reachOf returns the reach of a rule without that of others.
func reachOf(rule *ast.Rule) reach {
	found := own
	var visit func(x any) bool
	visit = func(x any) bool {
		switch x := x.(type) {
		case *ast.With: // other rules see another input
			found = anything
		case ast.Var: // not the head of a reference
			if x.Equal(ast.InputRootDocument.Value) {
				found = anything
			}
		case ast.Ref:
			found = max(found, reachOfRef(x))
			for _, term := range x[1:] {
				ast.NewGenericVisitor(visit).Walk(term)
			}
			return true
		}
		return found == anything
	}
	ast.NewGenericVisitor(visit).Walk(rule)
	return found
}

func reachOfRef(ref ast.Ref) reach {
	switch {
	case ref[0].Equal(ast.InputRootDocument):
		if len(ref) < 2 || !ref[1].Equal(ast.InternedTerm("review")) {
			return anything
		}
		return request
	case hasPrefix(ref, entryModule) || hasPrefix(ref, libsPackage): // rules speak for themselves
		return own
	case ref[0].Equal(ast.DefaultRootDocument):
		return request
	}
	if isExternalData(ref) {
		return request
	}
	if b := ast.BuiltinMap[ref.String()]; b != nil && b.IsNondeterministic() {
		return anything
	}
	return own
}

// readsNamespace reports whether code may read input.review.namespaceObject:
// it names it, or takes the review as a whole.
func readsNamespace(compiler *ast.Compiler) bool {
	reads := false
	for _, module := range compiler.Modules {
		ast.WalkRefs(module, func(ref ast.Ref) bool {
			if ref[0].Equal(ast.InputRootDocument) {
				reads = reads || mayBeNamespace(ref)
			}
			return false
		})
	}
	return reads
}

func mayBeNamespace(ref ast.Ref) bool {
	if len(ref) < 2 {
		return true
	}
	if first, ok := ref[1].Value.(ast.String); ok && first != "review" {
		return false
	}
	if len(ref) < 3 {
		return true
	}
	field, ok := ref[2].Value.(ast.String)
	return !ok || field == "namespaceObject"
}

// A layeredCache keeps the values of rules: those that depend on the request
// alone in a layer that all constraints of a template share.
type layeredCache struct {
	topdown.VirtualCache // for what is no rule
	rules                *ruleTree
	places               int // of rules
	memo                 *memo
	shared               *layer
	own                  []*layer // of one constraint; the last one holds, the others are those around a "with"
	calls                []string // of pure functions, with their results
	results              []*ast.Term
}

func newLayeredCache(p *program, shared *layer) *layeredCache {
	return &layeredCache{VirtualCache: topdown.NewVirtualCache(), rules: p.shared, places: p.places, memo: &p.memo, shared: shared, own: []*layer{{}}}
}

// A layer holds values by the places of rules.
type layer struct{ values []kept }

// kept is what is known of one place.
type kept struct {
	value     *ast.Term
	undefined bool
	members   topdown.VirtualCache // by the rest of the key; nil: none
}

func (l *layer) at(place, places int) *kept {
	if l.values == nil {
		l.values = make([]kept, places)
	}
	return &l.values[place]
}

// at returns what is known of the rule at a place.
func (c *layeredCache) at(place *ruleTree) *kept {
	if place.shared && len(c.own) == 1 {
		return c.shared.at(place.number, c.places)
	}
	return c.own[len(c.own)-1].at(place.number, c.places)
}

// commit keeps the values of pure functions beyond the request. A query that has
// failed must not: a value is put before it is known that the function has no
// other.
func (c *layeredCache) commit() {
	for i, call := range c.calls {
		c.memo.Put(call, c.results[i])
	}
}

// Push implements [topdown.VirtualCache].
func (c *layeredCache) Push() {
	c.VirtualCache.Push()
	c.own = append(c.own, &layer{})
}

// Pop implements [topdown.VirtualCache].
func (c *layeredCache) Pop() {
	c.VirtualCache.Pop()
	c.own = c.own[:len(c.own)-1]
}

// Get implements [topdown.VirtualCache].
func (c *layeredCache) Get(key ast.Ref) (*ast.Term, bool) {
	place, rest := c.rules.find(key)
	if place == nil {
		return c.VirtualCache.Get(key)
	}
	if place.pure && len(c.own) == 1 {
		if value := c.memo.Get(memoKey(place, rest)); value != nil {
			return value, false
		}
	}
	k := c.at(place)
	switch {
	case len(rest) == 0:
		return k.value, k.undefined
	case k.members == nil:
		return nil, false
	}
	return k.members.Get(rest)
}

// Put implements [topdown.VirtualCache].
func (c *layeredCache) Put(key ast.Ref, value *ast.Term) {
	place, rest := c.rules.find(key)
	if place == nil {
		c.VirtualCache.Put(key, value)
		return
	}
	if place.pure && len(c.own) == 1 && scalar(value) {
		if call := memoKey(place, rest); call != "" {
			c.calls = append(c.calls, call)
			c.results = append(c.results, value)
		}
	}
	k := c.at(place)
	if len(rest) == 0 {
		k.value, k.undefined = value, value == nil
		return
	}
	if k.members == nil {
		k.members = topdown.NewVirtualCache()
	}
	k.members.Put(rest, value)
}
