package condition

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
)

// A Leaf is a check of which everything is known to fit.
type Leaf struct {
	At       Place
	Left     *Input
	Op       string // "==" is "="
	Modifier string
	Right    *Input  // or
	Consts   []Const // of the operator's type
}

// An Input is where a check takes a value from: a field, a constant, or what a
// transformer makes of other inputs.
type Input struct {
	Type   event.Type
	Ref    event.Ref    // of a field
	Const  *event.Value // or a constant
	Fun    string       // or a transformer; "list" makes a list of its arguments
	Args   []*Input
	Option string // the option that getopt is asked for
	Text   string // the input as a rule may write it; the same text has the same value
}

// A Const is a constant.
type Const struct {
	Static
	Value  event.Value    // what it is compared as
	Prefix netip.Prefix   // of a network
	Regexp *regexp.Regexp // that matches the whole text
}

// String returns the check as a rule may write it.
func (l *Leaf) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", l.Left.Text, l.Op)
	if l.Modifier != "" {
		b.WriteString(" " + l.Modifier)
	}
	switch {
	case l.Op == "exists":
	case l.Right != nil && l.Right.Fun == "":
		fmt.Fprintf(&b, " val(%s)", l.Right.Text)
	case l.Right != nil:
		b.WriteString(" " + l.Right.Text)
	case l.Modifier != "" || slices.Contains(listOps, l.Op):
		words := make([]string, len(l.Consts))
		for i, c := range l.Consts {
			words[i] = quote(c.S)
		}
		b.WriteString(" (" + strings.Join(words, ", ") + ")")
	default:
		b.WriteString(" " + quote(l.Consts[0].S))
	}
	return b.String()
}

func quote(s string) string {
	if bareToken.FindString(s) == s && s != "" {
		return s
	}
	return strconv.Quote(s)
}

// A Resolver resolves the conditions of the rules of one source.
type Resolver struct {
	Source string
	Static map[string]string // static.<name>
	Macro  func(*Macro) Expr // the resolved tree of a macro, nil after a mistake
	Fail   func(at Place, message string)
	Warn   func(at Place, code, message string)
}

func (r *Resolver) fail(at Place, format string, args ...any) {
	r.Fail(at, fmt.Sprintf(format, args...))
}

// Resolve returns the resolved tree. It returns nil after a mistake, but looks
// for further ones.
func (r *Resolver) Resolve(e Expr) Expr {
	switch e := e.(type) {
	case *Logical:
		out := &Logical{Or: e.Or, Kids: make([]Expr, len(e.Kids))}
		bad := false
		for i, kid := range e.Kids {
			out.Kids[i] = r.Resolve(kid)
			bad = bad || out.Kids[i] == nil
		}
		if bad {
			return nil
		}
		return out
	case *Not:
		if kid := r.Resolve(e.Kid); kid != nil {
			return &Not{kid}
		}
	case *Macro:
		return r.Macro(e)
	case *Check:
		return r.check(e)
	}
	return nil
}

func (r *Resolver) check(c *Check) Expr {
	if f, ok := event.Lookup(r.Source, c.Left.Name); ok && !c.Left.IsFun {
		if client, server, ok := f.Ends(); ok {
			return r.ends(c, client, server)
		}
	}
	left := r.Term(&c.Left)
	if left == nil {
		return nil
	}
	l := &Leaf{At: c.Left.Place, Left: left, Op: strings.Replace(c.Op, "==", "=", 1), Modifier: c.Modifier}
	if !r.operator(c, l) || !r.eventType(c, left) {
		return nil
	}
	if left.Ref.Name == "evt.around" && !r.around(c, l) {
		return nil
	}
	if c.Right != nil {
		return r.right(c, l)
	}
	for _, v := range c.Values {
		constant, err := newConst(v, left.Type, l.Op)
		if err != nil {
			r.Fail(v.Place, err.Error())
			return nil
		}
		r.suspect(c, l, v)
		l.Consts = append(l.Consts, constant)
	}
	return l
}

// ends resolves a check of a field that stands for both ends of a connection:
// != wants both ends to differ, any other operator is content with one.
func (r *Resolver) ends(c *Check, client, server string) Expr {
	if !slices.Contains([]string{"=", "==", "!=", "in", "exists"}, c.Op) && !strings.Contains("fd.port fd.proto", c.Left.Name) || c.Right != nil || c.Modifier != "" {
		r.fail(c.OpPlace, "filter error: '%s' operator not supported for %s", strings.TrimSpace(c.Op+" "+c.Modifier), c.Left.Name)
		return nil
	}
	out := &Logical{Or: c.Op != "!="}
	for _, name := range []string{client, server} {
		end := *c
		end.Left.Name = name
		if c.Left.Name == "fd.net" && len(c.Values) > 1 {
			end.Values = c.Values[:1] // Falco tests the first network only
		}
		kid := r.check(&end)
		if kid == nil {
			return nil
		}
		out.Kids = append(out.Kids, kid)
	}
	return out
}

