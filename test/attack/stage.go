//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stageCommand is how the program starts itself in namespaces of its own.
const stageCommand = "stage"

// A stage is where a program of a technique runs.
type stage struct {
	Program program
	Root    string   // a folder with lower, upper, work and merged
	Files   []string // that there are; folders end with a slash
	Listen  []string // addresses and paths of sockets that somebody listens on
	Host    bool     // process ids are those of the node
}

// run performs a technique, or its benign twin, here or in a control group that is
// named like one of a container.
func (t technique) run(benign, here bool) (err error) {
	p := t.Attack
	if benign {
		p = t.Benign
	}
	root, err := os.MkdirTemp("", "attack-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	s := stage{Program: p, Root: root, Files: t.Files, Listen: t.Listen, Host: t.Host}
	if err := s.fill(); err != nil {
		return fmt.Errorf("fill the root folder: %w", err)
	}
	group := &group{}
	defer func() { err = errors.Join(err, group.remove()) }()
	if !t.Host && !here {
		if err := group.make(); err != nil {
			return fmt.Errorf("make a control group: %w", err)
		}
	}
	return s.start(group)
}

// fill makes the folders, with a copy of this program under each name in the
// layer of the image.
func (s stage) fill() error {
	for _, dir := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(s.Root, dir), 0o755); err != nil {
			return err
		}
	}
	lower := func(path string) string { return filepath.Join(s.Root, "lower", path) }
	for _, dir := range []string{"tmp", "dev/shm", "vol", "etc", "root", "proc", "usr/bin"} {
		if err := os.MkdirAll(lower(dir), 0o755); err != nil {
			return err
		}
	}
	for _, f := range s.Files {
		if strings.HasSuffix(f, "/") {
			if err := os.MkdirAll(lower(f), 0o755); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(lower(f)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(lower(f), []byte("nothing\n"), 0o600); err != nil {
			return err
		}
	}
	first := lower("usr/bin/true")
	if err := copyProgram(first); err != nil {
		return err
	}
	return s.Program.each(func(p program) error {
		if p.Upper || p.path() == "/usr/bin/true" {
			return nil
		}
		if err := os.MkdirAll(filepath.Dir(lower(p.path())), 0o755); err != nil {
			return err
		}
		if err := os.Link(first, lower(p.path())); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		return nil
	})
}

// each calls see with the program and those that it starts.
func (p program) each(see func(program) error) error {
	if err := see(p); err != nil {
		return err
	}
	for _, a := range p.Acts {
		if a.Run != nil {
			if err := a.Run.each(see); err != nil {
				return err
			}
		}
	}
	return nil
}

func copyProgram(to string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	data, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// start starts the stage in namespaces of its own, puts it into the control group
// once it is set up, and waits until the program has ended.
func (s stage) start(g *group) error {
	plan, err := json.Marshal(s)
	if err != nil {
		return err
	}
	in, toStage, err := os.Pipe()
	if err != nil {
		return err
	}
	defer toStage.Close()
	var stderr bytes.Buffer
	cmd := exec.Command("/proc/self/exe", stageCommand)
	cmd.Args[0], cmd.Stdin, cmd.Stderr = "attack", in, &stderr
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  unix.SIGKILL,
	}
	if !s.Host {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWPID
	}
	fromStage, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start in namespaces: %w", err)
	}
	_, err = fmt.Fprintf(toStage, "%s\n", plan)
	if err == nil {
		_, err = bufio.NewReader(fromStage).ReadString('\n') // it is set up
	}
	if err == nil {
		err = g.add(cmd.Process.Pid)
	}
	if err == nil {
		_, err = fmt.Fprintln(toStage)
	}
	if done := cmd.Wait(); done != nil {
		return fmt.Errorf("%w: %s", errors.Join(err, done), bytes.TrimSpace(stderr.Bytes()))
	}
	return err
}

// stageMain is the stage itself.
func stageMain(in io.Reader, out io.Writer) error {
	orders := bufio.NewReader(in)
	line, err := orders.ReadBytes('\n')
	if err != nil {
		return err
	}
	var s stage
	if err := json.Unmarshal(line, &s); err != nil {
		return err
	}
	tty, err := s.setUp()
	if err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	if _, err := orders.ReadBytes('\n'); err != nil {
		return err
	}
	return s.play(tty)
}

