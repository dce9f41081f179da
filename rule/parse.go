package rule

import (
	"slices"
	"strings"
)

// An expr is a node of the syntax tree of a condition: one of *logical,
// *negation, *macroRef and *check. Trees are immutable and shared.
type expr any

// A logical joins expressions by "and" or "or".
type logical struct {
	or   bool
	kids []expr
}

type negation struct{ kid expr }

// A place is where something stands in a condition.
type place struct {
	text   *text
	offset int
}

type macroRef struct {
	place
	name string
}

// A check compares one field.
type check struct {
	field fieldRef
	op    operator
	right *fieldRef // of val(…)
	items []operand // of a list, or the single operand; none for exists
}

type operator struct {
	place
	name string
}

type operand struct {
	place
	s string
}

type fieldRef struct {
	place
	name string
	arg  *string
}

const (
	maxDepth    = 1000 // nested parentheses
	maxConstant = 255  // bytes of a constant
)

// parse returns the syntax tree of a condition.
func parse(t *text) (expr, *Error) {
	p := parser{lexer: lexer{text: t, s: t.s}}
	p.blank()
	if p.peek() == 0 {
		return nil, p.fail("condition is empty")
	}
	e, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.blank(); p.i < len(p.s) {
		return nil, p.fail("unexpected %s, expecting 'or', 'and' or the end", p.next())
	}
	return e, nil
}

type parser struct {
	lexer
	depth int
	known func(field string) bool // nil in a condition
}

func (p *parser) or() (expr, *Error)  { return p.logical("or", p.and) }
func (p *parser) and() (expr, *Error) { return p.logical("and", p.not) }

func (p *parser) logical(word string, operand func() (expr, *Error)) (expr, *Error) {
	first, err := operand()
	if err != nil {
		return nil, err
	}
	kids := []expr{first}
	for {
		if p.blank(); !p.keyword(word) {
			break
		}
		kid, err := operand()
		if err != nil {
			return nil, err
		}
		kids = append(kids, kid)
	}
	if len(kids) == 1 {
		return first, nil
	}
	return &logical{or: word == "or", kids: kids}, nil
}

func (p *parser) not() (expr, *Error) {
	negative := false
	for p.blank(); p.keyword("not"); p.blank() {
		negative = !negative
	}
	e, err := p.primary()
	if err == nil && negative {
		e = &negation{e}
	}
	return e, err
}

func (p *parser) primary() (expr, *Error) {
	at := place{p.text, p.i}
	if p.literal("(") {
		return p.parenthesis()
	}
	if field, ok, err := p.field(); ok || err != nil {
		if err != nil {
			return nil, err
		}
		return p.test(field)
	}
	name := p.token(identToken)
	switch {
	case name == "":
		return nil, p.fail("unexpected %s, expecting a field, a macro, 'not' or '('", p.next())
	case p.peek() == '(' && slices.Contains(transformers, name):
		return nil, p.failAt(at.offset, "transformer %s is not supported yet", name)
	}
	return &macroRef{at, name}, nil
}

var transformers = []string{"tolower", "toupper", "b64", "basename", "len", "join", "concat", "getopt"}

func (p *parser) parenthesis() (expr, *Error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.fail("exceeded max depth limit of %d", maxDepth)
	}
	e, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.blank(); !p.literal(")") {
		return nil, p.fail("unexpected %s, expecting ')', 'or' or 'and'", p.next())
	}
	p.depth--
	return e, nil
}

// field consumes a field and its argument. ok is false if none comes next.
func (p *parser) field() (f fieldRef, ok bool, err *Error) {
	f = fieldRef{place: place{p.text, p.i}}
	if f.name = p.longest(p.token(fieldToken)); f.name == "" {
		return f, false, nil
	}
	p.i = f.offset + len(f.name)
	if !p.literal("[") {
		return f, true, nil
	}
	arg, quoted, err := p.quoted()
	if err != nil {
		return f, false, err
	}
	if !quoted {
		arg = p.token(argToken)
	}
	if arg == "" || !p.literal("]") {
		return f, false, p.fail("unexpected %s, expecting the argument of %s and ']'", p.next(), f.name)
	}
	f.arg = &arg
	return f, true, nil
}

// longest returns the longest part of a field name that is a field, if it is
// known what is: in an output the text may go on with a dot. Without any it
// returns the whole name.
func (p *parser) longest(name string) string {
	for part := name; p.known != nil; {
		if p.known(part) {
			return part
		}
		dot := strings.LastIndexByte(part, '.')
		if dot < 0 {
			break
		}
		part = part[:dot]
	}
	return name
}

