package enforce

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor"
	"github.com/kubeguardian/kubeguardian/sensor/record"
	kernel "github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// A book notes the guards that an enforcer wants.
type book struct {
	guards []sensor.Guard
	urgent []string
	err    error
	cannot error // deny
	roots  map[uint64]string
}

func (b *book) SetUrgent(types []string) error {
	b.urgent = types
	return nil
}

func (b *book) SetGuards(guards []sensor.Guard) error {
	b.guards = guards
	return b.err
}

func (b *book) CanDeny() error { return b.cannot }

func (b *book) SetRoot(cgroup uint64, path string) error {
	if b.roots == nil {
		b.roots = map[uint64]string{}
	}
	if b.roots[cgroup] != "" {
		return fmt.Errorf("cgroup %d was told of before", cgroup)
	}
	b.roots[cgroup] = path
	return nil
}

func (b *book) BlockEgress(string) (func() error, error) { return nil, errors.New("not here") }

func (b *book) String() string {
	var lines []string
	for _, g := range b.guards {
		lines = append(lines, fmt.Sprintf("%d %s %#x %d", g.Cgroup, g.Type, g.Executables, g.Action))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

const rules = `
- rule: Memory
  desc: d
  condition: evt.type in (execve, execveat) and container.id != host and proc.is_exe_from_memfd = true
  output: o
  priority: critical
  tags: [fileless]
- rule: Not of the image
  desc: d
  condition: evt.type = execve and container.id != host and not proc.is_exe_lower_layer = true
  output: o
  priority: critical
- rule: Name
  desc: d
  condition: evt.type = execve and container.id != host and proc.name = miner
  output: o
  priority: critical
- rule: Mixed
  desc: d
  condition: container.id != host and (evt.type = ptrace or (evt.type = setns and proc.name = x))
  output: o
  priority: critical
- rule: Debugger
  desc: d
  condition: evt.type = ptrace and k8s.ns.name = shop
  output: o
  priority: critical
`

func podOf(id, namespace string) *kernel.Container {
	return &kernel.Container{ID: strings.Repeat(id, 64), Known: true, Details: kernel.Details{
		Name: "web", Repository: "registry.test/team/cart", Tag: "1", Pod: &kernel.Pod{Name: "p", Namespace: namespace, Labels: map[string]string{"app": "cart"}},
	}}
}

func newEnforcer(t *testing.T, o Options) (*Enforcer, *book, *bytes.Buffer) {
	t.Helper()
	return newEnforcerOn(t, &book{}, o)
}

func newEnforcerOn(t *testing.T, b *book, o Options) (*Enforcer, *book, *bytes.Buffer) {
	t.Helper()
	audit := &bytes.Buffer{}
	o.Kernel, o.Audit, o.Proc, o.Root, o.Log = b, audit, "/proc", "/", slog.New(slog.DiscardHandler)
	o.Types = []string{"execve", "execveat", "ptrace"}
	if o.Containers == nil {
		o.Containers = func(string) *kernel.Details { return nil }
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	set, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(rules)})
	if err != nil {
		t.Fatal(err)
	}
	e.SetRules(set)
	return e, b, audit
}

// TestGuards: what the kernel can decide it decides, for the containers that an
// order is about and never for those that are protected.
func TestGuards(t *testing.T) {
	kill := func(names ...string) Order { return Order{Rules: names, Action: Kill} }
	dry := func(names ...string) Order { return Order{Rules: names, Action: Kill, DryRun: true} }
	for _, c := range []struct {
		name   string
		orders []Order
		drift  []Drift
		want   string
		ways   string
	}{
		{"by tag", []Order{{Tags: []string{"file*"}, Action: Kill}}, nil, "7 execve 0x4 2\n7 execveat 0x4 2\n8 execve 0x4 2\n8 execveat 0x4 2", "Memory: kernel"},
		{"whatever is not of the image", []Order{kill("Not*")}, nil, "7 execve 0x26 2\n8 execve 0x26 2", "Not of the image: kernel"},
		{"a name", []Order{kill("Name")}, nil, "", "Name: agent"},
		{"a part", []Order{kill("Mixed")}, nil, "7 ptrace 0x0 2\n8 ptrace 0x0 2", "Mixed: kernel and agent"},
		{"a namespace in the rule", []Order{kill("Debugger")}, nil, "7 ptrace 0x0 2", "Debugger: kernel and agent"},
		{"a namespace in the order", []Order{{Rules: []string{"Memory"}, Action: Kill, Namespaces: []string{"sh*"}}}, nil, "7 execve 0x4 2\n7 execveat 0x4 2", "Memory: kernel"},
		{"but one", []Order{{Rules: []string{"Memory"}, Action: Kill, Except: []string{"shop"}}}, nil, "8 execve 0x4 2\n8 execveat 0x4 2", "Memory: kernel"},
		{"a dry run", []Order{{Rules: []string{"Memory"}, Action: Kill, Namespaces: []string{"shop"}, DryRun: true}}, nil, "7 execve 0x4 1\n7 execveat 0x4 1", "Memory: kernel"},
		{"a dry run beside one that is none", []Order{dry("Not*"), kill("Memory")}, nil, "7 execve 0x4 2\n7 execveat 0x4 2\n8 execve 0x4 2\n8 execveat 0x4 2", "Memory: kernel; Not of the image: kernel"},
		{"drift", nil, []Drift{{Images: []string{"*/cart:1"}, Namespaces: []string{"shop"}, Mode: Kill}, {Mode: Alert}}, "7 execve 0x40 2\n7 execveat 0x40 2", ""},
		{"drift with paths that are let be", nil, []Drift{{Mode: Kill, Except: []string{"/opt/*"}}}, "", ""},
		{"drift that is denied", nil, []Drift{{Namespaces: []string{"shop"}, Mode: Deny}, {Mode: Deny, DryRun: true}}, "7 execve 0x40 3\n7 execveat 0x40 3\n8 execve 0x40 1\n8 execveat 0x40 1", ""},
		{"drift that is denied and a rule", []Order{{Rules: []string{"Memory"}, Action: Kill, Namespaces: []string{"shop"}}}, []Drift{{Mode: Deny}}, "7 execve 0x44 2\n7 execveat 0x44 2\n8 execve 0x40 3\n8 execveat 0x40 3", "Memory: kernel"},
		{"drift and a rule", []Order{kill("Memory")}, []Drift{{Labels: map[string]string{"app": "c*"}, Mode: Kill}}, "7 execve 0x44 2\n7 execveat 0x44 2\n8 execve 0x44 2\n8 execveat 0x44 2", "Memory: kernel"},
		{"egress", []Order{{Rules: []string{"*"}, Action: BlockEgress}}, nil, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, b, _ := newEnforcer(t, Options{Orders: c.orders, Drift: c.drift})
			e.see(7, podOf("a", "shop"))
			e.see(8, podOf("b", "bank"))
			e.see(9, podOf("c", "kube-system"))
			e.see(10, podOf("d", "kubeguardian-canary"))
			e.see(11, &kernel.Container{ID: strings.Repeat("e", 64)}) // nobody knows whose it is
			e.see(1, podOf("a", "shop"))
			if have := b.String(); have != c.want {
				t.Errorf("guards:\n%s\nwant:\n%s", have, c.want)
			}
			if have := e.Status().String(); have != c.ways {
				t.Errorf("ways: %s, want %s", have, c.ways)
			}
		})
	}
}

