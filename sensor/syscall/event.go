// Package syscall is what a rule of the source syscall sees: a system call or
// another event of the kernel, with the process that caused it, the descriptor
// that it is about, and the container. It has a value for each field of the
// source (fields*.go), the names of flags and other numbers (names.txt), and the
// form of recorded events, one line of JSON each (json*.go).
package syscall

import (
	"github.com/kubeguardian/kubeguardian/event"
)

// An Event is one event of the kernel; as [event.Record] it answers for the
// fields of the source. It is not safe for concurrent use. It may be used again
// for a further event once all that is asked of this one has been answered.
type Event struct {
	Type   *Type
	CPU    int16   // -1 if not known
	Result int64   // of the call: negative errno on failure
	Called bool    // there is a result
	Params []Param // one for each of Type.Params, in their order

	Process   *Process   // nil if not known
	TID, VTID int32      // of the thread; 0 if not known
	Comm      string     // of the thread, if it is not that of its process
	FD        *FD        // that the event is about; nil if none, or if it is not known
	Container *Container // nil if not known

	Time     Instant
	Previous Instant  // time of the event before; 0 if not known
	Polled   []Polled // descriptors of poll and ppoll

	lists [lists][]string // what ancestors say, by field; their memory is used again
}

// A Param is the value of one parameter of an event. What its parts mean depends
// on the kind of the parameter; the others are zero.
type Param struct {
	Known bool   // the event has the parameter
	Num   int64  // a number, the bits of an unsigned one; flags as the kernel has them, but for those of the open family, see [OpenFlags]
	Text  string // a text, path as given, or bytes; the name that belongs to the number of a pid, uid or gid, if it is known
	Path  string // a path made absolute; empty to have it from the process and the directory
	FD    *FD    // the descriptor that Num is the number of, or the ends of a tuple or address; nil if not known
}

// A Polled is a descriptor that is waited for.
type Polled struct {
	FD     *FD    `json:"fd"`
	Events uint16 `json:"events"` // that are waited for, or have come
}

// Number returns a known parameter that is a number.
func Number(n int64) Param { return Param{Known: true, Num: n} }

// Text returns a known parameter that is a text or bytes.
func Text(s string) Param { return Param{Known: true, Text: s} }

// Subject names the pod and container, or the node's process.
func (e *Event) Subject() event.Subject {
	c := e.Container
	if c == nil || c.Pod == nil {
		return event.Subject{}
	}
	return event.Subject{APIVersion: "v1", Kind: "Pod", Namespace: c.Pod.Namespace, Name: c.Pod.Name, Container: c.Name}
}