// operatorsOf has the operators of each type, and how its filters are called in
// messages.
var operatorsOf = map[event.Type]struct{ class, operators string }{
	event.TypeNumber: {"numeric", "= != < <= > >= in intersects exists"},
	event.TypeUint:   {"numeric", "= != < <= > >= in intersects exists"},
	event.TypePort:   {"numeric", "= != < <= > >= in intersects exists"},
	event.TypeDouble: {"numeric", "= != < <= > >= in intersects exists"},
	event.TypeBool:   {"bool", "= != in intersects exists"},
	event.TypeString: {"string", "= != < <= > >= contains icontains startswith endswith glob iglob regex pmatch in intersects exists"},
	event.TypeBytes:  {"byte buffer", "= != contains bcontains startswith bstartswith endswith in intersects exists"},
	event.TypeIP:     {"IP address", "= != in intersects exists"},
	event.TypeNet:    {"network", "= != in intersects exists"},
	event.TypeList:   {"list", "in intersects exists pmatch"}, // pmatch is ours
}

// operator checks that the operator fits the type.
func (r *Resolver) operator(c *Check, l *Leaf) bool {
	known := operatorsOf[l.Left.Type]
	op := l.Op
	if l.Modifier != "" {
		op += " " + l.Modifier
		switch l.Left.Type {
		case event.TypeNet:
			if l.Op != "!=" {
				l.Op = "="
			}
		case event.TypeList:
			known.operators = ""
		case event.TypeString, event.TypeBytes:
		default:
			known.operators = "= !="
		}
	}
	if !slices.Contains(strings.Fields(known.operators), l.Op) {
		r.fail(c.OpPlace, "filter error: '%s' operator not supported for %s filters", op, known.class)
		return false
	}
	return true
}

// eventType checks the constants that an event type is compared with.
func (r *Resolver) eventType(c *Check, left *Input) bool {
	types := event.Types(r.Source)
	if types == nil || !isEventType(left.Text) {
		if left.Fun != "" && slices.ContainsFunc(left.Args, func(a *Input) bool { return isEventType(a.Text) }) && types != nil {
			r.fail(c.Left.Place, "transformers are not supported for %s", left.Text)
			return false
		}
		return true
	}
	if c.Right != nil {
		r.fail(c.OpPlace, "%s cannot be compared with a field or transformer", left.Text)
		return false
	}
	if !slices.Contains([]string{"=", "==", "!=", "in", "intersects"}, c.Op) || c.Modifier != "" {
		return true
	}
	for _, v := range c.Values {
		if !slices.Contains(types, v.S) {
			r.fail(v.Place, "unknown event type %s%s", v.S, DidYouMean(v.S, types))
			return false
		}
	}
	return true
}

// around lets evt.around[T] = D mean within D milliseconds of T: the value of the
// field is how far the event is away.
func (r *Resolver) around(c *Check, l *Leaf) bool {
	if l.Op != "=" || l.Modifier != "" {
		r.fail(c.OpPlace, "filter error: '%s' operator not supported for evt.around", strings.TrimSpace(c.Op+" "+c.Modifier))
		return false
	}
	l.Op = "<="
	return true
}

func isEventType(field string) bool { return field == "evt.type" || field == "syscall.type" }

func (r *Resolver) right(c *Check, l *Leaf) Expr {
	right := r.Term(c.Right)
	switch {
	case right == nil:
		return nil
	case l.Left.Ref.Plain() || right.Ref.Plain():
		r.fail(c.Right.Place, "%s and %s cannot be compared: one of them takes constants only", l.Left.Text, right.Text)
	case l.Op == "pmatch" || l.Op == "regex":
		r.fail(c.OpPlace, "filter error: '%s' operator does not support a field or transformer on its right side", l.Op)
	case right.Type != l.Left.Type:
		r.fail(c.Right.Place, "%s is a %s and %s is a %s: both sides need the same type", l.Left.Text, l.Left.Type, right.Text, right.Type)
	case right.Type == event.TypeNet:
		r.fail(c.Right.Place, "networks can only be compared with constants")
	default:
		l.Right = right
		return l
	}
	return nil
}

