package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/sensor"
	"github.com/kubeguardian/kubeguardian/sensor/container/containerdtest"
)

// A live agent watches this machine for the time of a test.
type live struct {
	t    *testing.T
	from *live // whose alerts these are, of a test within it; nil for its own
	mu   sync.Mutex
	out  bytes.Buffer
}

func (l *live) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(b)
}

// watchMachine runs an agent with the sensor in the kernel, or skips the test where
// that is not allowed.
func watchMachine(t *testing.T, c *Config) *live {
	t.Helper()
	l, _ := watchMachineAt(t, c, nil)
	return l
}

// watchMachineAt does the same with another pace of the budget.
func watchMachineAt(t *testing.T, c *Config, p *pace) (*live, *Agent) {
	t.Helper()
	if testing.Short() {
		t.Skip("watches the whole machine")
	}
	l := &live{t: t}
	a, err := New(Options{Config: c, Out: l, Log: slog.New(slog.DiscardHandler), Open: OpenSensor})
	if errors.Is(err, unix.EPERM) || errors.Is(err, os.ErrNotExist) || errors.Is(err, sensor.ErrNotSupported) {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatalf("no programs in the kernel: %v", err)
		}
		t.Skipf("no programs in the kernel: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if p != nil {
		a.shedder.pace = *p
		a.shedder.take(a.ruling.Load())
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l, a
}

func (l *live) alerts() []alert.Alert {
	if l.from != nil {
		return l.from.alerts()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []alert.Alert
	for line := range strings.Lines(l.out.String()) {
		var a alert.Alert
		if strings.HasSuffix(line, "\n") && json.Unmarshal([]byte(line), &a) == nil {
			out = append(out, a)
		}
	}
	return out
}

// wait returns the first alert of a rule whose output has a text.
func (l *live) wait(rule, text string) alert.Alert {
	l.t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, a := range l.alerts() {
			if a.Rule == rule && strings.Contains(a.Output, text) {
				return a
			}
		}
	}
	l.t.Fatalf("no alert of rule %q with %q among %+v", rule, text, l.alerts())
	return alert.Alert{}
}

// silent fails if a rule has raised an alert with a text. It is asked after an
// event that happened later has raised one.
func (l *live) silent(rule, text string) {
	l.t.Helper()
	for _, a := range l.alerts() {
		if a.Rule == rule && strings.Contains(a.Output, text) {
			l.t.Errorf("alert %s: %s", a.Rule, a.Output)
		}
	}
}

func (l *live) want(a alert.Alert, fields map[string]any) {
	l.t.Helper()
	for name, want := range fields {
		if have := a.OutputFields[name]; have != want {
			l.t.Errorf("%s: %s is %v, want %v", a.Rule, name, have, want)
		}
	}
}

const hostRules = `
- rule: Shell on a socket
  desc: Whoever is at the other end of a connection has a shell
  condition: evt.type in (execve, execveat) and proc.name in (sh, dash, bash) and proc.stdin.type in (ipv4, ipv6)
  output: "shell (%proc.cmdline parent=%proc.pcmdline stdin=%proc.stdin.name user=%user.name)"
  priority: CRITICAL
- rule: Passwords read
  desc: A file with passwords is read
  condition: evt.type in (open, openat, openat2) and evt.is_open_read = true and fd.name endswith /kubeguardian-test/shadow
  output: "read (%proc.cmdline %proc.pname %proc.exepath %fd.name as %fd.nameraw %evt.res)"
  priority: WARNING
- rule: Program in memory
  desc: A program that no file holds runs
  condition: evt.type in (execve, execveat) and proc.is_exe_from_memfd = true
  output: "fileless (%proc.cmdline parent=%proc.pcmdline)"
  priority: CRITICAL
- rule: Connection to the drop
  desc: A connection to where things are dropped
  condition: evt.type = connect and fd.sip = 127.0.0.9
  output: "connection (%fd.name %fd.l4proto %proc.name)"
  priority: NOTICE
- rule: Leaf
  desc: The last of a line of programs
  condition: evt.type in (execve, execveat) and proc.args startswith kubeguardian-leaf
  output: "%proc.args of %proc.pcmdline of %proc.aname[2]"
  priority: DEBUG
- rule: End
  desc: Everything before has happened
  condition: evt.type in (execve, execveat) and proc.args contains kubeguardian-end
  output: "%proc.args"
  priority: DEBUG
`

// finish makes an event of each of several new processes and waits for all, so
// that what was made before has been read, whichever buffer it was in.
func (l *live) finish() {
	l.t.Helper()
	for i := range 16 {
		mark := fmt.Sprintf("kubeguardian-end-%d-%d", os.Getpid(), i)
		if err := exec.Command("/bin/echo", mark).Run(); err != nil {
			l.t.Fatal(err)
		}
		l.wait("End", mark)
	}
}

func TestLiveHost(t *testing.T) {
	c := configOf(t, hostRules)
	c.Match = "all"
	l := watchMachine(t, c)

	t.Run("shell on a socket", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		file, err := conn.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		run(t, nil, "sh", "-c", "true; : benign twin")
		run(t, file, "sh", "-c", "true; : reverse")
		a := l.wait("Shell on a socket", ": reverse")
		name := conn.LocalAddr().String() + "->" + ln.Addr().String()
		l.want(a, map[string]any{"proc.stdin.name": name, "user.name": "root"})
		if parent := a.OutputFields["proc.pcmdline"].(string); !strings.HasSuffix(strings.Fields(parent)[0], filepath.Base(os.Args[0])[:min(15, len(filepath.Base(os.Args[0])))]) {
			t.Errorf("parent %q", parent)
		}
		l.finish()
		l.silent("Shell on a socket", "benign twin")
	})

	// Each program is new, and its parent too, when it starts.
	t.Run("ancestors", func(t *testing.T) {
		for i := range 30 {
			leaf := fmt.Sprintf("kubeguardian-leaf-%d", i)
			run(t, nil, "bash", "-c", fmt.Sprintf("sh -c '/bin/echo %s; true'; true", leaf))
			a := l.wait("Leaf", leaf+" ")
			if want := fmt.Sprintf("%s of sh -c /bin/echo %s; true of bash", leaf, leaf); !strings.HasSuffix(a.Output, want) {
				t.Errorf("have %q, want %q", a.Output, want)
			}
		}
	})

	t.Run("passwords read", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "kubeguardian-test")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"shadow", "other"} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cat := exec.Command("cat", "other", "../kubeguardian-test/./shadow")
		cat.Dir = dir
		if err := cat.Run(); err != nil {
			t.Fatal(err)
		}
		path, err := exec.LookPath("cat")
		if err != nil {
			t.Fatal(err)
		}
		if path, err = filepath.EvalSymlinks(path); err != nil {
			t.Fatal(err)
		}
		a := l.wait("Passwords read", "shadow")
		l.want(a, map[string]any{
			"proc.cmdline": "cat other ../kubeguardian-test/./shadow", "proc.exepath": path, "evt.res": "SUCCESS",
			"fd.name": filepath.Join(dir, "shadow"), "fd.nameraw": "../kubeguardian-test/./shadow",
		})
		l.finish()
		if n := len(slices.DeleteFunc(l.alerts(), func(a alert.Alert) bool { return a.Rule != "Passwords read" })); n != 1 {
			t.Errorf("%d alerts", n)
		}
	})

	t.Run("program in memory", func(t *testing.T) {
		fd, err := unix.MemfdCreate("hidden", 0)
		if err != nil {
			t.Fatal(err)
		}
		memory := os.NewFile(uintptr(fd), "hidden")
		defer memory.Close()
		program, err := os.Open("/bin/true")
		if err != nil {
			t.Fatal(err)
		}
		defer program.Close()
		if _, err := io.Copy(memory, program); err != nil {
			t.Fatal(err)
		}
		run(t, nil, "/bin/true", "benign-twin")
		run(t, nil, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd), "fileless-program")
		l.wait("Program in memory", "fileless-program")
		l.finish()
		l.silent("Program in memory", "benign-twin")
	})

	t.Run("connection", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.9:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		port := ln.Addr().(*net.TCPAddr).Port
		run(t, nil, "bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/127.0.0.9/%d", port))
		a := l.wait("Connection to the drop", "tcp bash")
		if name := a.OutputFields["fd.name"].(string); !strings.HasSuffix(name, fmt.Sprintf("->127.0.0.9:%d", port)) {
			t.Errorf("connection %q", name)
		}
	})
}

