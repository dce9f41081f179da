package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// mark is the environment variable that every process of a lab carries; its
// value is the lab's directory. The kernel keeps it for as long as the process
// lives, so that a process is found and told from all others even when the
// command that started it was killed or the directory is gone.
const mark = "KUBEGUARDIAN_LAB"

// A process is a program of a lab that is running.
type process struct {
	name string
	pid  int
}

// processes lists what runs for the lab in dir.
func processes(dir string) ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var found []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err == nil && marked(pid, dir) {
			found = append(found, process{programName(pid), pid})
		}
	}
	return found, nil
}

// marked reports whether pid is a live process of the lab in dir. A process
// of another user cannot be read and is not ours; an ended one that its parent
// has not collected has no environment.
func marked(pid int, dir string) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool {
		return string(v) == mark+"="+dir
	})
}

func programName(pid int) string {
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return strconv.Itoa(pid)
	}
	arg0, _, _ := bytes.Cut(cmdline, []byte{0})
	return filepath.Base(string(arg0))
}

// An exit says that a program of the lab ended.
type exit struct {
	name string
	err  error
}

// start runs a program of a lab in its own session, so that neither Ctrl-C nor
// the end of the terminal reaches it. When it ends, it is told to exits. With
// bound it does not outlive the calling thread.
func start(dir, name string, cmd *exec.Cmd, bound bool, exits chan<- exit) error {
	log, err := os.OpenFile(logPath(dir, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log of %s: %w", name, err)
	}
	defer log.Close()
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.Env = append(os.Environ(), mark+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if bound {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	go func() { exits <- exit{name, cmd.Wait()} }()
	return nil
}

// stop ends the node and the processes of the lab in dir, the last started
// first, and returns when all are gone.
func stop(dir string) error {
	if err := endNode(dir); err != nil {
		return err
	}
	running, err := processes(dir)
	if err != nil {
		return err
	}
	order := controlPlane(dir, 0, options{})
	slices.Reverse(order)
	for _, c := range order {
		for _, p := range running {
			if p.name == c.name {
				if err := end(p, dir); err != nil {
					return err
				}
			}
		}
	}
	// A program of another version of the lab may bear another name.
	if running, err = processes(dir); err != nil {
		return err
	}
	for _, p := range running {
		if err := end(p, dir); err != nil {
			return err
		}
	}
	return nil
}

// end asks a process to end, and kills it when it does not within the grace
// time: an API server whose audit receiver is gone would go on trying for more
// than a minute.
func end(p process, dir string) error {
	const grace = 8 * time.Second
	handle, err := os.FindProcess(p.pid)
	if err != nil {
		return fmt.Errorf("find %s: %w", p.name, err)
	}
	defer handle.Release()
	// The handle holds on to the process that has the number now: look again
	// whether that is the one that was found.
	if !marked(p.pid, dir) {
		return nil
	}
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGTERM, grace}, {syscall.SIGKILL, grace}} {
		if err := handle.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("end %s (pid %d): %w", p.name, p.pid, err)
		}
		for deadline := time.Now().Add(step.wait); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if !marked(p.pid, dir) {
				return nil
			}
		}
	}
	return fmt.Errorf("end %s (pid %d): still there after SIGKILL", p.name, p.pid)
}

func logPath(dir, name string) string { return filepath.Join(dir, "logs", name+".log") }

// freePort returns a port that is free on 127.0.0.1: the wanted one, or any for 0.
func freePort(want int) (int, error) {
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: want})
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return 0, withHint(fmt.Errorf("port %d on 127.0.0.1 is in use", want), "choose another by --port, or leave --port out")
	case err != nil:
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}
