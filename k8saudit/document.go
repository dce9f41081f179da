// Package k8saudit reads the API server's audit log (audit.k8s.io/v1), from a
// webhook or a file, as events.
package k8saudit

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/kubeguardian/kubeguardian/event"
)

// Limits on foreign input.
const (
	// Bytes of one event. The API server takes objects of 3 MiB; in JSON a
	// character may become six, and an event may hold the object twice.
	maxEvent    = 64 << 20
	maxDocument = 256 << 20 // bytes of one JSON value: a batch, or a line of a file
	maxDepth    = 200       // nested objects and arrays in one event
)

var errNoEvent = errors.New("neither an Event nor an EventList")

// A parser turns JSON values into events: an Event, an EventList, an array of
// events, or the envelope of a cloud. A bad item does not cost the rest of a
// list, which belongs to others: whoever may send a patch chooses how deep it
// nests.
type parser struct {
	batch   *batch
	handle  func([]*event.Event) error
	problem func(error)
	failed  error // of handle; nothing is parsed after it
	nested  int   // envelopes in envelopes
}

func newParser(b *batch, handle func([]*event.Event) error, problem func(error)) *parser {
	return &parser{batch: b, handle: handle, problem: problem}
}

// Parse returns the one audit event that a JSON text holds. The event owns
// its memory, and the text stays the caller's.
func Parse(data []byte) (*event.Event, error) {
	b, in := newBatch(1, Falco), &reader{b: append([]byte(nil), data...)}
	if _, err := b.add(in); err != nil {
		return nil, fmt.Errorf("parse audit event: %w", err)
	}
	if err := in.end(); err != nil {
		return nil, fmt.Errorf("parse audit event: %w", err)
	}
	return b.list[0], nil
}

// flush hands on the events that have been parsed. Then their memory is used
// again.
func (p *parser) flush() error {
	if len(p.batch.list) > 0 && p.failed == nil {
		p.failed = p.handle(p.batch.list)
	}
	if p.failed == nil { // events that a caller stopped at stay valid
		p.batch.reset()
	}
	return p.failed
}

// document parses one JSON value. Its events are handed on by flush, or before
// if they are many; they use the memory of data. An error says why the value as
// a whole cannot be read; events before that are kept.
func (p *parser) document(data []byte) error {
	in := &reader{b: data}
	err := p.value(in)
	if end := in.end(); err == nil && p.failed == nil {
		err = end
	}
	return err
}

// documents parses one JSON value after the other.
func (p *parser) documents(data []byte) error {
	in := &reader{b: data}
	for {
		if err := p.value(in); err != nil || in.err != nil || p.failed != nil {
			return cmp.Or(err, in.err)
		}
		if in.peek(); in.i == len(data) {
			return nil
		}
	}
}

func (p *parser) value(in *reader) error {
	switch c := in.peek(); c {
	case '[':
		p.items(in)
		return nil
	case '{':
		return p.object(in)
	default:
		if in.value(maxDepth); in.err != nil {
			return in.err
		}
		return fmt.Errorf("want an audit event, got a JSON %s", typeName(c))
	}
}

// object parses an object, which is a list if it says so first, as the API
// server writes it, or anywhere.
func (p *parser) object(in *reader) error {
	if peekKind(in) == "EventList" {
		return p.list(in)
	}
	start := in.i
	r, err := p.batch.add(in)
	switch {
	case err == nil:
		p.noteCut(r)
		p.makeRoom()
		return nil
	case overLimit(err):
		p.resume(in, start, err)
		p.makeRoom()
		return nil
	case in.err != nil:
		return in.err
	}
	switch kind := r.text(r.kind); {
	case kind == "EventList":
		in.i = start
		return p.list(in)
	case r.wrapper != noEnvelope && r.auditID.form == absent:
		return p.unwrap(r)
	case checkKind(kind) != nil:
		return checkKind(kind)
	case r.auditID.form == absent && kind == "":
		return errNoEvent
	}
	p.problem(err)
	return nil
}

// peekKind returns the kind of an object if that is its first member.
func peekKind(in *reader) string {
	look := *in
	if !look.open('{', '}') {
		return ""
	}
	if k := look.key(); look.err != nil || string(look.b[k.start:k.end]) != "kind" {
		return ""
	}
	if v := look.value(1); v.form == plain {
		return alias(look.b[v.start:v.end])
	}
	return ""
}

// list parses an EventList.
func (p *parser) list(in *reader) error {
	seen := false
	for more := in.open('{', '}'); more && p.failed == nil; more = in.more('}') {
		name := in.key()
		switch string(in.b[name.start:name.end]) {
		case "apiVersion":
			if v := in.value(maxDepth); v.form == plain {
				if err := checkVersion(alias(in.b[v.start:v.end])); err != nil {
					return err
				}
			}
		case "items":
			if seen {
				return errors.New("EventList with two lists of items")
			}
			if seen = true; in.peek() == 'n' {
				in.value(maxDepth)
				continue
			}
			p.items(in)
		default:
			in.value(maxDepth)
		}
	}
	return nil
}

// items parses the elements of an array.
func (p *parser) items(in *reader) {
	for more := in.open('[', ']'); more && p.failed == nil; more = in.more(']') {
		p.item(in)
	}
}

// item parses one element of a list.
func (p *parser) item(in *reader) {
	first := in.peek()
	start := in.i
	if first != '{' {
		if in.value(maxDepth); in.err != nil {
			p.resume(in, start, in.err)
			return
		}
		p.problem(fmt.Errorf("want an audit event, got a JSON %s", typeName(first)))
		return
	}
	r, err := p.batch.add(in)
	switch {
	case err == nil:
		p.noteCut(r)
	case in.err != nil, overLimit(err):
		p.resume(in, start, err)
	case r.wrapper != noEnvelope && r.auditID.form == absent:
		if err := p.unwrap(r); err != nil {
			p.problem(err)
		}
	default:
		p.problem(err)
	}
	p.makeRoom()
}

// makeRoom hands on the events of a batch that is full.
func (p *parser) makeRoom() {
	if p.batch.full() {
		p.flush()
	}
}

// resume goes on behind an event that cannot be read as it is. One that is
// over the limits is read without its bodies.
func (p *parser) resume(in *reader, start int, err error) {
	s := scanner{data: in.b, pos: start}
	v, end := s.value()
	if end != nil { // nothing can be found behind it
		in.i, in.err = start, end
		return
	}
	in.i, in.err = s.pos, nil
	if !overLimit(err) || v.raw[0] != '{' {
		p.problem(err)
		return
	}
	trimmed, leftOut := trim(v)
	if trimmed != nil {
		if _, err := p.batch.add(&reader{b: trimmed}); err != nil {
			leftOut = err
		}
	}
	p.problem(leftOut)
}

// noteCut notes an event that was too large for the API server's backend.
func (p *parser) noteCut(r *record) {
	if r.bodiesCut() {
		p.problem(errBodies)
	}
}
