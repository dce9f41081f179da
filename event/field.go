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
	NoArg      Arg = iota
	IndexArg       // optional: position of one element
	KeyArg         // required: a name or path
	PointerArg     // required: a JSON pointer; its leading slash is optional
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
	Key     string   // the argument as written
	Index   int      // of an index argument; -1 without one
	Pointer []string // the parts of a pointer argument, unescaped
}

// Sources lists the sources that have fields.
func Sources() []string { return []string{K8sAudit} }

// Fields lists the fields of a source, its own first, then those that every
// event has. It returns nil for an unknown source.
func Fields(source string) []Field {
	if source != K8sAudit {
		return nil
	}
	return slices.Concat(auditFields, enrichmentFields, commonFields)
}

// AlertFields lists the fields that every alert of a source carries, whatever
// the output of its rule names.
func AlertFields(source string) []Ref {
	var refs []Ref
	if source == K8sAudit {
		for _, name := range auditAlertFields {
			refs = append(refs, Ref{Field: Field{Name: name}, Text: name, Index: -1})
		}
	}
	return refs
}

// Lookup returns the field of a source with this name.
func Lookup(source, name string) (Field, bool) {
	fields := Fields(source)
	i := slices.IndexFunc(fields, func(f Field) bool { return f.Name == name })
	if i < 0 {
		return Field{}, false
	}
	return fields[i], true
}

// Resolve binds a field to an argument; arg is nil if the rule gives none.
func Resolve(f Field, arg *string) (Ref, error) {
	ref := Ref{Field: f, Text: f.Name, Index: -1}
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
