package syscall

import (
	"strings"
	"sync/atomic"
)

// A Key tells a process from all others of a boot: its id is used again, with a
// later start.
type Key struct {
	PID   int32  `json:"pid"`            // of the process (thread group) on the node
	Start uint64 `json:"start,omitzero"` // of its first thread, in nanoseconds since boot
}

// A Process is what is known of a process. It is immutable once it is published
// by a [Handle] or an [Event]: a change, as by execve or setuid, makes a new
// value. Before that, [Process.Ready] is called.
//
// What is not known is nil, or empty where nothing that is known is empty, and
// its fields are missing. It never stands for something else.
type Process struct {
	Key
	VPID  int32 `json:"vpid,omitzero"` // id in its own process namespace; 0 if not known
	PGID  int32 `json:"pgid"`          // process group on the node; -1 if not known
	VPGID int32 `json:"vpgid"`         // process group in the namespace; -1 if not known
	SID   int32 `json:"sid"`           // session; -1 if not known

	Name    string      `json:"name"`                // comm of the first thread, at most 15 bytes
	Argv    []string    `json:"argv,omitzero"`       // nil if not known; the first is the name that it was started by
	Cwd     string      `json:"cwd,omitzero"`        // absolute path; empty if not known
	Env     []string    `json:"env,omitzero"`        // NAME=value; nil if not known
	ExePath string      `json:"exe_path,omitzero"`   // path of the executable in the process's own root, symbolic links resolved; empty if not known
	Exe     *Executable `json:"executable,omitzero"` // nil if not known
	TTY     uint32      `json:"tty,omitzero"`        // device of the controlling terminal; 0 without one

	User  *User         `json:"user,omitzero"`
	Group *Group        `json:"group,omitzero"`
	Login *User         `json:"login,omitzero"` // whose login the process stems from; nil if from none
	Caps  *Capabilities `json:"caps,omitzero"`

	Started          Instant `json:"started,omitzero"`
	NamespaceStarted Instant `json:"namespace_started,omitzero"` // when the first process of the process namespace started

	Cgroups []Cgroup    `json:"cgroups,omitzero"` // nil if not known
	Usage   *Usage      `json:"usage,omitzero"`
	Streams [3]*FD      `json:"-"` // standard input, output and error; nil where not known
	Files   Descriptors `json:"-"` // nil if not known

	Parent  *Handle `json:"-"` // who started it, also after it ended; nil if not known
	Session *Handle `json:"-"` // leader of the session; nil if not known
	Leader  *Handle `json:"-"` // leader of the process group; nil if not known

	line    string // argv joined by blanks
	cmdline string // name and arguments
	cwd     string // with a final slash
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
	Dev      uint32  `json:"dev,omitzero"`
	Ino      uint64  `json:"ino,omitzero"`
	Changed  Instant `json:"changed,omitzero"`  // the last change of the inode (ctime)
	Modified Instant `json:"modified,omitzero"` // the last change of the content (mtime)
	Writable bool    `json:"writable,omitzero"` // by the user of the process
	Upper    bool    `json:"upper,omitzero"`    // in the upper layer of an overlay: it did not come with the image
	Lower    bool    `json:"lower,omitzero"`    // in the lower layer of an overlay
	Memory   bool    `json:"memory,omitzero"`   // a memfd: it has no file
}

// A CapabilitySet is a set of capabilities, one bit each.
type CapabilitySet uint64

// Capabilities are the capability sets of a process.
type Capabilities struct {
	Inheritable CapabilitySet `json:"inheritable"`
	Permitted   CapabilitySet `json:"permitted"`
	Effective   CapabilitySet `json:"effective"`
}

// A User is a user of the node or of a container.
type User struct {
	UID   uint32 `json:"uid"`
	Name  string `json:"name,omitzero"` // empty if not known, as the others
	Home  string `json:"home,omitzero"`
	Shell string `json:"shell,omitzero"`
}

// A Group is a group of the node or of a container.
type Group struct {
	GID  uint32 `json:"gid"`
	Name string `json:"name,omitzero"` // empty if not known
}

// A Cgroup is the control group of a process in one hierarchy.
type Cgroup struct {
	Subsystem string `json:"subsystem,omitzero"` // empty in the unified hierarchy
	Path      string `json:"path"`
}

// Usage is what a process uses, where it was measured.
type Usage struct {
	FDLimit       int64   `json:"fd_limit"`          // most descriptors
	OpenFDs       uint64  `json:"open_fds,omitzero"` // 0 if not known: [Process.Files] may say it
	VMSize        uint64  `json:"vm_size"`           // KiB, as the next two
	VMRSS         uint64  `json:"vm_rss"`
	VMSwap        uint64  `json:"vm_swap"`
	MajorFaults   uint64  `json:"major_faults"`
	MinorFaults   uint64  `json:"minor_faults"`
	Threads       uint64  `json:"threads"`
	Children      uint64  `json:"children"`        // threads but the first
	ExecTime      uint64  `json:"exec_time"`       // processor time of the last slice, in nanoseconds
	TotalExecTime uint64  `json:"total_exec_time"` // processor time in all, in nanoseconds
	CPUUser       float64 `json:"cpu_user"`        // processor use in per cent, as the next
	CPUSystem     float64 `json:"cpu_system"`
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
// once a process has its final values, before it is published. Texts that are
// right, as those of a copy of another process can be, are kept, and a text that
// is a part of another one shares its bytes.
func (p *Process) Ready() *Process {
	if !isJoined(p.line, p.Argv) {
		p.line = strings.Join(p.Argv, " ")
	}
	p.cmdline = p.readyCommand()
	if dir, ok := strings.CutSuffix(p.cwd, "/"); !ok || dir == "" || dir != p.Cwd {
		p.cwd = ""
		p.cwd = p.directory()
	}
	return p
}

// isJoined reports whether a line is what joins words by blanks.
func isJoined(line string, words []string) bool {
	for i, word := range words {
		rest, ok := strings.CutPrefix(line, word)
		if ok && i < len(words)-1 {
			rest, ok = strings.CutPrefix(rest, " ")
		}
		if !ok {
			return false
		}
		line = rest
	}
	return line == ""
}

// readyCommand returns the command line: the end of all arguments where the name
// is the end of the first one, as that of /bin/true is true.
func (p *Process) readyCommand() string {
	args := p.arguments()
	switch {
	case args == "":
		return p.Name
	case strings.HasSuffix(p.Argv[0], p.Name):
		return p.line[len(p.Argv[0])-len(p.Name):]
	case isJoined(p.cmdline, []string{p.Name, args}):
		return p.cmdline
	}
	return p.commandLine(p.Name)
}

// wholeLine returns all arguments joined by blanks.
func (p *Process) wholeLine() string {
	if p.line == "" {
		return strings.Join(p.Argv, " ")
	}
	return p.line
}

// arguments returns the arguments without the first, joined by blanks.
func (p *Process) arguments() string {
	if len(p.Argv) < 2 {
		return ""
	}
	return p.wholeLine()[len(p.Argv[0])+1:]
}

// directory returns the current directory with a final slash, as Falco has it.
func (p *Process) directory() string {
	switch {
	case p.cwd != "":
		return p.cwd
	case p.Cwd == "" || strings.HasSuffix(p.Cwd, "/"):
		return p.Cwd
	}
	return p.Cwd + "/"
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
const MaxAncestors = 1024

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
