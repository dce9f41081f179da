package syscall

import (
	"strconv"

	"github.com/kubeguardian/kubeguardian/event"
)

// eventFields are those of the event itself.
func eventFields() map[string]extractor {
	flag := func(is func(*Event) bool) extractor {
		return func(e *Event, _ event.Ref) event.Value { return event.Bool(is(e)) }
	}
	text := func(get func(*Event) string) extractor {
		return func(e *Event, _ event.Ref) event.Value { return event.Text(get(e)) }
	}
	one := func(is func(*Event) bool) extractor {
		return func(e *Event, _ event.Ref) event.Value {
			if !is(e) {
				return event.Value{}
			}
			return event.Uint(1)
		}
	}
	always := func(*Event) bool { return true }
	return map[string]extractor{
		"evt.type":      text(func(e *Event) string { return e.Type.Name }),
		"evt.type.is":   isType,
		"syscall.type":  syscallType,
		"evt.category":  text(func(e *Event) string { return e.area() }),
		"evt.cpu":       cpu,
		"evt.dir":       text(func(*Event) string { return "<" }),
		"evt.arg":       argument,
		"evt.rawarg":    rawArgument,
		"evt.args":      text((*Event).args),
		"evt.info":      text((*Event).args),
		"evt.buffer":    buffer,
		"evt.buflen":    bufferLength,
		"evt.res":       result,
		"evt.rawres":    rawResult,
		"evt.failed":    failed,
		"evt.is_io":     flag(func(e *Event) bool { return e.reads() || e.writes() || e.Type.category == transfers }),
		"evt.is_wait":   flag(func(e *Event) bool { return e.Type.waits() }),
		"evt.is_syslog": flag(func(e *Event) bool { return e.writes() && e.FD != nil && e.FD.Name == "/dev/log" }),

		"evt.is_io_read":  flag((*Event).reads),
		"evt.is_io_write": flag((*Event).writes),
		"evt.io_dir":      direction,

		"evt.is_open_read":   openFlag(false, openRead),
		"evt.is_open_write":  openFlag(false, openWrite),
		"evt.is_open_create": openFlag(true, openCreated),
		"evt.is_open_exec":   opensExecutable,

		"evt.count":              one(always),
		"evt.count.exit":         one(always),
		"evt.count.error":        one((*Event).failed),
		"evt.count.error.file":   one(func(e *Event) bool { return e.failed() && e.area() == "file" }),
		"evt.count.error.net":    one(func(e *Event) bool { return e.failed() && e.area() == "net" }),
		"evt.count.error.memory": one(func(e *Event) bool { return e.failed() && e.area() == "memory" }),
		"evt.count.error.other":  one(func(e *Event) bool { return e.failed() && !isOneOf(e.area(), "file", "net", "memory") }),

		"evt.deltatime":    func(e *Event, _ event.Ref) event.Value { return elapsed(e.Previous, e.Time) },
		"evt.deltatime.s":  delta(func(ns uint64) uint64 { return ns / 1e9 }),
		"evt.deltatime.ns": delta(func(ns uint64) uint64 { return ns % 1e9 }),
		"evt.around":       around,
	}
}

func isOneOf(s string, words ...string) bool {
	for _, w := range words {
		if s == w {
			return true
		}
	}
	return false
}

func (t *Type) waits() bool { return t.category == sleeps || t.category == waits }

func (e *Event) reads() bool  { return e.Type.category == reads }
func (e *Event) writes() bool { return e.Type.category == writes }
func (e *Event) failed() bool { return e.Called && e.Result < 0 }

// area returns the category of the event; what reads and writes has that of its
// descriptor.
func (e *Event) area() string {
	switch e.Type.category {
	default:
		return string(e.Type.category)
	case reads, writes, transfers:
	}
	switch {
	case e.FD == nil:
		return "other"
	case e.FD.Type == FDFile || e.FD.Type == FDDirectory:
		return "file"
	case e.FD.Type.IsIP():
		return "net"
	case e.FD.Type == FDUnix || e.FD.Type == FDPipe:
		return "ipc"
	}
	return "other"
}

func isType(e *Event, ref event.Ref) event.Value {
	if e.Type.Name == ref.Key {
		return event.Uint(1)
	}
	return event.Uint(0)
}

func syscallType(e *Event, _ event.Ref) event.Value {
	if !e.Type.call {
		return event.Value{}
	}
	return event.Text(e.Type.Name)
}

func cpu(e *Event, _ event.Ref) event.Value {
	if e.CPU < 0 {
		return event.Value{}
	}
	return event.Number(int64(e.CPU))
}

// argument returns a parameter by its name or its position.
func argument(e *Event, ref event.Ref) event.Value {
	i := e.Type.Param(ref.Key)
	if i < 0 {
		var ok bool
		if i, ok = position(ref.Key); !ok {
			return event.Value{}
		}
	}
	p, t := e.paramAt(i)
	if t == nil {
		return event.Value{}
	}
	return event.Text(e.text(p, t))
}

func rawArgument(e *Event, ref event.Ref) event.Value {
	p, t := e.param(ref.Key)
	if t == nil {
		return event.Value{}
	}
	want := ref.Type
	if ref.Name == "evt.rawarg" {
		want = t.typ // evt.rawarg[name], which has no type of its own
	}
	return e.rawValue(p, t, want)
}

