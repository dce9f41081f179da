package rule_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
	sensor "github.com/kubeguardian/kubeguardian/sensor/syscall"
)

func needsOf(t *testing.T, file string) rule.Needs {
	t.Helper()
	set, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(file)})
	if err != nil {
		t.Fatalf("%v\n%s", err, file)
	}
	return set.Needs()
}

func ruleOf(name, condition string) string {
	return fmt.Sprintf("- rule: %s\n  desc: d\n  condition: %q\n  output: o\n  priority: info\n", name, condition)
}

func TestNeededTypes(t *testing.T) {
	all := strings.Join(event.Types(event.Syscall), " ")
	for _, tc := range []struct{ condition, want string }{
		{"evt.type = open", "open"},
		{"evt.type in (execve, execveat) and proc.name = x", "execve execveat"},
		{"evt.type = open or (evt.type = connect and fd.sport = 1)", "connect open"},
		{"not evt.type != open", "open"},
		{"evt.type = open and evt.num = 0", ""},
		{"evt.arg.request = PTRACE_ATTACH", "ioctl ptrace"},
		{"evt.rawarg.cap_effective > 1 and not evt.type in (clone, execve)", "capset execveat"},
		{"evt.arg.domain exists", "socket socketpair"},
		{"evt.is_open_write = true", "creat open open_by_handle_at openat openat2"},
		{"evt.is_open_exec = true and evt.arg.resolve exists", "openat2"},
		{"not evt.arg.request = PTRACE_ATTACH", all},
		{"evt.is_open_write = false", all},
		{"proc.name = x", all},
		{"tolower(evt.arg.request) = x", all},
	} {
		n := needsOf(t, ruleOf("R", tc.condition))
		if got := strings.Join(n.Types(), " "); got != tc.want {
			t.Errorf("%s needs %s, want %s", tc.condition, got, tc.want)
		}
	}
	n := needsOf(t, ruleOf("A", "evt.type = open")+ruleOf("B", "evt.type in (open, close)")+ruleOf("C", "evt.type = bind")+"  enabled: false\n")
	if got := fmt.Sprint(n.Rules); got != "map[close:[B] open:[A B]]" {
		t.Errorf("rules by type are %s", got)
	}
}

func TestNeededOnHost(t *testing.T) {
	for _, tc := range []struct{ condition, want string }{
		{"evt.type = open and container.id != host", ""},
		{"evt.type = open and not container.id = host", ""},
		{"evt.type in (open, close) and (container.id != host or evt.type = close)", "close"},
		{"evt.type = open and container.id = host", "open"},
		{"evt.type = open and k8s.ns.name = shop", ""},
		{"evt.type = open and k8s.ns.name != shop", ""},
		{"evt.type = open and not k8s.ns.name = shop", "open"},
		{"evt.type = open and container.image.repository startswith registry", ""},
		{"evt.type = open and not container.image.repository in (registry/a)", "open"},
		{"evt.type = open and proc.name = x", "open"},
		{"evt.type = open and tolower(container.id) = x", "open"},
	} {
		if got := strings.Join(needsOf(t, ruleOf("R", tc.condition)).Host, " "); got != tc.want {
			t.Errorf("%s needs %q of the host, want %q", tc.condition, got, tc.want)
		}
	}
}

func TestNeededFamilies(t *testing.T) {
	for _, tc := range []struct {
		condition string
		want      rule.Families
	}{
		{"evt.type = connect", rule.Families{IPv4: true, IPv6: true, Unix: true}},
		{"evt.type = open", rule.Families{}},
		{"evt.type = connect and (fd.typechar = 4 or fd.typechar = 6)", rule.Families{IPv4: true, IPv6: true}},
		{"evt.type = connect and fd.type in (ipv4)", rule.Families{IPv4: true}},
		{"evt.type = connect and not fd.sockfamily = ip", rule.Families{Unix: true}},
		{"evt.type = connect and fd.sport in (22, 23)", rule.Families{IPv4: true, IPv6: true}},
		{"evt.type = connect and fd.net != 10.0.0.0/8", rule.Families{IPv4: true, IPv6: true}},
		{"evt.type = connect and not fd.snet = 10.0.0.0/8", rule.Families{IPv4: true, IPv6: true, Unix: true}},
		{"evt.type = connect and fd.name contains docker.sock", rule.Families{IPv4: true, IPv6: true, Unix: true}},
	} {
		if got := needsOf(t, ruleOf("R", tc.condition)).Connects; got != tc.want {
			t.Errorf("%s needs connections %+v, want %+v", tc.condition, got, tc.want)
		}
	}
}

