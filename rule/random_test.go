package rule_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
	sensor "github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// A generator makes random rules and events that have much in common, so that
// rules match often, and share checks, fields and constants.
type generator struct{ *rand.Rand }

func pick[T any](g generator, items ...T) T { return items[g.IntN(len(items))] }

var (
	someTexts = []string{"get", "list", "", "a", "ab", "abc", "ABC", "bca", "/a/b", "/a", "/a/b/c", "//a//b/", "x y", "(", "[a]", "*", "käse", "open", "connect"}
	someIPs   = []string{"10.0.0.1", "10.0.1.1", "192.168.0.1", "2001:db8::1", "2001:db8:1::1", "::1"}
	someNets  = []string{"10.0.0.0/8", "10.0.0.0/24", "0.0.0.0/0", "192.168.0.1/32", "2001:db8::/32", "::/0"}
	someTypes = []string{"open", "openat", "connect", "execve"}

	callFields = newCallFields()
)

// newCallFields returns the fields of system calls that a random check can be
// made of.
func newCallFields() []event.Field {
	fields := event.Fields(event.Syscall)
	for _, name := range []string{"evt.arg.name", "evt.arg.flags", "evt.arg.fd", "evt.rawarg.flags", "evt.rawarg.name"} {
		f, _ := event.Lookup(event.Syscall, name)
		fields = append(fields, f)
	}
	return slices.DeleteFunc(fields, func(f event.Field) bool {
		return f.Arg == event.KeyArg || f.Type == event.TypeList || f.Type == event.TypeDouble || slices.Contains([]string{"evt.type", "syscall.type", "proc.apid"}, f.Name)
	})
}

// randomField returns a field of a source and its type.
func (g generator) field(source string) (string, event.Type) {
	if source == event.K8sAudit {
		return pick(g, "ka.verb", "ka.target.resource", "ka.user.name", "ka.uri", "ka.uri.param[x]", "jevt.value[/requestObject/a]", "ka.target.name"), event.TypeString
	}
	switch g.IntN(13) {
	case 10, 11, 12:
		f := pick(g, callFields...)
		if f.Type == event.TypeString && f.Plain() {
			return f.Name, event.None
		}
		return f.Name, f.Type
	case 0:
		return pick(g, "proc.pid", "evt.rawres"), event.TypeNumber
	case 1:
		return pick(g, "user.uid", "proc.tty"), event.TypeUint
	case 2:
		return pick(g, "fd.sport", "fd.port"), event.TypePort
	case 3:
		return pick(g, "evt.is_open_read", "fd.connected"), event.TypeBool
	case 4:
		return pick(g, "fd.sip", "fd.cip"), event.TypeIP
	case 5:
		return pick(g, "fd.snet", "fd.net", "fd.cnet"), event.TypeNet
	case 6:
		return "evt.buffer", event.TypeBytes
	case 7:
		return "proc.aname", event.None // of any ancestor
	}
	return pick(g, "proc.name", "fd.name", "proc.cmdline", "proc.exe", "proc.pname"), event.TypeString
}

func (g generator) constant(typ event.Type) string {
	switch typ {
	case event.TypeNumber:
		return pick(g, "0", "1", "-1", "0x10", "7")
	case event.TypeUint, event.TypePort:
		return pick(g, "0", "1", "22", "7")
	case event.TypeBool:
		return pick(g, "true", "false")
	case event.TypeIP:
		return pick(g, someIPs...)
	case event.TypeNet:
		return pick(g, someNets...)
	}
	return fmt.Sprintf("%q", pick(g, someTexts...))
}

func (g generator) list(typ event.Type) string {
	items := make([]string, g.IntN(6))
	for i := range items {
		items[i] = g.constant(typ)
	}
	return "(" + strings.Join(items, ", ") + ")"
}

// check returns a random check.
func (g generator) check(source string) string {
	if g.IntN(8) == 0 {
		return g.listCheck(source)
	}
	if source == event.Syscall && g.IntN(4) == 0 {
		return "evt.type " + pick(g, "= "+pick(g, someTypes...), "!= "+pick(g, someTypes...), "in (open, connect)", "exists")
	}
	f, typ := g.field(source)
	if g.IntN(10) == 0 && f != "fd.net" {
		return f + " exists"
	}
	if g.IntN(5) == 0 {
		return fmt.Sprintf("%s %s %s", f, pick(g, "in", "in"), g.list(typ))
	}
	switch typ {
	case event.TypeNumber, event.TypeUint, event.TypePort:
		return fmt.Sprintf("%s %s %s", f, pick(g, "=", "!=", "<", "<=", ">", ">="), g.constant(typ))
	case event.TypeBool, event.TypeIP, event.TypeNet:
		return fmt.Sprintf("%s %s %s", f, pick(g, "=", "!=", "=="), g.constant(typ))
	case event.TypeBytes:
		return f + pick(g, " contains ", " startswith ", " endswith ", " = ") + g.constant(typ)
	}
	return g.textCheck(source, f, typ == event.None)
}

