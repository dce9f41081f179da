// Package condition reads the conditions of Falco rules: it parses them into
// syntax trees (parse.go), and resolves these into trees of which each field,
// operator and constant is known to fit (resolve.go), so that an evaluator can
// not fail. Package plain evaluates such a tree as the language is defined;
// package rule evaluates many at once.
package condition

import (
	"regexp"
	"slices"
	"strings"
)

// An Expr is a node of a syntax tree: one of *Logical, *Not, *Macro, *Check, or
// once it is resolved *Leaf in the place of *Macro and *Check. Trees are
// immutable and shared.
type Expr any

// A Logical joins expressions by "and" or "or".
type Logical struct {
	Or   bool
	Kids []Expr
}

// A Not is true if its operand is false.
type Not struct{ Kid Expr }

// A Place is where something stands in a text.
type Place struct {
	Text   *Text
	Offset int
}

// Origin returns where the place was read.
func (p Place) Origin() Origin { return p.Text.Origin(p.Offset) }

// An Error is a mistake in a condition.
type Error struct {
	Place
	Message string
}

// Error returns the mistake.
func (e *Error) Error() string { return e.Message }

// A Macro refers to a macro.
type Macro struct {
	Place
	Name string
}

// A Check compares a field, or what transformers make of fields.
type Check struct {
	Left     Term
	Op       string // as written
	OpPlace  Place
	Modifier string   // oneof, anyof, allof or none
	Right    *Term    // of val(…) or a transformer
	Values   []Static // of a list, or the single constant; none for exists
}

// A Static is a constant as written.
type Static struct {
	Place
	S string
}

// A Term is a field or a transformer with its arguments.
type Term struct {
	Place
	Name  string
	Arg   *string   // in brackets
	Args  []Operand // of a transformer
	IsFun bool      // a transformer
}

// An Operand is an argument of a transformer: a term, a constant or a list.
type Operand struct {
	Place
	Term   *Term
	Const  string
	List   []Operand
	IsList bool
}

const (
	maxDepth    = 1000 // nested parentheses
	maxConstant = 255  // bytes of a constant
)

// Parse returns the syntax tree of a condition.
func Parse(t *Text) (Expr, *Error) {
	p := parser{lexer: lexer{text: t, s: t.S}}
	p.blank()
	if p.peek() == 0 {
		return nil, p.fail("filter input string is empty")
	}
	e, err := p.or()
	if err != nil {
		return nil, err
	}
	end := p.i
	if p.blank(); p.i < len(p.s) {
		return nil, p.fail("unexpected token after '%s', expecting 'or', 'and'", lastToken(p.s[:end]))
	}
	return e, nil
}

// lastToken returns the last word or symbol of a text.
func lastToken(s string) string {
	s = strings.TrimRight(s, " \t\b\r\n")
	begin := len(s)
	for begin > 0 && strings.IndexByte("()\"' \t\r\n=,", s[begin-1]) < 0 {
		begin--
	}
	if begin == len(s) && begin > 0 {
		begin--
	}
	return s[begin:]
}

// ParseTerm consumes the longest field or transformer that s begins with at an
// offset, and returns where it ends. known says which names are fields: a text
// may go on with a dot. end is 0 if there is none.
func ParseTerm(t *Text, offset int, known func(string) bool) (term Term, end int, err *Error) {
	p := parser{lexer: lexer{text: t, s: t.S, i: offset}, known: known}
	term, ok, err := p.term()
	if err != nil || !ok {
		return term, 0, err
	}
	return term, p.i, nil
}

type parser struct {
	lexer
	depth int
	known func(field string) bool // nil in a condition
}

func (p *parser) or() (Expr, *Error)  { return p.logical("or", p.and) }
func (p *parser) and() (Expr, *Error) { return p.logical("and", p.not) }

