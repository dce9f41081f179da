package process

import (
	"strings"

	"github.com/kubeguardian/kubeguardian/sensor/container"
	"github.com/kubeguardian/kubeguardian/sensor/record"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// What a record does to what is known of its process.
type effect uint8

const (
	observes effect = iota // at most what its header says
	forks
	execs
	exits
	moves   // to another working directory
	capsets // sets capabilities
)

// effects is by record type.
var effects = newEffects()

func newEffects() [256]effect {
	var all [256]effect
	for what, names := range map[effect][]string{
		forks: {"clone", "clone3", "fork", "vfork"}, execs: {"execve", "execveat"}, exits: {"procexit"},
		moves: {"chdir", "fchdir"}, capsets: {"capset"},
	} {
		for _, name := range names {
			if t, ok := record.TypeOf(name); ok {
				all[t] = what
			}
		}
	}
	return all
}

// effectOf returns what a record does; a call that failed does nothing.
func effectOf(rec *record.Record) effect {
	what := effects[rec.Type]
	if what != exits && what != forks && rec.HasResult && rec.Result < 0 {
		return observes
	}
	return what
}

// A state is what is known when an event happens.
type state struct {
	process   *syscall.Process
	container *syscall.Container
}

// A step is the change that a record brings to one process.
type step struct {
	rec             *record.Record
	what            effect
	entry           *entry
	group           container.ID
	parent          *entry
	line            *syscall.Handle // of the parent
	depth           int
	session, leader *syscall.Handle
	read            bool // /proc has to tell what the records so far did
	readParent      bool
}

// apply notes what a record says.
func (t *Table) apply(rec *record.Record) state {
	t.mu.Lock()
	s, c := t.begin(rec)
	t.mu.Unlock()
	if s.readParent {
		t.lookUp(s.parent)
	}
	if s.read {
		t.lookUp(s.entry)
	}
	old := s.entry.handle.Process()
	p := t.next(&s, old)
	if p != old {
		t.publish(s.entry, p)
	}
	if s.what == exits {
		t.mu.Lock()
		t.finish(s.entry, rec.Time)
		t.mu.Unlock()
	}
	return state{p, c}
}

// begin finds what a record is about, with the lock held.
func (t *Table) begin(rec *record.Record) (step, *syscall.Container) {
	t.expire(rec.Time)
	s := step{rec: rec, what: effectOf(rec), entry: t.entryOf(rec.Process)}
	cgroups := record.Value{}
	if s.what == forks || s.what == execs {
		cgroups = rec.Named("cgroups")
	}
	g := t.groupOf(rec, cgroups)
	s.group = g.id
	if rec.Parent.TGID != 0 && (s.what == forks || s.entry.handle.Process().Parent == nil) {
		s.parent = t.entryOf(rec.Parent)
		s.line, s.depth = t.adopt(s.parent)
		s.entry.depth = s.depth
		s.readParent = t.mayRead(s.parent)
	}
	if !s.entry.filled {
		if s.what == observes || s.what == moves || s.what == capsets {
			s.read = t.mayRead(s.entry)
		}
		s.entry.filled = true
	}
	s.session, s.leader = t.byID(rec.SID), t.byID(rec.PGID)
	return s, t.currentContainer(g)
}

// publish replaces the value of a process.
func (t *Table) publish(e *entry, p *syscall.Process) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.version++
	e.handle.Publish(p)
}

// next returns what is known of a process after a record; p itself if nothing
// has changed.
func (t *Table) next(s *step, p *syscall.Process) *syscall.Process {
	if s.what != forks && s.what != execs && !t.differs(s, p) {
		return p
	}
	from := p
	if s.what == forks && s.line != nil {
		if parent := s.line.Process(); parent.Name != "" {
			from = parent
		}
	}
	n := *from
	switch s.what {
	case forks:
		t.forked(&n, s)
	case execs:
		t.executed(&n, s)
	case capsets:
		n.Caps = capabilities(s.rec)
	case moves:
		if cwd := directory(s); cwd != "" {
			n.Cwd = cwd
		}
	}
	t.head(&n, s, p)
	return n.Ready()
}

