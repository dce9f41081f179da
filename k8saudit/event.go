package k8saudit

import (
	"errors"
	"fmt"
	"time"

	"github.com/kubeguardian/kubeguardian/event"
)

// read fills a record from the event that in is at, in one pass. What it does
// not know by name it only checks. The bodies wait in their raw form until a
// rule asks for something in them.
func (r *record) read(in *reader) error {
	in.peek()
	start := in.i
	for more := in.open('{', '}'); more; more = in.more('}') {
		name := in.key()
		if in.err != nil {
			break
		}
		r.readMember(in, r.text(name))
	}
	if in.err != nil {
		return in.err
	}
	r.at = span{uint32(start), uint32(in.i), container}
	return nil
}

// readMember takes the value of a member of the event. Of several with the same
// name the last one counts.
func (r *record) readMember(in *reader, name string) {
	switch name {
	case "user":
		r.user = r.readUser(in, &r.username, &r.groups)
		return
	case "objectRef":
		r.readObjectRef(in)
		return
	case "responseStatus":
		r.readStatus(in)
		return
	case "impersonatedUser":
		r.impersonated = r.readUser(in, &r.impersonatedName, &r.otherGroups)
		return
	}
	v := in.value(maxDepth - 1)
	switch name {
	default:
		r.readForeign(name, v)
	case "kind":
		r.kind = v
	case "apiVersion":
		r.version = v
	case "level":
		r.level = v
	case "auditID":
		r.auditID = v
	case "stage":
		r.stage = v
	case "requestURI":
		r.uri = v
	case "verb":
		r.verb = v
	case "sourceIPs":
		r.sourceIPs = v
	case "userAgent":
		r.userAgent = v
	case "requestObject":
		r.request = v
	case "responseObject":
		r.response = v
	case "requestReceivedTimestamp":
		r.received = v
	case "stageTimestamp":
		r.stageTime = v
	case "annotations":
		r.annotations = v
	}
}

func (r *record) readUser(in *reader, username, groups *span) span {
	*username, *groups = span{}, span{}
	if in.peek() != '{' {
		return in.value(maxDepth - 1)
	}
	start := in.i
	for more := in.open('{', '}'); more; more = in.more('}') {
		name := in.key()
		v := in.value(maxDepth - 2)
		switch r.text(name) {
		case "username":
			*username = v
		case "groups":
			*groups = v
		}
	}
	return span{uint32(start), uint32(in.i), container}
}

func (r *record) readObjectRef(in *reader) {
	r.resource, r.namespace, r.name, r.apiGroup, r.apiVersion, r.subresource = span{}, span{}, span{}, span{}, span{}, span{}
	if in.peek() != '{' {
		r.objectRef = in.value(maxDepth - 1)
		return
	}
	start := in.i
	for more := in.open('{', '}'); more; more = in.more('}') {
		name := in.key()
		v := in.value(maxDepth - 2)
		switch r.text(name) {
		case "resource":
			r.resource = v
		case "namespace":
			r.namespace = v
		case "name":
			r.name = v
		case "apiGroup":
			r.apiGroup = v
		case "apiVersion":
			r.apiVersion = v
		case "subresource":
			r.subresource = v
		}
	}
	r.objectRef = span{uint32(start), uint32(in.i), container}
}

func (r *record) readStatus(in *reader) {
	r.code, r.reason = span{}, span{}
	if in.peek() != '{' {
		r.responseStatus = in.value(maxDepth - 1)
		return
	}
	start := in.i
	for more := in.open('{', '}'); more; more = in.more('}') {
		name := in.key()
		v := in.value(maxDepth - 2)
		switch r.text(name) {
		case "code":
			r.code = v
		case "reason":
			r.reason = v
		}
	}
	r.responseStatus = span{uint32(start), uint32(in.i), container}
}

// check says why a record is no audit event.
func (r *record) check() error {
	for _, f := range []struct {
		name string
		at   span
	}{{"kind", r.kind}, {"apiVersion", r.version}, {"auditID", r.auditID}, {"stageTimestamp", r.stageTime}} {
		if f.at.form == atom || f.at.form == container {
			return fmt.Errorf("field %s must not be a JSON %s", f.name, typeName(r.doc[f.at.start]))
		}
	}
	if err := checkKind(r.text(r.kind)); err != nil {
		return err
	}
	if r.text(r.auditID) == "" {
		return errors.New("event without auditID")
	}
	if r.stageTime.form == absent || r.stageTime.form == null {
		return errors.New("event without stageTimestamp")
	}
	var err error
	if r.time, err = parseTime(r.text(r.stageTime)); err != nil {
		return fmt.Errorf("field stageTimestamp: %w", err)
	}
	if r.time.IsZero() {
		return errors.New("event without stageTimestamp")
	}
	return checkVersion(r.text(r.version))
}

