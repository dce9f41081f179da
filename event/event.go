// Package event holds what all event sources share: the event, its fields and
// their values. A rule resolves each field it names once, when it is loaded,
// and asks events for values by the resolved [Ref] only.
package event

import "time"

// The sources of events, by the names that Falco rules use.
const (
	K8sAudit = "k8s_audit"
	Syscall  = "syscall"
)

// An Event is one thing that happened. It is not safe for concurrent use: its
// fields are decoded when they are first asked for. A source says how long its
// events are valid, with the texts of their values; what must live longer is to
// be copied. What [Value.JSON] returns is a copy.
type Event struct {
	Source   string    // [K8sAudit] or [Syscall]
	ID       string    // opaque, as long valid as the event; the same for each delivery and each stage of one action, and for no other action
	Time     time.Time // when it happened
	Num      uint64    // its number among the events of the source, from 1; 0 counts as 1
	Hostname string    // where it happened; empty if the source does not say
	Record   Record    // the source's own form of the event
}

// A Record is the form in which a source keeps an event.
type Record interface {
	// Value returns the value of a field of the source, the zero Value if the
	// event does not have it. It is not asked for the evt.* fields.
	Value(ref Ref) Value

	// Subject names the object that the event is about. It outlives the event.
	Subject() Subject
}

// A Subject names the object that an event is about, as far as the source
// knows it.
type Subject struct {
	APIVersion, Kind, Namespace, Name, Container string
}

// Value returns the value of a field, the zero [Value] if the event does not
// have it.
func (e *Event) Value(ref Ref) Value {
	if ref.ID != 0 {
		return e.Record.Value(ref)
	}
	switch ref.Name {
	case "evt.num":
		return Uint(max(e.Num, 1))
	case "evt.time":
		return Text(e.Time.Local().Format(timeLayout))
	case "evt.time.s":
		return Text(e.Time.Local().Format("15:04:05"))
	case "evt.time.iso8601":
		return Text(e.Time.UTC().Format("2006-01-02T15:04:05.000000000Z"))
	case "evt.datetime":
		return Text(e.Time.Local().Format("2006-01-02 " + timeLayout))
	case "evt.datetime.s":
		return Text(e.Time.Local().Format("2006-01-02 15:04:05"))
	case "evt.rawtime":
		return Number(e.Time.UnixNano())
	case "evt.rawtime.s":
		return Number(e.Time.Unix())
	case "evt.rawtime.ns":
		return Number(int64(e.Time.Nanosecond()))
	case "evt.source":
		return Text(e.Source)
	case "evt.hostname":
		if e.Hostname == "" {
			return Value{}
		}
		return Text(e.Hostname)
	}
	return e.Record.Value(ref)
}

const timeLayout = "15:04:05.000000000"

// Clock returns the time of day as Falco prints it before the message of an
// alert: local time with nanoseconds.
func (e *Event) Clock() string { return e.Time.Local().Format(timeLayout) }
