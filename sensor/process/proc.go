package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	unix "syscall"
	"time"

	"github.com/kubeguardian/kubeguardian/sensor/container"
	"github.com/kubeguardian/kubeguardian/sensor/record"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// Snapshot learns the processes that run. It is called once the kernel already
// makes records, and before the first is read: a process that begins or ends
// meanwhile is then in the snapshot, in the records or in both, and once in the
// table.
func (t *Table) Snapshot() error {
	pids, err := processIDs(t.proc)
	if err != nil {
		return err
	}
	found := map[uint32]*shown{}
	for _, pid := range pids {
		if s, err := t.show(pid); err == nil {
			found[pid] = s
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for pid, s := range found {
		e := t.entryOf(record.Key{TGID: pid, Start: s.ticks * nanosPerTick})
		if e.filled {
			continue
		}
		e.filled = true
		if parent := found[s.parent]; parent != nil {
			s.process.Parent = t.entryOf(record.Key{TGID: s.parent, Start: parent.ticks * nanosPerTick}).handle
		}
		e.handle.Publish(s.process.Ready())
	}
	for pid, s := range found {
		e, p := t.current[pid], *s.process
		if e == nil || e.handle.Process() != s.process {
			continue
		}
		p.Session, p.Leader = t.byID(uint32(p.SID)), t.byID(uint32(p.PGID))
		e.handle.Publish(p.Ready())
	}
	t.measure()
	return nil
}

// measure counts the ancestors of each process, as far as they are of interest.
func (t *Table) measure() {
	for _, e := range t.known {
		for p := e.handle.Process(); p.Parent != nil && e.depth < maxDepth; p = p.Parent.Process() {
			e.depth++
		}
	}
}

// processIDs lists the ids of all processes.
func processIDs(proc string) ([]uint32, error) {
	dir, err := os.Open(proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []uint32
	for _, name := range names {
		if pid, err := strconv.ParseUint(name, 10, 31); err == nil {
			pids = append(pids, uint32(pid))
		}
	}
	return pids, nil
}

// Reads of /proc for processes whose records were lost, in each second.
const maxReads = 500

// mayRead reports whether /proc is to be asked for a process, and notes that it
// was. The lock is held.
func (t *Table) mayRead(e *entry) bool {
	if e.filled || e.over {
		return false
	}
	t.stats.unknown.Add(1)
	e.filled = true
	if now := time.Now(); now.Sub(t.readsAt) > time.Second {
		t.reads, t.readsAt = 0, now
	}
	t.reads++
	return t.reads <= maxReads
}

// lookUp reads from /proc what the records of a process did not tell, if it
// still runs. A record that was applied meanwhile counts more.
func (t *Table) lookUp(e *entry) {
	t.mu.Lock()
	version := e.version
	t.mu.Unlock()
	s, err := t.show(e.pid)
	if err != nil || s.ticks != e.ticks {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.version != version {
		return
	}
	t.stats.read.Add(1)
	old := e.handle.Process()
	s.process.Start, s.process.Parent = old.Start, old.Parent
	if parent := t.current[s.parent]; s.process.Parent == nil && parent != nil {
		s.process.Parent, e.depth = t.adopt(parent)
	}
	s.process.Session, s.process.Leader = t.byID(uint32(s.process.SID)), t.byID(uint32(s.process.PGID))
	e.version++
	e.handle.Publish(s.process.Ready())
}

// A shown is what /proc shows of a process.
type shown struct {
	process *syscall.Process
	parent  uint32
	ticks   uint64
}

// show reads /proc/PID. What cannot be read is left unknown, but for the state
// of the process itself.
func (t *Table) show(pid uint32) (*shown, error) {
	dir := filepath.Join(t.proc, strconv.Itoa(int(pid)))
	read := func(name string) string {
		text, _ := readProc(filepath.Join(dir, name))
		return text
	}
	st, err := parseStat(read("stat"))
	if err != nil {
		return nil, fmt.Errorf("read the state of process %d: %w", pid, err)
	}
	p := &syscall.Process{
		Key:  syscall.Key{PID: int32(pid), Start: st.ticks * nanosPerTick},
		Name: st.name, PGID: st.pgid, VPGID: -1, SID: st.sid, TTY: st.tty, Started: t.clock.Wall(st.ticks * nanosPerTick),
	}
	p.Files = t.files(p.Key)
	ids := parseStatus(p, read("status"))
	if line := read("cmdline"); line != "" {
		p.Argv = strings.Split(strings.TrimSuffix(line, "\x00"), "\x00")
	}
	if env := read("environ"); t.env && env != "" {
		p.Env = strings.Split(strings.TrimSuffix(env, "\x00"), "\x00")
	}
	p.Cwd, _ = os.Readlink(filepath.Join(dir, "cwd"))
	showExecutable(p, filepath.Join(dir, "exe"))
	groups := read("cgroup")
	p.Cgroups = parseCgroups(groups)
	if login, err := strconv.ParseUint(strings.TrimSpace(read("loginuid")), 10, 32); err == nil && login != unset {
		p.Login = t.user(groups, pid, uint32(login))
	}
	p.User = t.user(groups, pid, ids.uid)
	p.Group = t.group(groups, pid, ids.gid)
	return &shown{p, st.parent, st.ticks}, nil
}

func (t *Table) user(groups string, pid, uid uint32) *syscall.User {
	if t.users == nil {
		return &syscall.User{UID: uid}
	}
	return t.users.Of(container.ParseGroups(groups), int(pid)).User(uid)
}

func (t *Table) group(groups string, pid, gid uint32) *syscall.Group {
	if t.users == nil {
		return &syscall.Group{GID: gid}
	}
	return t.users.Of(container.ParseGroups(groups), int(pid)).Group(gid)
}

// showExecutable notes the program that a process runs. Whether it is of an
// upper layer only a record can say.
func showExecutable(p *syscall.Process, link string) {
	target, err := os.Readlink(link)
	if err != nil {
		return // of the kernel, or it has ended
	}
	p.ExePath = strings.TrimSuffix(target, " (deleted)")
	info, err := os.Stat(link)
	if err != nil {
		return
	}
	sys, ok := info.Sys().(*unix.Stat_t)
	if !ok {
		return
	}
	p.Exe = &syscall.Executable{
		Dev: uint32(sys.Dev), Ino: sys.Ino, Changed: syscall.Instant(sys.Ctim.Nano()), Modified: syscall.Instant(sys.Mtim.Nano()),
		Memory: strings.HasPrefix(target, "/memfd:"),
	}
}

// A stat is what is read of /proc/PID/stat.
type stat struct {
	name      string
	parent    uint32
	pgid, sid int32
	tty       uint32
	ticks     uint64
}

var errStat = errors.New("not the state of a process")

// parseStat reads /proc/PID/stat. The name is between the first and the last
// parenthesis, and may hold any character itself.
func parseStat(text string) (stat, error) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return stat{}, errStat
	}
	f := strings.Fields(text[end+1:])
	if len(f) < 20 {
		return stat{}, errStat
	}
	s := stat{name: text[open+1 : end]}
	var err error
	number := func(i int) int64 {
		n, e := strconv.ParseInt(f[i], 10, 64)
		if e != nil {
			err = errStat
		}
		return n
	}
	s.parent, s.pgid, s.sid, s.tty = uint32(number(1)), int32(number(2)), int32(number(3)), uint32(number(4))
	s.ticks = uint64(number(19))
	return s, err
}

type ids struct{ uid, gid uint32 }

// parseStatus reads /proc/PID/status into a process, and returns its effective
// ids.
func parseStatus(p *syscall.Process, text string) ids {
	var out ids
	var caps syscall.Capabilities
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		if len(f) == 0 {
			continue
		}
		last := f[len(f)-1]
		switch name {
		case "Uid":
			out.uid = second(f)
		case "Gid":
			out.gid = second(f)
		case "NSpid":
			p.VPID = int32(decimal(last))
		case "NSpgid":
			p.VPGID = int32(decimal(last))
		case "CapInh":
			caps.Inheritable = hexadecimal(last)
		case "CapPrm":
			caps.Permitted = hexadecimal(last)
		case "CapEff":
			caps.Effective = hexadecimal(last)
			p.Caps = &caps
		}
	}
	return out
}

func second(f []string) uint32 {
	if len(f) < 2 {
		return 0
	}
	return uint32(decimal(f[1]))
}

func decimal(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 32)
	return n
}

func hexadecimal(s string) syscall.CapabilitySet {
	n, _ := strconv.ParseUint(s, 16, 64)
	return syscall.CapabilitySet(n)
}

// parseCgroups reads /proc/PID/cgroup.
func parseCgroups(text string) []syscall.Cgroup {
	var out []syscall.Cgroup
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) < 3 {
			continue
		}
		for subsystem := range strings.SplitSeq(f[1], ",") {
			out = append(out, syscall.Cgroup{Subsystem: strings.TrimPrefix(subsystem, "name="), Path: f[2]})
		}
	}
	return out
}
