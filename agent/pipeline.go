package agent

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor/process"
	"github.com/kubeguardian/kubeguardian/sensor/record"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// A pipeline makes alerts of records.
type pipeline struct {
	table    *process.Table
	rules    *rule.Set
	mode     rule.Mode
	wanted   [256]bool // by record type, those that rules are about
	self     uint32    // id of the agent, which looks at what it guards
	hostname string
	boot     string // tells this run of the node from others
	pending  bool   // a runtime tells of containers, so some wait for it
	out      *output

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
		if !p.wanted[r.Type] || r.Process.TGID == p.self && r.VPID == p.self {
			return
		}
		id = p.appendID(id[:0], r)
		e = event.Event{Source: event.Syscall, ID: unsafe.String(unsafe.SliceData(id), len(id)), Time: s.Time.Time(), Num: p.matched.Add(1), Hostname: p.hostname, Record: s}
		for _, a := range p.rules.Match(&e, p.mode) {
			p.alerts.Add(1)
			p.mark(&a, s)
			p.out.write(a)
		}
	}
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

// mark says of an alert that it did not wait for what the container is.
func (p *pipeline) mark(a *alert.Alert, e *syscall.Event) {
	if p.pending && e.Container != nil && !e.Container.Known {
		a.OutputFields["container.pending"] = true
	}
}

// An output prints alerts, one line of JSON each. It is safe for concurrent use.
type output struct {
	mu     sync.Mutex
	enc    *json.Encoder
	err    error // of the first alert that could not be printed
	failed func()
}

func newOutput(w io.Writer, failed func()) *output {
	o := &output{enc: json.NewEncoder(w), failed: failed}
	o.enc.SetEscapeHTML(false)
	return o
}

func (o *output) write(a alert.Alert) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return
	}
	if err := o.enc.Encode(a); err != nil {
		o.err = fmt.Errorf("print alert: %w", err)
		o.failed()
	}
}

func (o *output) error() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
