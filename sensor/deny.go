package sensor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const (
	// DenyFeature is the name of the [Feature] without which guards that deny kill.
	DenyFeature = "enforce.lsm"
	denyProgram = "deny_exec"
)

// loadDeny starts the program that refuses to start others. It does nothing before
// there are guards.
func (s *Sensor) loadDeny(spec *ebpf.CollectionSpec, cache *btf.Cache) {
	f := Feature{Name: DenyFeature, Using: "lsm"}
	if err := s.startDeny(spec, cache); err != nil {
		f.Using, f.Err = "", err
	}
	s.features = append(s.features, f)
}

func (s *Sensor) startDeny(spec *ebpf.CollectionSpec, cache *btf.Cache) error {
	p, err := s.program(spec, cache, denyProgram)
	if err != nil {
		return err
	}
	l, err := link.AttachLSM(link.LSMOptions{Program: p})
	if err != nil {
		return fmt.Errorf("attach %s: %w", denyProgram, err)
	}
	if err := s.isAsked(); err != nil {
		return errors.Join(fmt.Errorf("attach %s: %w", denyProgram, err), l.Close())
	}
	s.onClose = append(s.onClose, func() { l.Close() })
	return nil
}

// isAsked returns why the kernel does not ask the program, which loads and attaches
// also where it does not. To see it, this process tries to become a file that is no
// program, which fails.
func (s *Sensor) isAsked() error {
	if err := execNothing(); !errors.Is(err, unix.ENOEXEC) {
		return fmt.Errorf("see whether the kernel asks it: run a file that is no program: %w", err)
	}
	var asked uint32
	if err := s.collection.Variables["deny_asked"].Get(&asked); err != nil {
		return fmt.Errorf("see whether the kernel asks it: %w", err)
	}
	if asked == 0 {
		return fmt.Errorf("the kernel does not ask it, as bpf is not among its security modules (kernel parameter lsm): %w", ErrNotSupported)
	}
	return nil
}

// execNothing runs a file that is no program, and returns why that failed.
func execNothing() error {
	f, err := nothing()
	if err != nil {
		return err
	}
	defer f.Close()
	var empty byte
	arguments := [2]*byte{&empty, nil}
	_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, f.Fd(), uintptr(unsafe.Pointer(&empty)), uintptr(unsafe.Pointer(&arguments)), 0, unix.AT_EMPTY_PATH, 0)
	return errno
}

// nothing makes a file that may be run: in memory, or where that is forbidden
// (vm.memfd_noexec) on disk, without a name.
func nothing() (*os.File, error) {
	fd, err := unix.MemfdCreate("nothing", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // an older kernel
		fd, err = unix.MemfdCreate("nothing", unix.MFD_CLOEXEC)
	}
	if err == nil {
		f := os.NewFile(uintptr(fd), "nothing")
		_, err = f.WriteString("nothing")
		return f, err
	}
	dir, failed := os.MkdirTemp("", "kubeguardian-")
	if failed != nil {
		return nil, errors.Join(err, failed)
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "nothing")
	if failed := os.WriteFile(name, []byte("nothing"), 0o700); failed != nil {
		return nil, errors.Join(err, failed)
	}
	return os.Open(name)
}

// CanDeny returns why guards that deny kill instead, nil if they deny.
func (s *Sensor) CanDeny() error {
	for _, f := range s.Features() {
		switch {
		case f.Name != DenyFeature:
		case f.Err != nil:
			return fmt.Errorf("%s: %w", f.Name, f.Err)
		default:
			return nil
		}
	}
	return fmt.Errorf("%s: the sensor was loaded without it", DenyFeature)
}
