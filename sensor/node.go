package sensor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A Node is what tells a process of the node from one of a container: it is in
// the node's mount namespace, has the node's root, or runs a program from one of
// the node's mounts. So does a runtime, also when it is in the cgroup of the
// container that it starts. Guards never kill such a process, and with
// [Config.Enforce] its records say what it is. The zero Node tells nothing.
type Node struct {
	Mounts     uint32 // inode of the mount namespace
	RootDevice uint32 // of the root's file system, as the kernel numbers it
	RootInode  uint64
}

// FindNode looks at a node by its /proc and its root.
func FindNode(proc, root string) (Node, error) {
	n := Node{}
	var st syscall.Stat_t
	err := syscall.Stat(filepath.Join(proc, "1/ns/mnt"), &st)
	if name, _ := os.ReadFile(filepath.Join(proc, "2/comm")); err != nil && string(name) == "kthreadd\n" {
		err = syscall.Stat(filepath.Join(proc, "2/ns/mnt"), &st) // where the first process may not be looked at
	}
	if err != nil {
		return n, fmt.Errorf("find the mount namespace of the node: %w", err)
	}
	n.Mounts = uint32(st.Ino)
	if err := syscall.Stat(root+"/", &st); err != nil {
		return n, fmt.Errorf("find the root of the node: %w", err)
	}
	n.RootInode = st.Ino
	mounts, err := os.ReadFile(filepath.Join(proc, "1/mountinfo"))
	if err != nil {
		return n, fmt.Errorf("find the root of the node: %w", err)
	}
	if n.RootDevice, err = rootDevice(string(mounts)); err != nil {
		return n, fmt.Errorf("find the root of the node: %w", err)
	}
	return n, nil
}

// firstProcessNamespace is the inode of the one that has all processes.
const firstProcessNamespace = 0xeffffffc

// processNamespace returns the inode of the sensor's process namespace, 0 if it is
// the first one.
func processNamespace() (uint32, error) {
	var st syscall.Stat_t
	if err := syscall.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0, fmt.Errorf("find the process namespace of the sensor: %w", err)
	}
	if st.Ino == firstProcessNamespace {
		return 0, nil
	}
	return uint32(st.Ino), nil
}

// rootDevice returns the number of the file system at the root by
// /proc/PID/mountinfo, in which the last mount at a point counts.
func rootDevice(mounts string) (uint32, error) {
	found := uint32(0)
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) < 5 || f[4] != "/" {
			continue
		}
		var major, minor uint32
		if _, err := fmt.Sscanf(f[2], "%d:%d", &major, &minor); err != nil {
			return 0, fmt.Errorf("read device %q: %w", f[2], err)
		}
		found = major<<20 | minor
	}
	if found == 0 {
		return 0, errors.New("it is not among the mounts")
	}
	return found, nil
}
