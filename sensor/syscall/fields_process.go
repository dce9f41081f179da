package syscall

import (
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
)

// ofProcess returns what the process says; missing if it is not known.
func ofProcess(get func(*Process) event.Value) extractor {
	return func(e *Event, _ event.Ref) event.Value {
		if e.Process == nil {
			return event.Value{}
		}
		return get(e.Process)
	}
}

// processFields are those of the process, its parent and its leaders.
func processFields() map[string]extractor {
	number := func(get func(*Process) int32) extractor {
		return ofProcess(func(p *Process) event.Value { return event.Number(int64(get(p))) })
	}
	m := map[string]extractor{
		"proc.name":         processName,
		"proc.cmdline":      processCommandLine,
		"proc.args":         arguments,
		"proc.exe":          ofProcess((*Process).exe),
		"proc.exeline":      ofProcess((*Process).exeline),
		"proc.exepath":      ofProcess(func(p *Process) event.Value { return known(p.ExePath) }),
		"proc.cmdnargs":     ofProcess((*Process).argumentCount),
		"proc.cmdlenargs":   ofProcess((*Process).argumentBytes),
		"proc.cwd":          ofProcess(func(p *Process) event.Value { return known(p.directory()) }),
		"proc.env":          environment,
		"proc.tty":          ofProcess(func(p *Process) event.Value { return event.Uint(uint64(p.TTY)) }),
		"proc.pid":          number(func(p *Process) int32 { return p.PID }),
		"proc.vpid":         ofProcess(func(p *Process) event.Value { return positive(p.VPID) }),
		"proc.sid":          ofProcess(func(p *Process) event.Value { return natural(p.SID) }),
		"proc.pgid":         ofProcess(func(p *Process) event.Value { return natural(p.PGID) }),
		"proc.vpgid":        ofProcess(func(p *Process) event.Value { return natural(p.VPGID) }),
		"proc.loginshellid": loginShell,

		"proc.is_sid_leader":   ofProcess(func(p *Process) event.Value { return same(p.SID, p.PID) }),
		"proc.is_pgid_leader":  ofProcess(func(p *Process) event.Value { return same(p.PGID, p.PID) }),
		"proc.is_vpgid_leader": ofProcess(func(p *Process) event.Value { return same(p.VPGID, p.VPID) }),

		"proc.duration": func(e *Event, _ event.Ref) event.Value { return age(e, e.Process) },
		"proc.pid.ts":   ofProcess(func(p *Process) event.Value { return stamp(p.Started) }),

		"proc.pname":    ofParent(func(p *Process) event.Value { return event.Text(p.Name) }),
		"proc.pcmdline": ofParent((*Process).commandLineValue),
		"proc.pexe":     ofParent((*Process).exe),
		"proc.pexepath": ofParent(func(p *Process) event.Value { return known(p.ExePath) }),
		"proc.ppid":     ofParent(func(p *Process) event.Value { return event.Number(int64(p.PID)) }),
		"proc.pvpid":    ofParent(func(p *Process) event.Value { return positive(p.VPID) }),
		"proc.ppid.ts":  ofParent(func(p *Process) event.Value { return stamp(p.Started) }),

		"proc.ppid.duration": func(e *Event, _ event.Ref) event.Value { return age(e, e.Process.Ancestor(1)) },

		"proc.pidns_init_start_ts": ofProcess(func(p *Process) event.Value { return stamp(p.NamespaceStarted) }),
	}
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		m["proc."+name+".name"] = ofStream(i, func(f *FD) string { return f.Name })
		m["proc."+name+".type"] = ofStream(i, func(f *FD) string { return f.Type.String() })
	}
	addLeaders(m)
	return m
}

// addLeaders adds the fields of the leaders of the session and of the groups.
func addLeaders(m map[string]extractor) {
	for prefix, find := range map[string]func(*Process) *Process{
		"proc.sid":   (*Process).sessionLeader,
		"proc.pgid":  (*Process).groupLeader,
		"proc.vpgid": (*Process).namespaceGroupLeader,
	} {
		of := func(get func(*Process) event.Value) extractor {
			return ofProcess(func(p *Process) event.Value {
				if p = find(p); p == nil {
					return event.Value{}
				}
				return get(p)
			})
		}
		m[prefix+".name"] = of(func(p *Process) event.Value { return event.Text(p.Name) })
		m[prefix+".exe"] = of((*Process).exe)
		m[prefix+".exepath"] = of(func(p *Process) event.Value { return known(p.ExePath) })
	}
	m["proc.sname"] = m["proc.sid.name"]
	delete(m, "proc.sid.name") // it has no such name
}

