package sensor

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const (
	denyFeature = "enforce.lsm"
	denyProgram = "deny_exec"
)

// loadDeny starts the program that refuses to start others. It does nothing before
// there are guards.
func (s *Sensor) loadDeny(spec *ebpf.CollectionSpec, cache *btf.Cache) {
	f := Feature{Name: denyFeature, Using: "lsm"}
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
	asked, err := s.isAsked()
	if err != nil || !asked {
		return errors.Join(err, fmt.Errorf("attach %s: the kernel does not ask it, as bpf is not among its security modules (kernel parameter lsm): %w", denyProgram, ErrNotSupported), l.Close())
	}
	s.onClose = append(s.onClose, func() { l.Close() })
	return nil
}

// isAsked reports whether the kernel asks the program, which loads and attaches
// also where it does not. To see it, this process tries to become a file that is no
// program, which fails.
func (s *Sensor) isAsked() (bool, error) {
	if err := execNothing(); !errors.Is(err, unix.ENOEXEC) {
		return false, fmt.Errorf("run a file that is no program: %w", err)
	}
	var asked uint32
	if err := s.collection.Variables["deny_asked"].Get(&asked); err != nil {
		return false, fmt.Errorf("ask %s: %w", denyProgram, err)
	}
	return asked != 0, nil
}

// execNothing runs a file in memory that is no program, and returns why that failed.
func execNothing() error {
	fd, err := unix.MemfdCreate("nothing", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // an older kernel
		fd, err = unix.MemfdCreate("nothing", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("nothing")); err != nil {
		return err
	}
	var empty byte
	arguments := [2]*byte{&empty, nil}
	_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(&empty)), uintptr(unsafe.Pointer(&arguments)), 0, unix.AT_EMPTY_PATH, 0)
	return errno
}

// CanDeny returns why guards that deny kill instead, nil if they deny.
func (s *Sensor) CanDeny() error {
	for _, f := range s.Features() {
		if f.Name == denyFeature {
			return f.Err
		}
	}
	return fmt.Errorf("%s: the sensor was loaded without it", denyFeature)
}
