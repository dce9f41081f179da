package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/enforce"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor/process"
	"github.com/kubeguardian/kubeguardian/sensor/record"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// A pipeline makes alerts of records.
type pipeline struct {
	table    *process.Table
	ruling   *atomic.Pointer[ruling]
	heart    *heart
	enforcer *enforce.Enforcer        // nil if nothing is ordered
	entrance atomic.Pointer[entrance] // nil if nobody is told of commands in containers
	mode     atomic.Uint32            // a rule.Mode
	self     uint32                   // id of the agent, which looks at what it guards
	hostname string
	boot     string // tells this run of the node from others
	pending  bool   // a runtime tells of containers, so some wait for it
	out      *output
	record   *output // of events

	records, matched, alerts atomic.Uint64
}

// worker returns what handles the records of one buffer, for one goroutine.
func (p *pipeline) worker() func(*record.Record) {
	reader := p.table.Reader()
	var e event.Event
	var id []byte
	return func(r *record.Record) {
		p.records.Add(1)
		s := reader.Read(r)
		if r.Process.TGID == p.self && r.VPID == p.self {
			p.heart.heard(r)
			return
		}
		rules := p.ruling.Load()
		entrance := p.entrance.Load()
		if !rules.wanted[r.Type] && !entrance.wants(r.Type) {
			return
		}
		id = p.appendID(id[:0], r)
		e = event.Event{Source: event.Syscall, ID: unsafe.String(unsafe.SliceData(id), len(id)), Time: s.Time.Time(), Num: p.matched.Add(1), Hostname: p.hostname, Record: s}
		p.record.event(&e)
		if rules.wanted[r.Type] {
			p.raise(p.match(rules, r, s, &e), r, s)
		}
		if entrance.wants(r.Type) {
			p.raise(entrance.set.Match(&e, rule.First), r, s)
		}
	}
}

// ruleMode says which rules raise an alert.
func (p *pipeline) ruleMode() rule.Mode { return rule.Mode(p.mode.Load()) }

// raise hands the alerts of an event on.
func (p *pipeline) raise(alerts []alert.Alert, r *record.Record, e *syscall.Event) {
	for _, a := range alerts {
		p.mark(&a, r, e)
		p.emit(a)
	}
}

// match returns the alerts of an event, once what is ordered was done.
func (p *pipeline) match(rules *ruling, r *record.Record, s *syscall.Event, e *event.Event) []alert.Alert {
	if p.enforcer == nil {
		return rules.set.Match(e, p.ruleMode())
	}
	return p.enforce(rules, r, s, e)
}

// emit hands an alert on.
func (p *pipeline) emit(a alert.Alert) {
	p.alerts.Add(1)
	p.out.write(a)
}

// appendID writes what no other event has: the run of the node, and the record's
// place in its buffer.
func (p *pipeline) appendID(b []byte, r *record.Record) []byte {
	b = append(b, p.boot...)
	for _, n := range [...]uint64{uint64(r.Buffer), uint64(r.CPU), r.Sequence, r.Time} {
		b = strconv.AppendUint(append(b, '/'), n, 36)
	}
	return b
}

// mark says of an alert that it did not wait for what the container is, and tags it
// where the program that was started is not part of the image: of the rules that
// match an event the first one tells, and that may be about something else.
func (p *pipeline) mark(a *alert.Alert, r *record.Record, e *syscall.Event) {
	if p.pending && e.Container != nil && !e.Container.Known {
		a.OutputFields["container.pending"] = true
	}
	if e.Container != nil && !e.Container.OnHost() && !r.OfNode && drifted(r) && !slices.Contains(a.Tags, alert.DriftTag) {
		a.Tags = append(slices.Clone(a.Tags), alert.DriftTag)
	}
}

// drifted reports whether a record is of a program that was started and did not come
// with the image: in memory, in the layer of the container, on a volume or tmpfs.
func drifted(r *record.Record) bool {
	if name := r.Type.String(); r.Result < 0 || name != "execve" && name != "execveat" {
		return false
	}
	flags, _ := r.Named("flags").Uint()
	return flags&(record.ExeUpper|record.ExeMemFD|record.ExeAdded) != 0
}

// An output prints alerts or events, one line of JSON each. It is safe for
// concurrent use.
type output struct {
	w       io.Writer // nil prints nothing
	failed  func()
	deliver func(*alert.Alert) // takes alerts that are not printed; nil: nobody does

	mu  sync.Mutex
	buf []byte
	err error // of the first line that could not be printed
}

func newOutput(w io.Writer, failed func()) *output { return &output{w: w, failed: failed} }

func (o *output) write(a alert.Alert) {
	if o.deliver != nil {
		o.deliver(&a)
		return
	}
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	err := enc.Encode(a)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.print("alert", line.Bytes(), err)
}

func (o *output) event(e *event.Event) {
	if o.w == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	line, err := syscall.AppendJSON(o.buf[:0], e)
	o.buf = append(line, '\n')
	o.print("event", o.buf, err)
}

// print writes a line, unless one could not be written before.
func (o *output) print(what string, line []byte, err error) {
	if o.w == nil || o.err != nil {
		return
	}
	if err == nil {
		_, err = o.w.Write(line)
	}
	if err != nil {
		o.err = fmt.Errorf("print %s: %w", what, err)
		o.failed()
	}
}

func (o *output) error() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