func (g generator) textCheck(source, f string, plain bool) string {
	op := pick(g, "=", "!=", "contains", "icontains", "startswith", "endswith", "glob", "iglob")
	switch n := g.IntN(12); {
	case n == 0:
		return fmt.Sprintf("%s pmatch %s", f, g.list(event.TypeString))
	case n == 1:
		return fmt.Sprintf("%s regex %s", f, pick(g, `"a.*"`, `".*b"`, `"(a|b)+c?"`, `"[a-c]*"`))
	case n == 2 || n == 3:
		return fmt.Sprintf("%s %s %s %s", f, op, pick(g, "oneof", "anyof", "allof"), g.list(event.TypeString))
	case n == 4 && !plain:
		other, typ := g.field(source)
		if typ == event.TypeString {
			return fmt.Sprintf("%s %s %s", f, op, pick(g, "val("+other+")", "tolower("+other+")", "concat("+other+", \"b\")"))
		}
	case n == 5 && !plain:
		return fmt.Sprintf("%s(%s) %s %s", pick(g, "tolower", "toupper", "basename", "b64"), f, op, g.constant(event.TypeString))
	case n == 6 && !plain:
		return fmt.Sprintf("len(%s) %s %d", f, pick(g, "=", "<", ">="), g.IntN(5))
	}
	return fmt.Sprintf("%s %s %s", f, op, g.constant(event.TypeString))
}

func (g generator) listCheck(source string) string {
	f := "fd.types"
	if source == event.K8sAudit {
		f = pick(g, "ka.user.groups", "ka.req.pod.volumes.hostpath")
	}
	switch g.IntN(5) {
	case 0:
		return f + " exists"
	case 1:
		return fmt.Sprintf("len(%s) > %d", f, g.IntN(3))
	case 2:
		return fmt.Sprintf("join(\",\", %s) contains %s", f, g.constant(event.TypeString))
	}
	return fmt.Sprintf("%s %s %s", f, pick(g, "in", "intersects", "pmatch"), g.list(event.TypeString))
}

func (g generator) condition(source string, depth int) string {
	if depth == 0 || g.IntN(3) == 0 {
		if g.IntN(6) == 0 {
			return fmt.Sprintf("m_%s_%d", source, g.IntN(3))
		}
		return g.check(source)
	}
	kids := make([]string, 1+g.IntN(3))
	for i := range kids {
		if kids[i] = g.condition(source, depth-1); g.IntN(3) > 0 {
			kids[i] = "(" + kids[i] + ")"
		}
		if g.IntN(4) == 0 {
			kids[i] = "not (" + kids[i] + ")"
		}
	}
	return strings.Join(kids, pick(g, " and ", " or "))
}

// file returns a random rule file.
func (g generator) file() string {
	var b strings.Builder
	for _, source := range event.Sources() {
		for i := range 3 {
			fmt.Fprintf(&b, "- macro: m_%s_%d\n  condition: %q\n", source, i, g.check(source))
		}
	}
	for i := range 1 + g.IntN(12) {
		source := pick(g, event.Sources()...)
		fmt.Fprintf(&b, "- rule: R%d\n  desc: d\n  source: %s\n  condition: %q\n  output: o\n  priority: info\n", i, source, g.condition(source, 3))
	}
	return b.String()
}

// event returns a random event: one of a test's own kind, which has fields that
// no source has together, or a real system call.
func (g generator) event() *event.Event {
	if g.IntN(3) == 0 {
		return g.call()
	}
	f := fields{}
	put := func(name string, v event.Value) {
		if g.IntN(5) > 0 {
			f[name] = v
		}
	}
	text := func() event.Value { return event.Text(pick(g, append(someTexts, "ab\x00c", "\xff", "YWI=")...)) }
	for _, name := range []string{
		"ka.verb", "ka.target.resource", "ka.user.name", "ka.uri", "ka.uri.param[x]", "jevt.value[/requestObject/a]",
		"ka.target.name", "proc.name", "fd.name", "proc.cmdline", "proc.exe", "proc.pname",
	} {
		put(name, text())
	}
	items := func() event.Value {
		var list []string
		for range g.IntN(4) {
			list = append(list, pick(g, someTexts...))
		}
		return event.List(list)
	}
	for _, name := range []string{"ka.user.groups", "ka.req.pod.volumes.hostpath", "fd.types", "proc.aname"} {
		put(name, items())
	}
	put("evt.type", event.Text(pick(g, someTypes...)))
	put("proc.pid", event.Number(int64(g.IntN(9)-1)))
	put("evt.rawres", event.Number(int64(g.IntN(3)-1)))
	put("user.uid", event.Uint(uint64(g.IntN(3))))
	put("proc.tty", event.Uint(1<<63+uint64(g.IntN(2))))
	put("fd.sport", event.Port(uint16(pick(g, 0, 22, 7))))
	put("fd.cport", event.Port(uint16(pick(g, 1, 22))))
	put("evt.is_open_read", event.Bool(g.IntN(2) == 0))
	put("fd.connected", event.Bool(g.IntN(2) == 0))
	for _, name := range []string{"fd.sip", "fd.cip", "fd.snet", "fd.cnet"} {
		put(name, event.Addr(netip.MustParseAddr(pick(g, someIPs...))))
	}
	put("evt.buffer", event.Bytes(pick(g, "abc", "\x00ab", "")))
	e := newEvent(f)
	e.Source = pick(g, event.Sources()...)
	return e
}