// TestUrgent: the agent is woken at once for what it may have to act upon, and
// says of an entry that it is about nothing.
func TestUrgent(t *testing.T) {
	e, b, _ := newEnforcer(t, Options{Orders: []Order{{Rules: []string{"Debug*"}, Action: BlockEgress}, {Rules: []string{"Nmae"}, Action: Kill}}})
	if strings.Join(b.urgent, " ") != "ptrace" {
		t.Errorf("urgent are %v", b.urgent)
	}
	if s := e.Status(); len(s.Errors) != 1 || !strings.Contains(s.Errors[0].Error(), "enforce[1] is about no rule") {
		t.Errorf("errors %v", s.Errors)
	}
	if _, b, _ = newEnforcer(t, Options{Drift: []Drift{{Mode: Alert}}}); len(b.urgent) != 0 {
		t.Errorf("urgent are %v", b.urgent)
	}
	if _, b, _ = newEnforcer(t, Options{Drift: []Drift{{Mode: Kill}}}); strings.Join(b.urgent, " ") != "execve execveat" {
		t.Errorf("urgent are %v", b.urgent)
	}
}

func TestKernelThatRefusesGuards(t *testing.T) {
	e, b, _ := newEnforcer(t, Options{Orders: []Order{{Rules: []string{"Memory"}, Action: Kill}}})
	b.err = errors.New("no room")
	e.see(7, podOf("a", "shop"))
	if s := e.Status(); s.Guards != 0 || len(s.Errors) != 1 || !strings.Contains(s.Errors[0].Error(), "no room") {
		t.Errorf("status %+v", s)
	}
	b.err = nil
	e.see(8, podOf("b", "shop"))
	if s := e.Status(); s.Guards != 4 || s.Errors != nil {
		t.Errorf("status %+v", s)
	}
}

