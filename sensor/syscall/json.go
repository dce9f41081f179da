package syscall

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/event"
)

// MaxLine is how long a recorded event may be.
const MaxLine = 4 << 20

// A recorded is a recorded event: one object of JSON.
type recorded struct {
	ID        string                     `json:"id,omitzero"`
	Num       uint64                     `json:"num,omitzero"`
	Hostname  string                     `json:"hostname,omitzero"`
	Time      Instant                    `json:"time"`
	Previous  Instant                    `json:"previous,omitzero"`
	Type      string                     `json:"type"`
	CPU       *int16                     `json:"cpu,omitzero"`
	Result    *outcome                   `json:"result,omitzero"`
	TID       int32                      `json:"tid,omitzero"`
	VTID      int32                      `json:"vtid,omitzero"`
	Comm      string                     `json:"comm,omitzero"`
	Params    map[string]json.RawMessage `json:"params,omitzero"`
	FD        *FD                        `json:"fd,omitzero"`
	Process   *Process                   `json:"process,omitzero"`
	Ancestors []*Process                 `json:"ancestors,omitzero"` // the parent first
	Session   *Process                   `json:"session,omitzero"`   // its leader, if that is no ancestor
	Group     *Process                   `json:"group,omitzero"`     // its leader, if that is no ancestor
	Container *Container                 `json:"container,omitzero"`
}

// AppendJSON appends an event as one object of JSON, without the end of a line,
// for [Read] and [Decode]. The record of the event must be an [Event]. Where names,
// arguments and paths are no UTF-8, it has U+FFFD.
func AppendJSON(b []byte, e *event.Event) ([]byte, error) {
	s, ok := e.Record.(*Event)
	if !ok {
		return b, fmt.Errorf("write event as JSON: it is of the source %s", e.Source)
	}
	out := recorded{
		ID: e.ID, Num: e.Num, Hostname: e.Hostname, Time: s.Time, Previous: s.Previous, Type: s.Type.Name,
		TID: s.TID, VTID: s.VTID, Comm: s.Comm, FD: s.FD, Process: s.Process, Container: s.Container,
	}
	if s.CPU >= 0 {
		out.CPU = &s.CPU
	}
	if s.Called {
		out.Result = (*outcome)(&s.Result)
	}
	if err := out.setParams(s); err != nil {
		return b, err
	}
	if s.Process != nil {
		out.setRelatives(s.Process)
	}
	data, err := json.Marshal(out)
	if err != nil {
		return b, fmt.Errorf("write event as JSON: %w", err)
	}
	if len(data) > MaxLine {
		return b, fmt.Errorf("write event as JSON: its %d bytes are over the limit of %d", len(data), MaxLine)
	}
	return append(b, data...), nil
}

func (out *recorded) setParams(e *Event) error {
	for i := range e.Type.Params {
		p, t := e.paramAt(i)
		if t == nil {
			continue
		}
		data, err := json.Marshal(e.paramForm(p, t))
		if err != nil {
			return fmt.Errorf("write parameter %s as JSON: %w", e.Type.Params[i].Name, err)
		}
		if out.Params == nil {
			out.Params = map[string]json.RawMessage{}
		}
		out.Params[e.Type.Params[i].Name] = data
	}
	return nil
}

// setRelatives adds the ancestors, and the leaders that are not found among them.
func (out *recorded) setRelatives(p *Process) {
	for a, n := p.Ancestor(1), 0; a != nil && n < MaxAncestors; a, n = a.Ancestor(1), n+1 {
		out.Ancestors = append(out.Ancestors, a)
	}
	alone := *p
	alone.Session, alone.Leader = nil, nil
	if l := p.Session.Process(); l != nil && l != alone.sessionLeader() && l.Key != p.Key {
		out.Session = l
	}
	if l := p.Leader.Process(); l != nil && l != alone.groupLeader() && l.Key != p.Key {
		out.Group = l
	}
}

