package sensor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// TestCalls makes calls that change nothing, most of them with arguments that the
// kernel refuses, and holds the parameters of their records.
func TestCalls(t *testing.T) {
	var types []string
	calls := []struct {
		name string
		args []any
		want string
	}{
		{"kill", []any{os.Getpid(), 0}, "res=0 pid=$P sig=0"},
		{"tkill", []any{-1, 9}, "res=-22 tid=-1 sig=9"},
		{"tgkill", []any{os.Getpid(), -1, 9}, "res=-22 pid=$P tid=-1 sig=9"},
		{"unshare", []any{0}, "res=0 flags=0"},
		{"setns", []any{-1, 0x20000}, "res=-9 fd=-1 nstype=131072"},
		{"setuid", []any{0}, "res=0 uid=0"},
		{"setgid", []any{0}, "res=0 gid=0"},
		{"setreuid", []any{-1, -1}, "res=0 ruid=-1 euid=-1"},
		{"setresuid", []any{-1, -1, -1}, "res=0 ruid=-1 euid=-1 suid=-1"},
		{"setresgid", []any{-1, -1, -1}, "res=0 rgid=-1 egid=-1 sgid=-1"},
		{"mount", []any{"source", "/nowhere/at/all", "ext4", 0x1000}, "res=-2 dev=source dir=/nowhere/at/all type=ext4 flags=4096"},
		{"umount2", []any{"/nowhere/at/all", 2}, "res=-2 name=/nowhere/at/all flags=2"},
		{"chroot", []any{"/nowhere/at/all"}, "res=-2 path=/nowhere/at/all"},
		{"ptrace", []any{16, -5, 3, 4}, "res=-3 addr=3 data=4 request=16 pid=-5"},
		{"bpf", []any{-1, 0, 0}, "fd=$R cmd=-1"},
		{"userfaultfd", []any{0x80}, "res=$R flags=128"},
		{"memfd_create", []any{"name", 0x80}, "fd=-22 name=name flags=128"},
		{"prctl", []any{99, 5}, "res=-22 option=99 arg2_int=5"},
		{"seccomp", []any{99, 1}, "res=-22 op=99 flags=1"},
		{"init_module", []any{0, 77, "options"}, "res=$R length=77 uargs=options"},
		{"finit_module", []any{-1, "options", 2}, "res=$R fd=-1 uargs=options flags=2"},
		{"delete_module", []any{"no-such-module", 0x800}, "res=$R name=no-such-module flags=2048"},
		{"pidfd_open", []any{-1, 0}, "fd=-22 pid=-1 flags=0"},
		{"pidfd_getfd", []any{-1, 3, 0}, "fd=-9 pid_fd=-1 target_fd=3 flags=0"},
		{"splice", []any{-1, 0, -2, 0, 5, 1}, "res=-9 fd_in=-1 fd_out=-2 size=5 flags=1"},
		{"close_range", []any{9, 8, 0}, "res=-22 first=9 last=8 flags=0"},
		{"setpgid", []any{-1, 0}, "res=-22 pid=-1 pgid=0"},
		{"shutdown", []any{-1, 1}, "res=-9 fd=-1 how=1"},
		{"process_vm_readv", []any{-1, 0, 0, 0, 0, 0}, "res=$R pid=-1"},
		{"io_uring_setup", []any{0, 0}, "res=$R entries=0"},
		{"execveat", []any{-1, "nothing", 0, 0, 0}, "res=-9"},
		{"reboot", []any{0, 0, 0, 0}, ""},
		{"name_to_handle_at", []any{-1, "x", 0, 0, 0}, ""},
	}
	for _, c := range calls {
		types = append(types, c.name)
	}
	l := start(t, Config{Types: types}, mine)
	if missing := l.Missing(); len(missing) > 0 {
		t.Fatalf("not covered: %v", missing)
	}
	for _, c := range calls {
		err := raw(callNumber(t, c.name), c.args...)
		var errno syscall.Errno
		errors.As(err, &errno)
		result := fmt.Sprint(-int(errno))
		want := strings.NewReplacer("$P", fmt.Sprint(os.Getpid()), "$R", result).Replace(c.want)
		l.wait(c.name+" "+want, func(r *record.Record) bool { return r.Type.String() == c.name && parameters(r) == want })
	}
}

// TestThreadName sets the name of a thread of its own.
func TestThreadName(t *testing.T) {
	l := start(t, Config{Types: []string{"prctl"}}, mine)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		done <- raw(callNumber(t, "prctl"), 15, "kworker/0:1")
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r := l.wait("prctl", func(r *record.Record) bool { return text(t, r.Named("arg2_str")) == "kworker/0:1" })
	if string(r.Name()) != "kworker/0:1" {
		t.Errorf("name %q after the call", r.Name())
	}
}

// TestCapset gives up nothing: it sets what the thread has.
func TestCapset(t *testing.T) {
	l := start(t, Config{Types: []string{"capset"}}, mine)
	if err := raw(callNumber(t, "capset"), 0, 0); err == nil {
		t.Fatal("capset without arguments works")
	}
	r := l.wait("capset", is("capset"))
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for name, line := range map[string]string{"cap_inheritable": "CapInh:", "cap_permitted": "CapPrm:", "cap_effective": "CapEff:"} {
		_, rest, _ := strings.Cut(string(status), line)
		want := strings.Fields(rest)[0]
		if set, _ := r.Named(name).Uint(); fmt.Sprintf("%016x", set) != want {
			t.Errorf("%s %s, want %s", name, fmt.Sprintf("%016x", set), want)
		}
	}
}

// TestOtherIdentities runs a program as another user and as the first of new
// namespaces.
func TestOtherIdentities(t *testing.T) {
	l := start(t, Config{Types: processTypes}, every)
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: 65534, Gid: 65533},
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
	}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	pid := uint32(cmd.Process.Pid)
	begin := l.wait("the fork", of(pid, "clone", "clone3"))
	if flags, _ := begin.Named("flags").Int(); flags&syscall.CLONE_NEWPID == 0 {
		t.Errorf("flags %#x, want a new process namespace", flags)
	}
	if first, _ := begin.Named("pidns_init_start_ts").Uint(); first != begin.Process.Start {
		t.Errorf("the namespace begins at %d, want %d", first, begin.Process.Start)
	}
	r := l.wait("the exec", of(pid, "execve"))
	if r.VPID != 1 || r.VTID != 1 || r.UID != 65534 || r.GID != 65533 {
		t.Errorf("process %d, thread %d, user %d, group %d; want 1, 1, 65534 and 65533", r.VPID, r.VTID, r.UID, r.GID)
	}
	if caps, _ := r.Named("cap_effective").Uint(); caps != 0 {
		t.Errorf("capabilities %#x, want none", caps)
	}
	if flags, _ := r.Named("flags").Int(); flags&record.ExeWritable != 0 {
		t.Errorf("flags %#x: nobody can write to /bin/true", flags)
	}
	for ns, got := range map[string]uint32{"mnt": r.Mnt, "pid": r.PID, "net": r.Net} {
		if own, err := os.Readlink("/proc/self/ns/" + ns); err != nil || got == 0 || own == fmt.Sprintf("%s:[%d]", ns, got) {
			t.Errorf("namespace %s %d, want another than %s (%v)", ns, got, own, err)
		}
	}
}
