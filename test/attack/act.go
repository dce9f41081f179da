//go:build linux

package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// actsVariable holds what a program does once it is started.
const actsVariable = "ATTACK_ACTS"

// A program is one process of a technique: this very program under another name.
type program struct {
	Name   string   `yaml:"name"` // the last part of its path
	Path   string   `yaml:"path"` // /usr/bin/NAME if it is empty
	Args   []string `yaml:"args"` // behind the name
	Env    []string `yaml:"env"`
	Acts   []act    `yaml:"acts"`
	Upper  bool     `yaml:"upper"`  // it is put there after the container has started
	TTY    bool     `yaml:"tty"`    // it has a terminal; only for the first program
	Socket bool     `yaml:"socket"` // its input and output are a connection; only for the first program
	Group  bool     `yaml:"group"`  // it leads a process group
	User   bool     `yaml:"user"`   // it gets a user namespace, by a call of unshare between fork and exec
}

// An act is one step: what to do, with which arguments, or which program to start.
type act struct {
	Do   string   `yaml:"do"`
	Args []string `yaml:"args"`
	Run  *program `yaml:"run"`
}

func (p program) path() string {
	if p.Path != "" {
		return p.Path
	}
	return "/usr/bin/" + p.Name
}

// command prepares the program to be started. It has the input and output of the
// one that starts it.
func (p program) command() (*exec.Cmd, error) {
	acts, err := json.Marshal(p.Acts)
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{Path: p.path(), Args: append([]string{p.path()}, p.Args...), Dir: "/", Env: p.Env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if len(p.Acts) > 0 {
		cmd.Env = append(cmd.Env, actsVariable+"="+string(acts))
	}
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: p.Group}
	if p.User {
		cmd.SysProcAttr.Unshareflags = unix.CLONE_NEWUSER
	}
	return cmd, nil
}

// perform does what a program is to do.
func perform(text string) error {
	runtime.LockOSThread()
	var acts []act
	if err := json.Unmarshal([]byte(text), &acts); err != nil {
		return err
	}
	for _, a := range acts {
		a.Args = append(a.Args, "", "")[:2] // none takes more
		if err := a.do(); err != nil {
			return fmt.Errorf("%s %q: %w", a.Do, a.Args, err)
		}
	}
	return nil
}

// do performs one act. What the kernel may refuse without that mattering is
// ignored, where the rule counts attempts.
func (a act) do() error {
	arg := func(i int) string { return a.Args[i] }
	switch a.Do {
	case "run":
		return a.Run.runNested()
	case "read":
		return open(arg(0), unix.O_RDONLY)
	case "write":
		return open(arg(0), unix.O_WRONLY|unix.O_CREAT)
	case "truncate":
		return open(arg(0), unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
	case "append":
		return open(arg(0), unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND)
	case "rename":
		return unix.Rename(arg(0), arg(1))
	case "unlink":
		return unix.Unlink(arg(0))
	case "symlink":
		return unix.Symlink(arg(0), arg(1))
	case "link":
		return unix.Link(arg(0), arg(1))
	case "chmod":
		mode, err := strconv.ParseUint(arg(1), 8, 32)
		return errors.Join(err, unix.Chmod(arg(0), uint32(mode)))
	case "mknod":
		return unix.Mknod(arg(0), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 200)))
	case "mkfifo":
		return unix.Mkfifo(arg(0), 0o600)
	case "chdir":
		return unix.Chdir(arg(0))
	case "chroot":
		return unix.Chroot(arg(0))
	case "mount":
		return unix.Mount("none", arg(0), "tmpfs", 0, "")
	case "sleep":
		time.Sleep(300 * time.Millisecond)
		return nil
	}
	return a.doSockets()
}

func (a act) doSockets() error {
	arg := func(i int) string { return a.Args[i] }
	switch a.Do {
	case "connect":
		fd, err := connect(arg(0))
		return errors.Join(err, unix.Close(fd))
	case "connect-unix":
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		return errors.Join(err, unix.Connect(fd, &unix.SockaddrUnix{Name: arg(0)}), unix.Close(fd))
	case "listen":
		fd, err := listen(arg(0))
		return errors.Join(err, unix.Close(fd))
	case "dup":
		fd, err := connect(arg(0))
		to, bad := strconv.Atoi(arg(1))
		return errors.Join(err, bad, unix.Dup3(fd, to, 0))
	case "socket":
		family, err := strconv.Atoi(arg(0))
		if err != nil {
			return err
		}
		kind := unix.SOCK_STREAM
		if family == unix.AF_PACKET || family == unix.AF_NETLINK {
			kind = unix.SOCK_RAW
		}
		fd, err := unix.Socket(family, kind, 0)
		if family == unix.AF_ALG && err != nil {
			return nil // the kernel has none, and the attempt counts
		}
		return errors.Join(err, unix.Close(fd))
	}
	return a.doKernel()
}