// forked makes of a parent its child.
func (t *Table) forked(n *syscall.Process, s *step) {
	r := s.rec
	n.Key = syscall.Key{PID: int32(r.Process.TGID), Start: r.Process.Start}
	n.Started = t.clock.Wall(r.Process.Start)
	n.Files = t.files(n.Key)
	n.Parent, n.Usage = s.line, usage(r)
	n.User, n.Group, n.Login = nil, nil, nil
	if argv := arguments(r); argv != nil {
		n.Argv = argv
	}
	if cwd, ok := r.Named("cwd").Text(); ok && len(cwd) > 0 {
		n.Cwd = t.texts.of(cwd)
	}
	if at, ok := r.Named("pidns_init_start_ts").Uint(); ok && at > 0 {
		n.NamespaceStarted = t.clock.Wall(at)
	}
	if paths := t.cgroups(r); paths != nil {
		n.Cgroups = paths
	}
}

// executed gives a process another program.
func (t *Table) executed(n *syscall.Process, s *step) {
	r := s.rec
	if argv := arguments(r); argv != nil {
		n.Argv = argv
	}
	if cwd, ok := r.Named("cwd").Text(); ok && len(cwd) > 0 {
		n.Cwd = t.texts.of(cwd)
	}
	n.Env = nil
	if env := r.Named("env"); t.env && !env.Missing() {
		n.Env = texts(env)
	}
	path, _ := r.Named("trusted_exepath").Text()
	n.ExePath, n.Exe = t.texts.of(path), executable(r)
	n.Usage = usage(r)
	if caps := capabilities(r); caps == nil || n.Caps == nil || *caps != *n.Caps {
		n.Caps = caps
	}
	if paths := t.cgroups(r); paths != nil {
		n.Cgroups = paths
	}
	for i, tag := range []record.Tag{record.Stdin, record.Stdout, record.Stderr} {
		n.Streams[i] = t.stream(r, i, tag)
	}
}

// stream returns a descriptor that outlives its record, nil if it is not known.
func (t *Table) stream(rec *record.Record, num int, tag record.Tag) *syscall.FD {
	v := rec.Extra(tag)
	file, ok := v.File()
	if !ok {
		return nil
	}
	if !file.IsSocket() {
		data, _ := v.Bytes()
		return t.streams[num].of(data)
	}
	fd := &syscall.FD{Num: int64(num)}
	reader := Reader{t: t}
	reader.fill(fd, rec, file)
	fd.Name = strings.Clone(fd.Name)
	return fd.Ready()
}

// streamOf makes a descriptor of the bytes of its file.
func streamOf(num int) func(string) *syscall.FD {
	return func(data string) *syscall.FD {
		file, _ := record.BytesValue([]byte(data)).File()
		fd := &syscall.FD{Num: int64(num)}
		describe(fd, file)
		return fd.Ready()
	}
}

func executable(r *record.Record) *syscall.Executable {
	flags, _ := r.Named("flags").Uint()
	ino, known := r.Named("exe_ino").Uint()
	if !known && r.Named("flags").Missing() {
		return nil
	}
	device, _ := r.Extra(record.Device).Uint()
	changed, _ := r.Named("exe_ino_ctime").Int()
	modified, _ := r.Named("exe_ino_mtime").Int()
	return &syscall.Executable{
		Dev: uint32(device), Ino: ino, Changed: syscall.Instant(changed), Modified: syscall.Instant(modified),
		Writable: flags&record.ExeWritable != 0, Upper: flags&record.ExeUpper != 0, Lower: flags&record.ExeLower != 0, Memory: flags&record.ExeMemFD != 0,
	}
}

func capabilities(r *record.Record) *syscall.Capabilities {
	effective, ok := r.Named("cap_effective").Uint()
	if !ok {
		return nil
	}
	permitted, _ := r.Named("cap_permitted").Uint()
	inheritable, _ := r.Named("cap_inheritable").Uint()
	set := func(n uint64) syscall.CapabilitySet { return syscall.CapabilitySet(n) }
	return &syscall.Capabilities{Inheritable: set(inheritable), Permitted: set(permitted), Effective: set(effective)}
}

func usage(r *record.Record) *syscall.Usage {
	size, ok := r.Named("vm_size").Uint()
	if !ok {
		return nil
	}
	u := &syscall.Usage{VMSize: size}
	u.FDLimit, _ = r.Named("fdlimit").Int()
	u.VMRSS, _ = r.Named("vm_rss").Uint()
	u.VMSwap, _ = r.Named("vm_swap").Uint()
	u.MajorFaults, _ = r.Named("pgft_maj").Uint()
	u.MinorFaults, _ = r.Named("pgft_min").Uint()
	return u
}