func positive(n int32) event.Value {
	if n <= 0 {
		return event.Value{}
	}
	return event.Number(int64(n))
}

func natural(n int32) event.Value {
	if n < 0 {
		return event.Value{}
	}
	return event.Number(int64(n))
}

// same compares two ids, of which neither may be unknown.
func same(a, b int32) event.Value {
	if a < 0 || b <= 0 {
		return event.Value{}
	}
	return event.Bool(a == b)
}

func age(e *Event, p *Process) event.Value {
	if p == nil {
		return event.Value{}
	}
	return elapsed(p.Started, e.Time)
}

// processName returns the name of the thread, which is known of processes too of
// which nothing else is.
func processName(e *Event, _ event.Ref) event.Value {
	switch {
	case e.Comm != "":
		return event.Text(e.Comm)
	case e.Process == nil:
		return event.Value{}
	}
	return event.Text(e.Process.Name)
}

func processCommandLine(e *Event, _ event.Ref) event.Value {
	p := e.Process
	if p == nil || p.Argv == nil {
		return event.Value{}
	}
	if e.Comm != "" && e.Comm != p.Name {
		return event.Text(p.commandLine(e.Comm))
	}
	return event.Text(p.CommandLine())
}

func (p *Process) commandLineValue() event.Value {
	if p.Argv == nil {
		return event.Value{}
	}
	return event.Text(p.CommandLine())
}

// exe returns the name that the process was started by.
func (p *Process) exe() event.Value {
	switch {
	case p.Argv == nil:
		return event.Value{}
	case len(p.Argv) == 0:
		return event.Text("")
	}
	return event.Text(p.Argv[0])
}

func (p *Process) exeline() event.Value {
	if p.Argv == nil {
		return event.Value{}
	}
	return event.Text(p.wholeLine())
}

// rest returns the arguments without the first.
func (p *Process) rest() []string { return p.Argv[min(len(p.Argv), 1):] }

func (p *Process) argumentCount() event.Value {
	if p.Argv == nil {
		return event.Value{}
	}
	return event.Uint(uint64(len(p.rest())))
}

func (p *Process) argumentBytes() event.Value {
	if p.Argv == nil {
		return event.Value{}
	}
	n := 0
	for _, arg := range p.rest() {
		n += len(arg)
	}
	return event.Uint(uint64(n))
}

func arguments(e *Event, ref event.Ref) event.Value {
	p := e.Process
	switch {
	case p == nil || p.Argv == nil:
		return event.Value{}
	case ref.Index < 0:
		return event.Text(p.arguments())
	case ref.Index < len(p.rest()):
		return event.Text(p.rest()[ref.Index])
	}
	return event.Value{}
}

func environment(e *Event, ref event.Ref) event.Value {
	p := e.Process
	switch {
	case p == nil || p.Env == nil:
		return event.Value{}
	case ref.Key == "":
		return event.Text(strings.Join(p.Env, " "))
	}
	v, _ := p.variable(ref.Key)
	return event.Text(v)
}

// variable returns the value of a variable of the environment.
func (p *Process) variable(name string) (value string, ok bool) {
	for _, entry := range p.Env {
		if v, ok := strings.CutPrefix(entry, name); ok && v != "" && v[0] == '=' {
			return v[1:], true
		}
	}
	return "", false
}

func ofStream(i int, get func(*FD) string) extractor {
	return ofProcess(func(p *Process) event.Value {
		if p.Streams[i] == nil {
			return event.Value{}
		}
		return event.Text(get(p.Streams[i]))
	})
}

// ofParent returns what the parent says.
func ofParent(get func(*Process) event.Value) extractor {
	return ofProcess(func(p *Process) event.Value {
		if p = p.Parent.Process(); p == nil {
			return event.Value{}
		}
		return get(p)
	})
}

