package event

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// An Arg says which argument a field takes, as in ka.uri.param[command].
type Arg uint8

// The kinds of argument.
const (
	NoArg          Arg = iota
	IndexArg           // optional: position of one element
	KeyArg             // required: a name or path
	PointerArg         // required: a JSON pointer; its leading slash is optional
	OptionalKeyArg     // optional: a name or path
)

// A Field is something that a rule can ask of the events of a source.
type Field struct {
	Name string
	Type Type
	Arg  Arg
	Desc string // one line
}

// A Ref is a field with its argument, resolved by [Resolve].
type Ref struct {
	Field
	Text    string   // as a rule writes it: name, or name[arg]
	Key     string   // the argument as written, or what follows the dot of a name such as evt.arg.path
	Index   int      // of an index argument; -1 without one
	Pointer []string // the parts of a pointer argument, unescaped
	ID      ID       // of the field, for a source that finds its fields by number
}

// Sources lists the sources that rules can be written for.
func Sources() []string { return []string{K8sAudit, Syscall} }

// Fields lists the fields of a source, its own first, then those that every
// event has. It returns nil for an unknown source.
func Fields(source string) []Field {
	switch source {
	case K8sAudit:
		return slices.Concat(auditFields, enrichmentFields, commonFields)
	case Syscall:
		return slices.Concat(syscallFields, commonFields)
	}
	return nil
}

// fieldIndex has the fields of each source by name.
var fieldIndex = newFieldIndex()

func newFieldIndex() map[string]map[string]Field {
	index := map[string]map[string]Field{}
	for _, source := range Sources() {
		index[source] = map[string]Field{}
		for _, f := range slices.Concat(Fields(source), silentFields) {
			index[source][f.Name] = f
		}
	}
	return index
}

// AlertFields lists the fields that every alert of a source carries, whatever
// the output of its rule names.
func AlertFields(source string) []Ref {
	var refs []Ref
	if source == K8sAudit {
		for _, name := range auditAlertFields {
			refs = append(refs, Ref{Field: Field{Name: name}, Text: name, Index: -1, ID: id(name)})
		}
	}
	return refs
}

// Lookup returns the field of a source with this name.
func Lookup(source, name string) (Field, bool) {
	f, ok := fieldIndex[source][name]
	if !ok && source == Syscall {
		return lookupDotted(name)
	}
	return f, ok
}

// Resolve binds a field to an argument; arg is nil if the rule gives none.
func Resolve(f Field, arg *string) (Ref, error) {
	ref := Ref{Field: f, Text: f.Name, Index: -1, ID: id(f.Name)}
	if base, key, ok := dottedKey(f.Name); ok && ref.ID == 0 {
		ref.ID, ref.Key = id(base), key
	}
	if arg == nil {
		if f.Arg == KeyArg || f.Arg == PointerArg {
			return ref, fmt.Errorf("field %s needs an argument: %s[…]", f.Name, f.Name)
		}
		return ref, nil
	}
	ref.Key, ref.Text = *arg, f.Name+"["+*arg+"]"
	switch f.Arg {
	case NoArg:
		return ref, fmt.Errorf("field %s takes no argument", f.Name)
	case IndexArg:
		n, err := strconv.ParseUint(*arg, 10, 16)
		if err != nil {
			return ref, fmt.Errorf("argument %q of field %s is not a position (0, 1, …)", *arg, f.Name)
		}
		ref.Index = int(n)
	case PointerArg:
		ref.Pointer = pointer(*arg)
	}
	return ref, nil
}

// pointer splits a JSON pointer. The empty pointer is the whole value.
func pointer(s string) []string {
	s = strings.TrimPrefix(s, "/")
	if s == "" {
		return nil
	}
	parts := strings.Split(s, "/")
	for i, p := range parts {
		parts[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(p)
	}
	return parts
}

var commonFields = []Field{
	{"evt.num", TypeUint, NoArg, "number of the event, from 1"},
	{"evt.time", TypeString, NoArg, "local time of day with nanoseconds"},
	{"evt.time.s", TypeString, NoArg, "local time of day with seconds"},
	{"evt.time.iso8601", TypeString, NoArg, "date and time in UTC with nanoseconds"},
	{"evt.datetime", TypeString, NoArg, "local date and time of day with nanoseconds"},
	{"evt.datetime.s", TypeString, NoArg, "local date and time of day with seconds"},
	{"evt.rawtime", TypeNumber, NoArg, "nanoseconds since 1970"},
	{"evt.rawtime.s", TypeNumber, NoArg, "seconds since 1970"},
	{"evt.rawtime.ns", TypeNumber, NoArg, "nanoseconds within the second"},
	{"evt.source", TypeString, NoArg, "source of the event"},
	{"evt.hostname", TypeString, NoArg, "host where the event happened"},
}

// silentFields are known in rules of every source, and no source has a value
// for them.
var silentFields = []Field{
	{"evt.reltime", TypeUint, NoArg, "nanoseconds since the beginning"},
	{"evt.reltime.s", TypeUint, NoArg, "seconds since the beginning"},
	{"evt.reltime.ns", TypeUint, NoArg, "nanoseconds within the second since the beginning"},
	{"evt.pluginname", TypeString, NoArg, "name of the source's plugin"},
	{"evt.plugininfo", TypeString, NoArg, "the event in one line, by its plugin"},
	{"evt.is_async", TypeBool, NoArg, "whether the event was made asynchronously"},
	{"evt.asynctype", TypeString, NoArg, "type of an asynchronous event"},
}
