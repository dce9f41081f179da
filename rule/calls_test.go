package rule_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
	sensor "github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// callRules returns n rules for system calls of twelve shapes, as Falco's are
// written. Those of one shape watch different programs, files and ports.
func callRules(n int) string {
	var b strings.Builder
	b.WriteString(`
- macro: container
  condition: (container.id != host)
- macro: spawned
  condition: (evt.type in (execve, execveat))
- macro: open_write
  condition: (evt.type in (open, openat, openat2) and evt.is_open_write = true and fd.typechar = 'f' and fd.num >= 0)
- macro: open_read
  condition: (evt.type in (open, openat, openat2) and evt.is_open_read = true and fd.typechar = 'f' and fd.num >= 0)
- macro: outbound
  condition: >
    (evt.type = connect and (fd.typechar = 4 or fd.typechar = 6) and fd.ip != "0.0.0.0" and fd.net != "127.0.0.0/8"
    and not fd.snet in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
- list: shells
  items: [ash, bash, csh, dash, ksh, sh, tcsh, zsh]
`)
	for i := range n {
		team := i / 12
		condition := []string{
			"spawned and container and proc.name in (shells) and proc.tty != 0 and proc.pname = runner%d",
			"spawned and container and proc.is_exe_upper_layer = true and not proc.exepath startswith /opt/app%d/",
			"open_read and container and fd.name in (/etc/shadow, /etc/secret%d) and not proc.name in (sshd, login)",
			"open_write and fd.directory in (/bin, /sbin, /usr/bin, /opt/tools%d) and not proc.name in (dpkg, rpm)",
			"open_write and (fd.name startswith /etc/app%d/ or fd.name endswith .service) and not proc.aname = dpkg",
			"outbound and container and fd.sport in (4444, 3333, 2%d) and not proc.name in (curl, wget)",
			"evt.type in (rename, renameat, renameat2, unlink, unlinkat) and container and evt.arg.name contains history%d",
			"evt.type in (chmod, fchmod, fchmodat) and evt.arg.mode contains S_ISUID and not proc.cmdline startswith tool%d",
			"evt.type = ptrace and evt.arg.request in (PTRACE_ATTACH, PTRACE_POKETEXT) and proc.name != tracer%d",
			"spawned and proc.cmdline contains \"base64 -d%d\" and not user.name = root",
			"spawned and container and proc.name = miner%d and (proc.args contains stratum or proc.aname[2] = bash)",
			"evt.type = setns and container and not proc.name in (runc, agent%d) and thread.cap_effective contains CAP_SYS_ADMIN",
		}[i%12]
		fmt.Fprintf(&b, "- rule: R%d\n  desc: d\n  condition: %q\n  output: \"%%proc.cmdline %%fd.name %%container.id\"\n  priority: info\n", i, fmt.Sprintf(condition, team))
	}
	return b.String()
}

// callTraffic is what a busy node does, and raises no alert: mostly opens that
// read, connections inside, and starts of programs.
func callTraffic() []*event.Event {
	shell := sensor.NewHandle((&sensor.Process{Key: sensor.Key{PID: 8}, Name: "entrypoint.sh", Argv: []string{"sh", "/entrypoint.sh"}, ExePath: "/usr/bin/dash"}).Ready())
	process := (&sensor.Process{
		Key: sensor.Key{PID: 9}, Name: "node", Argv: []string{"node", "server.js", "--port", "8080"}, Cwd: "/app", ExePath: "/opt/app0/bin/node",
		User: &sensor.User{UID: 1000, Name: "node"}, Exe: &sensor.Executable{Ino: 5, Lower: true}, Caps: &sensor.Capabilities{}, Parent: shell,
	}).Ready()
	pod := &sensor.Container{ID: strings.Repeat("3f2a9c01d7be", 5), Known: true, Details: sensor.Details{Repository: "registry/app", Pod: &sensor.Pod{Name: "web-0", Namespace: "shop"}}}
	client, server := netip.MustParseAddrPort("10.0.0.7:40112"), netip.MustParseAddrPort("10.96.0.1:443")
	file := func(name string) *sensor.FD {
		return (&sensor.FD{Num: 20, Type: sensor.FDFile, Name: name, Raw: name, Ino: 7}).Ready()
	}
	open := func(name string, flags uint64) *sensor.Event {
		return &sensor.Event{Type: sensor.TypeOf("openat"), FD: file(name), Result: 20, Params: []sensor.Param{
			{Known: true, Num: 20, FD: file(name)}, sensor.Number(-100), sensor.Text(name), sensor.Number(int64(flags)), sensor.Number(0), sensor.Number(0), sensor.Number(7)}}
	}
	socket := (&sensor.FD{Num: 21, Type: sensor.FDIPv4, Protocol: sensor.TCP, Client: client, Server: server, Connected: true}).Ready()
	calls := []*sensor.Event{
		open("/usr/lib/x86_64-linux-gnu/libc.so.6", 1|0x1000), open("/app/node_modules/express/index.js", 1), open("/etc/resolv.conf", 1|0x1000),
		open("/app/static/page.html", 1), open("/proc/self/status", 1), open("/tmp/upload-1", 2|4|0x100), open("/var/log/app.log", 2|8),
		{Type: sensor.TypeOf("connect"), FD: socket, Result: -115, Params: []sensor.Param{sensor.Number(-115), {Known: true, FD: socket}, {Known: true, Num: 21, FD: socket}, {}}},
		{Type: sensor.TypeOf("execve"), Params: make([]sensor.Param, 31)},
		{Type: sensor.TypeOf("unlinkat"), Params: []sensor.Param{sensor.Number(0), sensor.Number(-100), sensor.Text("/tmp/upload-1"), sensor.Number(0)}},
	}
	var events []*event.Event
	for _, c := range calls {
		c.Called, c.Process, c.Container, c.TID, c.Time = true, process, pod, 9, 1_800_000_000_000_000_000
		events = append(events, &event.Event{Source: event.Syscall, ID: "x", Time: c.Time.Time(), Record: c})
	}
	return events
}