func buffer(e *Event, _ event.Ref) event.Value {
	p, t := e.param("data")
	if t == nil || t.kind != kindBytes {
		return event.Value{}
	}
	return event.Bytes(p.Text)
}

func bufferLength(e *Event, ref event.Ref) event.Value {
	data := buffer(e, ref)
	if data.Missing() {
		return data
	}
	return event.Uint(uint64(len(data.Text)))
}

func result(e *Event, _ event.Ref) event.Value {
	switch {
	case !e.Called:
		return event.Value{}
	case e.Result >= 0:
		return event.Text("SUCCESS")
	}
	return event.Text(errnoName(e.Result))
}

func rawResult(e *Event, _ event.Ref) event.Value {
	if !e.Called {
		return event.Value{}
	}
	return event.Number(e.Result)
}

func failed(e *Event, _ event.Ref) event.Value {
	if !e.Called {
		return event.Value{}
	}
	return event.Bool(e.Result < 0)
}

func direction(e *Event, _ event.Ref) event.Value {
	switch {
	case e.reads():
		return event.Text("read")
	case e.writes():
		return event.Text("write")
	}
	return event.Value{}
}

// openFlags returns the flags that a path was opened with.
func (e *Event) openFlags() (flags uint64, ok bool) {
	name := "flags"
	if e.Type.Name == "creat" {
		name = "creat_flags"
	}
	p, _ := e.param(name)
	if !e.Type.openLike || p == nil {
		return 0, false
	}
	return uint64(p.Num), true
}

// openFlag reports whether a path was opened with a flag; any other event was
// not.
func openFlag(creat bool, bit uint64) extractor {
	return func(e *Event, _ event.Ref) event.Value {
		flags, ok := e.openFlags()
		return event.Bool(ok && flags&bit != 0 && (creat || e.Type.Name != "creat"))
	}
}

func opensExecutable(e *Event, _ event.Ref) event.Value {
	flags, _ := e.openFlags()
	mode, _ := e.param("mode")
	creates := e.Type.Name == "creat" || flags&(openCreate|openTmpfile) != 0
	return event.Bool(e.Type.openLike && creates && mode != nil && mode.Num&0o111 != 0)
}

func delta(part func(ns uint64) uint64) extractor {
	return func(e *Event, _ event.Ref) event.Value {
		v := elapsed(e.Previous, e.Time)
		if v.Missing() {
			return v
		}
		return event.Uint(part(uint64(v.Number)))
	}
}

// around returns how many milliseconds the event is away from a time, rounded
// up.
func around(e *Event, ref event.Ref) event.Value {
	at, err := strconv.ParseInt(ref.Key, 10, 64)
	if err != nil {
		return event.Value{}
	}
	distance := uint64(max(int64(e.Time), at)) - uint64(min(int64(e.Time), at))
	return event.Uint(distance/1e6 + min(distance%1e6, 1))
}

// pathFields are the paths that an event is about.
func pathFields() map[string]extractor {
	return map[string]extractor{
		"evt.abspath":       absolutePath,
		"evt.abspath.src":   operand(sourceSide, true),
		"evt.abspath.dst":   operand(targetSide, true),
		"fs.path.name":      operand(onlySide, true),
		"fs.path.nameraw":   operand(onlySide, false),
		"fs.path.source":    operand(sourceSide, true),
		"fs.path.sourceraw": operand(sourceSide, false),
		"fs.path.target":    operand(targetSide, true),
		"fs.path.targetraw": operand(targetSide, false),
	}
}

// A side is one of the paths of an operation.
type side uint8

const (
	onlySide side = iota
	sourceSide
	targetSide
)

// operands has the names of the parameters with the paths of operations that
// have two.
var operands = map[string][2]string{
	"rename": {"oldpath", "newpath"}, "renameat": {"oldpath", "newpath"}, "renameat2": {"oldpath", "newpath"},
	"link": {"oldpath", "newpath"}, "linkat": {"oldpath", "newpath"},
	"symlink": {"target", "linkpath"}, "symlinkat": {"target", "linkpath"}, "mount": {"dev", "dir"},
}

// path returns the parameter with one of the paths of the event, -1 if it does
// not have it.
func (t *Type) path(s side) int {
	if two, ok := operands[t.Name]; ok {
		if s == onlySide {
			return -1
		}
		return t.Param(two[s-sourceSide])
	}
	if s != onlySide {
		return -1
	}
	for i, p := range t.params {
		if p.kind == kindPath && t.Params[i].Name != "trusted_exepath" {
			return i
		}
	}
	return -1
}

func operand(s side, absolute bool) extractor {
	return func(e *Event, _ event.Ref) event.Value {
		p, t := e.paramAt(e.Type.paths[s])
		switch {
		case t == nil:
			return event.Value{}
		case absolute:
			return event.Text(e.absolute(p, t))
		}
		return event.Text(p.Text)
	}
}

// absolutePath returns the path of the operation; src and dst say which, if
// there are two.
func absolutePath(e *Event, ref event.Ref) event.Value {
	s := onlySide
	if _, two := operands[e.Type.Name]; two {
		s = sourceSide
		if isOneOf(e.Type.Name, "symlink", "symlinkat", "mount") {
			s = targetSide
		}
	}
	switch ref.Key {
	case "src":
		s = sourceSide
	case "dst":
		s = targetSide
	}
	return operand(s, true)(e, ref)
}
