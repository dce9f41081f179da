package event

import (
	"strconv"
	"strings"
)

// A Type is the type of a field.
type Type uint8

// The types of fields. None is the type of a missing value.
const (
	None Type = iota
	TypeString
	TypeNumber
	TypeList // a list of strings
)

// String returns the name of the type in error messages.
func (t Type) String() string {
	switch t {
	case TypeString:
		return "string"
	case TypeNumber:
		return "number"
	case TypeList:
		return "list"
	}
	return "missing"
}

// NA is how a missing value is printed.
const NA = "<NA>"

// A Value is the value of a field in one event. The zero Value is missing: the
// event does not have the field. An empty string is present.
type Value struct {
	Type   Type
	Text   string   // of a string
	Number int64    // of a number
	List   []string // of a list; read-only
}

// Text returns a string value.
func Text(s string) Value { return Value{Type: TypeString, Text: s} }

// Number returns a number value.
func Number(n int64) Value { return Value{Type: TypeNumber, Number: n} }

// List returns a list value. An empty list is missing.
func List(items []string) Value {
	if len(items) == 0 {
		return Value{}
	}
	return Value{Type: TypeList, List: items}
}

// Missing reports whether the event does not have the field.
func (v Value) Missing() bool { return v.Type == None }

// String returns the value as Falco prints it in the text of an alert.
func (v Value) String() string {
	switch v.Type {
	case TypeString:
		return v.Text
	case TypeNumber:
		return strconv.FormatInt(v.Number, 10)
	case TypeList:
		return "(" + strings.Join(v.List, ",") + ")"
	}
	return NA
}

// JSON returns the value as it stands in the output fields of an alert: nil if
// it is missing. It is a copy, which outlives the event.
func (v Value) JSON() any {
	switch v.Type {
	case TypeString:
		return strings.Clone(v.Text)
	case TypeNumber:
		return v.Number
	case TypeList:
		list := make([]string, len(v.List))
		for i, s := range v.List {
			list[i] = strings.Clone(s)
		}
		return list
	}
	return nil
}