func (s stage) merged() string { return filepath.Join(s.Root, "merged") }

// setUp makes what the program needs, and its root folder that of the stage. It
// returns a terminal, if the program has one.
func (s stage) setUp() (tty *os.File, err error) {
	if s.Program.TTY {
		if tty, err = terminal(); err != nil {
			return nil, fmt.Errorf("open a terminal: %w", err)
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	layers := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", s.Root)
	if err := unix.Mount("overlay", s.merged(), "overlay", 0, layers); err != nil {
		return nil, fmt.Errorf("mount layers: %w", err)
	}
	for _, dir := range []string{"dev/shm", "vol"} {
		if err := unix.Mount("tmpfs", filepath.Join(s.merged(), dir), "tmpfs", 0, ""); err != nil {
			return nil, fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	if err := raise("lo", netip.MustParseAddr("127.0.0.1")); err != nil {
		return nil, fmt.Errorf("raise the loopback: %w", err)
	}
	for i, at := range s.Listen {
		if err := s.listen(i, at); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", at, err)
		}
	}
	err = s.Program.each(func(p program) error {
		if !p.Upper {
			return nil
		}
		return copyProgram(filepath.Join(s.merged(), p.path()))
	})
	if err != nil {
		return nil, err
	}
	return tty, s.enter()
}

// enter makes the layers the root, so that nothing else is there. Only a process
// that did not change its root by chroot may make namespaces of users.
func (s stage) enter() error {
	if err := unix.Chdir(s.merged()); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	return unix.Chdir("/")
}

// listen gives the loopback an address and waits there for connections, which
// nobody takes.
func (s stage) listen(i int, at string) error {
	if strings.HasPrefix(at, "/") {
		path := filepath.Join(s.merged(), at)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		return errors.Join(err, unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 8))
	}
	a, err := netip.ParseAddrPort(at)
	if err != nil {
		return err
	}
	known := slices.ContainsFunc(s.Listen[:i], func(other string) bool { return strings.HasPrefix(other, a.Addr().String()+":") })
	if !known && !a.Addr().IsLoopback() {
		if err := raise(fmt.Sprintf("lo:%d", i+1), a.Addr()); err != nil {
			return err
		}
	}
	_, err = listen(at)
	return err
}

// raise gives an interface an address and switches it on.
func raise(name string, addr netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := request.SetInet4Addr(addr.AsSlice()); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, request); err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

// play runs the program.
func (s stage) play(tty *os.File) error {
	cmd, err := s.Program.command()
	if err != nil {
		return err
	}
	switch {
	case tty != nil:
		cmd.Stdin, cmd.Stdout = tty, tty
		cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	case s.Program.Socket:
		fd, err := connect(s.Listen[0])
		if err != nil {
			return err
		}
		socket := os.NewFile(uintptr(fd), "socket")
		defer socket.Close()
		cmd.Stdin, cmd.Stdout = socket, socket
	}
	return cmd.Run()
}

// terminal opens a new terminal. Its other end stays open until this program ends.
func terminal() (*os.File, error) {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	return os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
}

// A group is a control group that is named like one of a container, in each
// hierarchy that there is.
type group struct{ dirs []string }

func (g *group) make() error {
	id := make([]byte, 32)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	for _, hierarchy := range []string{"", "unified", "memory", "pids"} {
		top := filepath.Join("/sys/fs/cgroup", hierarchy)
		if _, err := os.Stat(filepath.Join(top, "cgroup.procs")); err != nil {
			continue // there is no such hierarchy
		}
		dir := filepath.Join(top, "cri-containerd-"+hex.EncodeToString(id)+".scope")
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		g.dirs = append(g.dirs, dir)
	}
	if len(g.dirs) == 0 {
		return errors.New("no hierarchy is mounted in /sys/fs/cgroup")
	}
	return nil
}

func (g *group) add(pid int) error {
	for _, dir := range g.dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, pid), 0); err != nil {
			return err
		}
	}
	return nil
}

// remove removes the groups. Their last process may take a moment to be gone.
func (g *group) remove() error {
	var errs []error
	for _, dir := range g.dirs {
		err := os.Remove(dir)
		for range 100 {
			if err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
			err = os.Remove(dir)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