// suspect warns of a constant that is likely to be a mistake.
func (r *Resolver) suspect(c *Check, l *Leaf, v Static) {
	name := l.Left.Ref.Name
	audit := strings.HasPrefix(name, "ka.") || strings.HasPrefix(name, "jevt.")
	if v.S == event.NA && audit && slices.Contains([]string{"=", "!=", "in", "intersects", "pmatch"}, l.Op) {
		r.Warn(v.Place, "LOAD_UNSAFE_NA_CHECK", "comparing a field value with <NA> is unsafe and can lead to unpredictable behavior of the rule condition. If you need to check for the existence of a field, consider using the 'exists' operator instead.")
	}
	if name := fieldToken.FindString(v.S); name != "" {
		if _, ok := event.Lookup(r.Source, name); ok && (name == v.S || strings.HasPrefix(v.S, name+"[")) {
			r.Warn(v.Place, "LOAD_COMPILE_CONDITION", fmt.Sprintf("'%s' may be a valid field misused as a const string value", v.S))
		}
	}
	if fun, _, ok := strings.Cut(v.S, "("); ok && slices.Contains(Transformers(), fun) {
		r.Warn(v.Place, "LOAD_COMPILE_CONDITION", fmt.Sprintf("'%s' may be a valid transformer misused as a const string value", v.S))
	}
	if l.Op == "regex" {
		if better := simpler(v.S); better != "" {
			r.Warn(c.OpPlace, "LOAD_COMPILE_CONDITION", fmt.Sprintf("regular expression '%s' can be replaced by '%s', which is faster", v.S, better))
		}
	}
}

// simpler returns the operator that does what a regular expression does, or "".
func simpler(pattern string) string {
	begin, end := strings.HasPrefix(pattern, ".*"), strings.HasSuffix(pattern, ".*")
	core := strings.TrimSuffix(strings.TrimPrefix(pattern, ".*"), ".*")
	if core == "" || regexp.QuoteMeta(core) != core {
		return ""
	}
	switch {
	case begin && end:
		return "contains"
	case begin:
		return "endswith"
	case end:
		return "startswith"
	}
	return "="
}

// Term resolves a field or a transformer, and returns nil after a mistake.
func (r *Resolver) Term(t *Term) *Input {
	if t.IsFun {
		return r.transformer(t)
	}
	if key, ok := strings.CutPrefix(t.Name, "static."); ok {
		if s, ok := r.Static[key]; ok {
			return constant(t.Name, event.Text(s))
		}
	}
	field, ok := event.Lookup(r.Source, t.Name)
	if !ok {
		r.fail(t.Place, "filter_check called with nonexistent field %s%s", t.Name, r.hint(t.Name))
		return nil
	}
	if field.Deprecated() {
		r.Warn(t.Place, "LOAD_DEPRECATED_ITEM", fmt.Sprintf("usage of deprecated field '%s' has been detected", t.Name))
	}
	if field.Name == "evt.dir" {
		return constant(t.Name, event.Text("<")) // there are only exit events
	}
	ref, err := event.Resolve(field, t.Arg)
	if err != nil {
		r.Fail(t.Place, err.Error())
		return nil
	}
	return &Input{Type: field.Type, Ref: ref, Text: ref.Text}
}

func constant(text string, v event.Value) *Input {
	return &Input{Type: v.Type, Const: &v, Text: text}
}

// hint says what may be meant by a name that is no field.
func (r *Resolver) hint(name string) string {
	for _, source := range event.Sources() {
		if _, ok := event.Lookup(source, name); ok {
			return "; it is one of source " + source
		}
	}
	var names []string
	for _, f := range event.Fields(r.Source) {
		names = append(names, f.Name)
	}
	return DidYouMean(name, names)
}

// newConst reads a constant as the type of a field wants it.
func newConst(v Static, typ event.Type, op string) (Const, error) {
	c := Const{Static: v, Value: event.Text(v.S)}
	var err error
	switch typ {
	case event.TypeString:
		if op == "regex" {
			c.Regexp, err = wholeRegexp(v.S)
		}
	case event.TypeBytes:
		if op == "bcontains" || op == "bstartswith" {
			c.Value.Text, err = unhex(v.S)
		}
	case event.TypeNumber:
		c.Value, err = number(v.S, false)
	case event.TypeUint:
		c.Value, err = number(v.S, true)
	case event.TypePort:
		c.Value, err = port(v.S)
	case event.TypeDouble:
		if c.Value, err = number(v.S, false); err == nil {
			c.Value = event.Double(float64(c.Value.Number))
		}
	case event.TypeBool:
		if v.S != "true" && v.S != "false" {
			err = fmt.Errorf("filter error: unrecognized boolean value '%s': want true or false", v.S)
		}
		c.Value = event.Bool(v.S == "true")
	case event.TypeIP:
		c.Value, err = address(v.S)
	case event.TypeNet:
		if c.Prefix, err = netip.ParsePrefix(v.S); err != nil {
			err = fmt.Errorf("unrecognized network '%s': want an address and a length, as 10.0.0.0/8", v.S)
		}
		c.Prefix = c.Prefix.Masked()
	}
	return c, err
}
