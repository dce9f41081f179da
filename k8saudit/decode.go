// Package k8saudit reads the API server's audit log (audit.k8s.io/v1), from a
// webhook or a file, as events.
package k8saudit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/kubeguardian/kubeguardian/event"
)

// Limits on foreign input.
const (
	maxEvent    = 16 << 20 // bytes of one event
	maxDocument = 64 << 20 // bytes of one JSON value: a batch, or a line of a file
	maxDepth    = 200      // nested objects and arrays
)

// auditEvent is the part of an audit event that is decoded always. The bodies
// wait in their raw form until a rule asks for them.
type auditEvent struct {
	Kind             string            `json:"kind"`
	APIVersion       string            `json:"apiVersion"`
	Level            string            `json:"level"`
	AuditID          string            `json:"auditID"`
	Stage            string            `json:"stage"`
	RequestURI       string            `json:"requestURI"`
	Verb             string            `json:"verb"`
	User             userInfo          `json:"user"`
	ImpersonatedUser userInfo          `json:"impersonatedUser"`
	SourceIPs        []string          `json:"sourceIPs"`
	UserAgent        string            `json:"userAgent"`
	ObjectRef        objectRef         `json:"objectRef"`
	ResponseStatus   responseStatus    `json:"responseStatus"`
	RequestObject    json.RawMessage   `json:"requestObject"`
	ResponseObject   json.RawMessage   `json:"responseObject"`
	StageTimestamp   time.Time         `json:"stageTimestamp"`
	Annotations      map[string]string `json:"annotations"`
}

type userInfo struct {
	Username string   `json:"username"`
	Groups   []string `json:"groups"`
}

type objectRef struct {
	Resource    string `json:"resource"`
	Namespace   string `json:"namespace"`
	Name        string `json:"name"`
	APIGroup    string `json:"apiGroup"`
	APIVersion  string `json:"apiVersion"`
	Subresource string `json:"subresource"`
}

type responseStatus struct {
	Code   int    `json:"code"`
	Reason string `json:"reason"`
}

// A document is what a batch or a line holds: one event or a list of them.
type document struct {
	auditEvent
	Items []item `json:"items"`
}

// An item is one event of a list, or the reason why it is none. A bad item
// must not cost the rest of the list, so decoding it never fails.
type item struct {
	event *event.Event
	err   error
}

// UnmarshalJSON decodes one event of a list.
func (it *item) UnmarshalJSON(data []byte) error {
	var e auditEvent
	if err := json.Unmarshal(data, &e); err != nil {
		it.err = describe(err)
		return nil
	}
	it.event, it.err = newEvent(e, data)
	return nil
}

// decodeDocument returns the events of one JSON value: an Event, an EventList
// or an array of events.
func decodeDocument(data []byte) ([]item, error) {
	if err := checkDepth(data); err != nil {
		return nil, err
	}
	if data = bytes.TrimSpace(data); bytes.HasPrefix(data, []byte("[")) {
		var items []item
		err := json.Unmarshal(data, &items)
		return items, describe(err)
	}
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, describe(err)
	}
	if d.Kind == "EventList" {
		return d.Items, checkVersion(d.APIVersion)
	}
	if err := checkKind(d.Kind); err != nil {
		return nil, err
	}
	if d.Kind == "" && d.AuditID == "" {
		return nil, errors.New("neither an Event nor an EventList")
	}
	e, err := newEvent(d.auditEvent, data)
	return []item{{e, err}}, nil
}

func newEvent(a auditEvent, raw []byte) (*event.Event, error) {
	switch {
	case len(raw) > maxEvent:
		return nil, fmt.Errorf("event of %d bytes: the limit is %d", len(raw), maxEvent)
	case a.AuditID == "":
		return nil, errors.New("event without auditID")
	case a.StageTimestamp.IsZero():
		return nil, errors.New("event without stageTimestamp")
	}
	if err := errors.Join(checkKind(a.Kind), checkVersion(a.APIVersion)); err != nil {
		return nil, err
	}
	r := &record{auditEvent: a, raw: bytes.Clone(raw)}
	r.request.raw, r.response.raw, r.whole.raw = a.RequestObject, a.ResponseObject, r.raw
	return &event.Event{Source: event.K8sAudit, ID: a.AuditID, Time: a.StageTimestamp, Record: r}, nil
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

// checkDepth refuses JSON that nests deeper than any honest object does.
func checkDepth(data []byte) error {
	if bytes.Count(data, []byte("{"))+bytes.Count(data, []byte("[")) <= maxDepth {
		return nil
	}
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return fmt.Errorf("JSON nested deeper than %d levels", maxDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// describe says in the words of JSON, not of Go, why decoding did not work.
func describe(err error) error {
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) {
		if wrongType.Field == "" {
			return fmt.Errorf("want an audit event, got a JSON %s", wrongType.Value)
		}
		return fmt.Errorf("field %s must not be a JSON %s", wrongType.Field, wrongType.Value)
	}
	if err != nil {
		return fmt.Errorf("parse JSON: %w", err)
	}
	return nil
}
