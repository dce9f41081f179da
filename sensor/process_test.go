package sensor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

var processTypes = []string{"clone", "clone3", "fork", "vfork", "execve", "execveat", "procexit"}

// run starts a command and returns its process id.
func run(t *testing.T, cmd *exec.Cmd) uint32 {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil && cmd.ProcessState == nil {
		t.Fatalf("%v: %v: %s", cmd.Args, err, out)
	}
	return uint32(cmd.Process.Pid)
}

func of(pid uint32, names ...string) func(*record.Record) bool {
	return func(r *record.Record) bool { return r.Process.TGID == pid && slices.Contains(names, r.Type.String()) }
}

func every(*record.Record) bool { return true }

func TestProcess(t *testing.T) {
	l := start(t, Config{Types: processTypes, Environment: true}, every)
	dir := t.TempDir()
	long := strings.Repeat("x", 3000)
	cmd := exec.Command("/bin/sh", "-c", "exit 7", "name", long, "")
	cmd.Dir = dir
	cmd.Env = []string{"MARK=found", "EMPTY="}
	pid := run(t, cmd)

	begin := l.wait("the fork", of(pid, "clone", "clone3", "fork", "vfork"))
	if begin.Parent.TGID != uint32(os.Getpid()) {
		t.Errorf("parent %d, want %d", begin.Parent.TGID, os.Getpid())
	}
	start := l.wait("the exec", of(pid, "execve"))
	if start.Process != begin.Process || start.Parent != begin.Parent {
		t.Errorf("exec of %v under %v, want %v under %v", start.Process, start.Parent, begin.Process, begin.Parent)
	}
	var args []string
	for arg := range start.Named("args").Strings() {
		args = append(args, string(arg))
	}
	if want := []string{"-c", "exit 7", "name", long, ""}; !slices.Equal(args, want) {
		t.Errorf("arguments %q, want %q", args, want)
	}
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	shell, err = filepath.EvalSymlinks(shell)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"exe": "/bin/sh", "cwd": dir, "comm": "sh", "filename": "/bin/sh", "trusted_exepath": shell, "env": "MARK=found\x00EMPTY=\x00"} {
		if got := text(t, start.Named(name)); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	end := l.wait("the exit", of(pid, "procexit"))
	if code, _ := end.Named("ret").Int(); code != 7 || end.Process != begin.Process {
		t.Errorf("exit %d of %v, want 7 of %v", code, end.Process, begin.Process)
	}
	if begin.Time > start.Time || start.Time > end.Time {
		t.Errorf("times %d, %d, %d are out of order", begin.Time, start.Time, end.Time)
	}
}

// TestHeader holds the header against what /proc says.
func TestHeader(t *testing.T) {
	l := start(t, Config{Types: []string{"chdir"}}, mine)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := syscall.Chdir("."); err != nil {
		t.Fatal(err)
	}
	r := l.wait("chdir", is("chdir"))
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	var name, state string
	var pid, parent, group, session, tty uint32
	if _, err := fmt.Sscan(string(stat), &pid, &name, &state, &parent, &group, &session, &tty); err != nil {
		t.Fatal(err)
	}
	after := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	if got := fmt.Sprint(r.Process.Ticks()); got != after[19] {
		t.Errorf("start %s ticks, want %s", got, after[19])
	}
	for what, c := range map[string][2]uint32{
		"pid": {r.Process.TGID, pid}, "parent": {r.Parent.TGID, parent}, "group": {r.PGID, group}, "session": {r.SID, session},
		"tty": {r.TTY, tty}, "uid": {r.UID, uint32(os.Geteuid())}, "gid": {r.GID, uint32(os.Getegid())},
	} {
		if c[0] != c[1] {
			t.Errorf("%s %d, want %d", what, c[0], c[1])
		}
	}
	for ns, got := range map[string]uint32{"mnt": r.Mnt, "pid": r.PID, "net": r.Net, "user": r.User} {
		want, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprintf("%s:[%d]", ns, got) != want {
			t.Errorf("namespace %s %d, want %s", ns, got, want)
		}
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/comm", r.TID))
	if err != nil || string(r.Name()) != strings.TrimSpace(string(comm)) {
		t.Errorf("name %q, want %q (%v)", r.Name(), comm, err)
	}
}

func TestFailedExec(t *testing.T) {
	l := start(t, Config{Types: processTypes}, every)
	name := filepath.Join(t.TempDir(), "none")
	if err := exec.Command("/bin/sh", "-c", "exec "+name).Run(); err == nil {
		t.Fatal("a program that does not exist ran")
	}
	r := l.wait("the failure", func(r *record.Record) bool { return text(t, r.Named("filename")) == name })
	if r.Result != -int64(syscall.ENOENT) || !r.Named("trusted_exepath").Missing() {
		t.Errorf("result %d, want ENOENT and no executable", r.Result)
	}
}

func TestSignalledExit(t *testing.T) {
	l := start(t, Config{Types: processTypes}, every)
	pid := run(t, exec.Command("/bin/sh", "-c", "kill -9 $$"))
	r := l.wait("the exit", of(pid, "procexit"))
	if sig, _ := r.Named("sig").Int(); sig != 9 {
		t.Errorf("signal %d, want 9", sig)
	}
}

func TestStandardStreams(t *testing.T) {
	l := start(t, Config{Types: processTypes}, every)
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	end := os.NewFile(uintptr(pair[0]), "end")
	defer end.Close()
	defer syscall.Close(pair[1])
	cmd := exec.Command("/bin/true")
	cmd.Stdin, cmd.Stdout = end, file
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	r := l.wait("the exec", of(uint32(cmd.Process.Pid), "execve"))
	in, _ := r.Extra(record.Stdin).File()
	out, _ := r.Extra(record.Stdout).File()
	if in.Kind != 'u' || in.Socket.Family != record.FamilyUnix || !in.Socket.Connected {
		t.Errorf("standard input %c %+v, want a connected Unix socket", in.Kind, in.Socket)
	}
	if out.Kind != 'f' || string(out.Name) != file.Name() {
		t.Errorf("standard output %c %q, want %q", out.Kind, out.Name, file.Name())
	}
}

// TestDrift runs a program from memory, from both layers of an overlay and from
// tmpfs.
func TestDrift(t *testing.T) {
	l := start(t, Config{Types: append([]string{"openat"}, processTypes...)}, func(r *record.Record) bool {
		return strings.HasPrefix(string(r.Name()), "drift") || string(r.Name()) == "cat"
	})
	dir := t.TempDir()
	const script = `set -e
mount -t tmpfs none "$1"; cd "$1"; mkdir lower upper work merged
cp /bin/true lower/drift-lower; cp /bin/true drift-tmpfs; ./drift-tmpfs
mount -t overlay none -o lowerdir=lower,upperdir=upper,workdir=work merged
cp /bin/true merged/drift-upper
merged/drift-lower; merged/drift-upper; cat merged/drift-upper >/dev/null`
	cmd := exec.Command("/bin/sh", "-c", script, "sh", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatalf("no overlay: %v: %s", err, out)
		}
		t.Skipf("no overlay: %v: %s", err, out)
	}
	for name, want := range map[string]int64{"drift-lower": record.ExeLower, "drift-upper": record.ExeUpper, "drift-tmpfs": record.ExeOnTmpFS} {
		r := l.wait(name, func(r *record.Record) bool { return string(r.Name()) == name && r.Type.String() == "execve" })
		flags, _ := r.Named("flags").Int()
		if flags&^record.ExeWritable != want {
			t.Errorf("%s: flags %#x, want %#x", name, flags, want)
		}
	}
	r := l.wait("the read of the upper layer", func(r *record.Record) bool {
		return string(r.Name()) == "cat" && text(t, r.Named("name")) == "merged/drift-upper"
	})
	if state, _ := r.Extra(record.FileState).Int(); state != record.Upper {
		t.Errorf("state %d, want the upper layer", state)
	}
}