// TestRefusals: what is protected is not acted upon, whatever is ordered.
func TestRefusals(t *testing.T) {
	e, _, _ := newEnforcer(t, Options{Orders: []Order{{Rules: []string{"*"}, Action: Kill, Host: true}}, Protect: Protect{Namespaces: []string{"bank-*"}, Processes: []string{"mysqld"}}})
	e.own = strings.Repeat("f", 64)
	of := func(exe, name string) *kernel.Process { return &kernel.Process{ExePath: exe, Name: name} }
	for _, c := range []struct {
		name string
		t    target
		want string
	}{
		{"first process", target{key: record.Key{TGID: 1}, container: kernel.Host()}, "the first process of the node"},
		{"agent", target{key: record.Key{TGID: uint32(os.Getpid())}, container: kernel.Host()}, "the agent itself"},
		{"agent's container", target{key: record.Key{TGID: 7}, container: podOf("f", "shop")}, "the agent's own container"},
		{"kubelet", target{key: record.Key{TGID: 7}, container: kernel.Host(), process: of("/usr/bin/kubelet", "x")}, "a protected process"},
		{"shim", target{key: record.Key{TGID: 7}, container: kernel.Host(), process: of("/opt/bin/containerd-shim-runc-v2", "x")}, "a protected process"},
		{"runtime in a container", target{key: record.Key{TGID: 7}, container: podOf("a", "shop"), node: true, process: of("/usr/sbin/runc", "x")}, "a protected process"},
		{"one of the configuration", target{key: record.Key{TGID: 7}, container: kernel.Host(), process: of("/usr/sbin/mysqld", "x")}, "a protected process"},
		{"by the name that it gave itself", target{key: record.Key{TGID: 7}, container: kernel.Host(), process: of("/tmp/x", "sshd")}, ""},
		{"unknown", target{key: record.Key{TGID: 7}, container: kernel.Host()}, "nothing is known of the process"},
		{"namespace", target{key: record.Key{TGID: 7}, container: podOf("a", "kube-system")}, "namespace kube-system is protected"},
		{"namespace of the configuration", target{key: record.Key{TGID: 7}, container: podOf("a", "bank-1")}, "namespace bank-1 is protected"},
		{"any other", target{key: record.Key{TGID: 7}, container: podOf("a", "shop"), process: of("/usr/bin/kubelet", "x")}, ""},
	} {
		if have := e.refuse(c.t); have != c.want {
			t.Errorf("%s: %q, want %q", c.name, have, c.want)
		}
	}
}

// keyOf returns the key of a running process.
func keyOf(t *testing.T, pid int) record.Key {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, ticks, err := parseStat(string(data))
	if err != nil {
		t.Fatal(err)
	}
	return record.Key{TGID: uint32(pid), Start: ticks*10_000_000 + 1}
}

