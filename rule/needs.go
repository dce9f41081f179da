package rule

import (
	"maps"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule/condition"
	"github.com/kubeguardian/kubeguardian/rule/plain"
)

// Needs says which system calls the rules of a set can match, so that a sensor
// can leave out the others. Whatever it leaves out, no rule matches.
type Needs struct {
	// Rules has, by event type, the names of the rules that an event of the type
	// can match, in their order. A type that no rule can match is not in it.
	Rules map[string][]string

	// Host lists the types of which a rule can match an event outside containers,
	// sorted.
	Host []string

	// The opens that rules can match: calls of the types open, openat, openat2 and
	// creat, by what fd.name is or, if the call failed, would be. Those of
	// open_by_handle_at, which are given no path, are needed whenever the type is.
	// A call reads if it neither asks for write access nor creates or cuts a
	// file. The name that the kernel has for a path must be known to leave one out.
	Reads, Writes             Paths
	FailedReads, FailedWrites Paths

	// Connects says of which families rules can match calls of connect. Those of
	// other families are needed whenever the type is.
	Connects Families
}

// Families is a set of families of sockets.
type Families struct{ IPv4, IPv6, Unix bool }

// Types lists the event types that are needed, sorted.
func (n Needs) Types() []string {
	return slices.Sorted(maps.Keys(n.Rules))
}

// Paths is a set of paths: those that begin with one of the prefixes, end with one
// of the suffixes, or whose last component is one of the names. The empty prefix
// stands for all paths. All three are sorted.
type Paths struct{ Prefixes, Suffixes, Names []string }

// All reports whether it has all paths.
func (p Paths) All() bool { return slices.Contains(p.Prefixes, "") || slices.Contains(p.Suffixes, "") }

// None reports whether it has no path.
func (p Paths) None() bool { return p.size() == 0 }

func (p Paths) size() int { return len(p.Prefixes) + len(p.Suffixes) + len(p.Names) }

var allPaths = Paths{Prefixes: []string{""}}

// Needs returns what the rules of the source syscall need that can match.
func (s *Set) Needs() Needs {
	types, rules := event.Types(event.Syscall), s.programs[event.Syscall].rules
	n := Needs{Rules: map[string][]string{}, Connects: connects(rules)}
	host := all(types, false)
	for _, r := range rules {
		host = host.join(inferTypes(r.condition, types, false, onHost().types), true)
		for i, can := range inferTypes(r.condition, types, false, needTypes) {
			if can {
				n.Rules[types[i]] = append(n.Rules[types[i]], r.Name)
			}
		}
	}
	for i, can := range host {
		if can {
			n.Host = append(n.Host, types[i])
		}
	}
	n.Reads, n.Writes = opens(rules, openKind{}), opens(rules, openKind{writes: true})
	n.FailedReads, n.FailedWrites = opens(rules, openKind{failed: true}), opens(rules, openKind{writes: true, failed: true})
	return n
}

var openTypes = []string{"open", "openat", "openat2", "open_by_handle_at", "creat"}

func isOpen(typ string) bool { return slices.Contains(openTypes, typ) }

// needTypes is as leafTypes, but knows that a parameter and what depends on one
// is only in events of types that have it.
func needTypes(l *condition.Leaf, types []string, negated bool) typeSet {
	out := leafTypes(l, types, negated)
	if negated {
		return out // also true of events that do not have the field
	}
	has := func(string) bool { return true }
	name, _ := strings.CutPrefix(l.Left.Ref.Name, "evt.arg.")
	name, _ = strings.CutPrefix(name, "evt.rawarg.")
	switch {
	case l.Left.Fun != "":
		return out
	case name != l.Left.Ref.Name:
		has = func(typ string) bool {
			return slices.ContainsFunc(event.Parameters(typ), func(p event.Parameter) bool { return p.Name == name })
		}
	case strings.HasPrefix(l.Left.Ref.Name, "evt.is_open_") && l.Op == "=" && len(l.Consts) == 1 && l.Consts[0].Value.Number == 1 && l.Right == nil:
		has = isOpen
	}
	for i, typ := range types {
		out[i] = out[i] && has(typ)
	}
	return out
}

// facts are what is known of some fields of a class of events: their values, which
// are missing for those with one of the prefixes.
type facts struct {
	values  map[string]event.Value
	missing []string
}

