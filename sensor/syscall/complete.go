package syscall

import (
	"path"
	"strings"
)

// firstDescriptor is the number that a process gives to the first file that it
// opens.
const firstDescriptor = 3

// Complete fills in what an event that somebody wrote by hand leaves out, as far
// as it follows from the rest: the name of the process from its arguments, or the
// other way round, the descriptor that a path was opened as, and the parameters
// that only repeat the result, the descriptor or the process.
func (e *Event) Complete() {
	e.completeProcess()
	e.completeDescriptor()
	if len(e.Type.params) > 0 && !e.Params[0].Known && e.Called {
		e.Params[0] = Param{Known: true, Num: e.Result}
		if e.FD != nil && e.FD.Num == e.Result && e.Type.params[0].kind == kindFD {
			e.Params[0].FD = e.FD
		}
	}
	for i, p := range e.Type.Params {
		if e.Params[i].Known {
			continue
		}
		kind := e.Type.params[i].kind
		switch {
		case kind == kindFD && p.Name == "fd" && e.FD != nil:
			e.Params[i] = Param{Known: true, Num: e.FD.Num, FD: e.FD}
		case kind == kindFD && (strings.HasSuffix(p.Name, "dirfd") || p.Name == "olddir" || p.Name == "newdir"):
			e.Params[i] = Number(currentDirectory)
		case kind == kindTuple && e.FD != nil && e.FD.Type.IsIP():
			e.Params[i] = Param{Known: true, FD: e.FD}
		case kind == kindAddress && e.FD != nil && e.FD.Server.IsValid():
			e.Params[i] = readEnds(endText(e.FD.Server))
			e.Params[i].Known = true
		}
	}
	if strings.HasPrefix(e.Type.Name, "execve") && e.Process != nil {
		e.completeExec(e.Process)
	}
}

func (e *Event) completeProcess() {
	p := e.Process
	if p == nil {
		return
	}
	switch {
	case p.Name == "" && len(p.Argv) > 0:
		name := path.Base(p.Argv[0])
		p.Name = name[:min(len(name), 15)]
	case p.Argv == nil && p.Name != "":
		p.Argv = []string{p.Name}
	}
	p.Ready()
	if e.TID == 0 {
		e.TID = p.PID
	}
}

// completeDescriptor makes the number of the descriptor and the result agree, and
// its name and the path that was opened.
func (e *Event) completeDescriptor() {
	at := e.Type.paths[onlySide]
	if e.Type.openLike && e.FD == nil && e.Called && e.Result >= 0 && at >= 0 && e.Params[at].Known {
		e.FD = &FD{Num: -1, Type: FDFile}
	}
	if e.FD == nil {
		return
	}
	returned := len(e.Type.params) > 0 && e.Type.params[0].kind == kindFD
	if e.FD.Num < 0 && returned && e.Result > 0 {
		e.FD.Num = e.Result
	}
	if e.FD.Num < 0 && e.Result >= 0 {
		e.FD.Num = firstDescriptor
	}
	if returned && e.Called && e.Result == 0 {
		e.Result = e.FD.Num
	}
	if e.Type.openLike && at >= 0 {
		if p := &e.Params[at]; !p.Known {
			*p = Text(e.FD.Name)
		}
		if e.FD.Raw == "" {
			e.FD.Raw = e.Params[at].Text
		}
		if e.FD.Name == "" {
			e.FD.Name = e.absolute(&e.Params[at], &e.Type.params[at])
		}
	}
	e.FD.Ready()
}

// completeExec adds the parameters that say what the process is.
func (e *Event) completeExec(p *Process) {
	set := func(name string, value Param) {
		if i := e.Type.Param(name); i >= 0 && !e.Params[i].Known {
			e.Params[i] = value
		}
	}
	set("comm", Text(p.Name))
	set("tid", Param{Known: true, Num: int64(e.TID), Text: p.Name})
	set("pid", Param{Known: true, Num: int64(p.PID), Text: p.Name})
	if p.Argv != nil {
		set("exe", Text(p.exe().Text))
		set("args", Text(strings.Join(p.rest(), "\x00")))
	}
	if p.Cwd != "" {
		set("cwd", Text(p.Cwd))
	}
	if p.ExePath != "" {
		set("trusted_exepath", Text(p.ExePath))
	}
	if p.Exe != nil {
		set("flags", Number(p.Exe.flags()))
	}
}

// flags returns what the flags of execve say of the file.
func (x *Executable) flags() int64 {
	flags := int64(0)
	for i, is := range []bool{x.Writable, x.Upper, x.Memory, x.Lower} {
		if is {
			flags |= 1 << i
		}
	}
	return flags
}