// TestReusedID kills by the key of a process that has ended, whose id another has
// by then, in a namespace of its own where ids can be chosen.
func TestReusedID(t *testing.T) {
	const inside = "KUBEGUARDIAN_TEST_REUSED_ID"
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestReusedID$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		if errors.Is(err, syscall.EPERM) && os.Getenv("KUBEGUARDIAN_REQUIRE") != "all" {
			t.Skip("no namespace of process ids")
		}
		if err != nil || !strings.Contains(string(out), "--- PASS: TestReusedID") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	for _, err := range []error{syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""), syscall.Mount("proc", "/proc", "proc", 0, "")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	old := exec.Command("sleep", "60")
	if err := old.Start(); err != nil {
		t.Fatal(err)
	}
	pid := old.Process.Pid
	key := keyOf(t, pid)
	if err := errors.Join(old.Process.Kill(), ignoreExit(old.Wait())); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // starts are told apart by hundredths of a second
	var young *exec.Cmd
	for range 200 {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			t.Fatal(err)
		}
		young = exec.Command("sleep", "60")
		if err := young.Start(); err != nil {
			t.Fatal(err)
		}
		if young.Process.Pid == pid {
			break
		}
		_ = errors.Join(young.Process.Kill(), young.Wait())
	}
	if young.Process.Pid != pid {
		t.Fatalf("the id %d was not used again", pid)
	}
	if _, err := open("/proc", key); !errors.Is(err, errGone) {
		t.Errorf("a process with the id of another was opened: %v", err)
	}
	h, err := open("/proc", keyOf(t, pid))
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	if err := h.kill(); err != nil {
		t.Fatal(err)
	}
	_ = young.Wait()
	if err := h.kill(); !errors.Is(err, errGone) {
		t.Errorf("a process that has ended was killed: %v", err)
	}
}

func ignoreExit(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil
	}
	return err
}

func TestMissingCapabilities(t *testing.T) {
	proc := t.TempDir()
	if err := os.Mkdir(filepath.Join(proc, "self"), 0o755); err != nil {
		t.Fatal(err)
	}
	block := []Order{{Rules: []string{"*"}, Action: BlockEgress}}
	for _, c := range []struct {
		status string
		orders []Order
		want   int
	}{
		{"Name:\tx\nCapEff:\t000001ffffffffff\n", block, 0},
		{"CapEff:\t000000c001080004\n", nil, 1},
		{"CapEff:\t0000000000000020\n", block, 1},
		{"CapEff:\t0000000000000000\n", block, 2},
		{"CapEff:\tx\n", nil, -1},
		{"Name:\tx\n", nil, -1},
	} {
		if err := os.WriteFile(filepath.Join(proc, "self/status"), []byte(c.status), 0o600); err != nil {
			t.Fatal(err)
		}
		have, err := missingCapabilities(proc, c.orders)
		if (err != nil) != (c.want < 0) || err == nil && len(have) != c.want {
			t.Errorf("%q: %v, %v", c.status, have, err)
		}
	}
}

func TestThreadsOfTheKernel(t *testing.T) {
	if name, _ := os.ReadFile("/proc/2/comm"); string(name) != "kthreadd\n" {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatalf("process 2 is %q", name)
		}
		t.Skip("the kernel's threads are not to be seen here")
	}
	if _, err := open("/proc", keyOf(t, 2)); !errors.Is(err, errKernel) {
		t.Errorf("have %v", err)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 0 0")
	f.Add("7 (")
	f.Fuzz(func(t *testing.T, text string) {
		if flags, ticks, err := parseStat(text); err != nil && flags+ticks != 0 && ticks != 0 {
			t.Errorf("%q: %d %d %v", text, flags, ticks, err)
		}
	})
}

