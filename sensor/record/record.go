// Package record holds what the kernel side of the sensor says of one event:
// the types, and the bytes that stand for them in a ring buffer.
//
// A [Record] is a [Header] (who did it, when, with what result), the parameters
// of its type in the order of event/syscalls.txt, and extras that no parameter
// holds, such as the path as the kernel knows it. Each is a [Value], which may
// be missing, or cut ([Value.Truncated]).
//
// Values are as the kernel has them: flags, modes, families and requests as
// numbers of the node's architecture; process ids as in the namespace of the
// sensor and user ids as in the first one, except for those that start with v and
// those that a caller gave as an argument, 0 for a process that has none there; paths as bytes, absolute ones from the root of the process.
// Devices are as stat(2) shows them.
//
//	var r record.Record
//	if err := r.Decode(sample); err != nil {
//		return err
//	}
//	if r.Type == openat {
//		path, _ := r.Extra(record.Path).Text()
//		…
//	}
//
// # Types
//
// Processes: clone, clone3, fork and vfork describe the child, by the name of
// the call that made it; threads have no records of their own. A process that
// execs has execve or execveat; a call of these that fails has the parameters
// res and filename alone, and if a guard denied it flags and trusted_exepath.
// procexit comes when the last thread of a process ends.
//
// Calls whose result is a descriptor or an error have the result both in the
// header and as the parameter. A call with paths has [Base] and [SecondBase] for
// those that do not start with a slash: what they are relative to, whether that
// is the working directory or an open one. A call on a descriptor has [FD] if it
// was open.
//
// # Bytes
//
// All numbers are little-endian. A record is a header of 144 bytes and values;
// each value is a tag (1 byte: the position of the parameter, or the number of
// an extra), flags (1: truncated), a length (2 bytes) and that many bytes. A
// value that is not there is missing.
//
// [Int]: 8 bytes, two's complement. [Text]: bytes without NUL. [Bytes]: as read;
// args, env and cgroups are strings that each end with NUL, and a cgroup is
// "=PATH" in the unified hierarchy, otherwise "memory=PATH" or "pids=PATH".
// [Socket]: see [Tuple]; [SockAddr]: a struct sockaddr as the caller gave it;
// [Descriptor]: see [File].
package record

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// HeaderSize is the number of bytes of a header.
	HeaderSize = 144
	// MaxSize is the number of bytes that a record has at most.
	MaxSize = 48 << 10

	maxParams = 32
	valueHead = 4
)

// A Key says which process, for as long as the node runs: process ids are used
// again.
type Key struct {
	TGID  uint32 // process id in the first namespace
	Start uint64 // when its first thread started, in nanoseconds since boot
}

// Ticks returns the start in hundredths of a second since boot, which is how
// /proc/PID/stat shows it.
func (k Key) Ticks() uint64 { return k.Start / 10_000_000 }

// A Header is what every record has.
type Header struct {
	Type      Type
	Buffer    uint32 // of the ring buffer
	CPU       uint32
	Sequence  uint64 // counts, from 1, what this CPU made for this buffer; records that were dropped leave gaps
	Time      uint64 // nanoseconds since boot, suspended time included (CLOCK_BOOTTIME)
	HasResult bool
	Result    int64 // of the call; -errno on failure
	OfNode    bool  // the process is of the node, not of a container, whatever its control group; told only by a sensor that may act

	Process Key // of a fork, the child
	TID     uint32
	Parent  Key // the process that is the parent now

	VPID, VTID  uint32 // in the process's own namespace
	PGID, VPGID uint32 // process group
	SID         uint32 // session
	UID, GID    uint32 // effective, as the call left them
	LoginUID    uint32 // 4294967295 if unset
	TTY         uint32 // device of the controlling terminal; 0 for none
	Mnt, PID    uint32 // inodes of namespaces
	Net, User   uint32
	Cgroup      uint64 // inode of the directory in the hierarchy that cgroups of an exec name
	Comm        [16]byte
}

// Name returns the command name, at most 15 bytes. It is valid as long as h.
func (h *Header) Name() []byte { return untilNUL(h.Comm[:]) }

// A Tag is the number of an extra.
type Tag uint8

