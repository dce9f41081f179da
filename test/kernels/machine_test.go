//go:build linux && kernels

package kernels

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A machine is what QEMU emulates. One processor only: with two, the emulation of
// code that the kernel changes while it runs, as it does when it begins to trace,
// ends the kernel.
type machine struct {
	qemu    []string
	console string
}

var machines = map[string]machine{
	"amd64": {[]string{"qemu-system-x86_64", "-cpu", "max"}, "ttyS0"},
	"arm64": {[]string{"qemu-system-aarch64", "-M", "virt", "-cpu", "max,pauth-impdef=on"}, "ttyAMA0"},
}

// programs are what the tests run.
var programs = []string{"coreutils", "dash", "util-linux", "mount", "busybox-static"}

// newRoot unpacks programs into a folder, which is to be the root of a machine.
func newRoot(t *testing.T, d *debian) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"dev", "proc", "sys", "tmp", "etc", "root", "mnt", "test"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range d.fetch(".", programs...) {
		run(t, exec.Command("dpkg-deb", "--extract", file, root))
	}
	for name, text := range map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", "group": "root:x:0:\nnogroup:x:65534:\n",
		"hostname": "kernels\n", "hosts": "127.0.0.1 localhost\n", "host.conf": "multi on\n",
	} {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// modules of the kernel lead to the root, or are what the tests want, in the order
// in which they need each other. What a kernel has not it has built in.
var modules = []string{"virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk",
	"crc16", "crc32c_generic", "libcrc32c", "mbcache", "jbd2", "ext4", "overlay"}

const toRoot = `#!/bin/busybox sh
set -e
/bin/busybox mount -t devtmpfs dev /dev
for m in /modules/*; do /bin/busybox insmod $m; done
/bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox umount /dev
exec /bin/busybox switch_root /root /test/init
`

// newInitrd makes the archive that the kernel starts from: it loads what the disk
// needs, and goes there.
func newInitrd(t *testing.T, kernel, busybox string) string {
	t.Helper()
	dir, archive := t.TempDir(), filepath.Join(t.TempDir(), "initrd")
	for _, d := range []string{"bin", "dev", "modules", "root"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(t, busybox, filepath.Join(dir, "bin/busybox"))
	if err := os.WriteFile(filepath.Join(dir, "init"), []byte(toRoot), 0o755); err != nil {
		t.Fatal(err)
	}
	for i, name := range modules {
		for _, file := range found(t, kernel, name+".ko") {
			to := filepath.Join(dir, "modules", string(rune('a'+i))+name+".ko")
			copyFile(t, file, to+filepath.Ext(file))
			if filepath.Ext(file) == ".xz" {
				run(t, exec.Command("xz", "--decompress", to+".xz"))
			}
		}
	}
	cmd := exec.Command("sh", "-c", `find . | busybox cpio -o -H newc >"$0"`, archive)
	cmd.Dir = dir
	run(t, cmd)
	return archive
}

// found returns the files below a folder whose names begin so.
func found(t *testing.T, dir, name string) []string {
	t.Helper()
	out, err := exec.Command("find", dir, "-type", "f", "-name", name+"*").Output()
	if err != nil {
		t.Fatalf("find %s: %v", name, err)
	}
	return strings.Fields(string(out))
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", cmd.Args, err, out)
	}
}

// init runs a command, and switches the machine off when it has ended.
const initScript = `#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root KUBEGUARDIAN_REQUIRE=all
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir /dev/shm
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t securityfs security /sys/kernel/security
busybox ip link set lo up
uname -a
cd /tmp
timeout 1500 %s
echo %s$?
busybox poweroff -f
`

const ended = "the command has ended with "

// boot prepares a machine that runs a command as root and prints what it prints.
func boot(t *testing.T, d *debian, kernel, root, command string) *exec.Cmd {
	t.Helper()
	m, files := machines[d.arch], t.TempDir()
	for _, file := range d.fetch(`^linux-image-\d`, kernel) {
		run(t, exec.Command("dpkg-deb", "--extract", file, files))
	}
	if err := os.WriteFile(filepath.Join(root, "test/init"), fmt.Appendf(nil, initScript, command, ended), 0o755); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "root")
	run(t, exec.Command("mke2fs", "-q", "-t", "ext4", "-d", root, image, "512M"))
	args := append(m.qemu[1:len(m.qemu):len(m.qemu)], "-accel", "tcg", "-smp", "1", "-m", "2048", "-nographic", "-no-reboot", "-nic", "none",
		"-kernel", found(t, filepath.Join(files, "boot"), "vmlinuz")[0], "-initrd", newInitrd(t, files, filepath.Join(root, "bin/busybox")),
		"-drive", "if=virtio,format=raw,file="+image, "-append", "console="+m.console+" panic=-1 quiet")
	cmd := exec.Command(m.qemu[0], args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}
