package agent

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/enforce"
	"github.com/kubeguardian/kubeguardian/sensor/container/containerdtest"
)

// storm starts short processes, one after the other, until the test ends.
func storm(t *testing.T) {
	t.Helper()
	cmd := exec.Command("bash", "-c", "while :; do /bin/true; (/bin/true); done")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// TestRuntimeRestarts: containerd goes away and comes back while containers run.
func TestRuntimeRestarts(t *testing.T) {
	runtime := containerdtest.Start(t)
	c := configOf(t, programRules)
	c.CRI, c.Match = runtime.Socket, "all"
	c.ZeroDrift = []enforce.Drift{{Mode: enforce.Kill}}
	l := watchMachine(t, c)
	before := workload{runtime, t, runtime.RunPod(t, "before", nil)}
	before.ready(l)
	storm(t)
	runtime.Restart(t)
	if code := before.run("/wait", "/nothing", "after-restart"); code != 1 {
		t.Errorf("the image's own program ended with %d", code)
	}
	a := l.wait("Program", "after-restart")
	if a.Subject.Name != "before" || a.OutputFields["container.pending"] != nil {
		t.Errorf("alert %+v", a)
	}
	after := workload{runtime, t, runtime.RunPod(t, "after", nil)}
	after.ready(l)
	for _, w := range []workload{before, after} {
		l.silent(enforce.DriftRule, w.pod.Container[:12])
		w.add("/added")
		if code := w.run("/added"); code != byKill {
			t.Errorf("in pod %s an added program ended with %d", w.pod.Name, code)
		}
		l.wait(enforce.DriftRule, "pod="+w.pod.Name)
	}
}

// An agentProcess is the agent as a process of its own, which can be killed.
type agentProcess struct {
	*live
	cmd *exec.Cmd
	log bytes.Buffer
}

// startAgent runs a program of the agent until it watches.
func startAgent(t *testing.T, program, config string) *agentProcess {
	t.Helper()
	p := &agentProcess{live: &live{t: t}, cmd: exec.Command(program, "--standalone", "--config", config)}
	logs, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout = p.live
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watching := make(chan bool, 1)
	go func() {
		var line [4096]byte
		told := false
		for {
			n, err := logs.Read(line[:])
			p.log.Write(line[:n])
			if !told && bytes.Contains(p.log.Bytes(), []byte("msg=watching")) {
				told = true
				watching <- true
			}
			if err != nil {
				close(watching)
				return
			}
		}
	}()
	select {
	case ok := <-watching:
		if !ok {
			t.Fatalf("the agent ended: %s", p.log.String())
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("the agent does not watch")
	}
	t.Cleanup(func() { p.end(syscall.SIGTERM) })
	return p
}

func (p *agentProcess) end(s syscall.Signal) {
	_ = p.cmd.Process.Signal(s)
	_ = p.cmd.Wait()
}

const treeRules = programRules + `
- rule: Leaf
  desc: The last of a line of programs
  condition: evt.type in (execve, execveat) and proc.args startswith kubeguardian-leaf
  output: "%proc.args of %proc.pcmdline of %proc.aname[2] of %proc.aname[3]"
  priority: DEBUG
`

// buildAgent builds the agent's program.
func buildAgent(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "kubeguardian-agent")
	if out, err := exec.Command("go", "build", "-o", program, "../cmd/kubeguardian-agent").CombinedOutput(); err != nil {
		t.Fatalf("build the agent: %v\n%s", err, out)
	}
	return program
}

// TestAgentIsKilled kills the agent while processes come and go, and starts it
// again: it knows the ancestors of what began before, and takes nothing that runs
// for drift. Told to end, it ends in order.
func TestAgentIsKilled(t *testing.T) {
	runtime := containerdtest.Start(t)
	program := buildAgent(t)
	c := configOf(t, treeRules)
	c.CRI, c.Match = runtime.Socket, "all"
	c.ZeroDrift = []enforce.Drift{{Mode: enforce.Alert}}
	data, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(config, data, 0o600); err != nil {
		t.Fatal(err)
	}
	w := workload{runtime, t, runtime.RunPod(t, "cart-1", nil)}
	tree := exec.Command("bash", "-c", `bash -c 'sh -c "while read x; do /bin/echo kubeguardian-leaf-\$x; done"; true'; true`)
	orders, err := tree.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		orders.Close()
		_ = tree.Wait()
	})
	storm(t)
	for i := range 3 {
		p := startAgent(t, program, config)
		mark := fmt.Sprintf("round-%d", i)
		if _, err := io.WriteString(orders, mark+"\n"); err != nil {
			t.Fatal(err)
		}
		a := p.wait("Leaf", "kubeguardian-leaf-"+mark)
		if want := "of sh -c while read x; do /bin/echo kubeguardian-leaf-$x; done of bash of bash"; !strings.HasSuffix(a.Output, want) {
			t.Errorf("have %q, want %q", a.Output, want)
		}
		w.ready(p.live)
		if code := w.run("/wait", "/nothing", mark); code != 1 {
			t.Errorf("the image's own program ended with %d", code)
		}
		a = p.wait("Program", "/nothing "+mark)
		if a.Subject.Name != "cart-1" {
			t.Errorf("subject %+v", a.Subject)
		}
		p.silent(enforce.DriftRule, "")
		p.end(syscall.SIGKILL)
	}
	w.add("/added")
	p := startAgent(t, program, config)
	w.ready(p.live)
	w.run("/added", "/nothing")
	p.wait(enforce.DriftRule, "/added")
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // twice in all, as timeout does
	time.Sleep(5 * time.Millisecond)
	if p.end(syscall.SIGTERM); p.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("told to end, it did by %s", p.cmd.ProcessState)
	}
}