// The extras.
const (
	Path       Tag = 64 + iota // Text: what was opened, by the kernel's own names
	Base                       // Text: the directory that the first path of the call is relative to
	SecondBase                 // Text: that of the second
	FD                         // Descriptor: what the call worked on (dup: what it made), after the call
	Stdin                      // Descriptor: 0 of a process that execs
	Stdout                     // Descriptor: 1
	Stderr                     // Descriptor: 2
	FileState                  // Int: [Created], [Upper], [Lower] of what was opened
	Device                     // Int: of the executable
	Address                    // SockAddr: the destination or source that the caller named
	Enforced                   // Int: what a guard did: [WouldKill], [Killed], [Denied], or the error (-errno) that kept it from that
	endOfTags
)

var extraKinds = [endOfTags - Path]Kind{Text, Text, Text, Descriptor, Descriptor, Descriptor, Descriptor, Int, Int, SockAddr, Int}

// Bits of [FileState].
const (
	Created = 1 << iota // by this call
	Upper               // in the upper layer of an overlay
	Lower               // in a lower layer
)

// Values of [Enforced].
const (
	WouldKill = 1 // in a dry run
	Killed    = 2
	Denied    = 3 // an exec, which so failed
)

// Bits of the parameter flags of an exec.
const (
	ExeWritable = 1 << iota // whoever runs it can write to it
	ExeUpper                // in the upper layer of an overlay
	ExeMemFD                // in memory only (memfd_create)
	ExeLower                // in a lower layer
	ExeUnlinked             // its name is gone
	ExeOnTmpFS              // on tmpfs or ramfs, shared memory included
	ExeAdded                // the root of the container is an overlay, and it is not in a lower layer of that: it did not come with the image
)

// A Record is one event. It is not safe for concurrent use.
type Record struct {
	Header
	params [maxParams]Value
	extras [endOfTags - Path]Value
}

// Param returns the parameter at a position, missing if there is none.
func (r *Record) Param(i int) Value {
	if i < 0 || i >= maxParams {
		return Value{}
	}
	return r.params[i]
}

// Named returns a parameter by name. [Type.Index] and [Record.Param] are faster.
func (r *Record) Named(name string) Value { return r.Param(r.Type.Index(name)) }

// Extra returns an extra.
func (r *Record) Extra(t Tag) Value {
	if t < Path || t >= endOfTags {
		return Value{}
	}
	return r.extras[t-Path]
}

// SetParam gives the record a parameter; the bytes are kept, not copied.
func (r *Record) SetParam(i int, v Value) error {
	params := r.Type.Params()
	if i < 0 || i >= len(params) {
		return fmt.Errorf("%s has no parameter %d", r.Type, i)
	}
	if err := v.check(params[i].Kind); err != nil {
		return fmt.Errorf("%s.%s: %w", r.Type, params[i].Name, err)
	}
	r.params[i] = v
	return nil
}

// SetExtra gives the record an extra; the bytes are kept, not copied.
func (r *Record) SetExtra(t Tag, v Value) error {
	if t < Path || t >= endOfTags {
		return fmt.Errorf("%s: extra %d does not exist", r.Type, t)
	}
	if err := v.check(extraKinds[t-Path]); err != nil {
		return fmt.Errorf("%s: extra %d: %w", r.Type, t, err)
	}
	r.extras[t-Path] = v
	return nil
}

var errShort = errors.New("record ends early")

// Decode reads a record. Its values are parts of data, so they are valid as long
// as data is left alone. After an error r holds nothing of use.
func (r *Record) Decode(data []byte) error {
	if len(data) < HeaderSize {
		return fmt.Errorf("decode record of %d bytes: %w", len(data), errShort)
	}
	if len(data) > MaxSize {
		return fmt.Errorf("decode record of %d bytes: more than %d", len(data), MaxSize)
	}
	if size := binary.LittleEndian.Uint32(data); int(size) != len(data) {
		return fmt.Errorf("decode record of %d bytes: it says that it has %d", len(data), size)
	}
	*r = Record{}
	r.decodeHeader(data)
	if !r.Type.Valid() {
		return fmt.Errorf("decode record: type %d does not exist", r.Type)
	}
	if version := data[6]; version != formatVersion {
		return fmt.Errorf("decode %s: version %d of the format, want %d", r.Type, version, formatVersion)
	}
	for rest := data[HeaderSize:]; len(rest) > 0; {
		if len(rest) < valueHead {
			return fmt.Errorf("decode %s: %w", r.Type, errShort)
		}
		n := valueHead + int(binary.LittleEndian.Uint16(rest[2:]))
		if len(rest) < n {
			return fmt.Errorf("decode %s: %w", r.Type, errShort)
		}
		if err := r.set(rest[0], Value{data: rest[valueHead:n:n], state: present | rest[1]&truncated}); err != nil {
			return fmt.Errorf("decode %w", err)
		}
		rest = rest[n:]
	}
	return nil
}