func (p *parser) logical(word string, operand func() (Expr, *Error)) (Expr, *Error) {
	first, err := operand()
	if err != nil {
		return nil, err
	}
	kids := []Expr{first}
	for {
		end := p.i
		if p.blank(); !p.keyword(word) {
			p.i = end
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
	return &Logical{Or: word == "or", Kids: kids}, nil
}

func (p *parser) not() (Expr, *Error) {
	negative := false
	for p.blank(); p.keyword("not"); p.blank() {
		negative = !negative
	}
	e, err := p.primary()
	if err == nil && negative {
		e = &Not{e}
	}
	return e, err
}

func (p *parser) primary() (Expr, *Error) {
	at := Place{p.text, p.i}
	if p.literal("(") {
		return p.parenthesis()
	}
	if term, ok, err := p.term(); ok || err != nil {
		if err != nil {
			return nil, err
		}
		return p.test(term)
	}
	name := p.token(identToken)
	if name == "" {
		return nil, p.fail("unexpected %s, expecting a field, a macro, 'not' or '('", p.next())
	}
	return &Macro{at, name}, nil
}

func (p *parser) enter() *Error {
	if p.depth++; p.depth > maxDepth {
		return p.fail("exceeded max depth limit of %d", maxDepth)
	}
	return nil
}

func (p *parser) parenthesis() (Expr, *Error) {
	if err := p.enter(); err != nil {
		return nil, err
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

// Transformers lists the transformers.
func Transformers() []string {
	return []string{"tolower", "toupper", "b64", "basename", "len", "join", "concat", "getopt"}
}

// term consumes a field or a transformer. ok is false if neither comes next.
func (p *parser) term() (t Term, ok bool, err *Error) {
	if t, ok, err = p.call(); ok || err != nil {
		return t, ok, err
	}
	return p.field()
}

// call consumes a transformer. ok is false if none comes next.
func (p *parser) call() (t Term, ok bool, err *Error) {
	for _, name := range Transformers() {
		if rest, is := strings.CutPrefix(p.rest(), name); is && strings.HasPrefix(rest, "(") {
			t, err = p.transformer(name)
			return t, true, err
		}
	}
	return t, false, nil
}

func (p *parser) transformer(name string) (Term, *Error) {
	t := Term{Place: Place{p.text, p.i}, Name: name, IsFun: true}
	if err := p.enter(); err != nil {
		return t, err
	}
	p.i += len(name) + 1
	for {
		arg, err := p.operand(true)
		if err != nil {
			return t, err
		}
		t.Args = append(t.Args, arg)
		if p.blank(); p.literal(")") {
			break
		}
		if !p.literal(",") {
			return t, p.fail("unexpected %s, expecting ',' or ')' in %s()", p.next(), name)
		}
	}
	p.depth--
	return t, p.bracket(&t)
}

// operand consumes an argument of a transformer.
func (p *parser) operand(lists bool) (Operand, *Error) {
	p.blank()
	o := Operand{Place: Place{p.text, p.i}}
	if lists && p.literal("(") {
		o.IsList = true
		return o, p.operands(&o)
	}
	s, quoted, err := p.quoted()
	if quoted || err != nil {
		o.Const = s
		return o, err
	}
	term, ok, err := p.term()
	if ok || err != nil {
		o.Term = &term
		return o, err
	}
	if o.Const = p.token(numberToken); o.Const == "" {
		return o, p.fail("unexpected %s, expecting a field, a transformer or a constant", p.next())
	}
	return o, nil
}

// operands consumes the rest of a list among the arguments of a transformer.
func (p *parser) operands(list *Operand) *Error {
	if p.blank(); p.literal(")") {
		return nil
	}
	for {
		item, err := p.operand(false)
		if err != nil {
			return err
		}
		list.List = append(list.List, item)
		if p.blank(); p.literal(")") {
			return nil
		}
		if !p.literal(",") {
			return p.fail("unexpected %s, expecting ',' or ')'", p.next())
		}
	}
}

// field consumes a field and its argument. ok is false if none comes next.
func (p *parser) field() (t Term, ok bool, err *Error) {
	t = Term{Place: Place{p.text, p.i}}
	if t.Name = p.longest(p.token(fieldToken)); t.Name == "" {
		return t, false, nil
	}
	p.i = t.Offset + len(t.Name)
	return t, true, p.bracket(&t)
}

// bracket consumes the argument in brackets, if there is one.
func (p *parser) bracket(t *Term) *Error {
	if !p.literal("[") {
		return nil
	}
	arg, quoted, err := p.quoted()
	if err != nil {
		return err
	}
	if !quoted {
		arg = p.token(argToken)
	}
	if arg == "" || !p.literal("]") {
		return p.fail("unexpected %s, expecting the argument of %s and ']'", p.next(), t.Name)
	}
	t.Arg = &arg
	return nil
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
	numericOps = []string{"<=", "<", ">=", ">"}
	symbolOps  = []string{"==", "=", "!="}
	wordOps    = []string{"glob", "iglob", "contains", "icontains", "bcontains", "startswith", "bstartswith", "endswith", "regex"}
	listOps    = []string{"intersects", "in", "pmatch"}
	modifiers  = []string{"oneof", "anyof", "allof"}
)

// Operators lists all operators.
func Operators() []string {
	return slices.Concat([]string{"exists"}, numericOps, symbolOps, wordOps, listOps)
}

// IsOperator reports whether a comparison of an exception is an operator, or an
// operator on text with a modifier.
func IsOperator(s string) bool {
	op, modifier, ok := strings.Cut(s, " ")
	if !ok {
		return slices.Contains(Operators(), s)
	}
	return slices.Contains(slices.Concat(symbolOps, wordOps), op) && slices.Contains(modifiers, strings.TrimSpace(modifier))
}

// TakesList reports whether a comparison of an exception wants a list of values.
func TakesList(s string) bool {
	return slices.Contains(listOps, s) || strings.Contains(s, " ") && IsOperator(s)
}

func (p *parser) test(left Term) (Expr, *Error) {
	p.blank()
	c := &Check{Left: left, OpPlace: Place{p.text, p.i}}
	if p.literal("exists") {
		c.Op = "exists"
		return c, nil
	}
	take := func(ops []string, consume func(string) bool) bool {
		for _, op := range ops {
			if consume(op) {
				c.Op = op
				return true
			}
		}
		return false
	}
	switch {
	case take(numericOps, p.literal):
		return c, p.number(c)
	case take(symbolOps, p.literal), take(wordOps, p.word):
		return c, p.single(c)
	case take(listOps, p.literal):
		return c, p.several(c)
	}
	at := p.i
	hint := DidYouMean(p.token(bareToken), Operators())
	p.i = at
	return nil, p.fail("unexpected %s, expecting an operator after %s%s", p.next(), left.Name, hint)
}

// number consumes the right side of an operator that compares numbers.
func (p *parser) number(c *Check) *Error {
	p.blank()
	if ok, err := p.right(c); ok || err != nil {
		return err
	}
	at := p.i
	if n := p.token(numberToken); n != "" {
		c.Values = []Static{{Place{p.text, at}, n}}
		return nil
	}
	return p.fail("unexpected %s, expecting a number", p.next())
}

// single consumes the right side of an operator on text.
func (p *parser) single(c *Check) *Error {
	p.blank()
	if c.Modifier = p.modifier(); c.Modifier != "" {
		p.blank()
		return p.list(c)
	}
	if ok, err := p.right(c); ok || err != nil {
		return err
	}
	v, err := p.constant()
	c.Values = []Static{v}
	return err
}

// modifier consumes a modifier. A word is one only before a list or a name; else
// it is an ordinary value.
func (p *parser) modifier() string {
	for _, m := range modifiers {
		after, ok := strings.CutPrefix(p.rest(), m)
		if !ok || after == "" || !isBlank(after[0]) {
			continue
		}
		after = strings.TrimLeft(after, " \t\b\r\n")
		name := identToken.FindString(after)
		if strings.HasPrefix(after, "(") || name != "" && name != "and" && name != "or" && name != "not" {
			p.i += len(m)
			return m
		}
	}
	return ""
}

var valCall = regexp.MustCompile(`^val\(`)

// right consumes val(field) or a transformer. ok is false if neither comes next.
func (p *parser) right(c *Check) (ok bool, err *Error) {
	if term, ok, err := p.call(); ok || err != nil {
		c.Right = &term
		return true, err
	}
	if p.token(valCall) == "" {
		return false, nil // a field without val() is a constant
	}
	p.blank()
	field, ok, err := p.field()
	if err != nil {
		return false, err
	}
	if p.blank(); !ok || !p.literal(")") {
		return false, p.fail("unexpected %s, expecting a field and ')' in val()", p.next())
	}
	if p.peek() == '[' {
		return false, p.fail("val() does not support field arguments")
	}
	c.Right = &field
	return true, nil
}

// several consumes the right side of an operator that takes a list.
func (p *parser) several(c *Check) *Error {
	p.blank()
	if p.peek() != '(' {
		if ok, err := p.right(c); ok || err != nil {
			return err
		}
	}
	return p.list(c)
}

// list consumes a list of constants. Without parentheses there may be one word.
func (p *parser) list(c *Check) *Error {
	at := p.i
	if !p.literal("(") {
		word := p.token(identToken)
		if word == "" {
			return p.fail("unexpected %s, expecting '('", p.next())
		}
		c.Values = []Static{{Place{p.text, at}, word}}
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
		c.Values = append(c.Values, v)
		if p.blank(); p.literal(")") {
			return nil
		}
		if !p.literal(",") {
			return p.fail("unexpected %s, expecting ',' or ')'", p.next())
		}
	}
}

func (p *parser) constant() (Static, *Error) {
	p.blank()
	v := Static{Place: Place{p.text, p.i}}
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
		return v, p.failAt(v.Offset, "filter parameter too long: over %d bytes", maxConstant)
	case strings.IndexByte(s, 0) >= 0:
		return v, p.failAt(v.Offset, "filter parameter must not contain a NUL byte")
	}
	v.S = s
	return v, nil
}
