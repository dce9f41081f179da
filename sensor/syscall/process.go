package syscall

import (
	"strings"
	"sync/atomic"
)

// A Key tells a process from all others of a boot: its id is used again, with a
// later start.
type Key struct {
	PID   int32  // of the process (thread group) on the node
	Start uint64 // of its first thread, in nanoseconds since boot
}

// A Process is what is known of a process. It is immutable once it is published
// by a [Handle] or an [Event]: a change, as by execve or setuid, makes a new
// value. Before that, [Process.Ready] is called.
//
// What is not known is nil, or empty where nothing that is known is empty, and
// its fields are missing. It never stands for something else.
type Process struct {
	Key
	VPID        int32 // id in its own process namespace; 0 if not known
	PGID, VPGID int32 // process group on the node and in the namespace; -1 if not known
	SID         int32 // session; -1 if not known

	Name    string   // comm of the first thread, at most 15 bytes
	Argv    []string // nil if not known; the first is the name that it was started by
	Cwd     string   // absolute path; empty if not known
	Env     []string // NAME=value; nil if not known
	ExePath string   // path of the executable in the process's own root, symbolic links resolved; empty if not known
	Exe     *Executable
	TTY     uint32 // device of the controlling terminal; 0 without one

	User  *User
	Group *Group
	Login *User // whose login the process stems from; nil if from none
	Caps  *Capabilities

	Started          int64 // nanoseconds since 1970; 0 if not known
	NamespaceStarted int64 // when the first process of the process namespace started

	Cgroups []Cgroup // nil if not known
	Usage   *Usage
	Streams [3]*FD      // standard input, output and error; nil where not known
	Files   Descriptors // nil if not known

	Parent  *Handle // who started it, also after it ended; nil if not known
	Session *Handle // leader of the session; nil if not known
	Leader  *Handle // leader of the process group; nil if not known

	line    string // argv joined by blanks
	cmdline string // name and arguments
}

// A Handle holds the current value of a process, the last one after its end. It
// is safe for concurrent use.
type Handle struct{ p atomic.Pointer[Process] }

// NewHandle returns a handle of a process.
func NewHandle(p *Process) *Handle {
	h := &Handle{}
	h.Publish(p)
	return h
}

// Publish replaces the value of the process.
func (h *Handle) Publish(p *Process) { h.p.Store(p) }

// Process returns the current value; nil for a nil handle.
func (h *Handle) Process() *Process {
	if h == nil {
		return nil
	}
	return h.p.Load()
}

// An Executable is the file that a process runs.
type Executable struct {
	Dev      uint32
	Ino      uint64
	Changed  int64 // time of the last change of the inode (ctime), in nanoseconds since 1970
	Modified int64 // time of the last change of the content (mtime), in nanoseconds since 1970
	Writable bool  // by the user of the process
	Upper    bool  // in the upper layer of an overlay: it did not come with the image
	Lower    bool  // in the lower layer of an overlay
	Memory   bool  // a memfd: it has no file
}

// Capabilities are the capability sets of a process, one bit each.
type Capabilities struct{ Inheritable, Permitted, Effective uint64 }

// A User is a user of the node or of a container.
type User struct {
	UID               uint32
	Name, Home, Shell string // empty if not known
}

// A Group is a group of the node or of a container.
type Group struct {
	GID  uint32
	Name string // empty if not known
}

// A Cgroup is the control group of a process in one hierarchy.
type Cgroup struct {
	Subsystem string // empty in the unified hierarchy
	Path      string
}

// Usage is what a process uses, where it was measured.
type Usage struct {
	FDLimit                  int64  // most descriptors
	OpenFDs                  uint64 // descriptors
	VMSize, VMRSS, VMSwap    uint64 // KiB
	MajorFaults, MinorFaults uint64
	Threads, Children        uint64  // threads; threads but the first
	ExecTime, TotalExecTime  uint64  // processor time of the last slice, and in all, in nanoseconds
	CPUUser, CPUSystem       float64 // processor use in per cent
}

// Descriptors are the open descriptors of a process. They are safe for
// concurrent use.
type Descriptors interface {
	// Get returns a descriptor, nil if it is not open or not known.
	Get(num int64) *FD
	// Each calls see with each open descriptor by rising number, until it
	// returns false.
	Each(see func(*FD) bool)
}

// Ready prepares the texts that rules ask for with every event. It is called
// once a process has its final values, before it is published.
func (p *Process) Ready() *Process {
	p.line = strings.Join(p.Argv, " ")
	p.cmdline = p.commandLine(p.Name)
	return p
}

// arguments returns the arguments without the first, joined by blanks.
func (p *Process) arguments() string {
	if len(p.Argv) < 2 {
		return ""
	}
	if p.line == "" {
		return strings.Join(p.Argv[1:], " ")
	}
	return p.line[len(p.Argv[0])+1:]
}

// commandLine returns the arguments behind a name.
func (p *Process) commandLine(name string) string {
	args := p.arguments()
	if args == "" {
		return name
	}
	return name + " " + args
}

// CommandLine returns the name of the process and its arguments, joined by
// blanks.
func (p *Process) CommandLine() string {
	if p.cmdline == "" {
		return p.commandLine(p.Name)
	}
	return p.cmdline
}

// Ancestor returns an ancestor: 0 is the process itself, 1 its parent. It
// returns nil if it is not known.
func (p *Process) Ancestor(n int) *Process {
	for ; n > 0 && p != nil; n-- {
		p = p.Parent.Process()
	}
	return p
}

// MaxAncestors is how far ancestors are looked for.
const MaxAncestors = 64

// leader returns the session's or group's leader: the one that is known as such,
// or the highest ancestor in a row that belongs to it.
func (p *Process) leader(known *Handle, belongs func(*Process) bool) *Process {
	if l := known.Process(); l != nil {
		return l
	}
	top := p
	for n := 0; n < MaxAncestors; n++ {
		next := top.Parent.Process()
		if next == nil || !belongs(next) {
			break
		}
		top = next
	}
	return top
}
