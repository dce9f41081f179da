package sensor

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// cgroup makes a cgroup below the test's own, in the hierarchy that records
// name, and returns its folder and number.
func cgroup(t *testing.T) (dir string, id uint64) {
	t.Helper()
	controller, _, err := cgroupController()
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(hierarchy(t, controller), own(t, controller), "kubeguardian-test")
	if err := os.Mkdir(dir, 0o755); errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EACCES) {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatalf("no cgroup of its own: %v", err)
		}
		t.Skipf("no cgroup of its own: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	return dir, st.Ino
}

// hierarchy returns where the hierarchy of a controller is mounted; the unified
// one for none.
func hierarchy(t *testing.T, controller string) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		w := strings.Fields(line)
		if controller == "" && w[2] == "cgroup2" || w[2] == "cgroup" && slices.Contains(strings.Split(w[3], ","), controller) {
			return w[1]
		}
	}
	t.Fatalf("no hierarchy of controller %q", controller)
	return ""
}

// own returns the test's cgroup.
func own(t *testing.T, controller string) string {
	t.Helper()
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(groups)) {
		if w := strings.SplitN(strings.TrimSpace(line), ":", 3); slices.Contains(strings.Split(w[1], ","), controller) {
			return w[2]
		}
	}
	t.Fatalf("no cgroup of controller %q", controller)
	return ""
}

// TestGuards runs programs of a tmpfs and of the system in a cgroup with guards.
func TestGuards(t *testing.T) {
	l := start(t, Config{Types: append([]string{"unshare"}, processTypes...), Enforce: true}, every)
	dir, id := cgroup(t)
	shm, err := os.MkdirTemp("/dev/shm", "sensor-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(shm)
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	drift := filepath.Join(shm, "drift")
	if err := os.WriteFile(drift, program, 0o755); err != nil {
		t.Fatal(err)
	}
	inside := func(command string) (uint32, bool) {
		cmd := exec.Command("/bin/sh", "-c", `echo $$ >"$0/cgroup.procs" && exec `+command, dir)
		err := cmd.Run()
		status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
		return uint32(cmd.Process.Pid), err != nil && ok && status.Signaled() && status.Signal() == syscall.SIGKILL
	}
	for _, c := range []struct {
		name    string
		guard   Guard
		command string
		killed  bool
		mark    int64
	}{
		{"dry run", Guard{id, "execve", record.ExeOnTmpFS, DryRun}, drift, false, record.WouldKill},
		{"kill", Guard{id, "execve", record.ExeOnTmpFS, Kill}, drift, true, record.Killed},
		{"other executable", Guard{id, "execve", record.ExeOnTmpFS, Kill}, "/bin/true", false, 0},
		{"any executable", Guard{id, "execve", 0, Kill}, "/bin/true", true, record.Killed},
		{"other cgroup", Guard{id + 1_000_000, "execve", 0, Kill}, "/bin/true", false, 0},
		{"call", Guard{id, "unshare", 0, Kill}, "unshare -n /bin/true", true, record.Killed},
	} {
		if err := l.SetGuards([]Guard{c.guard}); err != nil {
			t.Fatal(err)
		}
		pid, killed := inside(c.command)
		if killed != c.killed {
			t.Errorf("%s: killed %v, want %v", c.name, killed, c.killed)
		}
		l.wait("the exit of "+c.name, of(pid, "procexit"))
		var mark int64
		for _, r := range l.all() {
			if r.Process.TGID == pid {
				n, _ := r.Extra(record.Enforced).Int()
				mark = max(mark, n)
			}
		}
		if mark != c.mark {
			t.Errorf("%s: mark %d, want %d", c.name, mark, c.mark)
		}
	}
	if err := l.SetGuards(nil); err != nil {
		t.Fatal(err)
	}
	if _, killed := inside(drift); killed {
		t.Error("killed without a guard")
	}
}

func TestGuardsAreChecked(t *testing.T) {
	l := start(t, Config{Types: []string{"unshare", "clone", "nonsense"}, Enforce: true}, mine)
	for name, g := range map[string]Guard{
		"root":       {1, "unshare", 0, Kill},
		"no cgroup":  {0, "unshare", 0, Kill},
		"unknown":    {7, "nonsense", 0, Kill},
		"not loaded": {7, "setns", 0, Kill},
		"fork":       {7, "clone", 0, Kill},
		"action":     {7, "unshare", 0, 3},
	} {
		if err := l.SetGuards([]Guard{g}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	off := start(t, Config{Types: []string{"unshare"}}, mine)
	if err := off.SetGuards([]Guard{{7, "unshare", 0, Kill}}); err == nil {
		t.Error("a guard was taken without enforcement")
	}
}