// arguments returns the name that a program was started by and its arguments,
// nil if the record does not have them.
func arguments(r *record.Record) []string {
	exe, ok := r.Named("exe").Text()
	args := r.Named("args")
	if !ok && args.Missing() {
		return nil
	}
	return append([]string{string(exe)}, texts(args)...)
}

func texts(v record.Value) []string {
	data, _ := v.Bytes()
	all, n := string(data), 0 // one copy for all
	out := []string(nil)
	for part := range v.Strings() {
		out = append(out, all[n:n+len(part)])
		n += len(part) + 1
	}
	return out
}

// cgroups returns the control groups that a record shows, nil if it does not.
func (t *Table) cgroups(r *record.Record) []syscall.Cgroup {
	data, _ := r.Named("cgroups").Bytes()
	return t.paths.of(data)
}

// cgroups reads lines that each end with NUL.
func cgroups(lines string) []syscall.Cgroup {
	var out []syscall.Cgroup
	for line := range strings.SplitSeq(lines, "\x00") {
		if subsystem, path, ok := strings.Cut(line, "="); ok {
			out = append(out, syscall.Cgroup{Subsystem: subsystem, Path: path})
		}
	}
	return out
}

// directory returns the working directory that a call made the current one,
// empty if it is not known.
func directory(s *step) string {
	if file, ok := s.rec.Extra(record.FD).File(); ok {
		return string(file.Name)
	}
	path, _ := s.rec.Named("path").Text()
	base, _ := s.rec.Extra(record.Base).Text()
	return strings.Clone(absolute(string(base), string(path)))
}

// differs reports whether a record that is neither fork nor exec changes what is
// known.
func (t *Table) differs(s *step, p *syscall.Process) bool {
	r := s.rec
	switch {
	case s.what == moves || s.what == capsets:
		return true
	case r.TID == r.Process.TGID && string(r.Name()) != p.Name:
		return true
	case p.Parent == nil && s.line != nil:
		return true
	case int32(r.PGID) != p.PGID || int32(r.VPGID) != p.VPGID || int32(r.SID) != p.SID || r.TTY != p.TTY || int32(r.VPID) != p.VPID:
		return true
	case p.User == nil || p.User.UID != r.UID || p.Group == nil || p.Group.GID != r.GID:
		return true
	case (p.Login == nil) != (r.LoginUID == unset) || p.Login != nil && p.Login.UID != r.LoginUID:
		return true
	case t.users != nil && p.User.Name == "" && t.accounts(s).User(r.UID).Name != "":
		return true
	}
	return false
}

const unset = 1<<32 - 1

// head notes what the header of a record says of its process, which was old.
func (t *Table) head(n *syscall.Process, s *step, old *syscall.Process) {
	r := s.rec
	if r.TID == r.Process.TGID || s.what == forks || s.what == execs {
		n.Name = t.texts.of(r.Name())
	}
	if n.Parent == nil {
		n.Parent = s.line
	}
	n.VPID, n.PGID, n.VPGID, n.SID, n.TTY = int32(r.VPID), int32(r.PGID), int32(r.VPGID), int32(r.SID), r.TTY
	n.Session, n.Leader = s.session, s.leader
	if s.what == observes && n.Caps != nil && old.User != nil && old.User.UID != r.UID {
		n.Caps = nil // the kernel may have taken them, and no record says so
	}
	accounts := t.accounts(s)
	n.User, n.Group, n.Login = accounts.User(r.UID), accounts.Group(r.GID), nil
	if r.LoginUID != unset {
		n.Login = accounts.User(r.LoginUID)
	}
}

func (t *Table) accounts(s *step) *container.Accounts {
	if t.users == nil {
		return nil
	}
	return t.users.Of(s.group, int(s.rec.Process.TGID))
}

// accountName returns the name of a user or group where a record happened, empty
// if it is not known.
func (t *Table) accountName(rec *record.Record, group bool, id uint32) string {
	if t.users == nil || id == unset {
		return ""
	}
	t.mu.Lock()
	g := t.groups[rec.Cgroup]
	t.mu.Unlock()
	if g == nil {
		return ""
	}
	accounts := t.users.Of(g.id, int(rec.Process.TGID))
	if group {
		return accounts.Group(id).Name
	}
	return accounts.User(id).Name
}
