package sensor

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// inProcessNamespace runs a test again in a process namespace of its own, with
// other programs outside, and reports whether it is that run.
func inProcessNamespace(t *testing.T) bool {
	t.Helper()
	const inside = "KUBEGUARDIAN_TEST_PROCESS_NAMESPACE"
	if os.Getenv(inside) != "" {
		for _, err := range []error{syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""), syscall.Mount("proc", "/proc", "proc", 0, "")} {
			if err != nil {
				t.Fatal(err)
			}
		}
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Start()
	if err == nil {
		ended := make(chan struct{})
		var beside sync.WaitGroup
		beside.Go(func() { runOutsiders(ended) })
		err = cmd.Wait()
		close(ended)
		beside.Wait()
	}
	switch {
	case errors.Is(err, syscall.EPERM) && os.Getenv("KUBEGUARDIAN_REQUIRE") != "all":
		t.Skip("no namespace of process ids")
	case err == nil && strings.Contains(out.String(), "--- SKIP: "+t.Name()):
		t.Skip(out.String())
	case err != nil || !strings.Contains(out.String(), "--- PASS: "+t.Name()):
		t.Fatalf("%v\n%s", err, &out)
	}
	return false
}

const outsider = "kubeguardian-outsider"

// runOutsiders runs one program after the other until a test has ended.
func runOutsiders(ended <-chan struct{}) {
	for {
		select {
		case <-ended:
			return
		case <-time.After(10 * time.Millisecond):
			_ = (&exec.Cmd{Path: "/bin/true", Args: []string{outsider}}).Run()
		}
	}
}

// TestProcessNamespace: where the sensor is in a process namespace below the
// first one, as on a node that is a container, ids are those of the namespace, and
// what is outside makes no records.
func TestProcessNamespace(t *testing.T) {
	if !inProcessNamespace(t) {
		return
	}
	var types []string
	for _, typ := range record.Types() {
		types = append(types, typ.String())
	}
	l := start(t, Config{Types: types, Enforce: true}, every)
	if missing := l.Missing(); len(missing) > 0 {
		t.Errorf("not covered: %v", missing)
	}
	own := uint32(os.Getpid())
	cmd := exec.Command("/bin/sh", "-c", "mkdir / 2>/dev/null; exit 0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	pid := uint32(cmd.Process.Pid)
	begin, r := l.wait("the fork", of(pid, "clone", "clone3")), l.wait("the exec", of(pid, "execve"))
	if begin.Parent.TGID != own || begin.Parent.Start == 0 || begin.Process != r.Process {
		t.Errorf("process %v began by %v, want one of %d", begin.Process, begin.Parent, own)
	}
	if r.TID != pid || r.VPID != pid || r.VTID != pid || r.SID != pid || r.PGID != pid || r.VPGID != pid || r.Parent != begin.Parent {
		t.Errorf("thread %d, in its namespace %d and %d, session %d, group %d and %d, parent %v; want %d", r.TID, r.VPID, r.VTID, r.SID, r.PGID, r.VPGID, r.Parent, pid)
	}
	if n, _ := r.Named("pid").Int(); n != int64(pid) {
		t.Errorf("parameter pid is %d, want %d", n, pid)
	}
	l.wait("a call", func(r *record.Record) bool {
		return r.Parent.TGID == pid && strings.HasPrefix(r.Type.String(), "mkdir")
	})
	l.wait("the end", of(pid, "procexit"))

	// One that is still further below.
	cmd = exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	pid = uint32(cmd.Process.Pid)
	if r := l.wait("the exec further below", of(pid, "execve")); r.VPID != 1 || r.VTID != 1 || r.TID != pid || r.Parent.TGID != own {
		t.Errorf("process %d, thread %d, in its namespace %d and %d, parent %v; want %d and 1", r.Process.TGID, r.TID, r.VPID, r.VTID, r.Parent, pid)
	}

	for c := (Counters{}); c.Outside == 0; time.Sleep(10 * time.Millisecond) {
		var err error
		if c, err = l.Counters(); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range l.all() {
		if r.Process.TGID == 0 || r.TID == 0 || r.Parent.TGID == 0 && r.Process.TGID != 1 {
			t.Errorf("%s of process %v, thread %d, parent %v", r.Type, r.Process, r.TID, r.Parent)
		}
		if text(t, r.Named("exe")) == outsider {
			t.Errorf("a record of a process outside: %s of %v", r.Type, r.Process)
		}
	}
}