// typeName returns what JSON calls a value by its first byte.
func typeName(first byte) string {
	switch first {
	case '"':
		return "string"
	case '{':
		return "object"
	case '[':
		return "array"
	case 't', 'f':
		return "bool"
	case 'n':
		return "null"
	}
	return "number"
}

// checkKind accepts no kind: the events of an EventList have none.
func checkKind(kind string) error {
	if kind != "" && kind != "Event" {
		return fmt.Errorf("kind %.40q: want Event or EventList", kind)
	}
	return nil
}

func checkVersion(v string) error {
	if v != "" && v != "audit.k8s.io/v1" {
		return fmt.Errorf("apiVersion %.40q: want audit.k8s.io/v1", v)
	}
	return nil
}

// parseTime reads a time as the API server writes it without the cost of the
// general way.
func parseTime(s string) (time.Time, error) {
	if len(s) >= 20 && len(s) <= 30 && s[4] == '-' && s[7] == '-' && s[10] == 'T' && s[13] == ':' && s[16] == ':' && s[len(s)-1] == 'Z' {
		year, month, day := number(s[:4]), number(s[5:7]), number(s[8:10])
		hour, minute, second := number(s[11:13]), number(s[14:16]), number(s[17:19])
		nanos, scale := 0, 1_000_000_000
		if s[19] == '.' && len(s) > 21 {
			nanos = number(s[20 : len(s)-1])
			for range s[20 : len(s)-1] {
				scale /= 10
			}
			nanos *= scale
		} else if len(s) != 20 {
			nanos = -1
		}
		if year > 0 && month >= 1 && month <= 12 && hour >= 0 && hour < 24 && minute >= 0 && minute < 60 && second >= 0 && second < 60 && nanos >= 0 {
			if t := time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC); t.Day() == day {
				return t, nil
			}
		}
	}
	var t time.Time
	err := t.UnmarshalText([]byte(s))
	return t, err
}

// number reads digits; it is negative if there is anything else.
func number(s string) int {
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return -1 << 40
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// identity returns what tells one request from all others, at each of its
// stages and in each delivery. The audit ID alone does not: the API server
// takes it from a header of the client, who may send the same one again. Only
// the user name, which is last, may hold a NUL, so that no two requests look
// the same.
func (r *record) identity() string {
	start := len(r.arena.bytes)
	for i, s := range [...]span{r.auditID, r.received, r.verb, r.uri, r.username} {
		if i > 0 {
			r.arena.bytes = append(r.arena.bytes, 0)
		}
		if raw := r.doc[s.start:s.end]; s.form == encoded {
			r.arena.bytes = appendUnquoted(r.arena.bytes, raw)
		} else if s.form != null {
			r.arena.bytes = append(r.arena.bytes, raw...)
		}
	}
	return r.arena.since(start)
}

// A batch is events that are parsed together. Their memory is used again: an
// event is valid until the batch is reset.
type batch struct {
	arena   arena
	records []record
	events  []event.Event
	list    []*event.Event
}

// maxBatch bounds how many events are in memory at once, whatever the size of
// a list. It is more than the API server sends at once by default.
const maxBatch = 512

// newBatch returns a batch for so many events.
func newBatch(size int, compat Compat) *batch {
	b := &batch{arena: arena{compat: compat}, records: make([]record, 0, size), events: make([]event.Event, 0, size), list: make([]*event.Event, 0, size)}
	b.arena.reset()
	return b
}

func (b *batch) full() bool { return len(b.list) == cap(b.list) }

func (b *batch) reset() {
	b.arena.reset()
	b.records, b.events, b.list = b.records[:0], b.events[:0], b.list[:0]
}

// add parses the event that in is at. Unless the JSON is at fault, in is behind
// it afterwards, whatever the error; the record is then what has been read of
// it, until the next call.
func (b *batch) add(in *reader) (*record, error) {
	n := len(b.records)
	r := &b.records[:n+1][n]
	*r = record{doc: in.b, arena: &b.arena}
	if err := r.read(in); err != nil {
		return r, err
	}
	if size := r.at.end - r.at.start; size > maxEvent {
		return r, tooLarge(int(size))
	}
	if err := r.check(); err != nil {
		return r, err
	}
	b.records = b.records[:n+1]
	b.events = append(b.events, event.Event{Source: event.K8sAudit, ID: r.identity(), Time: r.time, Record: r})
	b.list = append(b.list, &b.events[n])
	return r, nil
}

// bodiesCut reports whether the API server left the bodies out because the
// event was too large for its audit backend.
func (r *record) bodiesCut() bool {
	return r.request.form == absent && r.response.form == absent && r.annotations.form == container && !r.is(r.level, "Metadata") &&
		!r.annotation("audit.k8s.io/truncated").Missing()
}
