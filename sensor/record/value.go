package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"net/netip"
	"strings"
)

const (
	truncated = 1
	present   = 2
)

// A Value is a parameter or an extra. The zero Value is missing. What its methods
// return is part of the record's bytes, and valid as long as these.
type Value struct {
	data  []byte
	state uint8
}

// IntValue returns a value of kind [Int].
func IntValue(n int64) Value {
	return Value{data: binary.LittleEndian.AppendUint64(nil, uint64(n)), state: present}
}

// BytesValue returns a value of kind [Text] or [Bytes], or of the others as they
// are encoded. It keeps b.
func BytesValue(b []byte) Value { return Value{data: b, state: present} }

// Cut returns the value marked as truncated.
func (v Value) Cut() Value {
	v.state |= truncated
	return v
}

// Missing reports whether the record does not have the value: the kernel could
// not read it, or the event has no such thing.
func (v Value) Missing() bool { return v.state&present == 0 }

// Truncated reports whether there was more than the value holds.
func (v Value) Truncated() bool { return v.state&truncated != 0 }

// Int returns a number.
func (v Value) Int() (int64, bool) {
	if len(v.data) != 8 {
		return 0, false
	}
	return int64(binary.LittleEndian.Uint64(v.data)), true
}

// Uint returns a number that has no sign.
func (v Value) Uint() (uint64, bool) {
	n, ok := v.Int()
	return uint64(n), ok
}

// Text returns a text; false if it is missing, true if it is empty.
func (v Value) Text() ([]byte, bool) { return v.data, !v.Missing() }

// Bytes returns the value's bytes, whatever its kind.
func (v Value) Bytes() ([]byte, bool) { return v.data, !v.Missing() }

// Strings yields texts that each end with NUL. Of a value that was cut, the last
// one is what is left of it.
func (v Value) Strings() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for rest := v.data; len(rest) > 0; {
			text, after, _ := bytes.Cut(rest, []byte{0})
			if !yield(text) {
				return
			}
			rest = after
		}
	}
}

func (v Value) size() int {
	if v.Missing() {
		return 0
	}
	return valueHead + len(v.data)
}

func (v Value) append(dst []byte, tag uint8) []byte {
	if v.Missing() {
		return dst
	}
	dst = append(dst, tag, v.state&truncated)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(v.data)))
	return append(dst, v.data...)
}

// check reports whether the bytes can be of a kind, so that later readers need
// not ask.
func (v Value) check(k Kind) error {
	ok := true
	switch {
	case len(v.data) > math.MaxUint16:
		return fmt.Errorf("%d bytes, at most %d", len(v.data), math.MaxUint16)
	case v.Missing():
		return errors.New("is missing")
	case k == Int:
		ok = len(v.data) == 8
	case k == Text:
		ok = bytes.IndexByte(v.data, 0) < 0
	case k == Socket:
		ok = isTuple(v.data)
	case k == SockAddr:
		ok = len(v.data) >= 2 && len(v.data) <= maxSockaddr
	case k == Descriptor:
		ok = isFile(v.data)
	}
	if !ok {
		return fmt.Errorf("%d bytes are no value of its kind", len(v.data))
	}
	return nil
}

// Families of sockets that have addresses here.
const (
	FamilyUnix = 1
	FamilyIPv4 = 2
	FamilyIPv6 = 10
)

// A Tuple is a socket with its two ends. Encoded: family (2 bytes), protocol (1),
// flags (1: connected), then for IPv4 and IPv6 the local and the remote port (2
// each) and address (16 each, of IPv4 the first 4); for Unix sockets the lengths
// of the local and the remote name (2 each), and the names.
type Tuple struct {
	Family        uint16         // AF_*
	Protocol      uint8          // IPPROTO_*; of a Unix socket its type, SOCK_*
	Connected     bool           // the socket has a peer
	Local, Remote netip.AddrPort // of IPv4 and IPv6; not specified until known
	LocalName     []byte         // of Unix sockets: a path, or NUL and an abstract name
	RemoteName    []byte
}

const (
	tupleHead = 8
	inetTuple = tupleHead + 32
)

func isTuple(b []byte) bool {
	if len(b) < tupleHead {
		return false
	}
	le := binary.LittleEndian
	switch le.Uint16(b) {
	case FamilyIPv4, FamilyIPv6:
		return len(b) == inetTuple
	case FamilyUnix:
		return len(b) == tupleHead+int(le.Uint16(b[4:]))+int(le.Uint16(b[6:]))
	}
	return len(b) == tupleHead
}

// Tuple returns a socket.
func (v Value) Tuple() (Tuple, bool) {
	b := v.data
	if !isTuple(b) {
		return Tuple{}, false
	}
	le := binary.LittleEndian
	t := Tuple{Family: le.Uint16(b), Protocol: b[2], Connected: b[3]&1 != 0}
	first, second := le.Uint16(b[4:]), le.Uint16(b[6:])
	switch t.Family {
	case FamilyIPv4, FamilyIPv6:
		t.Local = netip.AddrPortFrom(address(t.Family, b[tupleHead:]), first)
		t.Remote = netip.AddrPortFrom(address(t.Family, b[tupleHead+16:]), second)
	case FamilyUnix:
		t.LocalName, t.RemoteName = b[tupleHead:tupleHead+int(first)], b[tupleHead+int(first):]
	}
	return t, true
}

