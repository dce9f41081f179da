package process

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// TestFiles opens one descriptor of each type in this process, and expects /proc
// to show them.
func TestFiles(t *testing.T) {
	must := func(fd int, err error) int {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	dir := t.TempDir()
	file, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	pipe := make([]int, 2)
	if err := unix.Pipe(pipe); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	want := map[int64]syscall.FDType{
		int64(file.Fd()): syscall.FDFile,
		int64(pipe[0]):   syscall.FDPipe,
		int64(must(unix.Open(dir, unix.O_DIRECTORY, 0))):                   syscall.FDDirectory,
		int64(must(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0))):        syscall.FDIPv4,
		int64(must(unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0))):        syscall.FDIPv6,
		int64(must(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0))):        syscall.FDUnix,
		int64(must(unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, 0))):        syscall.FDNetlink,
		int64(must(unix.Eventfd(0, 0))):                                    syscall.FDEvent,
		int64(must(unix.EpollCreate1(0))):                                  syscall.FDEventPoll,
		int64(must(unix.InotifyInit())):                                    syscall.FDInotify,
		int64(must(unix.TimerfdCreate(unix.CLOCK_MONOTONIC, 0))):           syscall.FDTimer,
		int64(must(unix.Signalfd(-1, &unix.Sigset_t{}, unix.SFD_CLOEXEC))): syscall.FDSignal,
		int64(must(unix.MemfdCreate("x", 0))):                              syscall.FDMemory,
		int64(must(unix.PidfdOpen(os.Getpid(), 0))):                        syscall.FDPid,
	}
	table := New(Options{Proc: "/proc"})
	if err := table.Snapshot(); err != nil {
		t.Fatal(err)
	}
	p := table.Process(uint32(os.Getpid()))
	if p == nil || p.Files == nil {
		t.Fatalf("this process is not known: %+v", p)
	}
	seen, last := 0, int64(-1)
	p.Files.Each(func(fd *syscall.FD) bool {
		if fd.Num <= last {
			t.Errorf("descriptor %d follows %d", fd.Num, last)
		}
		last = fd.Num
		if wanted, ok := want[fd.Num]; ok {
			seen++
			if fd.Type != wanted || p.Files.Get(fd.Num).Type != wanted {
				t.Errorf("%s is %s, want %s", fd.Name, fd.Type, wanted)
			}
		}
		return true
	})
	if seen != len(want) {
		t.Errorf("%d of %d descriptors are shown", seen, len(want))
	}
	if p.Files.Get(1<<20) != nil {
		t.Error("a descriptor is shown that is not open")
	}
	other := *p
	other.Start += 10 * nanosPerTick
	if later := table.files(other.Key); later.Get(int64(file.Fd())) != nil {
		t.Error("a process with the same id, started later, has the descriptors of this one")
	}
}

// TestFilesOfSockets expects a connection's descriptor to be told from others by
// its number, as rules do.
func TestFilesOfSockets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		if family, err := familyOf(os.Getpid(), int(fd)); err != nil || family != unix.AF_INET {
			t.Errorf("family %d, %v", family, err)
		}
	}); err != nil {
		t.Fatal(err)
	}
}