// types is as needTypes for events of the class.
func (f facts) types(l *condition.Leaf, types []string, negated bool) typeSet {
	if l.Left.Fun == "" && l.Right == nil && f.knows(l.Left.Ref.Name) && plain.Check(l, f) == negated {
		return all(types, false)
	}
	return needTypes(l, types, negated)
}

func (f facts) knows(field string) bool {
	_, ok := f.values[field]
	return ok || slices.ContainsFunc(f.missing, func(prefix string) bool { return strings.HasPrefix(field, prefix) })
}

// Get implements [condition.Getter].
func (f facts) Get(in *condition.Input) event.Value { return f.values[in.Ref.Name] }

// onHost is what is known of events outside containers.
func onHost() facts {
	host := event.Text("host")
	return facts{
		values:  map[string]event.Value{"container.id": host, "container.name": host, "container.image.repository": event.Text("")},
		missing: []string{"k8s."},
	}
}

// ofFamily is what is known of connections of a family.
func ofFamily(char, typ, family string) facts {
	f := facts{values: map[string]event.Value{"fd.typechar": event.Text(char), "fd.type": event.Text(typ), "fd.sockfamily": event.Text(family)}}
	if family == "unix" {
		f.missing = []string{
			"fd.l4proto", "fd.cip", "fd.sip", "fd.lip", "fd.rip", "fd.cnet", "fd.snet", "fd.lnet", "fd.rnet",
			"fd.cport", "fd.sport", "fd.lport", "fd.rport", "fd.cproto", "fd.sproto", "fd.lproto", "fd.rproto",
		}
	}
	return f
}

// connects returns the families of which rules can match connections.
func connects(rules []*compiledRule) Families {
	can := func(f facts) bool {
		return slices.ContainsFunc(rules, func(r *compiledRule) bool {
			return inferTypes(r.condition, []string{"connect"}, false, f.types)[0]
		})
	}
	return Families{IPv4: can(ofFamily("4", "ipv4", "ip")), IPv6: can(ofFamily("6", "ipv6", "ip")), Unix: can(ofFamily("u", "unix", "unix"))}
}

// An openKind is a class of opens.
type openKind struct {
	typ            string
	writes, failed bool
}

// opens returns the paths of which rules can match an open of a class, of any type.
func opens(rules []*compiledRule, kind openKind) Paths {
	var sets []Paths
	for _, kind.typ = range openTypes {
		for _, r := range rules {
			if kind.typ != "open_by_handle_at" && (kind.writes || kind.typ != "creat") && inferTypes(r.condition, []string{kind.typ}, false, needTypes)[0] {
				sets = append(sets, kind.judge(r.condition).yes)
			}
		}
	}
	return union(sets...)
}

// A pathVerdict has the paths for which a condition can be true, and for which it
// can be false.
type pathVerdict struct{ yes, no Paths }

// check returns the verdict on a check that does not depend on the path. It can
// always be false, as its field may be missing.
func check(canBeTrue bool) pathVerdict {
	if canBeTrue {
		return pathVerdict{allPaths, allPaths}
	}
	return pathVerdict{no: allPaths}
}

// judge returns the paths for which an open of the class can meet a condition.
func (k openKind) judge(e condition.Expr) pathVerdict {
	switch e := e.(type) {
	case *condition.Not:
		v := k.judge(e.Kid)
		return pathVerdict{v.no, v.yes}
	case *condition.Logical:
		out := k.judge(e.Kids[0])
		for _, kid := range e.Kids[1:] {
			v := k.judge(kid)
			if e.Or {
				out = pathVerdict{union(out.yes, v.yes), out.no.meet(v.no)}
			} else {
				out = pathVerdict{out.yes.meet(v.yes), union(out.no, v.no)}
			}
		}
		return out
	case *condition.Leaf:
		return k.judgeLeaf(e)
	}
	return check(true)
}

// judgeLeaf judges a check. What it does not know can be true and false.
func (k openKind) judgeLeaf(l *condition.Leaf) pathVerdict {
	if l.Left.Fun != "" || l.Right != nil {
		return check(true)
	}
	switch name := l.Left.Ref.Name; name {
	case "evt.type", "syscall.type", "evt.num":
		of := []string{k.typ}
		v := check(leafTypes(l, of, false)[0])
		if !leafTypes(l, of, true)[0] {
			v.no = Paths{}
		}
		return v
	case "fd.name", "fd.directory", "fd.filename":
		return pathVerdict{pathsOf(l), allPaths}
	case "fd.num", "evt.rawres", "evt.res", "evt.failed", "evt.is_open_write", "evt.is_open_create", "evt.is_open_exec":
		if l.Modifier == "" && len(l.Consts) == 1 {
			return check(k.possible(name, l.Op, l.Consts[0]))
		}
	}
	return check(true)
}

