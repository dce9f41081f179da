package event

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// A Type is the type of a field.
type Type uint8

// The types of fields. None is the type of a missing value.
const (
	None       Type = iota
	TypeString      // a string or path
	TypeNumber      // a signed integer
	TypeList        // a list of strings
	TypeUint        // an unsigned integer, flags or a time
	TypePort        // an unsigned integer that has names
	TypeBool
	TypeDouble
	TypeBytes
	TypeIP
	TypeNet // an address that is compared with networks
)

var typeNames = [...]string{"missing", "string", "number", "list", "unsigned number", "port", "bool", "double", "byte buffer", "IP address", "network"}

// String returns the name of the type in error messages.
func (t Type) String() string { return typeNames[t] }

// NA is how a missing value is printed.
const NA = "<NA>"

// A Value is the value of a field in one event. The zero Value is missing: the
// event does not have the field. An empty string is present.
type Value struct {
	Type   Type
	Text   string   // of a string; the bytes of a buffer; the 4 or 16 bytes of an address; of an unsigned number or port, how it is printed if not in decimal
	Number int64    // of a number; the bits of an unsigned one or a double; 1 for true
	List   []string // of a list; read-only
}

// Text returns a string value.
func Text(s string) Value { return Value{Type: TypeString, Text: s} }

// Hex returns an unsigned number value that is printed in hexadecimal digits.
func Hex(n uint64) Value {
	return Value{Type: TypeUint, Number: int64(n), Text: strconv.FormatUint(n, 16)}
}

// Service returns a port value that is printed as the name of its service.
func Service(n uint16, name string) Value { return Value{Type: TypePort, Number: int64(n), Text: name} }

// Number returns a number value.
func Number(n int64) Value { return Value{Type: TypeNumber, Number: n} }

// Uint returns an unsigned number value.
func Uint(n uint64) Value { return Value{Type: TypeUint, Number: int64(n)} }

// Port returns a port value.
func Port(n uint16) Value { return Value{Type: TypePort, Number: int64(n)} }

// Double returns a floating-point value.
func Double(f float64) Value { return Value{Type: TypeDouble, Number: int64(math.Float64bits(f))} }

// Bool returns a truth value.
func Bool(b bool) Value {
	v := Value{Type: TypeBool}
	if b {
		v.Number = 1
	}
	return v
}

// Bytes returns a byte buffer; its bytes are those of s.
func Bytes(s string) Value { return Value{Type: TypeBytes, Text: s} }

// IP returns an address; its bytes, 4 or 16, are those of s. Anything else is
// missing.
func IP(s string) Value {
	if len(s) != 4 && len(s) != 16 {
		return Value{}
	}
	return Value{Type: TypeIP, Text: s}
}

// Addr returns an address.
func Addr(a netip.Addr) Value { return IP(string(a.Unmap().AsSlice())) }

// List returns a list value. An empty list is missing.
func List(items []string) Value {
	if len(items) == 0 {
		return Value{}
	}
	return Value{Type: TypeList, List: items}
}

// Missing reports whether the event does not have the field.
func (v Value) Missing() bool { return v.Type == None }

// Double returns the number of a double value.
func (v Value) Double() float64 { return math.Float64frombits(uint64(v.Number)) }

// Addr returns the address of an IP value, the zero Addr of any other.
func (v Value) Addr() netip.Addr {
	switch len(v.Text) {
	case 4:
		return netip.AddrFrom4([4]byte([]byte(v.Text)))
	case 16:
		return netip.AddrFrom16([16]byte([]byte(v.Text)))
	}
	return netip.Addr{}
}

// String returns the value as Falco prints it in the text of an alert.
func (v Value) String() string {
	switch v.Type {
	case TypeString, TypeBytes:
		return v.Text
	case TypeNumber:
		return strconv.FormatInt(v.Number, 10)
	case TypeUint, TypePort:
		if v.Text != "" {
			return v.Text
		}
		return strconv.FormatUint(uint64(v.Number), 10)
	case TypeBool:
		return strconv.FormatBool(v.Number != 0)
	case TypeDouble:
		return strconv.FormatFloat(v.Double(), 'f', 1, 64)
	case TypeIP, TypeNet:
		return v.Addr().String()
	case TypeList:
		return "(" + strings.Join(v.List, ",") + ")"
	}
	return NA
}

// JSON returns the value as it stands in the output fields of an alert: nil if
// it is missing. It is a copy, which outlives the event.
func (v Value) JSON() any {
	switch v.Type {
	case None:
		return nil
	case TypeNumber:
		return v.Number
	case TypeUint, TypePort:
		if v.Text == "" || v.Type == TypePort {
			return uint64(v.Number)
		}
	case TypeBool:
		return v.Number != 0
	case TypeDouble:
		return v.Double()
	case TypeList:
		list := make([]string, len(v.List))
		for i, s := range v.List {
			list[i] = strings.Clone(s)
		}
		return list
	}
	return strings.Clone(v.String())
}
