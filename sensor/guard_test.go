package sensor

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

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

// runIn runs a command of a shell in a cgroup, in place of the shell.
func runIn(dir, command string) (pid uint32, status syscall.WaitStatus) {
	cmd := exec.Command("/bin/sh", "-c", `echo $$ >"$0/cgroup.procs" && exec `+command, dir)
	_ = cmd.Run()
	status, _ = cmd.ProcessState.Sys().(syscall.WaitStatus)
	return uint32(cmd.Process.Pid), status
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
		pid, status := runIn(dir, command)
		return pid, status.Signaled() && status.Signal() == syscall.SIGKILL
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
	c, err := l.Counters()
	if err != nil || c.Killed != 3 || c.WouldKill != 1 {
		t.Errorf("%d killed, %d in dry runs, want 3 and 1 (%v)", c.Killed, c.WouldKill, err)
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
		"action":     {7, "unshare", 0, 4},
		"denial":     {7, "unshare", 0, Deny},
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

// TestNodeIsSpared: what is in a cgroup only for a moment, as a runtime that
// starts a container, is not killed.
func TestNodeIsSpared(t *testing.T) {
	node, err := FindNode("/proc", "/")
	if err != nil {
		t.Fatal(err)
	}
	l := start(t, Config{Types: append([]string{"mkdir", "mkdirat"}, processTypes...), Enforce: true, Node: node}, every)
	dir, id := cgroup(t)
	if err := l.SetGuards([]Guard{{id, "mkdir", 0, Kill}, {id, "mkdirat", 0, Kill}}); err != nil {
		t.Fatal(err)
	}
	const (
		enter = `echo $$ >"$0/cgroup.procs" && cd "$1" && `
		image = `mount -t tmpfs none "$1" && cd "$1" && mkdir up work root && mount -t overlay none -o lowerdir=/,upperdir=up,workdir=work root && cd root && exec chroot . sh -c '`
	)
	for _, c := range []struct {
		name, script   string
		flags          uintptr
		node, survives bool
	}{
		{"on the node", enter + "mkdir a", 0, true, true},
		{"with mounts of its own", enter + "mkdir a", syscall.CLONE_NEWNS, true, true},
		{"in a container", enter + image + "mkdir /killed'", syscall.CLONE_NEWNS, false, false},
	} {
		cmd := exec.Command("/bin/sh", "-c", c.script, dir, t.TempDir())
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: c.flags}
		out, err := cmd.CombinedOutput()
		if (err == nil) != c.survives {
			t.Errorf("%s: %v %s", c.name, err, out)
		}
		pid := uint32(cmd.Process.Pid)
		made := l.wait("the folder made "+c.name, func(r *record.Record) bool {
			last := text(t, r.Named("path"))
			return (r.Process.TGID == pid || r.Parent.TGID == pid) && (last == "a" || last == "/killed")
		})
		if made.OfNode != c.node {
			t.Errorf("%s: of the node: %v", c.name, made.OfNode)
		}
	}
}

// TestAddedAfterChroot: what is of the image is told by the root that the container
// began with, whatever root a process of it gave itself.
func TestAddedAfterChroot(t *testing.T) {
	node, err := FindNode("/proc", "/")
	if err != nil {
		t.Fatal(err)
	}
	const begin = `set -e
mount -t tmpfs none "$1"; cd "$1"; mkdir lower image
with() { for f in $2; do mkdir -p "$1/$f"; mount --rbind "/$f" "$1/$f"; done; cp /bin/true "$1/$3"; }
overlay() { mkdir -p "$2.up" "$2.work" "$2"; mount -t overlay none -o "lowerdir=$1:/,upperdir=$2.up,workdir=$2.work" "$2"; }
cp /bin/true lower/added-image
`
	const overlaid = begin + `overlay lower image; cp /bin/true image/added-upper
mount -t tmpfs none image/mnt; with image/mnt/volume "lib lib64 usr" added-volume; cp -r lower image/mnt/theirs; mv image/mnt/theirs/added-image image/mnt/theirs/added-own
overlay image/mnt/theirs image/mnt/own
echo $$ >"$0/cgroup.procs"
`
	for _, c := range []struct {
		name, script string
		told         string // what SetRoot is told of, below the folder, by a script that waits for it
		want         map[string]bool
	}{
		{"overlay", overlaid + `exec chroot image sh -c '/added-image; /added-upper; chroot /mnt/volume /added-volume; chroot /mnt/own /added-own; /added-image'`, "",
			map[string]bool{"/added-image": false, "/added-upper": true, "/added-volume": true, "/added-own": true}},
		{"no overlay", begin + `mount -t tmpfs none image; with image "bin lib lib64 usr" added-image
overlay lower image/own; cp /bin/true image/own/added-own; echo $$ >"$0/cgroup.procs"
exec chroot image sh -c '/added-image; chroot /own /added-own'`, "",
			map[string]bool{"/added-image": false, "/added-own": false}},
		{"told of before", overlaid + `cd image; : >"$2"; while [ -e "$2" ]; do sleep 0.1; done; cd ..; chroot image/mnt/volume /added-volume; chroot image /added-image`, "cwd",
			map[string]bool{"/added-volume": true, "/added-image": false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := start(t, Config{Types: processTypes, Enforce: true, Node: node}, func(r *record.Record) bool { return strings.HasPrefix(string(r.Name()), "added") })
			dir, id := cgroup(t)
			flag := filepath.Join(t.TempDir(), "flag")
			cmd := exec.Command("/bin/sh", "-c", c.script, dir, t.TempDir(), flag)
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if c.told != "" {
				for i := 0; i < 500 && !exists(flag); i++ {
					time.Sleep(20 * time.Millisecond)
				}
				if err := errors.Join(l.SetRoot(id, filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), c.told)), os.Remove(flag)); err != nil {
					t.Error(err)
				}
			}
			if err := cmd.Wait(); err != nil {
				if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
					t.Fatalf("no overlay: %v: %s", err, out.String())
				}
				t.Skipf("no overlay: %v: %s", err, out.String())
			}
			for path, want := range c.want {
				l.wait(path, func(r *record.Record) bool { return text(t, r.Named("filename")) == path })
				for _, r := range l.all() {
					if flags, _ := r.Named("flags").Uint(); text(t, r.Named("filename")) == path && flags&record.ExeAdded != 0 != want {
						t.Errorf("%s: flags %#x, want added to be %v", path, flags, want)
					}
				}
			}
		})
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func TestRootDevice(t *testing.T) {
	const mounts = "22 27 0:21 / /proc rw - proc proc rw\n1 1 0:2 / / rw - rootfs rootfs rw\n27 1 259:3 / / rw - ext4 /dev/root rw\nshort\n"
	if n, err := rootDevice(mounts); err != nil || n != 259<<20|3 {
		t.Errorf("have %d, %v", n, err)
	}
	for _, bad := range []string{"", "27 1 x / / rw", "27 1 8:1 / /boot rw"} {
		if _, err := rootDevice(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestSetTypes: calls that are not wanted any more make no records, until they
// are wanted again.
func TestSetTypes(t *testing.T) {
	l := start(t, Config{Types: []string{"mkdirat", "mkdir", "unlinkat", "rmdir"}}, mine)
	dir := t.TempDir()
	made := func() uint64 {
		before := counted(t, l, "mkdirat") + counted(t, l, "mkdir")
		for range 3 {
			if err := errors.Join(os.Mkdir(filepath.Join(dir, "a"), 0o700), os.Remove(filepath.Join(dir, "a"))); err != nil {
				t.Fatal(err)
			}
		}
		return counted(t, l, "mkdirat") + counted(t, l, "mkdir") - before
	}
	for _, c := range []struct {
		types []string
		want  bool
	}{{[]string{"unlinkat", "rmdir"}, false}, {[]string{"mkdir", "mkdirat"}, true}, {nil, false}} {
		if err := l.SetTypes(c.types); err != nil {
			t.Fatal(err)
		}
		if n := made(); n >= 3 != c.want {
			t.Errorf("with types %v %d records were made", c.types, n)
		}
	}
}

func counted(t *testing.T, l *live, typ string) uint64 {
	t.Helper()
	c, err := l.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return c.Types[typ].Made
}

func TestHierarchies(t *testing.T) {
	const (
		v1      = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n"
		unified = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
		v2      = "sysfs /sys sysfs rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n"
	)
	for _, c := range []struct {
		name, mounts, controller string
		want                     Hierarchy
	}{
		{"version 1", v1, "memory", Hierarchy{"/sys/fs/cgroup/memory", ""}},
		{"hybrid", v1 + unified, "memory", Hierarchy{"/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"}},
		{"version 2", v2, "", Hierarchy{"/sys/fs/cgroup", "/sys/fs/cgroup"}},
		{"bound a second time", v2 + "cgroup2 /run/other cgroup2 rw 0 0\n", "", Hierarchy{"/sys/fs/cgroup", "/sys/fs/cgroup"}},
		{"not mounted", "proc /proc proc rw 0 0\nshort line\n", "pids", Hierarchy{}},
	} {
		if have := hierarchies(c.mounts, c.controller); have != c.want {
			t.Errorf("%s: have %+v, want %+v", c.name, have, c.want)
		}
	}
	h, err := FindHierarchy("/proc")
	if err != nil {
		t.Fatal(err)
	}
	controller, _, err := cgroupController()
	if err != nil {
		t.Fatal(err)
	}
	if want := hierarchy(t, controller); h.Records != want {
		t.Errorf("records are of %s, want %s", h.Records, want)
	}
}

// TestUrgentTypes has a reader that else would sleep for longer than the test
// waits.
func TestUrgentTypes(t *testing.T) {
	l := start(t, Config{Types: []string{"mkdir", "mkdirat"}, Flush: 30 * time.Second}, mine)
	dir := t.TempDir()
	// Once the test is over, something has to wake the reader so that it ends.
	t.Cleanup(func() {
		go func() {
			for range 100 {
				_ = os.Mkdir("/", 0o700)
				time.Sleep(20 * time.Millisecond)
			}
		}()
	})
	if err := l.SetUrgent([]string{"mkdir", "mkdirat"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "urgent"), 0o700); err != nil {
		t.Fatal(err)
	}
	l.wait("the folder", func(r *record.Record) bool { return strings.HasSuffix(text(t, r.Named("path")), "urgent") })
	if err := l.SetUrgent([]string{"nonsense"}); err == nil {
		t.Error("a type that does not exist was taken")
	}
}