// TestAdded runs programs where the root is an overlay, as in a container: of the
// image, put there later, and from another file system.
func TestAdded(t *testing.T) {
	l := start(t, Config{Types: processTypes}, func(r *record.Record) bool { return strings.HasPrefix(string(r.Name()), "added") })
	const script = `set -e
mount -t tmpfs none "$1"; cd "$1"; mkdir lower upper work merged; cp /bin/true lower/added-never
mount -t overlay none -o lowerdir=lower:/,upperdir=upper,workdir=work merged
cp /bin/true merged/added-upper; mount -t tmpfs none merged/mnt; cp /bin/true merged/mnt/added-tmpfs
for p in /added-never /added-upper /mnt/added-tmpfs; do chroot merged $p; done; lower/added-never on-host`
	cmd := exec.Command("/bin/sh", "-c", script, "sh", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatalf("no overlay: %v: %s", err, out)
		}
		t.Skipf("no overlay: %v: %s", err, out)
	}
	for path, want := range map[string]bool{"/added-never": false, "/added-upper": true, "/mnt/added-tmpfs": true, "lower/added-never": false} {
		r := l.wait(path, func(r *record.Record) bool { return text(t, r.Named("filename")) == path })
		if flags, _ := r.Named("flags").Uint(); flags&record.ExeAdded != 0 != want {
			t.Errorf("%s: flags %#x, want added to be %v", path, flags, want)
		}
	}
}

func TestMemoryFile(t *testing.T) {
	l := start(t, Config{Types: processTypes}, every)
	name, err := syscall.BytePtrFromString("drift-memory")
	if err != nil {
		t.Fatal(err)
	}
	number, _, errno := syscall.Syscall(callNumber(t, "memfd_create"), uintptr(unsafe.Pointer(name)), 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	fd := int(number)
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Write(fd, program); err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "memory")
	defer file.Close()
	cmd := exec.Command("/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{file}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	r := l.wait("the exec", of(uint32(cmd.Process.Pid), "execve"))
	flags, _ := r.Named("flags").Int()
	if flags&record.ExeMemFD == 0 || text(t, r.Named("trusted_exepath")) != "memfd:drift-memory" {
		t.Errorf("flags %#x path %q, want a file in memory", flags, text(t, r.Named("trusted_exepath")))
	}
}

// TestOrder holds that the records of each thread come in the order in which
// they were made, across the two buffers of a partition, and that nothing of a
// process comes before its begin.
func TestOrder(t *testing.T) {
	l := start(t, Config{Types: append([]string{"openat", "chdir", "dup2"}, processTypes...), Watermark: 1}, every)
	pid := run(t, exec.Command("/bin/sh", "-c", "i=0; while [ $i -lt 100 ]; do cat /dev/null; i=$((i+1)); done"))
	l.wait("the exit", of(pid, "procexit"))
	last, begun := map[uint32]uint64{}, map[record.Key]bool{}
	children := 0
	for _, r := range l.all() {
		if r.Time < last[r.TID] {
			t.Errorf("%s of %d comes after what was later", r.Type, r.TID)
		}
		last[r.TID] = r.Time
		switch r.Type.String() {
		case "clone", "clone3", "fork", "vfork":
			begun[r.Process] = true
			if r.Parent.TGID == pid {
				children++
			}
		default:
			if r.Parent.TGID == pid && !begun[r.Process] {
				t.Errorf("%s of %v comes before its begin", r.Type, r.Process)
			}
		}
	}
	if children != 100 {
		t.Errorf("%d children, want 100", children)
	}
}