// Decode reads one recorded event strictly: a word that is not known is an error.
func Decode(data []byte) (*event.Event, error) {
	in := recorded{}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, plainError(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more behind the JSON object")
	}
	s := &Event{
		Type: TypeOf(in.Type), CPU: -1, TID: in.TID, VTID: in.VTID, Comm: in.Comm, FD: in.FD, Process: in.Process,
		Container: in.Container, Time: in.Time, Previous: in.Previous,
	}
	switch {
	case in.Type == "":
		return nil, errors.New("type is missing")
	case s.Type == nil:
		return nil, fmt.Errorf("unknown event type %.40q", in.Type)
	case in.Time == 0:
		return nil, errors.New("time is missing")
	}
	if in.CPU != nil {
		s.CPU = *in.CPU
	}
	if in.Result != nil {
		s.Called, s.Result = true, int64(*in.Result)
	}
	if err := in.relate(s.Process); err != nil {
		return nil, err
	}
	if s.FD != nil {
		s.FD.Ready()
	}
	if err := s.readParams(in.Params); err != nil {
		return nil, err
	}
	return &event.Event{Source: event.Syscall, ID: in.ID, Num: in.Num, Hostname: in.Hostname, Time: in.Time.Time(), Record: s}, nil
}

// plainError says what is wrong without the names of Go types.
func plainError(err error) error {
	var typ *json.UnmarshalTypeError
	if errors.As(err, &typ) {
		return fmt.Errorf("%s must not be a JSON %s", strings.TrimPrefix(typ.Field, "plainProcess."), typ.Value)
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
}

// relate joins the process and its relatives.
func (in *recorded) relate(p *Process) error {
	switch {
	case p == nil && len(in.Ancestors) > 0:
		return errors.New("ancestors without a process")
	case p == nil && (in.Session != nil || in.Group != nil):
		return errors.New("session or group without a process")
	case len(in.Ancestors) > MaxAncestors:
		return fmt.Errorf("more than %d ancestors", MaxAncestors)
	case p == nil:
		return nil
	}
	var parent *Handle
	for i := len(in.Ancestors) - 1; i >= 0; i-- {
		a := in.Ancestors[i]
		if a == nil {
			return fmt.Errorf("ancestors[%d] is null", i)
		}
		a.Parent = parent
		parent = NewHandle(a.Ready())
	}
	p.Parent = parent
	if in.Session != nil {
		p.Session = NewHandle(in.Session.Ready())
	}
	if in.Group != nil {
		p.Leader = NewHandle(in.Group.Ready())
	}
	p.Ready()
	return nil
}

func (e *Event) readParams(all map[string]json.RawMessage) error {
	e.Params = make([]Param, len(e.Type.Params))
	for name, data := range all {
		i := e.Type.Param(name)
		if i < 0 {
			return fmt.Errorf("params: %s has no parameter %.40q", e.Type.Name, name)
		}
		if string(data) == "null" {
			continue
		}
		p, err := e.readParam(&e.Type.params[i], data)
		if err != nil {
			return fmt.Errorf("params: %s: %w", name, err)
		}
		p.Known = true
		e.Params[i] = p
	}
	return nil
}

// An Instant is a time in nanoseconds since 1970; 0 if it is not known.
type Instant int64

// Time returns the time in UTC.
func (t Instant) Time() time.Time { return time.Unix(0, int64(t)).UTC() }

// MarshalText implements [encoding.TextMarshaler]: the time as in RFC 3339.
func (t Instant) MarshalText() ([]byte, error) {
	return t.Time().AppendFormat(nil, time.RFC3339Nano), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (t *Instant) UnmarshalText(b []byte) error {
	at, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return fmt.Errorf("%.40q is no time as 2026-11-26T12:00:00.5Z", b)
	}
	if at.Year() < 1970 || at.Year() > 2200 {
		return fmt.Errorf("the year of %.40q is not between 1970 and 2200", b)
	}
	*t = Instant(at.UnixNano())
	return nil
}

// An outcome is the result of a call: a number, or the name of an error.
type outcome int64

func (o *outcome) UnmarshalJSON(data []byte) error {
	n, err := numberOf(data, errnoNumber)
	*o = outcome(n)
	return err
}

// numberOf reads a number, or a text that stands for one.
func numberOf(data []byte, parse func(string) (uint64, bool)) (int64, error) {
	if len(data) == 0 || data[0] != '"' {
		if n, err := strconv.ParseInt(string(data), 10, 64); err == nil {
			return n, nil
		}
		n, err := strconv.ParseUint(string(data), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%.40s is not a whole number", data)
		}
		return int64(n), nil
	}
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return 0, plainError(err)
	}
	if n, ok := parse(s); ok {
		return int64(n), nil
	}
	if n, err := strconv.ParseUint(s, 0, 64); err == nil {
		return int64(n), nil
	}
	return 0, fmt.Errorf("%.40q is neither a number nor a name of one", s)
}