func address(family uint16, b []byte) netip.Addr {
	if family == FamilyIPv4 {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrFrom16([16]byte(b))
}

// Value returns the tuple encoded.
func (t Tuple) Value() Value {
	le := binary.LittleEndian
	b := append(le.AppendUint16(nil, t.Family), t.Protocol, 0)
	if t.Connected {
		b[3] = 1
	}
	switch t.Family {
	case FamilyIPv4, FamilyIPv6:
		b = le.AppendUint16(le.AppendUint16(b, t.Local.Port()), t.Remote.Port())
		for _, a := range []netip.Addr{t.Local.Addr(), t.Remote.Addr()} {
			var field [16]byte
			copy(field[:], a.AsSlice())
			b = append(b, field[:]...)
		}
	case FamilyUnix:
		b = le.AppendUint16(le.AppendUint16(b, uint16(len(t.LocalName))), uint16(len(t.RemoteName)))
		b = append(append(b, t.LocalName...), t.RemoteName...)
	default:
		b = append(b, 0, 0, 0, 0)
	}
	return BytesValue(b)
}

// An Addr is a struct sockaddr as a caller gave it.
type Addr struct {
	Family   uint16
	AddrPort netip.AddrPort // of IPv4 and IPv6
	Name     []byte         // of Unix sockets: a path, or NUL and an abstract name
}

const maxSockaddr = 128

// Address returns an address. It is false if there is none, or not enough of it.
func (v Value) Address() (Addr, bool) {
	b := v.data
	if len(b) < 2 {
		return Addr{}, false
	}
	a := Addr{Family: binary.LittleEndian.Uint16(b)}
	switch a.Family {
	case FamilyIPv4:
		if len(b) < 8 {
			return a, false
		}
		a.AddrPort = netip.AddrPortFrom(address(a.Family, b[4:]), binary.BigEndian.Uint16(b[2:]))
	case FamilyIPv6:
		if len(b) < 24 {
			return a, false
		}
		a.AddrPort = netip.AddrPortFrom(address(a.Family, b[8:]), binary.BigEndian.Uint16(b[2:]))
	case FamilyUnix:
		a.Name = b[2:]
		if len(a.Name) > 0 && a.Name[0] != 0 {
			a.Name = untilNUL(a.Name)
		}
	}
	return a, true
}

// A File is what a descriptor stands for. Encoded: kind (1 byte), layer (1: the
// bits [Upper] and [Lower]), 2 bytes that are zero, flags (4), device (8), inode
// (8), then a [Tuple] for sockets, otherwise the name.
type File struct {
	Kind   byte   // as fd.typechar of Falco's fields: 'f' file, 'd' directory, '4', '6', 'u', 'n', 'p' pipe …; 'S' other sockets, 'o' unknown
	Layer  uint8  // [Upper] or [Lower] of an overlay, or 0
	Flags  uint32 // O_*, as the file was opened
	Device uint64
	Inode  uint64
	Name   []byte // path by the kernel's names, such as /etc/passwd; for others what the kernel calls it, such as [eventfd]
	Socket Tuple  // of sockets
}

const fileHead = 24

// IsSocket reports whether the file is a socket: Socket is set, Name is not.
func (f File) IsSocket() bool { return strings.IndexByte("46unS", f.Kind) >= 0 }

func isFile(b []byte) bool {
	return len(b) >= fileHead && (!File{Kind: b[0]}.IsSocket() || isTuple(b[fileHead:]))
}

// File returns what a descriptor stands for.
func (v Value) File() (File, bool) {
	b := v.data
	if !isFile(b) {
		return File{}, false
	}
	le := binary.LittleEndian
	f := File{Kind: b[0], Layer: b[1], Flags: le.Uint32(b[4:]), Device: le.Uint64(b[8:]), Inode: le.Uint64(b[16:])}
	if !f.IsSocket() {
		f.Name = b[fileHead:]
		return f, true
	}
	f.Socket, _ = BytesValue(b[fileHead:]).Tuple()
	return f, true
}

// Value returns the file encoded.
func (f File) Value() Value {
	le := binary.LittleEndian
	b := le.AppendUint32([]byte{f.Kind, f.Layer, 0, 0}, f.Flags)
	b = le.AppendUint64(le.AppendUint64(b, f.Device), f.Inode)
	if f.IsSocket() {
		return BytesValue(append(b, f.Socket.Value().data...))
	}
	return BytesValue(append(b, f.Name...))
}

func untilNUL(b []byte) []byte {
	text, _, _ := bytes.Cut(b, []byte{0})
	return text
}