func loadCalls(b testing.TB, n int) *rule.Set {
	set, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(callRules(n))})
	if err != nil {
		b.Fatal(err)
	}
	return set
}

// BenchmarkCalls prints how many system calls that no rule matches one core judges
// in a second of its time.
func BenchmarkCalls(b *testing.B) {
	for _, n := range []int{26, 60, 480} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			set, events := loadCalls(b, n), callTraffic()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			b.ReportAllocs()
			b.ResetTimer()
			begin := processorTime(b)
			for i := range b.N {
				if got := set.Match(events[i%len(events)], rule.First); got != nil {
					b.Fatalf("alerts %v", got)
				}
			}
			spent := processorTime(b) - begin
			b.ReportMetric(float64(b.N)/spent.Seconds(), "events/s")
		})
	}
}

// System calls that raise no alert cost no memory.
func TestCallsDoNotAllocate(t *testing.T) {
	set := loadCalls(t, 480)
	for _, e := range callTraffic() {
		least := 100.0
		for range 20 { // the race detector makes pools forget at random
			least = min(least, testing.AllocsPerRun(1, func() { set.Match(e, rule.First) }))
		}
		if least > 0 {
			t.Errorf("%v allocations for %s", least, e.Record.(*sensor.Event).Type.Name)
		}
	}
}

// The rules of the benchmark do match what they are for.
func TestCallRulesMatch(t *testing.T) {
	set, events := loadCalls(t, 480), callTraffic()
	open := events[0].Record.(*sensor.Event)
	open.FD = (&sensor.FD{Num: 3, Type: sensor.FDFile, Name: "/etc/secret7"}).Ready()
	exec := events[8].Record.(*sensor.Event)
	next := *exec.Process
	next.Name, next.Argv = "miner5", []string{"miner5", "-o", "stratum+tcp://x"}
	exec.Process = next.Ready()
	for i, want := range map[int]string{0: "R86", 8: "R70"} {
		if got := set.Match(events[i], rule.All); len(got) != 1 || got[0].Rule != want {
			t.Errorf("alerts %v, want one of %s", got, want)
		}
	}
}

// evt.around is true within so many milliseconds of a time.
func TestAround(t *testing.T) {
	e := callTraffic()[0]
	for condition, want := range map[string]bool{
		"evt.around[1800000000000000000] = 0":   true,
		"evt.around[1800000000500000001] = 500": false,
		"evt.around[1800000000500000000] = 500": true,
		"evt.around[1799999999500000000] = 500": true,
		"evt.around[1799999999499999999] = 500": false,
	} {
		set, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(ruleOf("R", condition))})
		if err != nil {
			t.Fatal(err)
		}
		if got := set.Match(e, rule.First) != nil; got != want {
			t.Errorf("%s is %v", condition, got)
		}
		compare(t, set, e, condition)
	}
	if _, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(ruleOf("R", "evt.around[1] > 5"))}); err == nil || !strings.Contains(err.Error(), "'>' operator not supported for evt.around") {
		t.Errorf("error %v", err)
	}
}