func (p *Process) sessionLeader() *Process {
	if p.SID < 0 {
		return nil
	}
	return p.leader(p.Session, func(q *Process) bool { return q.SID == p.SID })
}

func (p *Process) groupLeader() *Process {
	if p.PGID < 0 {
		return nil
	}
	return p.leader(p.Leader, func(q *Process) bool { return q.PGID == p.PGID })
}

// namespaceGroupLeader returns the leader of the group in its own namespace:
// ancestors outside of the namespace do not belong to it.
func (p *Process) namespaceGroupLeader() *Process {
	if p.VPGID < 0 {
		return nil
	}
	return p.leader(p.Leader, func(q *Process) bool { return q.VPGID == p.VPGID && q.PGID == p.PGID })
}

// loginShell returns the oldest shell of the process and its ancestors.
func loginShell(e *Event, _ event.Ref) event.Value {
	shell := event.Value{}
	for p, n := e.Process, 0; p != nil && n < MaxAncestors; p, n = p.Parent.Process(), n+1 {
		if strings.HasSuffix(p.Name, "sh") {
			shell = event.Number(int64(p.PID))
		}
	}
	return shell
}

// ancestorFields are those of the process and its ancestors by number. Without a
// number they are a list of those of the ancestors.
func ancestorFields() map[string]extractor {
	text := func(get func(*Process) string) func(*Process) event.Value {
		return func(p *Process) event.Value { return event.Text(get(p)) }
	}
	m := map[string]extractor{}
	for i, f := range []struct {
		name string
		get  func(*Process) event.Value
	}{
		{"proc.aname", text(func(p *Process) string { return p.Name })},
		{"proc.aexe", (*Process).exe},
		{"proc.aexepath", func(p *Process) event.Value { return known(p.ExePath) }},
		{"proc.acmdline", (*Process).commandLineValue},
		{"proc.apid", func(p *Process) event.Value { return event.Number(int64(p.PID)) }},
	} {
		m[f.name] = ancestor(i, f.get)
	}
	m["proc.aargs"] = ancestorArguments
	m["proc.aenv"] = ancestorEnvironment
	return m
}

// lists is how many fields may list ancestors.
const lists = 6

// ancestor returns what an ancestor says, or what all of them do, as a list that
// is valid as long as the event.
func ancestor(list int, get func(*Process) event.Value) extractor {
	return func(e *Event, ref event.Ref) event.Value {
		if ref.Index >= 0 {
			if p := e.Process.Ancestor(ref.Index); p != nil {
				return get(p)
			}
			return event.Value{}
		}
		out := e.lists[list][:0]
		for p, n := e.Process.Ancestor(1), 0; p != nil && n < MaxAncestors; p, n = p.Parent.Process(), n+1 {
			if v := get(p); !v.Missing() {
				out = append(out, v.String())
			}
		}
		e.lists[list] = out
		return event.List(out)
	}
}

func ancestorArguments(e *Event, ref event.Ref) event.Value {
	p := e.Process.Ancestor(max(ref.Index, 1))
	if ref.Index == 0 {
		p = e.Process
	}
	if p == nil || p.Argv == nil {
		return event.Value{}
	}
	return event.Text(p.arguments())
}

// environmentLevels is up to which ancestor a variable is looked for.
const environmentLevels = 20

// ancestorEnvironment returns the environment of an ancestor by its number, the
// value that the nearest one gives to a variable, or the environments of all.
func ancestorEnvironment(e *Event, ref event.Ref) event.Value {
	if ref.Key == "" {
		return ancestor(lists-1, func(p *Process) event.Value {
			if p.Env == nil {
				return event.Value{}
			}
			return event.Text(strings.Join(p.Env, " "))
		})(e, event.Ref{Index: -1})
	}
	if n, ok := position(ref.Key); ok {
		p := e.Process.Ancestor(n)
		if p == nil || p.Env == nil {
			return event.Value{}
		}
		return event.Text(strings.Join(p.Env, " "))
	}
	value := event.Value{}
	for p, n := e.Process.Ancestor(1), 0; p != nil && n < environmentLevels; p, n = p.Parent.Process(), n+1 {
		if p.Env == nil {
			continue
		}
		if v, ok := p.variable(ref.Key); ok {
			return event.Text(v)
		}
		value = event.Text("")
	}
	return value
}