func TestNeededOpens(t *testing.T) {
	const open = "evt.type in (open, openat) and "
	for _, tc := range []struct{ condition, reads, writes, failedReads, failedWrites string }{
		{open + "fd.name = /etc/shadow", "/etc/shadow", "/etc/shadow", "/etc/shadow", "/etc/shadow"},
		{open + "evt.is_open_write = true and fd.num >= 0 and fd.name startswith /etc/", "", "/etc/", "", ""},
		{open + "evt.is_open_read = true and evt.rawres >= 0 and fd.name in (/etc/passwd, /etc/shadow, /etc/passwd-)", "/etc/passwd /etc/shadow", "/etc/passwd /etc/shadow", "", ""},
		{open + "not evt.is_open_write = true and evt.res = SUCCESS and fd.directory in (/etc, /root)", "/etc /root", "/etc /root", "", ""},
		{open + "evt.is_open_write = false and evt.failed = false and fd.filename endswith .key", "*.key", "*.key", "", ""},
		{open + "evt.res = ENOENT and fd.name pmatch (/srv/*/data, /var)", "", "", "/srv/ /var", "/srv/ /var"},
		{open + "fd.num < 0 and fd.name glob /home/*/.ssh/id_*", "", "", "/home/", "/home/"},
		{open + "not fd.name startswith /usr and fd.num >= 0", "all", "all", "", ""},
		{open + "fd.name contains passwd and evt.is_open_write = true", "", "all", "", "all"},
		{open + "(fd.name startswith /a or fd.name endswith .so) and fd.name startswith /a/b and fd.num >= 0", "/a/b", "/a/b", "", ""},
		{open + "(fd.name startswith /a or proc.name = x) and fd.num >= 0", "all", "all", "", ""},
		{"evt.type = creat and fd.name = /x", "", "/x", "", "/x"},
		{"evt.type = connect and fd.name = /x", "", "", "", ""},
		{"evt.arg.request = PTRACE_ATTACH", "", "", "", ""},
		{"fd.name = /x and fd.num >= 0", "/x", "/x", "", ""},
		{open + "(fd.filename in (b, a) or fd.name endswith /id_rsa or fd.name endswith /.ssh/id) and fd.num >= 0", "*/.ssh/id =a =b =id_rsa", "*/.ssh/id =a =b =id_rsa", "", ""},
	} {
		n := needsOf(t, ruleOf("R", tc.condition))
		for i, got := range []rule.Paths{n.Reads, n.Writes, n.FailedReads, n.FailedWrites} {
			words := slices.Clone(got.Prefixes)
			for _, s := range got.Suffixes {
				words = append(words, "*"+s)
			}
			for _, s := range got.Names {
				words = append(words, "="+s)
			}
			text := strings.Join(words, " ")
			if got.All() {
				text = "all"
			}
			if want := []string{tc.reads, tc.writes, tc.failedReads, tc.failedWrites}[i]; text != want || got.None() != (want == "") {
				t.Errorf("%s: opens of kind %d need %q, want %q", tc.condition, i, text, want)
			}
		}
	}
}

// openCondition returns a random condition on opens.
func (g generator) openCondition(depth int) string {
	if depth > 0 {
		kids := make([]string, 1+g.IntN(3))
		for i := range kids {
			kids[i] = pick(g, "", "not ") + "(" + g.openCondition(depth-1) + ")"
		}
		return strings.Join(kids, pick(g, " and ", " or "))
	}
	paths := []string{"/a", "/a/b", "/a/bc", "/b", "/b/a", "b", "c", "/"}
	path := func() string { return pick(g, paths...) }
	field := pick(g, "fd.name", "fd.name", "fd.directory", "fd.filename")
	switch g.IntN(10) {
	case 9:
		return pick(g, "container.id = host", "container.id != host", "container.name in (a, host)", "k8s.ns.name exists", "k8s.ns.name != shop", "container.image.repository = a")
	case 0:
		return "evt.type " + pick(g, "= open", "!= open", "in (openat, creat)", "exists")
	case 1:
		return pick(g, "evt.is_open_write", "evt.is_open_read", "evt.is_open_create", "evt.is_open_exec", "evt.failed") + pick(g, " = ", " != ") + pick(g, "true", "false")
	case 2:
		return pick(g, "fd.num", "evt.rawres") + pick(g, " = ", " != ", " < ", " <= ", " > ", " >= ") + pick(g, "0", "-1", "1", "-2")
	case 3:
		return "evt.res " + pick(g, "= ", "!= ", "startswith ") + pick(g, "SUCCESS", "ENOENT")
	case 4:
		return fmt.Sprintf("%s %s (%s, %s)", field, pick(g, "in", "pmatch", "startswith anyof", "= oneof", "endswith allof", "!= anyof"), path(), path())
	case 5:
		return field + " glob " + pick(g, "/a*", "/*b", "/?/b", "[/]a/b", "/a/b")
	case 6:
		return pick(g, "evt.arg.name", "fd.nameraw", "basename(fd.name)", "evt.arg.flags") + " contains " + pick(g, "a", "b", "O_")
	}
	return field + pick(g, " = ", " != ", " startswith ", " endswith ", " contains ") + path()
}