func run(t *testing.T, stdin *os.File, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	if stdin != nil {
		cmd.Stdin = stdin
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

const containerRules = `
- rule: Drift
  desc: A program that did not come with the image runs in a container
  condition: evt.type in (execve, execveat) and container.id != host and proc.is_exe_upper_layer = true
  output: >
    drift (%proc.cmdline parent=%proc.pcmdline user=%user.name user_uid=%user.uid
    container=%container.id %container.name %container.image.repository %container.image.tag pod=%k8s.pod.name %k8s.ns.name %k8s.pod.uid)
  priority: CRITICAL
- rule: Program
  desc: Any program in a container
  condition: evt.type in (execve, execveat) and container.id != host
  output: "program (%proc.cmdline %proc.is_exe_lower_layer)"
  priority: DEBUG
`

// TestLiveContainer finds a program that was put into a running container, and
// says which pod it is, of which image, and who ran it.
func TestLiveContainer(t *testing.T) {
	runtime := containerdtest.Start(t)
	c := configOf(t, containerRules)
	c.Match, c.CRI = "all", runtime.Socket
	l := watchMachine(t, c)
	pod := runtime.RunPod(t, "cart-1", func(config *cri.ContainerConfig) {
		config.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: 7}
	})
	// The first program of the container is known to be its own.
	first := l.wait("Program", "program (wait")
	if len(first.OutputFields) == 0 {
		t.Error("no fields")
	}

	root := fmt.Sprintf("/proc/%d/root", runtime.PID(t, pod.Container))
	program, err := os.ReadFile(root + "/wait")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/miner", program, 0o755); err != nil {
		t.Fatal(err)
	}
	execute := func(command ...string) {
		// It ends with an error, as there is no such program as /nothing.
		if _, err := runtime.CRI.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: pod.Container, Cmd: command, Timeout: 20}); err != nil {
			t.Fatal(err)
		}
	}
	execute("/wait", "/wait", "/nothing", "twin")
	// An alert does not wait for the container's files, which may take a moment
	// when the machine has much to do: the name of its user may come with a later one.
	var a alert.Alert
	argument := ""
	for try := range 20 {
		argument = fmt.Sprint("drift-", try)
		execute("/wait", "/miner", "/nothing", argument)
		if a = l.wait("Drift", "miner /nothing "+argument); a.OutputFields["user.name"] != nil {
			break
		}
	}
	l.want(a, map[string]any{
		"proc.cmdline": "miner /nothing " + argument, "proc.pcmdline": "wait /miner /nothing " + argument, "user.name": "app", "user.uid": 7.0,
		"container.id": pod.Container[:12], "container.name": "web", "container.image.repository": "registry.test:5000/team/wait", "container.image.tag": "1.2",
		"k8s.pod.name": "cart-1", "k8s.ns.name": "shop", "k8s.pod.uid": pod.UID, "container.pending": nil,
	})
	if a.Subject.Kind != "Pod" || a.Subject.Name != "cart-1" || a.Subject.Namespace != "shop" || a.Subject.Container != "web" {
		t.Errorf("subject %+v", a.Subject)
	}
	l.wait("Program", "wait /nothing twin")
	l.silent("Drift", "twin")
	l.silent("Drift", "program (wait")
}
