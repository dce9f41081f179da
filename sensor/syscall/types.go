package syscall

import (
	_ "embed"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
)

// A Type is a type of events.
type Type struct {
	Name   string            // of the system call, or of another event
	Params []event.Parameter // in their order

	category category
	call     bool        // it is a system call
	openLike bool        // it opens a path: open, openat, openat2, open_by_handle_at, creat
	params   []paramType // of the parameters
	paths    [3]int      // by side: the parameter with this path, -1 if there is none
	order    map[string]int
}

// TypeOf returns the type with this name; nil if there is none.
func TypeOf(name string) *Type { return types[name] }

// Param returns the position of a parameter, -1 if the type does not have it.
func (t *Type) Param(name string) int {
	if i, ok := t.order[name]; ok {
		return i
	}
	return -1
}

// A category is the kind of activity of an event type.
type category string

// Categories whose area depends on what the descriptor is, and the one of waits.
const (
	reads     category = "read"
	writes    category = "write"
	transfers category = "transfer"
	waits     category = "wait"
	sleeps    category = "sleep"
)

// A kind says how the values of a parameter are kept and printed.
type kind uint8

const (
	kindSigned kind = iota
	kindUnsigned
	kindText
	kindBytes
	kindPath
	kindFD
	kindPid
	kindErrno
	kindFlags
	kindEnum
	kindMode
	kindUser
	kindGroup
	kindSignal
	kindDuration
	kindTime
	kindTuple
	kindAddress
	kindPolled
)

// A paramType is how a parameter of an event type is kept and printed.
type paramType struct {
	kind  kind
	typ   event.Type // of its raw value
	names *nameTable // of flags and other numbers; nil if they have none
	base  int        // 8, 10 or 16, of a number
	dir   int        // the parameter with the directory that a path is relative to; -1: the current one
}

var kinds = map[string]kind{
	"int8": kindSigned, "int16": kindSigned, "int32": kindSigned, "int64": kindSigned,
	"uint8": kindUnsigned, "uint16": kindUnsigned, "uint32": kindUnsigned, "uint64": kindUnsigned, "sigset": kindUnsigned,
	"charbuf": kindText, "dyn": kindText, "bytebuf": kindBytes, "fspath": kindPath, "fsrelpath": kindPath,
	"fd": kindFD, "pid": kindPid, "errno": kindErrno, "flags8": kindFlags, "flags16": kindFlags, "flags32": kindFlags,
	"enumflags8": kindEnum, "enumflags16": kindEnum, "enumflags32": kindEnum, "mode": kindMode, "uid": kindUser, "gid": kindGroup,
	"sigtype": kindSignal, "reltime": kindDuration, "abstime": kindTime, "socktuple": kindTuple, "sockaddr": kindAddress, "fdlist": kindPolled,
}

//go:embed types.txt
var categoryTable string

var types = newTypes()

func newTypes() map[string]*Type {
	categories := map[string]category{}
	for line := range strings.Lines(categoryTable) {
		if words := strings.Fields(line); words[0] != "#" {
			for _, name := range words[1:] {
				categories[name] = category(words[0])
			}
		}
	}
	tables := newNameTables()
	all := map[string]*Type{}
	for _, name := range event.Types(event.Syscall) {
		t := &Type{Name: name, Params: event.Parameters(name), category: categories[name], order: map[string]int{}}
		if t.category == "" {
			t.category = "other"
		}
		t.call = t.category != "internal" && !slices.Contains([]string{"procexit", "procinfo", "signaldeliver", "switch"}, name)
		t.openLike = strings.HasPrefix(name, "open") && !strings.HasPrefix(name, "open_tree") || name == "creat"
		for i, p := range t.Params {
			t.order[p.Name] = i
			t.params = append(t.params, newParamType(t, i, tables))
		}
		t.paths = [3]int{t.path(onlySide), t.path(sourceSide), t.path(targetSide)}
		all[name] = t
	}
	return all
}

func newParamType(t *Type, i int, tables map[string]*nameTable) paramType {
	p := t.Params[i]
	out := paramType{kind: kinds[p.Kind], typ: p.Type, base: 10, dir: -1, names: tables[t.Name+"."+p.Name]}
	switch out.kind {
	case kindPath:
		out.dir = directoryParam(t, i)
	case kindMode:
		out.base, out.names = 8, tables["mode"]
	case kindFlags, kindEnum:
	default:
		out.base = numberBase(t, p)
	}
	return out
}

// directoryParam returns the parameter that a relative path starts from: the
// descriptor before it.
func directoryParam(t *Type, i int) int {
	if t.Params[i].Kind == "fsrelpath" && i > 0 && t.Params[i-1].Kind == "fd" {
		return i - 1
	}
	return -1
}

// numberBase returns the base in which a number is printed.
func numberBase(t *Type, p event.Parameter) int {
	switch {
	case p.Name == "mode" && t.openLike:
		return 8
	case p.Name == "mode", p.Name == "dev", p.Kind == "sigset", strings.HasPrefix(p.Name, "addr"), strings.HasPrefix(p.Name, "cap_"),
		p.Name == "request" && t.Name == "ioctl", p.Name == "argument", p.Name == "source", p.Name == "peer":
		return 16
	}
	return 10
}