// open returns a random call of the open family, and the kind that it is.
func (g generator) open() (e *event.Event, writes, failed bool) {
	call := &sensor.Event{Type: sensor.TypeOf(pick(g, "open", "openat", "creat", "openat2")), Called: true, Result: int64(g.IntN(5) - 2)}
	call.Params = make([]sensor.Param, len(call.Type.Params))
	name := pick(g, "/a", "/a/b", "/a/bc", "/b", "/b/a", "/c", "/", "/a/c", "/x/b")
	call.Params[0], call.Params[call.Type.Param("name")] = sensor.Number(call.Result), sensor.Text(name)
	flags, access := call.Type.Param("flags"), uint64(1)
	if flags < 0 {
		flags = call.Type.Param("creat_flags")
	}
	kernel := pick[uint64](g, 0, 1, 2, 0x40, 0x41, 0x80000)
	if call.Type.Name == "creat" {
		kernel, access = 0x241, 2
	}
	call.Params[flags] = sensor.Number(int64(sensor.OpenFlags(kernel, g.IntN(9) == 0 && kernel&0x40 != 0, false, false)))
	call.Params[call.Type.Param("mode")] = sensor.Number(int64(pick(g, 0, 0o755)))
	writes = kernel&0x43 != 0 || access == 2
	if failed = call.Result < 0; !failed {
		call.FD = (&sensor.FD{Num: call.Result, Type: pick(g, sensor.FDFile, sensor.FDDirectory), Name: name, Raw: name}).Ready()
	}
	call.Container = pick(g, sensor.Host(), &sensor.Container{ID: "abc", Known: true, Details: sensor.Details{Name: "a", Repository: "a", Pod: &sensor.Pod{Namespace: "x"}}})
	e = newEvent(nil)
	e.Source, e.Record = event.Syscall, call
	return e, writes, failed
}

func has(p rule.Paths, name string) bool {
	return slices.ContainsFunc(p.Prefixes, func(s string) bool { return strings.HasPrefix(name, s) }) ||
		slices.ContainsFunc(p.Suffixes, func(s string) bool { return strings.HasSuffix(name, s) }) ||
		slices.Contains(p.Names, name[strings.LastIndexByte(name, '/')+1:])
}

// Whatever a rule matches is what it says that it needs.
func TestNeedsAreSound(t *testing.T) {
	matches, less, inside := 0, 0, 0
	for seed := range uint64(1500) {
		g := generator{rand.New(rand.NewPCG(seed, 5))}
		file := ruleOf("R", g.openCondition(2))
		set, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(file)})
		if err != nil {
			t.Fatalf("%v\n%s", err, file)
		}
		n := set.Needs()
		if !n.Reads.All() || !n.Writes.All() || !n.FailedReads.All() || !n.FailedWrites.All() {
			less++
		}
		if len(n.Host) == 0 && len(n.Rules) > 0 {
			inside++
		}
		for range 60 {
			e, writes, failed := g.open()
			if set.Match(e, rule.First) == nil {
				continue
			}
			matches++
			paths := []rule.Paths{n.Reads, n.Writes, n.FailedReads, n.FailedWrites}[map[bool]int{true: 1}[writes]+map[bool]int{true: 2}[failed]]
			call := e.Record.(*sensor.Event)
			name := call.Params[call.Type.Param("name")].Text
			onHost := !call.Container.OnHost() || slices.Contains(n.Host, call.Type.Name)
			if len(n.Rules[call.Type.Name]) == 0 || !has(paths, name) || !onHost {
				t.Fatalf("a match of %s %s (writes: %v, failed: %v) is not needed: %+v\n%s", call.Type.Name, name, writes, failed, n, file)
			}
		}
	}
	if matches < 5000 || less < 300 || inside < 50 {
		t.Errorf("%d matches, %d rules that need less, %d containers only: the random rules prove nothing", matches, less, inside)
	}
}

// Nobody gives open_by_handle_at a path that could be left out.
func TestNeedsOfOpensByHandle(t *testing.T) {
	set, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(`
- rule: By handle
  desc: any file
  condition: evt.type = open_by_handle_at
  output: x
  priority: INFO
- rule: By path
  desc: one file
  condition: evt.type in (open, open_by_handle_at) and fd.name = /a
  output: x
  priority: INFO
`)})
	if err != nil {
		t.Fatal(err)
	}
	n := set.Needs()
	if len(n.Rules["open_by_handle_at"]) != 2 || !slices.Equal(n.Reads.Prefixes, []string{"/a"}) {
		t.Errorf("needs %+v", n)
	}
}
