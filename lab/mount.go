package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// A mount is one step of making the sandbox's file system.
type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

func (m mount) do() error {
	if err := syscall.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
	}
	return nil
}

func bind(source, target string) mount { return mount{source, target, "", syscall.MS_BIND, ""} }

func fresh(fstype, target string) mount { return mount{fstype, target, fstype, 0, ""} }

// ownDirectories are empty in the sandbox: what the machine keeps in them is
// not the node's, and what the node leaves in them is gone with the sandbox.
func ownDirectories() []string { return []string{"/run", "/opt", "/var/log"} }

// machineSysctls are settings of the whole machine that the kubelet changes.
// In the sandbox it changes files.
func machineSysctls() []string {
	return []string{
		"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
		"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
	}
}

// mountAll makes the file system that the node sees. It runs in a mount
// namespace of its own, and first of all makes that deaf and dumb.
func mountAll(dir, programs string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	if err := (mount{"", "/", "", syscall.MS_REC | syscall.MS_PRIVATE, ""}).do(); err != nil {
		return err
	}
	// Held open, because what is mounted below may hide their paths.
	lab, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer lab.Close()
	bin, err := os.Open(programs)
	if err != nil {
		return err
	}
	defer bin.Close()
	if err := mountKernel(all); err != nil {
		return err
	}
	for _, d := range ownDirectories() {
		if err := (mount{"tmpfs", d, "tmpfs", 0, "mode=755"}).do(); err != nil {
			return err
		}
	}
	// A user namespace may mount procfs only while a whole one can be seen; the
	// next step hides parts of the other.
	if err := mountNew(fresh("proc", "/run/lab-proc")); err != nil {
		return err
	}
	if err := hideSysctls(); err != nil {
		return err
	}
	if err := mountLab(lab, bin); err != nil {
		return err
	}
	return mount{"", "/", "", syscall.MS_REC | syscall.MS_SHARED, ""}.do() // containers see what the kubelet mounts later
}

// mountKernel shows the sandbox's own processes, network and cgroups.
func mountKernel(all []hierarchy) error {
	if err := fresh("proc", "/proc").do(); err != nil {
		return err
	}
	if err := syscall.Unmount("/sys", syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount /sys: %w", err)
	}
	if err := fresh("sysfs", "/sys").do(); err != nil {
		return err
	}
	if err := (mount{"tmpfs", "/sys/fs/cgroup", "tmpfs", 0, "mode=755"}).do(); err != nil {
		return err
	}
	for _, h := range all {
		// In a cgroup namespace its root is what is mounted.
		if err := mountNew(mount{h.fstype, h.path, h.fstype, 0, h.options}); err != nil {
			return err
		}
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return fmt.Errorf("list file systems: %w", err)
	}
	for fstype, target := range map[string]string{
		"bpf": "/sys/fs/bpf", "tracefs": "/sys/kernel/tracing", "debugfs": "/sys/kernel/debug", "securityfs": "/sys/kernel/security",
	} {
		if slices.Contains(strings.Fields(string(known)), fstype) {
			if err := fresh(fstype, target).do(); err != nil {
				return err
			}
		}
	}
	return nil
}

// mountNew makes the target and mounts on it.
func mountNew(m mount) error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	return m.do()
}

// mountLab shows the lab's directory at [home] and what its programs keep on
// the disk where such programs keep it. The rest of /var/lib is the machine's
// to read; what is written there goes to the lab's directory.
func mountLab(lab, bin *os.File) error {
	of := func(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
	if err := mountNew(bind(of(lab), home)); err != nil {
		return err
	}
	for _, dir := range []string{"bin", "varlib", "varlib.work", "kubelet", "containerd", "cri"} {
		if err := os.Mkdir(filepath.Join(home, dir), 0o711); err != nil {
			return err
		}
	}
	over := "lowerdir=/var/lib,upperdir=" + home + "/varlib,workdir=" + home + "/varlib.work"
	for _, m := range []mount{
		bind(of(bin), home+"/bin"),
		{"overlay", "/var/lib", "overlay", 0, over},
		bind(home+"/kubelet", "/var/lib/kubelet"),
		bind(home+"/containerd", "/var/lib/containerd"),
		bind(home+"/cri", "/run/containerd"),
	} {
		if err := mountNew(m); err != nil {
			return err
		}
	}
	return nil
}

// hideSysctls puts files of the same content over [machineSysctls].
func hideSysctls() error {
	for _, name := range machineSysctls() {
		real, fake := filepath.Join("/proc/sys", name), filepath.Join("/run/lab-sys", name)
		data, err := os.ReadFile(real)
		if err != nil {
			return fmt.Errorf("hide a setting of the machine: %w", err)
		}
		if err := os.MkdirAll(filepath.Dir(fake), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(fake, data, 0o644); err != nil {
			return err
		}
		if err := bind(fake, real).do(); err != nil {
			return err
		}
	}
	return nil
}