// executableFields are those of the file that the process runs.
func executableFields() map[string]extractor {
	of := func(get func(*Process, *Executable) event.Value) extractor {
		return ofProcess(func(p *Process) event.Value {
			if p.Exe == nil {
				return event.Value{}
			}
			return get(p, p.Exe)
		})
	}
	flag := func(is func(*Executable) bool) extractor {
		return of(func(_ *Process, x *Executable) event.Value { return event.Bool(is(x)) })
	}
	return map[string]extractor{
		"proc.is_exe_writable":    flag(func(x *Executable) bool { return x.Writable }),
		"proc.is_exe_upper_layer": flag(func(x *Executable) bool { return x.Upper }),
		"proc.is_exe_lower_layer": flag(func(x *Executable) bool { return x.Lower }),
		"proc.is_exe_from_memfd":  flag(func(x *Executable) bool { return x.Memory }),

		"proc.exe_ino":       of(func(_ *Process, x *Executable) event.Value { return event.Number(int64(x.Ino)) }),
		"proc.exe_ino.ctime": of(func(_ *Process, x *Executable) event.Value { return stamp(x.Changed) }),
		"proc.exe_ino.mtime": of(func(_ *Process, x *Executable) event.Value { return stamp(x.Modified) }),

		"proc.exe_ino.ctime_duration_proc_start":  of(func(p *Process, x *Executable) event.Value { return elapsed(x.Changed, p.Started) }),
		"proc.exe_ino.ctime_duration_pidns_start": of(func(p *Process, x *Executable) event.Value { return elapsed(p.NamespaceStarted, x.Changed) }),
	}
}

// usageFields are what the process uses.
func usageFields() map[string]extractor {
	of := func(get func(*Usage) event.Value) extractor {
		return ofProcess(func(p *Process) event.Value {
			if p.Usage == nil {
				return event.Value{}
			}
			return get(p.Usage)
		})
	}
	count := func(get func(*Usage) uint64) extractor {
		return of(func(u *Usage) event.Value { return event.Uint(get(u)) })
	}
	share := func(get func(*Usage) float64) extractor {
		return of(func(u *Usage) event.Value { return event.Double(get(u)) })
	}
	return map[string]extractor{
		"proc.fdlimit": of(func(u *Usage) event.Value { return event.Number(u.FDLimit) }),
		"proc.fdopencount": ofProcess(func(p *Process) event.Value {
			if n := p.openCount(); n > 0 {
				return event.Uint(n)
			}
			return event.Value{}
		}),
		"proc.fdusage":  ofProcess((*Process).descriptorShare),
		"proc.vmsize":   count(func(u *Usage) uint64 { return u.VMSize }),
		"proc.vmrss":    count(func(u *Usage) uint64 { return u.VMRSS }),
		"proc.vmswap":   count(func(u *Usage) uint64 { return u.VMSwap }),
		"proc.nthreads": count(func(u *Usage) uint64 { return u.Threads }),
		"proc.nchilds":  count(func(u *Usage) uint64 { return u.Children }),

		"thread.vmsize":      count(func(u *Usage) uint64 { return u.VMSize }),
		"thread.vmrss":       count(func(u *Usage) uint64 { return u.VMRSS }),
		"thread.pfmajor":     count(func(u *Usage) uint64 { return u.MajorFaults }),
		"thread.pfminor":     count(func(u *Usage) uint64 { return u.MinorFaults }),
		"thread.exectime":    count(func(u *Usage) uint64 { return u.ExecTime }),
		"thread.totexectime": count(func(u *Usage) uint64 { return u.TotalExecTime }),
		"thread.cpu.user":    share(func(u *Usage) float64 { return u.CPUUser }),
		"thread.cpu.system":  share(func(u *Usage) float64 { return u.CPUSystem }),
		"thread.cpu":         share(func(u *Usage) float64 { return u.CPUUser + u.CPUSystem }),
	}
}

