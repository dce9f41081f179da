package playground

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
)

// eventOf returns the event of an alert, as far as its output fields tell.
func eventOf(a *alert.Alert) *event.Event {
	return &event.Event{Source: a.Source, ID: a.ID, Time: a.Time, Num: 1, Hostname: a.Hostname, Record: fields{a}}
}

// fields is the record of an event of which only some fields are known.
type fields struct{ alert *alert.Alert }

// Subject implements [event.Record].
func (f fields) Subject() event.Subject {
	s := f.alert.Subject
	return event.Subject{APIVersion: s.APIVersion, Kind: s.Kind, Namespace: s.Namespace, Name: s.Name, Container: s.Container}
}

// Value implements [event.Record].
func (f fields) Value(ref event.Ref) event.Value {
	v, known := f.alert.OutputFields[ref.Text]
	if !known || v == nil {
		return event.Value{}
	}
	if list, ok := v.([]any); ok {
		texts := make([]string, len(list))
		for i, item := range list {
			texts[i] = fmt.Sprint(item)
		}
		return event.List(texts)
	}
	return valueOf(ref.Type, text(v))
}

func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return fmt.Sprint(v)
}

// valueOf reads a value as an alert has it. What cannot be one of its type is
// missing.
func valueOf(t event.Type, s string) event.Value {
	if s == event.NA {
		return event.Value{}
	}
	switch t {
	case event.TypeString:
		return event.Text(s)
	case event.TypeBytes:
		return event.Bytes(s)
	case event.TypeList:
		return event.List([]string{s})
	case event.TypeNumber:
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return event.Number(n)
		}
	case event.TypeUint:
		if n, err := strconv.ParseUint(s, 10, 64); err == nil {
			return event.Uint(n)
		}
		if n, err := strconv.ParseUint(s, 16, 64); err == nil {
			return event.Hex(n)
		}
	case event.TypePort:
		if n, err := strconv.ParseUint(s, 10, 16); err == nil {
			return event.Port(uint16(n))
		}
	case event.TypeBool:
		if b, err := strconv.ParseBool(s); err == nil {
			return event.Bool(b)
		}
	case event.TypeDouble:
		if d, err := strconv.ParseFloat(s, 64); err == nil {
			return event.Double(d)
		}
	case event.TypeIP, event.TypeNet:
		if a, err := netip.ParseAddr(s); err == nil {
			return event.Addr(a)
		}
	}
	return event.Value{}
}
