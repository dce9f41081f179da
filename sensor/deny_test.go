package sensor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// denies reports whether the kernel denies. Where bpf is among its security modules
// it has to, but for arm64, whose older kernels attach nothing there; where it does
// not, the sensor has to say so by name.
func denies(t *testing.T, s *Sensor) bool {
	t.Helper()
	modules, err := os.ReadFile("/sys/kernel/security/lsm")
	can := s.CanDeny()
	t.Logf("security modules %q (%v), the sensor says: %v", modules, err, can)
	if can != nil && strings.Contains(string(modules), "bpf") && runtime.GOARCH == "amd64" {
		t.Errorf("the kernel has BPF among its security modules, but: %v", can)
	}
	for _, f := range s.Features() {
		if f.Name == "enforce.lsm" {
			if (f.Err == nil) != (can == nil) || (f.Using == "lsm") != (can == nil) {
				t.Errorf("feature %+v, %v", f, can)
			}
			return can == nil
		}
	}
	t.Fatalf("no feature enforce.lsm among %+v", s.Features())
	return false
}

// added writes programs that no image has: on tmpfs, in memory, and a script of each
// kind.
func added(t *testing.T) (program, memory, script, interpreted string) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sensor-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	code, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	program, script, interpreted = filepath.Join(dir, "added"), filepath.Join(dir, "script"), filepath.Join(dir, "interpreted")
	fd, err := unix.MemfdCreate("added", 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	memory = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
	for name, data := range map[string]string{program: string(code), memory: string(code), script: "#!/bin/sh\ntrue\n", interpreted: "#!" + program + "\n"} {
		if err := os.WriteFile(name, []byte(data), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return program, memory, script, interpreted
}

// TestDeny runs programs in a cgroup with guards that deny. Where the kernel cannot,
// they kill.
func TestDeny(t *testing.T) {
	l := start(t, Config{Types: processTypes, Enforce: true, Deny: true}, every)
	can := denies(t, l.Sensor)
	dir, id := cgroup(t)
	program, memory, script, interpreted := added(t)
	denied, killed := 0, 0
	for _, c := range []struct {
		name    string
		guard   Guard
		command string
		denied  bool
		path    string
	}{
		{"on tmpfs", Guard{id, "execve", record.ExeOnTmpFS, Deny}, program, true, program},
		{"in memory", Guard{id, "execve", record.ExeMemFD, Deny}, memory, true, "/memfd:added (deleted)"},
		{"of a script", Guard{id, "execve", record.ExeOnTmpFS, Deny}, interpreted, true, program},
		{"any", Guard{id, "execve", 0, Deny}, "/bin/true", true, ""},
		{"a script", Guard{id, "execve", record.ExeOnTmpFS, Deny}, script, false, ""},
		{"another program", Guard{id, "execve", record.ExeOnTmpFS, Deny}, "/bin/true", false, ""},
		{"another call", Guard{id, "execveat", 0, Deny}, "/bin/true", false, ""},
		{"another cgroup", Guard{id + 1_000_000, "execve", 0, Deny}, "/bin/true", false, ""},
		{"dry run", Guard{id, "execve", record.ExeOnTmpFS, DryRun}, program, false, ""},
	} {
		if err := l.SetGuards([]Guard{c.guard}); err != nil {
			t.Fatal(err)
		}
		pid, status := runIn(dir, c.command)
		l.wait("the exit of "+c.name, of(pid, "procexit"))
		ended := status.Exited() && status.ExitStatus() == 0
		mark, want := int64(0), int64(0)
		var marked *record.Record
		for _, r := range l.all() {
			if n, ok := r.Extra(record.Enforced).Int(); ok && r.Process.TGID == pid {
				mark, marked = n, r
			}
		}
		switch {
		case c.guard.Action == DryRun:
			want = record.WouldKill
		case c.denied && can:
			want = record.Denied
			denied++
			if !status.Exited() || status.ExitStatus() != 126 {
				t.Errorf("%s: the shell ended with %v, want that it could not run it", c.name, status)
			}
		case c.denied:
			want = record.Killed
			killed++
		}
		if ended == c.denied || mark != want {
			t.Errorf("%s: ran %v, mark %d, want %v and %d", c.name, ended, mark, !c.denied, want)
		}
		if mark != record.Denied {
			continue
		}
		flags, _ := marked.Named("flags").Uint()
		path := text(t, marked.Named("trusted_exepath"))
		if marked.Result != -int64(syscall.EPERM) || uint32(flags)&c.guard.Executables != c.guard.Executables || c.path != "" && path != c.path {
			t.Errorf("%s: result %d, flags %#x, path %s", c.name, marked.Result, flags, path)
		}
	}
	c, err := l.Counters()
	if err != nil || c.Denied != uint64(denied) || c.Killed != uint64(killed) || c.WouldKill != 1 {
		t.Errorf("%d denied, %d killed, %d in dry runs, want %d, %d and 1 (%v)", c.Denied, c.Killed, c.WouldKill, denied, killed, err)
	}
}

// TestDenySparesTheNode: a guard that denies each program denies none of the node,
// nor what the sensor itself runs.
func TestDenySparesTheNode(t *testing.T) {
	node, err := FindNode("/proc", "/")
	if err != nil {
		t.Fatal(err)
	}
	l := start(t, Config{Types: processTypes, Enforce: true, Deny: true, Node: node}, every)
	can := denies(t, l.Sensor)
	dir, id := cgroup(t)
	if err := l.SetGuards([]Guard{{id, "execve", 0, Deny}}); err != nil {
		t.Fatal(err)
	}
	if _, status := runIn(dir, "/bin/true"); !status.Exited() || status.ExitStatus() != 0 {
		t.Errorf("a program of the node ended with %v", status)
	}
	work := t.TempDir()
	pid, status := runIn(dir, fmt.Sprintf(`unshare --mount /bin/sh -c 'mount -t tmpfs none %s && cd %[1]s && mkdir up work root &&
		mount -t overlay none -o lowerdir=/,upperdir=up,workdir=work root && exec chroot root true'`, work))
	l.wait("the exit", of(pid, "procexit"))
	if want := map[bool]int{true: 126, false: -1}[can]; status.ExitStatus() != want {
		t.Errorf("a program of a container ended with %v, want %d", status, want)
	}
}

// TestDenyIsOptional: nothing is loaded that was not asked for.
func TestDenyIsOptional(t *testing.T) {
	l := start(t, Config{Types: processTypes, Enforce: true}, mine)
	for _, f := range l.Features() {
		if f.Name == "enforce.lsm" {
			t.Errorf("feature %+v", f)
		}
	}
	if l.programs[denyProgram] != nil || l.CanDeny() == nil {
		t.Error("the sensor can deny without having been told to")
	}
}

// TestNothingRuns: the file that is tried fails for what it is, also where no file in
// memory may be run.
func TestNothingRuns(t *testing.T) {
	const inside = "KUBEGUARDIAN_TEST_NOTHING_RUNS"
	const setting = "/proc/sys/vm/memfd_noexec" // of this namespace of process ids
	if os.Getenv(inside) != "" {
		if err := os.WriteFile(setting, []byte("2"), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.MemfdCreate("x", unix.MFD_EXEC); err == nil {
			t.Fatal("a file in memory may be run")
		}
	}
	if err := execNothing(); !errors.Is(err, unix.ENOEXEC) {
		t.Errorf("have %v, want %v", err, unix.ENOEXEC)
	}
	if os.Getenv(inside) != "" || !exists(setting) { // of Linux 6.3
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestNothingRuns$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) && os.Getenv("KUBEGUARDIAN_REQUIRE") != "all" {
		t.Skipf("no namespace of its own: %v", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: TestNothingRuns") {
		t.Errorf("%v\n%s", err, out)
	}
}
