package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/enforce"
	"github.com/kubeguardian/kubeguardian/sensor/container/containerdtest"
	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// actions reads the record of actions.
func actions(t *testing.T, name string) []enforce.Action {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var all []enforce.Action
	for line := range bytes.Lines(data) {
		var a enforce.Action
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		all = append(all, a)
	}
	return all
}

// waitAction waits for an action about a rule.
func waitAction(t *testing.T, name string, want func(enforce.Action) bool) enforce.Action {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if all := actions(t, name); slices.ContainsFunc(all, want) {
			return all[slices.IndexFunc(all, want)]
		}
	}
	t.Fatalf("no such action among %+v", actions(t, name))
	return enforce.Action{}
}

const hostOrders = `
- rule: Marked
  desc: A program that says that it wants to end
  condition: evt.type in (execve, execveat) and proc.args contains kubeguardian-victim
  output: "marked (%proc.cmdline)"
  priority: WARNING
- rule: Rehearsed
  desc: A program that would be killed
  condition: evt.type in (execve, execveat) and proc.args contains kubeguardian-rehearsal
  output: "rehearsed (%proc.cmdline)"
  priority: WARNING
  tags: [rehearsal]
- rule: Not ordered
  desc: A program that nothing is ordered about
  condition: evt.type in (execve, execveat) and proc.args contains kubeguardian-other
  output: "other (%proc.cmdline)"
  priority: WARNING
` + endRule

const endRule = `
- rule: End
  desc: Everything before has happened
  condition: evt.type in (execve, execveat) and proc.args contains kubeguardian-end
  output: "%proc.args"
  priority: DEBUG
`

