package process

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// maxDescriptors bounds the descriptors of a process that are looked at.
const maxDescriptors = 4096

// files are the open descriptors of a process, as /proc shows them at the moment
// when a rule asks: records have only what they are about. Of a process that has
// ended there are none.
type files struct {
	proc  string
	pid   int32
	ticks uint64 // start of the process, so that another one with its id is not meant
}

func (t *Table) files(k syscall.Key) syscall.Descriptors {
	return &files{t.proc, k.PID, k.Start / nanosPerTick}
}

// Get implements [syscall.Descriptors].
func (o *files) Get(num int64) *syscall.FD {
	fd := o.show(num)
	if fd == nil || !o.same() {
		return nil
	}
	return fd
}

// Each implements [syscall.Descriptors].
func (o *files) Each(see func(*syscall.FD) bool) {
	dir, err := os.Open(o.path())
	if err != nil {
		return
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(maxDescriptors) // of what ends meanwhile there are fewer
	var found []*syscall.FD
	for _, name := range names {
		if num, err := strconv.ParseInt(name, 10, 32); err == nil {
			if fd := o.show(num); fd != nil {
				found = append(found, fd)
			}
		}
	}
	if !o.same() {
		return
	}
	slices.SortFunc(found, func(a, b *syscall.FD) int { return int(a.Num - b.Num) })
	for _, fd := range found {
		if !see(fd) {
			return
		}
	}
}

func (o *files) path() string { return filepath.Join(o.proc, strconv.Itoa(int(o.pid)), "fd") }

// same reports whether the process still runs.
func (o *files) same() bool {
	text, err := readProc(filepath.Join(o.proc, strconv.Itoa(int(o.pid)), "stat"))
	if err != nil {
		return false
	}
	st, err := parseStat(text)
	return err == nil && st.ticks == o.ticks
}

// show returns what a descriptor is, nil if it is not open.
func (o *files) show(num int64) *syscall.FD {
	path := filepath.Join(o.path(), strconv.FormatInt(num, 10))
	name, err := os.Readlink(path)
	if err != nil {
		return nil
	}
	fd := &syscall.FD{Num: num, Name: name, Type: syscall.FDFile}
	switch {
	case strings.HasPrefix(name, "socket:["):
		fd.Type = o.socket(num)
	case strings.HasPrefix(name, "pidfd:["):
		fd.Type = syscall.FDPid
	case strings.HasPrefix(name, "/memfd:"):
		fd.Type = syscall.FDMemory
	case strings.HasPrefix(name, "anon_inode:"):
		fd.Type = anonymous(strings.Trim(strings.TrimPrefix(name, "anon_inode:"), "[]"))
	default:
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			fd.Type = syscall.FDDirectory
		} else if err == nil && info.Mode()&os.ModeNamedPipe != 0 {
			fd.Type = syscall.FDPipe
		}
	}
	return fd.Ready()
}

// anonymous returns the type of a descriptor by the kernel's name of it.
func anonymous(name string) syscall.FDType {
	switch {
	case name == "eventfd":
		return syscall.FDEvent
	case name == "pidfd":
		return syscall.FDPid
	case strings.HasPrefix(name, "bpf"):
		return syscall.FDBPF
	}
	for _, t := range []syscall.FDType{
		syscall.FDEventPoll, syscall.FDInotify, syscall.FDTimer, syscall.FDSignal, syscall.FDIOUring, syscall.FDUserfault,
	} {
		if t.String() == name {
			return t
		}
	}
	return syscall.FDUnsupported
}

// socket asks a socket for its family, by a copy of its descriptor.
func (o *files) socket(num int64) syscall.FDType {
	family, err := familyOf(int(o.pid), int(num))
	switch {
	case err != nil:
		return syscall.FDUnknown
	case family == unix.AF_INET:
		return syscall.FDIPv4
	case family == unix.AF_INET6:
		return syscall.FDIPv6
	case family == unix.AF_UNIX:
		return syscall.FDUnix
	case family == unix.AF_NETLINK:
		return syscall.FDNetlink
	}
	return syscall.FDUnsupported
}

func familyOf(pid, num int) (int, error) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(process)
	own, err := unix.PidfdGetfd(process, num, 0)
	if err != nil {
		return 0, fmt.Errorf("copy descriptor %d of process %d: %w", num, pid, err)
	}
	defer unix.Close(own)
	return unix.GetsockoptInt(own, unix.SOL_SOCKET, unix.SO_DOMAIN)
}
