package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Addresses between this machine and its node: a cable of two ends.
const (
	link        = "k8slab"
	machineIP   = "10.99.0.1"
	nodeIP      = "10.99.0.2"
	linkPrefix  = "10.99.0.0/30"
	nodePods    = "10.244.0.0/24" // the node's part of the pods' range
	sandboxFile = "sandbox"       // appears in the lab's directory when the sandbox is made
)

// home is where the lab's directory appears inside of the sandbox, so that the
// configuration of the node's programs is the same for every lab.
const home = "/opt/lab"

// initName is what the sandbox's first process is called: it is found by that.
const initName = "node-init"

// makeSandbox is the process that holds the node together: it moves into the
// node's cgroups, starts the sandbox's first process in namespaces of its own,
// connects it to this machine and waits for its end.
//
// The order matters: the root of the new cgroup namespace is where this
// process is when the other one starts.
func makeSandbox(dir, programs string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	if err := joinCgroups(all); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.Command(self, "sandbox-init", dir, programs)
	cmd.Args[0] = initName
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWCGROUP,
		Pdeathsig: syscall.SIGKILL,
	}
	connected, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the sandbox: %w", err)
	}
	err = connect(cmd.Process.Pid)
	if err != nil {
		cmd.Process.Kill()
	}
	connected.Close()
	return errors.Join(err, cmd.Wait())
}

// connect lays the cable to the network namespace of a process.
func connect(pid int) error {
	for _, args := range []string{
		"link add " + link + " type veth peer name eth0 netns " + strconv.Itoa(pid),
		"addr add " + machineIP + "/30 dev " + link,
		"link set " + link + " up",
		"route add " + nodePods + " via " + nodeIP,
		"route add " + serviceRange + " via " + nodeIP,
	} {
		if err := ip(args); err != nil {
			return fmt.Errorf("connect the node: %w", err)
		}
	}
	return nil
}

func ip(args string) error {
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// disconnect removes the cable, if there is one, and with it the routes.
func disconnect() error {
	if _, err := os.Stat("/sys/class/net/" + link); err != nil {
		return nil
	}
	if err := ip("link delete " + link); err != nil {
		if _, gone := os.Stat("/sys/class/net/" + link); gone != nil {
			return nil // it went with the other end meanwhile
		}
		return fmt.Errorf("disconnect the node: %w", err)
	}
	return nil
}

// networkFree fails when this machine uses addresses that the lab would take.
func networkFree(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "ip", "-4", "-o", "route", "show", "table", "all").Output()
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		for _, ours := range []string{linkPrefix, podRange, serviceRange} {
			if overlaps(line, netip.MustParsePrefix(ours)) {
				return withHint(fmt.Errorf("the node needs %s, which this machine uses: %s", ours, strings.TrimSpace(line)),
					"take that route away, or leave --node out")
			}
		}
	}
	return nil
}

// overlaps reports whether a line of `ip route` is about addresses of ours,
// the default route apart.
func overlaps(line string, ours netip.Prefix) bool {
	fields := strings.Fields(line)
	fields = slices.DeleteFunc(fields, func(f string) bool {
		return slices.Contains([]string{"local", "broadcast", "blackhole", "unreachable", "prohibit"}, f)
	})
	if len(fields) == 0 {
		return false
	}
	prefix, err := netip.ParsePrefix(fields[0])
	if err != nil {
		addr, err := netip.ParseAddr(fields[0])
		if err != nil {
			return false
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	return prefix.Bits() > 0 && prefix.Overlaps(ours)
}

// sandboxInit is the first process of the sandbox. It makes the sandbox's file
// system and network, and then collects the processes that end in it until it
// is killed, which ends all others.
func sandboxInit(dir, programs string) error {
	if os.Getpid() != 1 {
		return errors.New("make the sandbox: not the first process of a namespace")
	}
	if _, err := io.ReadAll(os.Stdin); err != nil { // ends when the cable is laid
		return fmt.Errorf("wait for the network: %w", err)
	}
	if err := mountAll(dir, programs); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte("lab")); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	for _, args := range []string{
		"link set lo up", "addr add " + nodeIP + "/30 dev eth0", "link set eth0 up", "route add default via " + machineIP,
	} {
		if err := ip(args); err != nil {
			return fmt.Errorf("set up the sandbox's network: %w", err)
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return fmt.Errorf("set up the sandbox's network: %w", err)
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	if err := os.WriteFile(filepath.Join(home, sandboxFile), nil, 0o600); err != nil {
		return fmt.Errorf("report the sandbox: %w", err)
	}
	collect(children)
	return nil
}

// collect takes note of the ends of processes that nobody else waits for.
func collect(ended <-chan os.Signal) {
	for range ended { // one signal may stand for several
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 && err != syscall.EINTR {
				break
			}
		}
	}
}