// possible reports whether a field of an open of the class can compare so with a
// constant.
func (k openKind) possible(field, op string, c condition.Const) bool {
	if op == "in" || op == "intersects" {
		op = "=" // one constant
	}
	switch field {
	case "evt.res":
		return k.isResult(op, c.S == "SUCCESS")
	case "evt.failed":
		return isBool(k.failed, op, c)
	case "evt.is_open_write":
		return k.writes && k.typ != "creat" || isBool(false, op, c)
	case "evt.is_open_create", "evt.is_open_exec":
		return k.writes || isBool(false, op, c)
	}
	n := c.Value.Number
	switch {
	case k.failed: // it is below 0
		return op == "<" || op == "<=" || op == "!=" || n < -1 || n == -1 && op != ">"
	case op == "<":
		return n > 0
	case op == "<=", op == "=":
		return n >= 0
	}
	return true
}

// isResult reports whether evt.res can compare so with SUCCESS, or with an error.
func (k openKind) isResult(op string, success bool) bool {
	switch op {
	case "=":
		return success != k.failed
	case "!=":
		return !success || k.failed
	}
	return true
}

// isBool compares a bool with a constant; an operator that is not known says
// nothing.
func isBool(value bool, op string, c condition.Const) bool {
	same := (c.Value.Number == 1) == value
	switch op {
	case "=":
		return same
	case "!=":
		return !same
	}
	return true
}

// pathsOf returns the paths for which a check of a path can be true.
func pathsOf(l *condition.Leaf) Paths {
	if len(l.Consts) == 0 {
		return allPaths // exists
	}
	var all []Paths
	for _, c := range l.Consts {
		all = append(all, pathsOfConstant(l.Left.Ref.Name, l.Op, c.S))
	}
	return union(all...)
}

func pathsOfConstant(field, op, s string) Paths {
	last := field == "fd.filename"
	switch {
	case last && (op == "=" || op == "in" || op == "intersects"):
		return Paths{Names: []string{s}}
	case op == "endswith" && field == "fd.name" && strings.LastIndexByte(s, '/') == 0:
		return Paths{Names: []string{s[1:]}}
	case op == "endswith" && field != "fd.directory":
		return Paths{Suffixes: []string{s}}
	case last:
		return allPaths
	}
	switch op {
	case "=", "in", "intersects", "startswith":
		return Paths{Prefixes: []string{s}}
	case "glob":
		return Paths{Prefixes: []string{literal(s)}}
	case "pmatch":
		return Paths{Prefixes: []string{literal("/" + strings.Join(condition.Components(s), "/"))}}
	}
	return allPaths
}

// literal returns what a pattern begins with before anything special.
func literal(pattern string) string {
	if i := strings.IndexAny(pattern, `*?[\`); i >= 0 {
		return pattern[:i]
	}
	return pattern
}

// union returns the paths of all sets.
func union(sets ...Paths) Paths {
	var out Paths
	for _, p := range sets {
		if p.All() {
			return allPaths
		}
		out.Prefixes, out.Suffixes = append(out.Prefixes, p.Prefixes...), append(out.Suffixes, p.Suffixes...)
		out.Names = append(out.Names, p.Names...)
	}
	slices.Sort(out.Names)
	out.Names = slices.Compact(out.Names)
	out.Prefixes = compact(out.Prefixes)
	for i, s := range out.Suffixes {
		out.Suffixes[i] = reversed(s)
	}
	out.Suffixes = compact(out.Suffixes)
	for i, s := range out.Suffixes {
		out.Suffixes[i] = reversed(s)
	}
	slices.Sort(out.Suffixes)
	return out
}

// compact sorts prefixes and leaves out those that begin with another one.
func compact(prefixes []string) []string {
	slices.Sort(prefixes)
	out := prefixes[:0]
	for _, s := range prefixes {
		if len(out) == 0 || !strings.HasPrefix(s, out[len(out)-1]) {
			out = append(out, s)
		}
	}
	return out
}

// reversed returns the bytes of s in the opposite order.
func reversed(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}

// meet returns a set that has all paths that are in both: the smaller one.
func (p Paths) meet(o Paths) Paths {
	switch {
	case p.None() || o.All():
		return p
	case o.None() || p.All():
		return o
	case p.size() <= o.size():
		return p
	}
	return o
}