// openCount returns how many descriptors are open, 0 if that is not known.
func (p *Process) openCount() (n uint64) {
	if p.Usage != nil && p.Usage.OpenFDs > 0 {
		return p.Usage.OpenFDs
	}
	if p.Files != nil {
		p.Files.Each(func(*FD) bool { n++; return true })
	}
	return n
}

func (p *Process) descriptorShare() event.Value {
	if p.Usage == nil || p.Usage.FDLimit <= 0 {
		return event.Value{}
	}
	n := p.openCount()
	if n == 0 {
		return event.Value{}
	}
	return event.Double(100 * float64(n) / float64(p.Usage.FDLimit))
}

// userFields are those of users and groups, and of what a thread may do.
func userFields() map[string]extractor {
	user := func(get func(*User) event.Value) extractor {
		return ofProcess(func(p *Process) event.Value {
			if p.User == nil {
				return event.Value{}
			}
			return get(p.User)
		})
	}
	group := func(get func(*Group) event.Value) extractor {
		return ofProcess(func(p *Process) event.Value {
			if p.Group == nil {
				return event.Value{}
			}
			return get(p.Group)
		})
	}
	caps := func(get func(*Capabilities) CapabilitySet) extractor {
		return ofProcess(func(p *Process) event.Value {
			if p.Caps == nil {
				return event.Value{}
			}
			return event.Text(get(p.Caps).names())
		})
	}
	return map[string]extractor{
		"user.uid":       user(func(u *User) event.Value { return event.Uint(uint64(u.UID)) }),
		"user.name":      user((*User).name),
		"user.homedir":   user(func(u *User) event.Value { return known(u.Home) }),
		"user.shell":     user(func(u *User) event.Value { return known(u.Shell) }),
		"user.loginuid":  ofProcess((*Process).loginUID),
		"user.loginname": ofProcess((*Process).loginName),
		"group.gid":      group(func(g *Group) event.Value { return event.Uint(uint64(g.GID)) }),
		"group.name":     group((*Group).name),

		"thread.cap_permitted":   caps(func(c *Capabilities) CapabilitySet { return c.Permitted }),
		"thread.cap_effective":   caps(func(c *Capabilities) CapabilitySet { return c.Effective }),
		"thread.cap_inheritable": caps(func(c *Capabilities) CapabilitySet { return c.Inheritable }),

		"thread.tid":     func(e *Event, _ event.Ref) event.Value { return positive(e.TID) },
		"thread.vtid":    func(e *Event, _ event.Ref) event.Value { return positive(e.VTID) },
		"thread.ismain":  ismain,
		"thread.cgroup":  cgroup,
		"thread.cgroups": ofProcess((*Process).cgroups),
	}
}

// name returns the name of a user; 0 is root, also where nothing says so.
func (u *User) name() event.Value {
	if u.Name == "" && u.UID == 0 {
		return event.Text("root")
	}
	return known(u.Name)
}

func (g *Group) name() event.Value {
	if g.Name == "" && g.GID == 0 {
		return event.Text("root")
	}
	return known(g.Name)
}

func (p *Process) loginUID() event.Value {
	if p.Login == nil {
		return event.Number(-1)
	}
	return event.Number(int64(p.Login.UID))
}

func (p *Process) loginName() event.Value {
	if p.Login == nil {
		return event.Value{}
	}
	return p.Login.name()
}

func ismain(e *Event, _ event.Ref) event.Value {
	if e.Process == nil || e.TID == 0 {
		return event.Value{}
	}
	return event.Bool(e.TID == e.Process.PID)
}

// cgroup returns the path of the control group of a subsystem, that of the
// unified hierarchy if the subsystem has no hierarchy of its own.
func cgroup(e *Event, ref event.Ref) event.Value {
	if e.Process == nil {
		return event.Value{}
	}
	unified := event.Value{}
	for _, c := range e.Process.Cgroups {
		switch c.Subsystem {
		case ref.Key:
			return event.Text(c.Path)
		case "":
			unified = event.Text(c.Path)
		}
	}
	return unified
}

func (p *Process) cgroups() event.Value {
	if p.Cgroups == nil {
		return event.Value{}
	}
	words := make([]string, len(p.Cgroups))
	for i, c := range p.Cgroups {
		words[i] = c.Subsystem + "=" + c.Path
	}
	return event.Text(strings.Join(words, " "))
}
