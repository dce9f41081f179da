package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cgroupName is the one child of every cgroup hierarchy that holds the node and
// all of its pods. A machine has one node at most.
const cgroupName = "k8slab"

// ownerAttribute of that child names the lab's directory. The kernel keeps it
// for as long as the child exists, whatever becomes of who made it.
const ownerAttribute = "trusted.kubeguardian.lab"

// A hierarchy is a mounted tree of cgroups.
type hierarchy struct{ path, fstype, options string }

func (h hierarchy) node() string { return filepath.Join(h.path, cgroupName) }

// hierarchies lists those of this machine. The first decides who has the node.
func hierarchies() ([]hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find cgroup hierarchies: %w", err)
	}
	defer f.Close()
	var found []hierarchy
	for lines := bufio.NewScanner(f); lines.Scan(); {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		mount, super := strings.Fields(before), strings.Fields(after)
		if len(mount) < 5 || len(super) < 3 || !strings.HasPrefix(mount[4], "/sys/fs/cgroup/") {
			continue
		}
		switch super[0] {
		case "cgroup":
			found = append(found, hierarchy{mount[4], "cgroup", cgroupOptions(super[2])})
		case "cgroup2":
			found = append(found, hierarchy{mount[4], "cgroup2", ""})
		}
	}
	if !slices.ContainsFunc(found, func(h hierarchy) bool { return h.options == "memory" }) {
		return nil, withHint(errors.New("find cgroup hierarchies: none of version 1 for memory in /sys/fs/cgroup"),
			"the node needs a machine with the cgroup hierarchies of version 1; leave --node out")
	}
	return found, nil
}

// cgroupOptions turns the options of a mounted hierarchy into those by which
// it is mounted once more: "rw,name=systemd" into "none,name=systemd".
func cgroupOptions(super string) string {
	var options []string
	for o := range strings.SplitSeq(super, ",") {
		if o != "rw" && o != "ro" && o != "xattr" && o != "clone_children" && !strings.HasPrefix(o, "release_agent=") {
			options = append(options, o)
		}
	}
	if len(options) == 1 && strings.HasPrefix(options[0], "name=") {
		options = append([]string{"none"}, options...)
	}
	return strings.Join(options, ",")
}

// claimCgroups makes the node's cgroups for the lab in dir. It fails when
// another lab has a node: the kernel makes a directory for one caller only.
func claimCgroups(all []hierarchy, dir string) error {
	err := os.Mkdir(all[0].node(), 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nodeTaken(all[0])
	}
	if err == nil {
		err = syscall.Setxattr(all[0].node(), ownerAttribute, []byte(dir), 0)
	}
	for _, h := range all[1:] {
		if err == nil {
			err = os.Mkdir(h.node(), 0o755)
		}
	}
	if err != nil {
		return fmt.Errorf("make the node's cgroups: %w", err)
	}
	return limitCgroups(all)
}

func nodeTaken(h hierarchy) error {
	owner := cgroupOwner(h)
	if owner == "" {
		return withHint(fmt.Errorf("make the node's cgroups: %s exists and is no lab's", h.node()), "remove it, or wait until its owner does")
	}
	return withHint(fmt.Errorf("make the node's cgroups: the lab in %s has the node of this machine", owner), "end it first: lab down --dir "+quote(owner))
}

// cgroupOwner returns the directory of the lab that has the node, or nothing.
func cgroupOwner(h hierarchy) string {
	buf := make([]byte, 4096)
	n, err := syscall.Getxattr(h.node(), ownerAttribute, buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

// limitCgroups sets what a child does not inherit, and keeps a quarter of the
// memory for the machine's other work.
func limitCgroups(all []hierarchy) error {
	for _, h := range all {
		options := strings.Split(h.options, ",")
		if slices.Contains(options, "cpuset") {
			for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
				data, err := os.ReadFile(filepath.Join(h.path, name))
				if err == nil {
					err = os.WriteFile(filepath.Join(h.node(), name), data, 0)
				}
				if err != nil {
					return fmt.Errorf("limit the node's cgroups: %w", err)
				}
			}
			if err := os.WriteFile(filepath.Join(h.node(), "cgroup.clone_children"), []byte("1"), 0); err != nil {
				return fmt.Errorf("limit the node's cgroups: %w", err)
			}
		}
		if slices.Contains(options, "memory") {
			var machine syscall.Sysinfo_t
			if err := syscall.Sysinfo(&machine); err != nil {
				return fmt.Errorf("find the machine's memory: %w", err)
			}
			limit := strconv.FormatUint(uint64(machine.Totalram)*uint64(machine.Unit)/4*3, 10)
			if err := os.WriteFile(filepath.Join(h.node(), "memory.limit_in_bytes"), []byte(limit), 0); err != nil {
				return fmt.Errorf("limit the node's cgroups: %w", err)
			}
		}
	}
	return nil
}

// joinCgroups moves this process into the node's cgroups.
func joinCgroups(all []hierarchy) error {
	for _, h := range all {
		if err := os.WriteFile(filepath.Join(h.node(), "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
			return fmt.Errorf("join the node's cgroups: %w", err)
		}
	}
	return nil
}

// releaseCgroups kills all that runs in the node's cgroups and removes them.
func releaseCgroups(all []hierarchy) error {
	const patience = 30 * time.Second
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		err := killCgroup(all[0])
		// The first goes last: as long as it exists the node has an owner.
		for i := len(all) - 1; i >= 0 && err == nil; i-- {
			err = removeCgroup(all[i].node())
		}
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// killCgroup kills every process of the node. Those of a container end with the
// first of its process namespace, and need not be known.
func killCgroup(h hierarchy) error {
	return filepath.WalkDir(h.node(), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile, as runc does
		}
		if err != nil || !entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENODEV) {
			return fmt.Errorf("list the node's processes: %w", err)
		}
		for pid := range strings.FieldsSeq(string(data)) {
			if err := killMember(pid); err != nil {
				return err
			}
		}
		return nil
	})
}

// killMember kills a process that is still in the node's cgroups: its number
// may be another's by now. The handle holds on to the one that is looked at.
func killMember(pid string) error {
	number, err := strconv.Atoi(pid)
	if err != nil || number <= 1 {
		return fmt.Errorf("kill process %q of the node: not a process of this machine", pid)
	}
	handle, err := os.FindProcess(number)
	if err != nil {
		return fmt.Errorf("find process %s of the node: %w", pid, err)
	}
	defer handle.Release()
	cgroups, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil || !strings.Contains(string(cgroups), ":/"+cgroupName) {
		return nil
	}
	if err := handle.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill process %s of the node: %w", pid, err)
	}
	return nil
}

// removeCgroup removes a cgroup and all below it. It is no error if none is there.
func removeCgroup(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the node's cgroups: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := syscall.Rmdir(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the node's cgroup %s: %w", path, err)
	}
	return nil
}
