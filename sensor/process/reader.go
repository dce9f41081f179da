package process

import (
	"strings"
	"unsafe"

	"github.com/kubeguardian/kubeguardian/sensor/record"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// A Reader turns records into events, for one goroutine. All records of a
// process go through the same reader, or through several one after the other.
type Reader struct {
	t        *Table
	event    syscall.Event
	params   [32]syscall.Param
	fd       syscall.FD
	tuple    syscall.FD
	previous syscall.Instant
}

// Reader returns a new reader of a table.
func (t *Table) Reader() *Reader { return &Reader{t: t} }

// Read notes what a record says of processes and returns the event. The event is
// valid until the next call and as long as the record is; its processes and its
// container are valid for ever.
func (r *Reader) Read(rec *record.Record) *syscall.Event {
	s := r.t.apply(rec)
	e := &r.event
	e.Type, e.CPU, e.Result, e.Called = eventTypes[rec.Type], int16(rec.CPU), rec.Result, rec.HasResult
	e.Process, e.TID, e.VTID, e.Comm, e.Container = s.process, int32(rec.TID), int32(rec.VTID), "", s.container
	e.Time, e.Previous = r.t.clock.Wall(rec.Time), r.previous
	r.previous = e.Time
	if rec.TID != rec.Process.TGID {
		if name := rec.Name(); string(name) != s.process.Name {
			e.Comm = string(name)
		}
	}
	e.FD = r.descriptor(rec)
	e.Params = r.parameters(rec, e.FD)
	return e
}

// eventTypes has the type of an event by that of its record.
var eventTypes = newEventTypes()

func newEventTypes() [256]*syscall.Type {
	var types [256]*syscall.Type
	for _, t := range record.Types() {
		types[t] = syscall.TypeOf(t.String())
	}
	return types
}

// text returns bytes as a text that shares them.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// parameters returns the parameters of an event.
func (r *Reader) parameters(rec *record.Record, fd *syscall.FD) []syscall.Param {
	specs := rec.Type.Params()
	params := r.params[:len(specs)]
	bases := []record.Tag{record.Base, record.SecondBase}
	for i, spec := range specs {
		v := rec.Param(i)
		params[i] = syscall.Param{}
		if v.Missing() {
			if spec.Type == "fspath" || spec.Type == "fsrelpath" {
				bases = bases[min(1, len(bases)):]
			}
			continue
		}
		p := syscall.Param{Known: true}
		switch spec.Type {
		case "fspath", "fsrelpath":
			b, _ := v.Text()
			p.Text = text(b)
			if len(bases) > 0 {
				base, _ := rec.Extra(bases[0]).Text()
				p.Path, bases = absolute(text(base), p.Text), bases[1:]
			}
		case "bytebuf":
			b, _ := v.Bytes()
			p.Text = strings.TrimSuffix(text(b), "\x00")
		case "socktuple":
			p.FD = r.tupleOf(rec, v)
		case "sockaddr":
			p.FD = addressOf(rec, v)
		default:
			if b, ok := v.Text(); ok && spec.Kind == record.Text {
				p.Text = text(b)
				break
			}
			p.Num, _ = v.Int()
			r.number(rec, spec, &p, fd)
		}
		params[i] = p
	}
	return params
}

// number completes a parameter that is a number by what it stands for.
func (r *Reader) number(rec *record.Record, spec record.Param, p *syscall.Param, fd *syscall.FD) {
	switch spec.Type {
	case "fd":
		if fd != nil && fd.Num == p.Num && p.Num >= 0 {
			p.FD = fd
		}
	case "pid":
		if p.Num > 0 {
			if of := r.t.Process(uint32(p.Num)); of != nil {
				p.Text = of.Name
			}
		}
	case "uid", "gid":
		p.Text = r.t.accountName(rec, spec.Type == "gid", uint32(p.Num))
	case "flags32":
		if isOpen(rec.Type) {
			state, _ := rec.Extra(record.FileState).Int()
			p.Num = int64(syscall.OpenFlags(uint64(p.Num), state&record.Created != 0, state&record.Upper != 0, state&record.Lower != 0))
		}
	}
}

// absolute returns a path made absolute; empty if what it is relative to is not
// known.
func absolute(base, path string) string {
	switch {
	case path == "" || path[0] == '/':
		return clean(path)
	case base == "":
		return ""
	}
	return clean(base + "/" + path)
}