// The operators, in the order in which they are tried: an operator must stand
// before those that are its prefix.
var (
	symbolOps = []string{"==", "=", "!=", "<=", "<", ">=", ">"}
	wordOps   = []string{"contains", "icontains", "startswith", "endswith", "glob"}
	listOps   = []string{"intersects", "in", "pmatch"}
	laterOps  = []string{"iglob", "bcontains", "bstartswith", "regex"}
	modifiers = []string{"oneof", "anyof", "allof"}
)

func (p *parser) test(field fieldRef) (expr, *Error) {
	p.blank()
	c := &check{field: field, op: operator{place: place{p.text, p.i}}}
	if p.literal("exists") {
		c.op.name = "exists"
		return c, nil
	}
	for _, op := range symbolOps {
		if p.literal(op) {
			c.op.name = op
			return c, p.single(c)
		}
	}
	for _, op := range wordOps {
		if p.word(op) {
			c.op.name = op
			return c, p.single(c)
		}
	}
	for _, op := range laterOps {
		if p.word(op) {
			return nil, p.failAt(c.op.offset, "operator %s is not supported yet", op)
		}
	}
	for _, op := range listOps {
		if p.literal(op) {
			c.op.name = op
			return c, p.several(c)
		}
	}
	ops := slices.Concat(symbolOps, wordOps, listOps, []string{"exists"})
	return nil, p.fail("unexpected %s, expecting an operator after %s%s", p.next(), field.name, didYouMean(p.token(bareToken), ops))
}

// single consumes the operand of an operator that takes one.
func (p *parser) single(c *check) *Error {
	p.blank()
	if err := p.modifier(); err != nil {
		return err
	}
	if ok, err := p.val(c); ok || err != nil {
		return err
	}
	if c.op.name[0] == '<' || c.op.name[0] == '>' {
		at := p.i
		if n := p.token(numberToken); n != "" {
			c.items = []operand{{place{p.text, at}, n}}
			return nil
		}
		return p.fail("unexpected %s, expecting a number", p.next())
	}
	v, err := p.constant()
	c.items = []operand{v}
	return err
}

// modifier refuses what later follows an operator: a modifier is one only
// before a list or a name; else it is an ordinary value.
func (p *parser) modifier() *Error {
	for _, m := range modifiers {
		after, ok := strings.CutPrefix(p.rest(), m)
		if !ok || after == "" || !isBlank(after[0]) {
			continue
		}
		after = strings.TrimLeft(after, " \t\b\r\n")
		name := identToken.FindString(after)
		if strings.HasPrefix(after, "(") || name != "" && name != "and" && name != "or" && name != "not" {
			return p.fail("modifier %s is not supported yet", m)
		}
	}
	return nil
}

// val consumes val(field). ok is false if it does not come next.
func (p *parser) val(c *check) (ok bool, err *Error) {
	if !p.literal("val(") {
		return false, nil
	}
	p.blank()
	field, ok, err := p.field()
	if err != nil {
		return false, err
	}
	if p.blank(); !ok || !p.literal(")") {
		return false, p.fail("unexpected %s, expecting a field and ')' in val()", p.next())
	}
	c.right = &field
	return true, nil
}

// several consumes the operands of an operator that takes a list. Without
// parentheses there may be one word.
func (p *parser) several(c *check) *Error {
	p.blank()
	if ok, err := p.val(c); ok || err != nil {
		return err
	}
	at := p.i
	if !p.literal("(") {
		word := p.token(identToken)
		if word == "" {
			return p.fail("unexpected %s, expecting '('", p.next())
		}
		c.items = []operand{{place{p.text, at}, word}}
		return nil
	}
	if p.blank(); p.literal(")") {
		return nil
	}
	for {
		v, err := p.constant()
		if err != nil {
			return err
		}
		c.items = append(c.items, v)
		if p.blank(); p.literal(")") {
			return nil
		}
		if !p.literal(",") {
			return p.fail("unexpected %s, expecting ',' or ')'", p.next())
		}
	}
}

func (p *parser) constant() (operand, *Error) {
	p.blank()
	v := operand{place: place{p.text, p.i}}
	s, ok, err := p.quoted()
	if err != nil {
		return v, err
	}
	if !ok {
		if s = p.token(bareToken); s == "" {
			return v, p.fail("unexpected %s, expecting a value", p.next())
		}
	}
	switch {
	case len(s) > maxConstant:
		return v, p.failAt(v.offset, "value is longer than %d bytes", maxConstant)
	case strings.IndexByte(s, 0) >= 0:
		return v, p.failAt(v.offset, "value must not contain a NUL byte")
	}
	v.s = s
	return v, nil
}