// TestWait: an action on a container that nobody knows yet is put off, and
// refused when it stays so.
func TestWait(t *testing.T) {
	details := map[string]*kernel.Details{}
	e, _, audit := newEnforcer(t, Options{
		Orders:     []Order{{Rules: []string{"*"}, Action: Kill, Namespaces: []string{"shop", "kube-*"}}},
		Containers: func(id string) *kernel.Details { return details[id] },
	})
	victim := func() *exec.Cmd {
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	running := map[string]*exec.Cmd{}
	for _, id := range []string{"a", "b", "c", "d"} { // of the shop, of another, of a protected one, of nobody
		running[id] = victim()
		act := Action{Action: Kill, Rule: "Name", PID: int32(running[id].Process.Pid)}
		e.wait(named{e.o.Orders[0], "enforce[0]"}, target{key: keyOf(t, running[id].Process.Pid), container: &kernel.Container{ID: strings.Repeat(id, 64)}}, &act)
		if act.Outcome != Waiting {
			t.Fatalf("action %+v", act)
		}
	}
	now := time.Now()
	e.settleWaits(now)
	if audit.Len() > 0 {
		t.Errorf("acted on what is not known: %s", audit)
	}
	for id, namespace := range map[string]string{"a": "shop", "b": "bank", "c": "kube-system"} {
		details[strings.Repeat(id, 64)] = &podOf(id, namespace).Details
	}
	e.settleWaits(now)
	e.settleWaits(now.Add(waitTime + time.Second))
	if len(e.waiting) != 0 {
		t.Errorf("%d still wait", len(e.waiting))
	}
	outcomes := map[int32]Action{}
	for line := range strings.Lines(audit.String()) {
		var act Action
		if err := json.Unmarshal([]byte(line), &act); err != nil {
			t.Fatal(err)
		}
		outcomes[act.PID] = act
	}
	for id, want := range map[string]string{"a": Killed, "b": "", "c": Refused, "d": Refused} {
		cmd := running[id]
		if have := outcomes[int32(cmd.Process.Pid)].Outcome; have != want {
			t.Errorf("container %s: outcome %q, want %q", id, have, want)
		}
		alive := cmd.Process.Signal(syscall.SIGTERM) == nil
		_ = cmd.Wait()
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !alive || status.Signal() == syscall.SIGKILL != (want == Killed) {
			t.Errorf("container %s: ended by %v", id, status.Signal())
		}
	}
}

func TestCgroups(t *testing.T) {
	root := t.TempDir()
	id := strings.Repeat("ab", 32)
	for _, dir := range []string{
		"system.slice/sshd.service", "kubepods.slice/kubepods-pod6f2b9b3e_0f8e_4d7c_9f5d_1c2d3e4f5a6b.slice/cri-containerd-" + id + ".scope/inner",
		"kubepods/burstable/pod6f2b9b3e-0f8e-4d7c-9f5d-1c2d3e4f5a6b/" + strings.Repeat("cd", 32),
	} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	all, err := cgroups(root)
	if err != nil || len(all) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	if dir := top(all, id); !strings.HasSuffix(dir, id+".scope") {
		t.Errorf("outermost group %q", dir)
	}
	if dir := top(all, strings.Repeat("0", 64)); dir != "" {
		t.Errorf("a container that does not exist has group %q", dir)
	}
	if _, err := cgroups(filepath.Join(root, "none")); err == nil {
		t.Error("a folder that does not exist was listed")
	}
	if _, err := networkOf("", "/proc", root, id); !errors.Is(err, errNoUnified) {
		t.Errorf("have %v", err)
	}
	if err := os.WriteFile(filepath.Join(top(all, id), "cgroup.procs"), []byte("12\n345\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if have := containerOf(all, 345); have != id {
		t.Errorf("process 345 is of container %q", have)
	}
	if have := containerOf(all, 34); have != "" {
		t.Errorf("process 34 is of container %q", have)
	}
	if n, err := networkOf(root, "/proc", top(all, id), id); err != nil || n.dir != top(all, id) || n.made {
		t.Errorf("network %+v, %v", n, err)
	}
	for path, want := range map[string]string{"/a/" + id + ".scope/b": "/a/" + id + ".scope", "/" + id: "/" + id, "/a/b": ""} {
		if have, _ := cutAt(path, id); have != want {
			t.Errorf("%s is cut to %q", path, have)
		}
	}
}

// TestKillsAreAccountedFor: a kill of the kernel is in the record whatever the
// rules say by then.
func TestKillsAreAccountedFor(t *testing.T) {
	e, _, audit := newEnforcer(t, Options{Orders: []Order{{Rules: []string{"Memory"}, Action: Kill}}})
	typ, _ := record.TypeOf("execve")
	r := &record.Record{Header: record.Header{Type: typ, Cgroup: 7, Process: record.Key{TGID: 4242, Start: 1}}}
	if err := r.SetExtra(record.Enforced, record.IntValue(record.Killed)); err != nil {
		t.Fatal(err)
	}
	call := &kernel.Event{Type: kernel.TypeOf("execve"), Process: (&kernel.Process{ExePath: "/x", Name: "x"}).Ready(), Container: podOf("a", "shop")}
	matched := &event.Event{Source: event.Syscall, Record: call}
	alerts := []alert.Alert{{Rule: "Memory"}, {Rule: "Name"}}
	if ordered, _ := e.Judge(Event{r, call, matched}, alerts); !ordered[0] || ordered[1] || alerts[0].OutputFields["enforce.kill"] != Killed || alerts[0].OutputFields["enforce.kill.by"] != "kernel" {
		t.Errorf("alerts %+v", alerts)
	}
	e.Judge(Event{r, call, matched}, nil)
	lines := strings.Split(strings.TrimSpace(audit.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"rule":"Memory"`) || !strings.Contains(lines[1], "not in force any more") || !strings.Contains(lines[1], `"pid":4242`) || e.Status().Kills != 2 {
		t.Errorf("record:\n%s", audit)
	}
	if have := e.Status().Counts[[2]string{Kill, Killed}]; have != 2 {
		t.Errorf("%d actions", have)
	}
}

// execOf returns the record of an exec in container a, by a shell if it failed.
func execOf(t *testing.T, mark, result int64) Event {
	t.Helper()
	typ, _ := record.TypeOf("execve")
	r := &record.Record{Header: record.Header{Type: typ, Cgroup: 7, HasResult: true, Result: result, Process: record.Key{TGID: 4242, Start: 1}}}
	for name, v := range map[string]record.Value{"flags": record.IntValue(record.ExeAdded), "trusted_exepath": record.BytesValue([]byte("/tmp/miner"))} {
		if err := r.SetParam(typ.Index(name), v); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.SetExtra(record.Enforced, record.IntValue(mark)); err != nil {
		t.Fatal(err)
	}
	shell := (&kernel.Process{ExePath: "/bin/sh", Name: "sh"}).Ready()
	call := &kernel.Event{Type: kernel.TypeOf("execve"), Called: true, Result: result, Process: shell, Container: podOf("a", "shop")}
	return Event{r, call, &event.Event{Source: event.Syscall, Record: call}}
}

// TestDenialsAreNoted: what the kernel denied is in the alert and in the record, and
// where it killed instead that is said.
func TestDenialsAreNoted(t *testing.T) {
	refused := errors.New("operation not permitted")
	for _, c := range []struct {
		name              string
		cannot            error
		dry               bool
		mark, result      int64
		outcome, rule     string
		exe, reason, text string
	}{
		{"denied", nil, false, record.Denied, -int64(syscall.EPERM), Denied, DeniedRule, "/tmp/miner", "", ""},
		{"killed instead", refused, false, record.Killed, 0, Killed, DriftRule, "/bin/sh", "this kernel denies no program", "what zeroDrift is to deny is killed instead, before it runs: operation not permitted"},
		{"too late", nil, false, record.Killed, 0, Killed, DriftRule, "/bin/sh", "it had started before it could be denied", ""},
		{"dry run", nil, true, record.WouldKill, 0, WouldDeny, DriftRule, "/bin/sh", "", ""},
		{"dry run of a kill", refused, true, record.WouldKill, 0, WouldKill, DriftRule, "/bin/sh", "this kernel denies no program", "what zeroDrift would deny would be killed instead, before it runs: operation not permitted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, _, audit := newEnforcerOn(t, &book{cannot: c.cannot}, Options{Drift: []Drift{{Mode: Deny, DryRun: c.dry}}})
			_, more := e.Judge(execOf(t, c.mark, c.result), nil)
			if len(more) != 1 || more[0].Rule != c.rule || more[0].OutputFields["enforce.deny"] != c.outcome || more[0].OutputFields["enforce.deny.by"] != "kernel" {
				t.Fatalf("alerts %+v", more)
			}
			if ran := slices.Contains(more[0].Tags, alert.DriftTag); ran != (c.outcome != Denied) {
				t.Errorf("it counts as a program that ran: %v", ran)
			}
			var act Action
			if err := json.Unmarshal(audit.Bytes(), &act); err != nil {
				t.Fatalf("%v in %s", err, audit)
			}
			if act.Action != Deny || act.Outcome != c.outcome || act.Exe != c.exe || act.Reason != c.reason || act.Entry != "zeroDrift[0]" || act.PID != 4242 {
				t.Errorf("action %+v", act)
			}
			said := fmt.Sprint(e.Status().Errors)
			if (c.text == "") != (said == "[]") || !strings.Contains(said, c.text) {
				t.Errorf("it says %s", said)
			}
		})
	}
}

// TestDenyWaits: what was to be denied in a container that nobody knew yet is
// killed once it is known whose it is, whether its entry is for all containers or
// for some.
func TestDenyWaits(t *testing.T) {
	for name, drift := range map[string]Drift{"for all": {Mode: Deny}, "for some": {Namespaces: []string{"shop"}, Mode: Deny}} {
		t.Run(name, func(t *testing.T) {
			var details *kernel.Details
			var late []alert.Alert
			e, _, audit := newEnforcer(t, Options{
				Drift: []Drift{drift}, Containers: func(string) *kernel.Details { return details }, Emit: func(a alert.Alert) { late = append(late, a) },
			})
			cmd := exec.Command("sleep", "60")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = errors.Join(cmd.Process.Kill(), cmd.Wait()) }()
			ev := execOf(t, 0, 0)
			ev.Record.Process = keyOf(t, cmd.Process.Pid)
			ev.Seen.Container = &kernel.Container{ID: strings.Repeat("a", 64)}
			_, more := e.Judge(ev, nil)
			if len(more) == 1 && more[0].OutputFields["enforce.deny"] != Waiting || len(more)+len(e.waiting) == 0 {
				t.Errorf("alerts %+v, %d wait", more, len(e.waiting))
			}
			details = &podOf("a", "shop").Details
			e.settleWaits(time.Now())
			if len(more)+len(late) != 1 {
				t.Errorf("%d alerts at once, %d late", len(more), len(late))
			}
			lines := strings.Split(strings.TrimSpace(audit.String()), "\n")
			var act Action
			if err := json.Unmarshal([]byte(lines[len(lines)-1]), &act); err != nil {
				t.Fatalf("%v in %s", err, audit)
			}
			if act.Action != Deny || act.Outcome != Killed || act.By != "agent" || act.Namespace != "shop" || act.Reason == "" {
				t.Fatalf("action %+v", act)
			}
			_ = cmd.Wait()
			if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
				t.Errorf("it ended by %v", status.Signal())
			}
		})
	}
}

// TestRootsOfOldContainers: the kernel hears of the root of a container by its first
// process, once, and not of the node's, which a runtime has that starts one.
func TestRootsOfOldContainers(t *testing.T) {
	e, b, _ := newEnforcer(t, Options{Drift: []Drift{{Mode: Alert}}})
	proc, groups := t.TempDir(), t.TempDir()
	e.o.Proc = proc
	image, volume := t.TempDir(), t.TempDir()
	for pid, p := range map[string]struct{ start, root string }{"7": {"300", volume}, "30": {"200", image}, "31": {"100", "/"}, "32": {"400", volume}} {
		stat := pid + " (a) S 1 7 7 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 " + p.start + " 0 0"
		if err := errors.Join(os.Mkdir(filepath.Join(proc, pid), 0o755), os.WriteFile(filepath.Join(proc, pid, "stat"), []byte(stat), 0o600), os.Symlink(p.root, filepath.Join(proc, pid, "root"))); err != nil {
			t.Fatal(err)
		}
	}
	var found []cgroup
	add := func(number uint64, name, id string, pids string) {
		dir := filepath.Join(groups, name)
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(pids), 0o600)); err != nil {
			t.Fatal(err)
		}
		found = append(found, cgroup{number, dir, strings.Repeat(id, 64)})
	}
	add(11, "a", "a", "7\n30\n99\n") // the last one has ended
	add(12, "a/below", "a", "32\n")
	add(13, "b", "b", "31\n")
	add(14, "c", "c", "")
	want := fmt.Sprint(map[uint64]string{11: proc + "/30/root", 12: proc + "/30/root"})
	for range 2 {
		if e.keepRoots(found); fmt.Sprint(b.roots) != want {
			t.Errorf("have %v, want %s", b.roots, want)
		}
	}
	if err := errors.Join(os.Remove(filepath.Join(proc, "31/root")), os.Symlink(image, filepath.Join(proc, "31/root"))); err != nil {
		t.Fatal(err)
	}
	if e.keepRoots(found); b.roots[13] != proc+"/31/root" || len(b.roots) != 3 {
		t.Errorf("once the runtime has changed its root: %v", b.roots)
	}
	if len(e.rooted) != 4 || e.rooted[14] {
		t.Errorf("told of are %v", e.rooted)
	}
}

// TestDenialsAreBounded: a program that is denied over and over is told of at once,
// and then by its number each minute; so is one of many programs.
func TestDenialsAreBounded(t *testing.T) {
	var late []alert.Alert
	e, _, audit := newEnforcer(t, Options{Drift: []Drift{{Mode: Deny}}, Emit: func(a alert.Alert) { late = append(late, a) }})
	denied := uint64(0)
	deny := func(container, path string, times int) (alerts int) {
		ev := execOf(t, record.Denied, -int64(syscall.EPERM))
		if err := ev.Record.SetParam(ev.Record.Type.Index("trusted_exepath"), record.BytesValue([]byte(path))); err != nil {
			t.Fatal(err)
		}
		ev.Seen.Container = podOf(container, "shop")
		for range times {
			_, more := e.Judge(ev, nil)
			alerts += len(more)
			denied++
		}
		return alerts
	}
	now := time.Now()
	if n := deny("a", "/tmp/x", 1000) + deny("a", "/tmp/y", 1) + deny("b", "/tmp/x", 1); n != 3 {
		t.Errorf("%d alerts at once, want one for each container and program", n)
	}
	e.tellDenials(now.Add(denialsEach / 2))
	if len(late) != 0 {
		t.Errorf("%d alerts before a minute is over", len(late))
	}
	e.tellDenials(now.Add(denialsEach + time.Second))
	if len(late) != 1 || late[0].OutputFields["enforce.deny.times"] != uint64(999) || !strings.Contains(late[0].Output, "999 times") {
		t.Errorf("late alerts %+v", late)
	}
	if n := deny("a", "/tmp/x", 3) + deny("a", "/tmp/y", 1); n != 1 {
		t.Errorf("%d alerts at once, want that of the program that was quiet for a minute", n)
	}
	alerts := 0
	for i := range 1000 {
		alerts += deny("c", fmt.Sprintf("/tmp/%d", i), 1)
	}
	if alerts > maxDenied+1 {
		t.Errorf("%d alerts about a thousand programs", alerts)
	}
	e.stop(now)
	if n := deny("a", "/tmp/x", 2); n != 2 {
		t.Errorf("%d alerts once nobody tells of them later", n)
	}
	total := uint64(0)
	for line := range strings.Lines(audit.String()) {
		var act Action
		if err := json.Unmarshal([]byte(line), &act); err != nil {
			t.Fatal(err)
		}
		total += max(act.Times, 1)
	}
	if s := e.Status(); s.Denials != denied || s.Counts[[2]string{Deny, Denied}] != denied || total != denied {
		t.Errorf("%d denials, %d actions, %d in the record, want %d", s.Denials, s.Counts[[2]string{Deny, Denied}], total, denied)
	}
	if len(late) != 3 {
		t.Errorf("%d late alerts, want one for each that was repeated", len(late))
	}
}