// TimeOf returns the time of a record that was not decoded, 0 if it is too short
// to be one.
func TimeOf(data []byte) uint64 {
	if len(data) < HeaderSize {
		return 0
	}
	return binary.LittleEndian.Uint64(data[8:])
}

func (r *Record) set(tag uint8, v Value) error {
	if tag < uint8(Path) {
		if !r.Param(int(tag)).Missing() {
			return fmt.Errorf("%s: parameter %d comes twice", r.Type, tag)
		}
		return r.SetParam(int(tag), v)
	}
	if !r.Extra(Tag(tag)).Missing() {
		return fmt.Errorf("%s: extra %d comes twice", r.Type, tag)
	}
	return r.SetExtra(Tag(tag), v)
}

const (
	formatVersion = 1
	hasResult     = 1
	ofNode        = 2
)

// words are the header's numbers of 4 bytes, in order.
func (h *Header) words() [18]*uint32 {
	return [...]*uint32{
		&h.Buffer, &h.CPU, &h.Process.TGID, &h.TID, &h.Parent.TGID, &h.VPID, &h.VTID, &h.PGID, &h.VPGID, &h.SID,
		&h.UID, &h.GID, &h.LoginUID, &h.TTY, &h.Mnt, &h.PID, &h.Net, &h.User,
	}
}

const wordsAt = 56

func (h *Header) decodeHeader(data []byte) {
	le := binary.LittleEndian
	h.Type, h.HasResult, h.OfNode = Type(le.Uint16(data[4:])), data[7]&hasResult != 0, data[7]&ofNode != 0
	h.Time, h.Sequence, h.Result = le.Uint64(data[8:]), le.Uint64(data[16:]), int64(le.Uint64(data[24:]))
	h.Process.Start, h.Parent.Start, h.Cgroup = le.Uint64(data[32:]), le.Uint64(data[40:]), le.Uint64(data[48:])
	for i, w := range h.words() {
		*w = le.Uint32(data[wordsAt+4*i:])
	}
	copy(h.Comm[:], data[HeaderSize-len(h.Comm):HeaderSize])
}

func (h *Header) appendHeader(data []byte, size int) []byte {
	le := binary.LittleEndian
	data = le.AppendUint32(data, uint32(size))
	data = le.AppendUint16(data, uint16(h.Type))
	flags := byte(0)
	if h.HasResult {
		flags = hasResult
	}
	if h.OfNode {
		flags |= ofNode
	}
	data = append(data, formatVersion, flags)
	for _, n := range [...]uint64{h.Time, h.Sequence, uint64(h.Result), h.Process.Start, h.Parent.Start, h.Cgroup} {
		data = le.AppendUint64(data, n)
	}
	for _, w := range h.words() {
		data = le.AppendUint32(data, *w)
	}
	return append(data, h.Comm[:]...)
}

// Append writes the record's bytes after dst, for those who record events or
// move them to another process. It fails if there would be more than [MaxSize].
func (r *Record) Append(dst []byte) ([]byte, error) {
	size := HeaderSize
	for _, v := range r.params {
		size += v.size()
	}
	for _, v := range r.extras {
		size += v.size()
	}
	if size > MaxSize {
		return dst, fmt.Errorf("encode %s: %d bytes, at most %d", r.Type, size, MaxSize)
	}
	dst = r.appendHeader(dst, size)
	for i, v := range r.params {
		dst = v.append(dst, uint8(i))
	}
	for i, v := range r.extras {
		dst = v.append(dst, uint8(Path)+uint8(i))
	}
	return dst, nil
}

// Clone returns a copy that stays valid: one allocation for the record, one for
// the bytes of all its values.
func (r *Record) Clone() *Record {
	c := *r
	n := 0
	for i := range c.params {
		n += len(c.params[i].data)
	}
	for i := range c.extras {
		n += len(c.extras[i].data)
	}
	kept := make([]byte, 0, n)
	keep := func(v *Value) {
		if v.Missing() {
			return
		}
		start := len(kept)
		kept = append(kept, v.data...)
		v.data = kept[start:len(kept):len(kept)]
	}
	for i := range c.params {
		keep(&c.params[i])
	}
	for i := range c.extras {
		keep(&c.extras[i])
	}
	return &c
}