// sleep runs a program for a while, by its path, and reports how it ended.
func sleep(t *testing.T, program string, args ...string) func() (killed bool) {
	t.Helper()
	cmd := exec.Command(program, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() bool {
		_ = cmd.Wait()
		status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
		return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
	}
}

// copyOf copies a program to another name.
func copyOf(t *testing.T, program, name string) string {
	t.Helper()
	found, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(found)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestKillOnHost: processes of the node are killed only where that is ordered,
// and those that are protected never.
func TestKillOnHost(t *testing.T) {
	c := configOf(t, hostOrders)
	c.Actions = filepath.Join(t.TempDir(), "actions")
	c.Enforce = []enforce.Order{
		{Rules: []string{"Mark*"}, Action: enforce.Kill, Host: true},
		{Tags: []string{"rehearsal"}, Action: enforce.Kill, Host: true, DryRun: true},
		{Rules: []string{"Not ordered"}, Action: enforce.Kill},
	}
	l := watchMachine(t, c)
	for _, s := range []struct {
		name, program, argument string
		killed                  bool
		outcome                 string
	}{
		{"ordered", "sleep", "kubeguardian-victim", true, enforce.Killed},
		{"protected", "sshd", "kubeguardian-victim", false, enforce.Refused},
		{"dry run", "sleep", "kubeguardian-rehearsal", false, enforce.WouldKill},
	} {
		t.Run(s.name, func(t *testing.T) {
			l := &live{t: t, from: l}
			program := copyOf(t, "bash", s.program)
			ended := sleep(t, program, "-c", "sleep 3; : "+s.argument)
			a := l.wait(map[bool]string{true: "Marked", false: "Rehearsed"}[strings.Contains(s.argument, "victim")], s.program+" -c sleep 3; : "+s.argument)
			if killed := ended(); killed != s.killed {
				t.Errorf("killed %v, want %v", killed, s.killed)
			}
			l.want(a, map[string]any{"enforce.kill": s.outcome})
			act := waitAction(t, c.Actions, func(act enforce.Action) bool { return act.Alert == a.ID })
			if act.Outcome != s.outcome || act.Exe != program || act.Container != "host" || act.Rule != a.Rule || !strings.Contains(act.Command, s.argument) || (act.Reason != "") != (s.outcome == enforce.Refused) {
				t.Errorf("action %+v", act)
			}
		})
	}
	// To a process in a time namespace the node has run for longer than it has.
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("exec bash -c 'sleep 3; : kubeguardian-victim of another time'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	inTime := sleep(t, "unshare", "--time", "--boottime", "86400", "--fork", "bash", script)
	l.want(l.wait("Marked", "of another time"), map[string]any{"enforce.kill": enforce.Killed})
	inTime()
	ended := sleep(t, "bash", "-c", "sleep 3; : kubeguardian-other")
	a := l.wait("Not ordered", "kubeguardian-other")
	if ended() || a.OutputFields["enforce.kill"] != nil {
		t.Errorf("an order that is not about the node hit it: %+v", a)
	}
}

// TestKillInProcessNamespace does the same on a node that is a container itself,
// where processes have ids of their own.
func TestKillInProcessNamespace(t *testing.T) {
	if testing.Short() {
		t.Skip("watches the whole machine")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("unshare", "--pid", "--fork", "--mount-proc", self, "-test.run=^TestKillOnHost$", "-test.v").CombinedOutput()
	switch {
	case os.Getenv("KUBEGUARDIAN_REQUIRE") != "all" && (os.Geteuid() != 0 || strings.Contains(string(out), "--- SKIP: TestKillOnHost")):
		t.Skipf("no namespace of process ids, or no programs in the kernel (%v): %s", err, out)
	case err != nil || !strings.Contains(string(out), "--- PASS: TestKillOnHost"):
		t.Errorf("%v\n%s", err, out)
	}
}

const containerOrders = `
- rule: Folder
  desc: A folder is made
  condition: evt.type in (mkdir, mkdirat) and evt.res = SUCCESS and container.id != host
  output: "folder (%proc.cmdline)"
  priority: WARNING
- rule: Rights
  desc: The rights of a file are changed
  condition: evt.type in (chmod, fchmodat, fchmodat2) and container.id != host
  output: "rights (%proc.cmdline)"
  priority: WARNING
- rule: Miner
  desc: A program with the name of a miner
  condition: evt.type in (execve, execveat) and container.id != host and proc.name = miner
  output: "miner (%proc.cmdline)"
  priority: CRITICAL
- rule: Added
  desc: A program in the upper layer
  condition: evt.type in (execve, execveat) and container.id != host and proc.is_exe_upper_layer = true and k8s.ns.name = shop
  output: "added (%proc.cmdline)"
  priority: CRITICAL
- rule: Caller
  desc: A program that calls outside
  condition: evt.type = connect and container.id != host and fd.sip = 192.0.2.1
  output: "call (%proc.cmdline %evt.res)"
  priority: WARNING
- rule: Program
  desc: Any program in a container
  condition: evt.type in (execve, execveat) and container.id != host
  output: "program (%proc.cmdline)"
  priority: DEBUG
` + endRule

// A workload is a container that tests put programs into.
type workload struct {
	*containerdtest.Runtime
	t   *testing.T
	pod containerdtest.Pod
}

func (w workload) root() string { return fmt.Sprintf("/proc/%d/root", w.PID(w.t, w.pod.Container)) }

// add puts a copy of the image's program into the container.
func (w workload) add(name string) {
	w.t.Helper()
	program, err := os.ReadFile(w.root() + "/wait")
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(w.root()+name, program, 0o755); err != nil {
		w.t.Fatal(err)
	}
}

// run runs a command in the container and returns its exit code.
func (w workload) run(command ...string) int32 {
	w.t.Helper()
	res, err := w.CRI.ExecSync(w.t.Context(), &cri.ExecSyncRequest{ContainerId: w.pod.Container, Cmd: command, Timeout: 20})
	if err != nil {
		w.t.Fatal(err)
	}
	return res.GetExitCode()
}

const byKill = 128 + int32(unix.SIGKILL)

// TestKillInContainer kills by the kernel and by the agent, in containers but not
// in those that are protected.
func TestKillInContainer(t *testing.T) {
	runtime := containerdtest.Start(t)
	c := configOf(t, containerOrders)
	c.CRI, c.Match, c.Actions = runtime.Socket, "all", filepath.Join(t.TempDir(), "actions")
	c.Enforce = []enforce.Order{
		{Rules: []string{"Added"}, Action: enforce.Kill},
		{Rules: []string{"Miner"}, Action: enforce.Kill, Except: []string{"trusted"}},
		{Rules: []string{"Folder"}, Action: enforce.Kill},
		{Rules: []string{"Rights"}, Action: enforce.Kill, DryRun: true},
	}
	c.Protect.Namespaces = []string{"bank-*"}
	l := watchMachine(t, c)
	shop := workload{runtime, t, runtime.RunPod(t, "cart-1", nil)}
	l.wait("Program", "program (wait")
	known := func(mark string) { // once this has been told of, the runtime has answered
		for range 100 {
			shop.run("/wait", "/nothing", mark)
			if a := l.wait("Program", mark); a.OutputFields["container.pending"] == nil {
				return
			}
			mark += "x"
		}
	}
	known("ready")
	shop.add("/added")
	if code := shop.run("/added", "/nothing", "added-1"); code != byKill {
		t.Errorf("an added program ended with %d, want that it was killed", code)
	}
	a := l.wait("Added", "added-1")
	l.want(a, map[string]any{"enforce.kill": "killed", "enforce.kill.by": "kernel"})
	act := waitAction(t, c.Actions, func(act enforce.Action) bool { return act.Alert == a.ID })
	if act.Outcome != "killed" || act.By != "kernel" || act.Namespace != "shop" || act.Pod != "cart-1" || act.Container != shop.pod.Container || act.Exe != "/added" || act.Entry != "enforce[0]" {
		t.Errorf("action %+v", act)
	}
	if code := shop.run("/wait", "/nothing", "twin"); code != 1 {
		t.Errorf("the image's own program ended with %d", code)
	}
	l.wait("Program", "twin")
	if n := len(actions(t, c.Actions)); n != 1 {
		t.Errorf("%d actions: %+v", n, actions(t, c.Actions))
	}

	// A guard cannot look at the name, so the agent kills.
	if err := os.Symlink("/wait", shop.root()+"/miner"); err != nil {
		t.Fatal(err)
	}
	if code := shop.run("/miner"); code != byKill {
		t.Errorf("the miner ended with %d", code)
	}
	l.want(l.wait("Miner", "miner"), map[string]any{"enforce.kill": "killed", "enforce.kill.by": "agent"})

	// Calls other than execve, in the kernel and in a dry run. The runtime makes
	// folders, too, when it starts a container, and is of the node.
	if code := shop.run("/wait", "mkdir", "/folder"); code != byKill {
		t.Errorf("a program that makes a folder ended with %d", code)
	}
	l.want(l.wait("Folder", "wait mkdir"), map[string]any{"enforce.kill": "killed", "enforce.kill.by": "kernel"})
	if code := shop.run("/wait", "chmod", "/folder"); code != 0 {
		t.Errorf("a dry run ended a program with %d", code)
	}
	l.want(l.wait("Rights", "wait chmod"), map[string]any{"enforce.kill": "would-kill", "enforce.kill.by": "kernel"})

	// The same in a namespace that is protected.
	bank := workload{runtime, t, runtime.RunPodIn(t, "bank-1", "vault-1", nil)}
	if err := os.Symlink("/wait", bank.root()+"/miner"); err != nil {
		t.Fatal(err)
	}
	if code := bank.run("/miner", "mkdir", "/folder"); code != 0 {
		t.Errorf("in a protected namespace the miner ended with %d", code)
	}
	act = waitAction(t, c.Actions, func(act enforce.Action) bool {
		return act.Rule == "Miner" && act.Namespace == "bank-1" && act.Outcome == "refused"
	})
	if act.Reason != "namespace bank-1 is protected" || act.Pod != "vault-1" {
		t.Errorf("action %+v", act)
	}
}

// TestBlockEgressOfContainer keeps a container from the network for a while.
func TestBlockEgressOfContainer(t *testing.T) {
	runtime := containerdtest.Start(t)
	c := configOf(t, containerOrders)
	c.CRI, c.Match, c.Actions = runtime.Socket, "all", filepath.Join(t.TempDir(), "actions")
	c.Enforce = []enforce.Order{{Rules: []string{"Caller"}, Action: enforce.BlockEgress, For: 15 * time.Second}}
	l := watchMachine(t, c)
	shop := workload{runtime, t, runtime.RunPod(t, "cart-1", nil)}
	twin := workload{runtime, t, runtime.RunPod(t, "cart-2", nil)}
	dial := func(w workload, address string) int32 { return w.run("/wait", "dial", address) }
	if code := dial(shop, "192.0.2.2:9"); code == 3 {
		t.Fatal("the network is closed before anything happened")
	}
	dial(shop, "192.0.2.1:9")
	l.wait("Caller", "wait dial")
	blocked := waitAction(t, c.Actions, func(act enforce.Action) bool { return act.Outcome == enforce.Blocked || act.Outcome == enforce.Failed })
	if blocked.Outcome != enforce.Blocked || blocked.Container != shop.pod.Container || blocked.By != "agent" || blocked.Until.Before(time.Now()) {
		t.Fatalf("action %+v", blocked)
	}
	if code := dial(shop, "192.0.2.2:9"); code != 3 {
		t.Errorf("the container reaches the network: %d", code)
	}
	if code := dial(shop, "127.0.0.1:9"); code != 0 {
		t.Errorf("the container does not reach the loopback: %d", code)
	}
	if code := dial(twin, "192.0.2.2:9"); code == 3 {
		t.Error("another container was kept from the network")
	}
	waitAction(t, c.Actions, func(act enforce.Action) bool { return act.Outcome == enforce.Lifted })
	if code := dial(shop, "192.0.2.2:9"); code == 3 {
		t.Error("the network is still closed")
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/unified/*kubeguardian-egress*"); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

const programRules = `
- rule: Program
  desc: Any program in a container
  condition: evt.type in (execve, execveat) and container.id != host
  output: "program (%proc.cmdline)"
  priority: DEBUG
` + endRule

// ready waits until the runtime has told of a workload's container.
func (w workload) ready(l *live) {
	w.t.Helper()
	for i := range 100 {
		mark := fmt.Sprintf("ready-%s-%d", w.pod.Name, i)
		w.run("/wait", "/nothing", mark)
		if l.wait("Program", mark).OutputFields["container.pending"] == nil {
			return
		}
	}
	w.t.Fatalf("the runtime does not tell of pod %s", w.pod.Name)
}

// TestZeroDrift runs programs that did not come with the image, from everywhere
// that they can come from, in containers of each mode.
func TestZeroDrift(t *testing.T) {
	runtime := containerdtest.Start(t)
	volume := t.TempDir()
	shared, err := os.MkdirTemp("/dev/shm", "kubeguardian-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(shared) })
	with := func(config *cri.ContainerConfig) {
		config.Mounts = []*cri.Mount{{ContainerPath: "/volume", HostPath: volume}, {ContainerPath: "/shared", HostPath: shared}}
	}
	c := configOf(t, programRules)
	c.CRI, c.Match, c.Actions = runtime.Socket, "all", filepath.Join(t.TempDir(), "actions")
	c.ZeroDrift = []enforce.Drift{
		{Namespaces: []string{"build"}, Mode: enforce.Off},
		{Namespaces: []string{"shop"}, Images: []string{"registry.test:5000/team/*"}, Mode: enforce.Kill},
		{Namespaces: []string{"plugins"}, Mode: enforce.Kill, Except: []string{"/volume/*"}},
		{Mode: enforce.Alert},
	}
	l := watchMachine(t, c)
	of := map[string]workload{}
	for _, namespace := range []string{"shop", "bank", "build", "plugins"} {
		of[namespace] = workload{runtime, t, runtime.RunPodIn(t, namespace, namespace+"-1", with)}
		of[namespace].ready(l)
	}
	of["shop"].add("/volume/tool")
	commands := map[string][]string{
		"upper": {"/added", "/nothing"}, "tmpfs": {"/shared/added", "/nothing"}, "volume": {"/volume/tool", "/nothing"}, "memory": {"/wait", "memory", "/nothing"}, "chroot": {"/wait", "chroot", "/volume", "/tool", "/nothing"}, "image": {"/wait", "/nothing"},
	}
	for _, s := range []struct {
		namespace, kind string
		alert, killed   bool
		by              any
	}{
		{"shop", "upper", true, true, "kernel"}, {"shop", "tmpfs", true, true, "kernel"}, {"shop", "volume", true, true, "kernel"}, {"shop", "memory", true, true, "kernel"}, {"shop", "chroot", true, true, "kernel"}, {"shop", "image", false, false, nil},
		{"bank", "upper", true, false, nil}, {"bank", "memory", true, false, nil}, {"bank", "image", false, false, nil},
		{"build", "upper", false, false, nil}, {"build", "memory", false, false, nil},
		{"plugins", "volume", false, false, nil}, {"plugins", "image", false, false, nil},
	} {
		w := of[s.namespace]
		switch s.kind {
		case "upper":
			w.add("/added")
		case "tmpfs":
			w.add("/shared/added")
		}
		mark := "kind-" + s.kind + "-in-" + s.namespace
		if code := w.run(append(slices.Clone(commands[s.kind]), mark)...); code == byKill != s.killed {
			t.Errorf("%s in %s: ended with %d", s.kind, s.namespace, code)
		}
		l.wait("Program", mark)
		if !s.alert {
			l.finish()
			l.silent(enforce.DriftRule, mark)
			continue
		}
		a := l.wait(enforce.DriftRule, "/nothing "+mark)
		l.want(a, map[string]any{"k8s.ns.name": s.namespace, "enforce.kill.by": s.by, "container.image.repository": "registry.test:5000/team/wait"})
	}
	for _, act := range actions(t, c.Actions) {
		if act.Namespace != "shop" || act.Outcome != enforce.Killed || act.Entry != "zeroDrift[1]" {
			t.Errorf("action %+v", act)
		}
	}
	// The agent kills where a path decides.
	of["plugins"].add("/added")
	if code := of["plugins"].run("/added"); code != byKill {
		t.Errorf("in plugins an added program ended with %d", code)
	}
	waitAction(t, c.Actions, func(act enforce.Action) bool {
		return act.Namespace == "plugins" && act.By == "agent" && act.Outcome == enforce.Killed
	})

	// The first program of a container is judged once the runtime has told whose
	// the container is, and held on to until then.
	first := runtime.RunPodIn(t, "shop", "first-1", func(config *cri.ContainerConfig) {
		with(config)
		config.Command = []string{"/volume/tool"}
	})
	waitAction(t, c.Actions, func(act enforce.Action) bool {
		return act.Container == first.Container && act.Outcome == enforce.Killed && act.Namespace == "shop" && act.Exe == "/volume/tool"
	})
	a := l.wait(enforce.DriftRule, first.Container[:12])
	if a.Subject.Name != "first-1" || a.OutputFields["k8s.ns.name"] != "shop" || a.OutputFields["enforce.kill"] != enforce.Killed {
		t.Errorf("alert %+v", a)
	}

	// An agent that starts later raises no alert about what runs or is of the image.
	late := watchMachine(t, c)
	of["bank"].ready(late)
	of["shop"].run("/wait", "/nothing", "again")
	late.wait("Program", "again")
	late.silent(enforce.DriftRule, "")
}

// TestDenyInContainer denies a program that did not come with the image. Where the
// kernel cannot, the program is killed, and that is said.
func TestDenyInContainer(t *testing.T) {
	runtime := containerdtest.Start(t)
	c := configOf(t, programRules)
	c.CRI, c.Match, c.Actions = runtime.Socket, "all", filepath.Join(t.TempDir(), "actions")
	c.ZeroDrift = []enforce.Drift{{Namespaces: []string{"shop"}, Mode: enforce.Deny}, {Mode: enforce.Deny, DryRun: true}}
	l, a := watchMachineAt(t, c, nil)
	shop := workload{runtime, t, runtime.RunPodIn(t, "shop", "shop-1", nil)}
	bank := workload{runtime, t, runtime.RunPodIn(t, "bank", "bank-1", nil)}
	lacks := slices.ContainsFunc(a.source.Status().Features, func(f Feature) bool { return f.Name == "enforce.lsm" && f.Used == "" })
	outcome, rehearsed, rule := enforce.Denied, enforce.WouldDeny, enforce.DeniedRule
	if lacks {
		outcome, rehearsed, rule = enforce.Killed, enforce.WouldKill, enforce.DriftRule
	}
	if said := strings.Contains(strings.Join(newStatus(a).state().Problems, "\n"), "what zeroDrift is to deny is killed instead"); said != lacks {
		t.Errorf("it says %v that the kernel denies nothing, want %v", said, lacks)
	}
	for _, w := range []workload{shop, bank} {
		w.ready(l)
		w.add("/added")
	}
	if lacks {
		if code := shop.run("/added", "/nothing", "in-shop"); code != byKill {
			t.Errorf("the added program ended with %d", code)
		}
	} else if _, err := shop.CRI.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: shop.pod.Container, Cmd: []string{"/added", "/nothing"}, Timeout: 20}); err == nil {
		t.Error("the added program ran")
	}
	act := waitAction(t, c.Actions, func(act enforce.Action) bool { return act.Action == enforce.Deny && act.Outcome == outcome })
	if act.By != "kernel" || act.Exe != "/added" || act.Namespace != "shop" || act.Entry != "zeroDrift[0]" || act.Rule != rule || (act.Reason != "") != lacks {
		t.Errorf("action %+v", act)
	}
	l.want(l.wait(rule, "exe=/added"), map[string]any{"enforce.deny": outcome, "enforce.deny.by": "kernel", "k8s.ns.name": "shop"})
	if code := bank.run("/added", "/nothing", "in-bank"); code == byKill {
		t.Error("a dry run killed")
	}
	l.want(l.wait(enforce.DriftRule, "in-bank"), map[string]any{"enforce.deny": rehearsed, "enforce.deny.by": "kernel"})
	if code := shop.run("/wait", "/nothing", "of-the-image"); code == byKill {
		t.Error("a program of the image was killed")
	}
}

// TestDenialRaisesAnAlert plays the record of a shell to which the kernel denied a
// program: the alert names both.
func TestDenialRaisesAnAlert(t *testing.T) {
	source := intrusion(t)
	source.add(t, "execve", shellKey, 1, "sh", map[string]any{"res": -int(unix.EPERM), "filename": "./miner", "trusted_exepath": "/tmp/miner", "flags": record.ExeAdded})
	source.change(t, func(r *record.Record) {
		r.Result = -int64(unix.EPERM)
		if err := r.SetExtra(record.Enforced, record.IntValue(record.Denied)); err != nil {
			t.Fatal(err)
		}
	})
	c := configOf(t, intrusionRules)
	c.Actions = filepath.Join(t.TempDir(), "actions")
	c.ZeroDrift = []enforce.Drift{{Mode: enforce.Deny}}
	alerts, log := watch(t, c, source, nil)
	i := slices.IndexFunc(alerts, func(a alert.Alert) bool { return a.Rule == enforce.DeniedRule })
	if i < 0 || !strings.Contains(alerts[i].Output, "(exe=/tmp/miner by=") || !strings.Contains(alerts[i].Output, "command=sh -i ") || alerts[i].OutputFields["enforce.deny"] != enforce.Denied {
		t.Errorf("alerts %+v", alerts)
	}
	if strings.Count(log, "this kernel denies no program") != 1 || strings.Count(log, "killed instead") != 1 {
		t.Errorf("that the source cannot deny is to be told once: %s", log)
	}
	if all := actions(t, c.Actions); len(all) != 1 || all[0].Outcome != enforce.Denied || all[0].Exe != "/tmp/miner" || all[0].Command != "sh -i" {
		t.Errorf("actions %+v", all)
	}
}

// TestGap: what the kernel did and no record tells of is known by a second look, for an
// hour, and what is under way is no gap.
func TestGap(t *testing.T) {
	var g gap
	begin := time.Now()
	for _, c := range []struct {
		after         time.Duration
		counted, told uint64
		missing       uint64
		lately        bool
	}{
		{0, 5, 3, 0, false},
		{time.Second, 8, 3, 0, false}, // too soon to say
		{10 * time.Second, 9, 6, 0, false},
		{20 * time.Second, 9, 7, 2, true},
		{21 * time.Second, 9, 7, 2, true},
		{40 * time.Second, 20, 18, 0, false},
		{2 * time.Hour, 20, 18, 2, false},
		{3 * time.Hour, 30, 18, 2, false},
		{4 * time.Hour, 30, 18, 12, true},
	} {
		if missing, lately := g.recent(c.counted, c.told, begin.Add(c.after)); missing != c.missing || lately != c.lately {
			t.Errorf("after %s: %d missing, lately %v, want %d, %v", c.after, missing, lately, c.missing, c.lately)
		}
	}
}
