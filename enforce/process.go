package enforce

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// errGone says that a process has ended.
var errGone = errors.New("the process has ended")

// errKernel says that a process is a thread of the kernel.
var errKernel = errors.New("a thread of the kernel")

// A handle is a process that can be signalled, and never one that was given the
// same id later.
type handle struct{ fd int }

// open returns a handle of a process. The descriptor is opened first and the
// start compared afterwards: if the id belongs to the process then, it did so
// before.
func open(proc string, k record.Key) (handle, error) {
	fd, err := unix.PidfdOpen(int(k.TGID), 0)
	if errors.Is(err, unix.ESRCH) {
		return handle{}, errGone
	}
	if err != nil {
		return handle{}, fmt.Errorf("open process %d: %w", k.TGID, err)
	}
	if err := same(proc, k); err != nil {
		unix.Close(fd)
		return handle{}, err
	}
	return handle{fd}, nil
}

// same reports whether the process that has an id now is one that is known by
// its start, too.
func same(proc string, k record.Key) error {
	data, err := os.ReadFile(filepath.Join(proc, strconv.FormatUint(uint64(k.TGID), 10), "stat"))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return errGone
	}
	if err != nil {
		return fmt.Errorf("read when process %d began: %w", k.TGID, err)
	}
	flags, ticks, err := parseStat(string(data))
	switch {
	case err != nil:
		return fmt.Errorf("read when process %d began: %w", k.TGID, err)
	case ticks != k.Ticks():
		return errGone
	case flags&kernelThread != 0:
		return errKernel
	}
	return nil
}

// Fields of /proc/PID/stat after the name.
const (
	statFlags    = 6
	statStart    = 19
	kernelThread = 0x00200000 // PF_KTHREAD
)

// parseStat reads /proc/PID/stat. The name before may hold any character.
func parseStat(text string) (flags, ticks uint64, err error) {
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) <= statStart {
		return 0, 0, errors.New("not the state of a process")
	}
	if flags, err = strconv.ParseUint(f[statFlags], 10, 64); err != nil {
		return 0, 0, err
	}
	ticks, err = strconv.ParseUint(f[statStart], 10, 64)
	return flags, ticks, err
}

// kill ends the process.
func (h handle) kill() error {
	err := unix.PidfdSendSignal(h.fd, unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return errGone
	}
	if err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	return nil
}

func (h handle) close() { unix.Close(h.fd) }

// Capabilities that actions need, by their bits.
const (
	capKill     = 5
	capNetAdmin = 12
)

// missingCapabilities returns what the agent would need for what is ordered.
func missingCapabilities(proc string, orders []Order) ([]string, error) {
	status, err := os.ReadFile(filepath.Join(proc, "self/status"))
	if err != nil {
		return nil, fmt.Errorf("read the capabilities of the agent: %w", err)
	}
	has, err := effective(string(status))
	if err != nil {
		return nil, fmt.Errorf("read the capabilities of the agent: %w", err)
	}
	var missing []string
	if has&(1<<capKill) == 0 {
		missing = append(missing, "CAP_KILL, without which only the kernel kills")
	}
	blocks := slices.ContainsFunc(orders, func(o Order) bool { return o.Action == BlockEgress })
	if blocks && has&(1<<capNetAdmin) == 0 {
		missing = append(missing, "CAP_NET_ADMIN, which "+BlockEgress+" needs")
	}
	return missing, nil
}

// effective returns the effective capabilities in /proc/PID/status.
func effective(status string) (uint64, error) {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		}
	}
	return 0, errors.New("they are not in the status of a process")
}
