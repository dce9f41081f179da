package event

import (
	_ "embed"
	"slices"
	"strings"
)

//go:embed syscalls.txt
var syscallTable string

//go:embed syscall_fields.txt
var syscallFieldTable string

// lines yields the words of each line of a table, at most n.
func lines(table string, n int) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		for line := range strings.Lines(table) {
			line = strings.TrimSpace(line)
			if line != "" && line[0] != '#' && !yield(strings.SplitN(line, " ", n)) {
				return
			}
		}
	}
}

var (
	syscallTypes  = newSyscallTypes()
	syscallParams = newSyscallParams()
	syscallFields = newSyscallFields()
	parameters    = newParameters()
)

// A Parameter is one parameter of the events of a type.
type Parameter struct {
	Name string
	Kind string // of its values, by Falco's words: fd, fspath, flags32, uint64 …
	Type Type   // of evt.rawarg
}

// Parameters lists the parameters of an event type of the source syscall in
// their order; nil if it has none. The list is read-only.
func Parameters(typ string) []Parameter { return parameters[typ] }

func newParameters() map[string][]Parameter {
	all := map[string][]Parameter{}
	for words := range lines(syscallTable, -1) {
		for _, word := range words[1:] {
			name, kind, _ := strings.Cut(word, ":")
			all[words[0]] = append(all[words[0]], Parameter{name, kind, paramType(kind)})
		}
	}
	return all
}

func newSyscallTypes() []string {
	var types []string
	for words := range lines(syscallTable, 2) {
		types = append(types, words[0])
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// newSyscallParams returns the type of each parameter; of a name that events
// use for several types, the first.
func newSyscallParams() map[string]Type {
	params := map[string]Type{}
	for words := range lines(syscallTable, -1) {
		for _, word := range words[1:] {
			name, kind, _ := strings.Cut(word, ":")
			if _, ok := params[name]; !ok {
				params[name] = paramType(kind)
			}
		}
	}
	return params
}

func paramType(kind string) Type {
	switch kind {
	case "charbuf", "fspath", "fsrelpath", "socktuple", "sockaddr", "fdlist", "dyn":
		return TypeString
	case "bytebuf":
		return TypeBytes
	case "int16", "int32", "int64", "errno", "fd", "pid":
		return TypeNumber
	}
	return TypeUint
}

var tableTypes = map[string]Type{
	"string": TypeString, "number": TypeNumber, "uint": TypeUint, "bool": TypeBool, "double": TypeDouble,
	"port": TypePort, "bytes": TypeBytes, "ip": TypeIP, "net": TypeNet, "list": TypeList,
}

var tableArgs = map[string]Arg{"-": NoArg, "index": IndexArg, "ancestor": IndexArg, "name": OptionalKeyArg, "required": KeyArg}

func newSyscallFields() []Field {
	var fields []Field
	for w := range lines(syscallFieldTable, 4) {
		fields = append(fields, Field{w[0], tableTypes[w[1]], tableArgs[w[2]], w[3]})
	}
	return fields
}

// Types lists the event types of a source, sorted; nil if it has none.
func Types(source string) []string {
	if source != Syscall {
		return nil
	}
	return syscallTypes
}

// dotted are the fields whose argument may follow a dot.
var dotted = []string{
	"evt.arg", "evt.rawarg", "evt.type.is", "thread.cgroup", "container.label", "k8s.pod.label", "k8s.ns.label",
	"k8s.rc.label", "k8s.svc.label", "k8s.rs.label", "k8s.deployment.label",
}

// dottedKey takes a name such as evt.arg.path apart.
func dottedKey(name string) (base, key string, ok bool) {
	for _, base := range dotted {
		if key, ok := strings.CutPrefix(name, base+"."); ok && key != "" {
			return base, key, true
		}
	}
	return "", "", false
}

// lookupDotted returns a field such as evt.arg.path, whose name holds an
// argument.
func lookupDotted(name string) (Field, bool) {
	base, key, ok := dottedKey(name)
	if !ok {
		return Field{}, false
	}
	f := Field{name, TypeString, NoArg, fieldIndex[Syscall][base].Desc}
	switch base {
	case "evt.arg", "evt.rawarg":
		typ, known := syscallParams[key]
		if !known {
			return Field{}, false
		}
		if base == "evt.rawarg" {
			f.Type = typ
		}
	case "evt.type.is":
		if !slices.Contains(syscallTypes, key) {
			return Field{}, false
		}
		f.Type = TypeUint
	}
	return f, true
}

// Ancestors reports whether the reference is to any ancestor of a process: its
// value is a list, and a check is true if it is for one element.
func (r Ref) Ancestors() bool {
	return r.Key == "" && slices.Contains([]string{"proc.aname", "proc.aexe", "proc.aexepath", "proc.acmdline", "proc.apid", "proc.aenv"}, r.Name)
}

// Ends returns the fields of the two ends of a connection that a field stands
// for, as fd.ip stands for fd.cip and fd.sip.
func (f Field) Ends() (client, server string, ok bool) {
	ends, ok := map[string][2]string{
		"fd.ip": {"fd.cip", "fd.sip"}, "fd.port": {"fd.cport", "fd.sport"},
		"fd.proto": {"fd.cproto", "fd.sproto"}, "fd.net": {"fd.cnet", "fd.snet"},
	}[f.Name]
	return ends[0], ends[1], ok
}

// Plain reports whether a field can only be compared with constants: it takes
// no transformer and no field on the right side.
func (f Field) Plain() bool {
	plain := []string{
		"fd.ip", "fd.port", "fd.proto", "fd.net", "fd.cnet", "fd.snet", "fd.lnet", "fd.rnet", "fd.cip.name", "fd.sip.name",
		"fd.lip.name", "fd.rip.name", "evt.around", "proc.apid", "proc.aname", "proc.aexe", "proc.aexepath",
		"proc.acmdline", "proc.aenv", "evt.rawarg",
	}
	return slices.Contains(plain, f.Name) || strings.HasPrefix(f.Name, "evt.rawarg.")
}

// Deprecated reports whether rules should not use a field any more.
func (f Field) Deprecated() bool {
	return f.Name == "evt.dir" || f.Name == "evt.wait_latency" || f.Name == "evt.latency" || strings.HasPrefix(f.Name, "evt.latency.")
}