// call returns a random system call.
func (g generator) call() *event.Event {
	text := func() string { return pick(g, append(someTexts, "ab\x00c", "\xff")...) }
	end := func() netip.AddrPort {
		if g.IntN(5) == 0 {
			return netip.AddrPort{}
		}
		return netip.AddrPortFrom(netip.MustParseAddr(pick(g, someIPs...)), uint16(pick(g, 0, 1, 7, 22)))
	}
	var parent *sensor.Handle
	process := &sensor.Process{}
	for range 1 + g.IntN(4) {
		process = &sensor.Process{
			Key: sensor.Key{PID: int32(g.IntN(9))}, Name: text(), Cwd: text(), ExePath: text(), TTY: uint32(g.IntN(2)), Parent: parent,
			PGID: int32(g.IntN(3)), SID: int32(g.IntN(3)), VPGID: int32(g.IntN(3)), VPID: int32(g.IntN(3)),
		}
		for range g.IntN(4) {
			process.Argv = append(process.Argv, text())
		}
		if g.IntN(3) > 0 {
			process.User = &sensor.User{UID: uint32(g.IntN(3)), Name: text()}
			process.Exe = &sensor.Executable{Upper: g.IntN(2) == 0, Ino: uint64(g.IntN(3))}
			process.Env = []string{text(), "a=" + text()}
		}
		parent = sensor.NewHandle(process.Ready())
	}
	call := &sensor.Event{Type: sensor.TypeOf(pick(g, someTypes...)), CPU: int16(g.IntN(3) - 1), Called: g.IntN(4) > 0, Result: int64(g.IntN(5) - 2), TID: int32(g.IntN(3)), Time: 1_800_000_000_000_000_000}
	if g.IntN(6) > 0 {
		call.Process = process
	}
	if g.IntN(6) > 0 {
		call.FD = (&sensor.FD{
			Num: int64(g.IntN(4) - 1), Type: pick(g, sensor.FDFile, sensor.FDDirectory, sensor.FDIPv4, sensor.FDUnix), Name: text(), Raw: text(),
			Client: end(), Server: end(), ServerName: text(), Serving: g.IntN(2) == 0, Connected: g.IntN(2) == 0, Protocol: pick(g, sensor.TCP, sensor.NoProtocol),
		}).Ready()
	}
	if g.IntN(6) > 0 {
		call.Container = &sensor.Container{ID: pick(g, sensor.HostID, "abc", "a"), Known: g.IntN(2) == 0, Details: sensor.Details{Name: text(), Repository: text(), Pod: &sensor.Pod{Name: text()}}}
	}
	for _, p := range call.Type.Params {
		param := sensor.Param{Known: g.IntN(4) > 0, Num: int64(g.IntN(9) - 1), FD: call.FD}
		if p.Type == event.TypeString || p.Type == event.TypeBytes {
			param.Text = text()
		}
		call.Params = append(call.Params, param)
	}
	e := newEvent(nil)
	e.Source, e.Record = event.Syscall, call
	return e
}

// compare holds the evaluators to each other on one file and an event: match at
// once, and each rule alone by the plain one.
func compare(t *testing.T, set *rule.Set, e *event.Event, file string) (matches int) {
	var want []string
	for _, r := range set.Rules() {
		if x, ok := set.Explain(r.Name, e); ok && x.Matches && x.Live {
			want = append(want, r.Name)
		}
	}
	var got []string
	for _, a := range set.Match(e, rule.All) {
		got = append(got, a.Rule)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("rules %v match, want %v\nevent %s %+v\n%s", got, want, e.Source, e.Record, file)
	}
	first := set.Match(e, rule.First)
	if len(first) != min(len(want), 1) || len(want) > 0 && first[0].Rule != want[0] {
		t.Fatalf("the first that matches is %v, want one of %v", first, want)
	}
	return len(want)
}

func compareRandom(t *testing.T, seed uint64) (rules, matches int) {
	g := generator{rand.New(rand.NewPCG(seed, 1))}
	file := g.file()
	set, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(file)})
	if err != nil {
		t.Fatalf("%v\n%s", err, file)
	}
	for range 20 {
		matches += compare(t, set, g.event(), file)
	}
	return 20 * len(set.Rules()), matches
}

func TestEvaluatorsAgree(t *testing.T) {
	rules, matches, seeds := 0, 0, uint64(1500)
	if testing.Short() {
		seeds = 150
	}
	for seed := range seeds {
		r, m := compareRandom(t, seed)
		rules, matches = rules+r, matches+m
	}
	if share := float64(matches) / float64(rules); share < 0.05 || share > 0.6 {
		t.Errorf("%.0f%% of %d evaluations match: the random rules prove nothing", 100*share, rules)
	}
}

func FuzzEvaluatorsAgree(f *testing.F) {
	f.Add(uint64(1 << 40))
	f.Fuzz(func(t *testing.T, seed uint64) { compareRandom(t, seed) })
}