func (a act) doKernel() error {
	arg := func(i int) string { return a.Args[i] }
	switch a.Do {
	case "setns":
		pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
		return errors.Join(err, unix.Setns(pidfd, unix.CLONE_NEWNET))
	case "fsopen":
		fd, err := unix.Fsopen("tmpfs", 0)
		return errors.Join(err, unix.Close(fd))
	case "prctl":
		name, err := unix.BytePtrFromString(arg(0))
		return errors.Join(err, unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0))
	case "userfaultfd":
		return made(unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|1, 0, 0))
	case "io-uring":
		params := make([]byte, 120)
		return made(unix.Syscall(unix.SYS_IO_URING_SETUP, 8, uintptr(unsafe.Pointer(&params[0])), 0))
	case "bpf":
		return loadProgram()
	case "bpf-next":
		attr := make([]byte, 16)
		_, _, errno := unix.Syscall(unix.SYS_BPF, 11, uintptr(unsafe.Pointer(&attr[0])), uintptr(len(attr))) // BPF_PROG_GET_NEXT_ID
		if errno != 0 && errno != unix.ENOENT {
			return errno
		}
		return nil
	case "init-module":
		return refused(unix.InitModule([]byte("no module"), ""))
	case "finit-module":
		f, err := os.Open(arg(0))
		if err != nil {
			return err
		}
		return errors.Join(refused(unix.FinitModule(int(f.Fd()), "", 0)), f.Close())
	case "by-handle":
		return openByHandle(arg(0))
	case "write-memory":
		from, to := make([]byte, 64), make([]byte, 64)
		_, err := unix.ProcessVMWritev(os.Getpid(), []unix.Iovec{iovec(from)}, []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&to[0])), Len: len(to)}}, 0)
		runtime.KeepAlive(to)
		return err
	case "attach", "kill", "cont":
		return a.toChild()
	case "run-memory":
		return runFromMemory()
	}
	return errors.New("unknown act")
}

func iovec(b []byte) unix.Iovec {
	v := unix.Iovec{Base: &b[0]}
	v.SetLen(len(b))
	return v
}

// made closes what a call has made.
func made(fd, _ uintptr, errno unix.Errno) error {
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

// refused wants a call to fail: what it was given is no module.
func refused(err error) error {
	if err == nil {
		return errors.New("the kernel took it")
	}
	return nil
}

func open(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func sockaddr(text string) (unix.Sockaddr, int, error) {
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return nil, 0, err
	}
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, unix.AF_INET, nil
}

func connect(text string) (int, error) {
	to, family, err := sockaddr(text)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return -1, err
	}
	return fd, unix.Connect(fd, to)
}

func listen(text string) (int, error) {
	at, family, err := sockaddr(text)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return -1, err
	}
	return fd, errors.Join(unix.Bind(fd, at), unix.Listen(fd, 8))
}

// loadProgram loads the BPF program that returns 0.
func loadProgram() error {
	code := []uint64{0xb7, 0x95} // r0 = 0; exit
	license := []byte("GPL\x00")
	attr := make([]byte, 48)
	binary.NativeEndian.PutUint32(attr, 1) // BPF_PROG_TYPE_SOCKET_FILTER
	binary.NativeEndian.PutUint32(attr[4:], uint32(len(code)))
	binary.NativeEndian.PutUint64(attr[8:], uint64(uintptr(unsafe.Pointer(&code[0]))))
	binary.NativeEndian.PutUint64(attr[16:], uint64(uintptr(unsafe.Pointer(&license[0]))))
	err := made(unix.Syscall(unix.SYS_BPF, 5, uintptr(unsafe.Pointer(&attr[0])), uintptr(len(attr)))) // BPF_PROG_LOAD
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	return err
}

func openByHandle(path string) error {
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	if err != nil {
		return fmt.Errorf("name it: %w", err)
	}
	mount, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	fd, err := unix.OpenByHandleAt(mount, handle, unix.O_RDONLY)
	if err != nil {
		return err
	}
	return errors.Join(unix.Close(fd), unix.Close(mount))
}

// runFromMemory replaces this program by a copy of itself that no file system has.
func runFromMemory() error {
	self, err := os.ReadFile("/usr/bin/true")
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("copy", 0)
	if err != nil {
		return err
	}
	if _, err := unix.Write(fd, self); err != nil {
		return err
	}
	empty, argv := [1]byte{}, [2]*byte{new(byte), nil}
	env := [1]*byte{nil}
	_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(&empty[0])), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&env[0])), unix.AT_EMPTY_PATH, 0)
	return errno
}

// runNested starts a program from another one, and waits for it.
func (p program) runNested() error {
	cmd, err := p.command()
	if err != nil {
		return err
	}
	return cmd.Run()
}

// toChild starts a program that waits, and does to it what the act says.
func (a act) toChild() error {
	cmd, err := a.Run.command()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	time.Sleep(100 * time.Millisecond) // so that it has its name
	pid := cmd.Process.Pid
	switch a.Do {
	case "attach":
		err = unix.PtraceAttach(pid)
		var status unix.WaitStatus
		if _, waited := unix.Wait4(pid, &status, 0, nil); waited == nil {
			err = errors.Join(err, unix.PtraceDetach(pid))
		}
	case "cont":
		err = unix.Kill(pid, unix.SIGCONT)
	case "kill":
		err = unix.Kill(pid, unix.SIGKILL)
	}
	done := cmd.Wait()
	if a.Do == "kill" {
		return err
	}
	return errors.Join(err, done)
}
