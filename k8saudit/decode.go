// Package k8saudit reads the API server's audit log (audit.k8s.io/v1), from a
// webhook or a file, as events.
package k8saudit

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

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
	RequestReceived  string            `json:"requestReceivedTimestamp"`
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

// An item is one event of a document, the reason why it is none, or both: an
// event and what was left out of it.
type item struct {
	event *event.Event
	err   error
}

// decodeDocument returns the events of one JSON value: an Event, an EventList
// or an array of events. They share its memory. A bad item must not cost the
// rest of the list, which belongs to others: whoever may send a patch chooses
// how deep it nests.
func decodeDocument(data []byte) ([]item, error) {
	s := scanner{data: data}
	if s.space(); s.pos < len(data) && data[s.pos] == '[' {
		items, err := decodeList(&s)
		return items, errors.Join(err, s.end())
	}
	if s.pos < len(data) && data[s.pos] != '{' {
		var a auditEvent
		if err := json.Unmarshal(data, &a); err != nil {
			return nil, describe(err)
		}
		return nil, errNoEvent
	}
	var kind, version string
	var list value
	whole, identified := value{raw: data[s.pos:]}, false
	err := s.object(func(name []byte, v value) {
		whole.depth = max(whole.depth, v.depth+1)
		// A value of the wrong type is reported when the event is decoded.
		switch string(name) {
		case `"kind"`:
			_ = json.Unmarshal(v.raw, &kind)
		case `"apiVersion"`:
			_ = json.Unmarshal(v.raw, &version)
		case `"auditID"`:
			identified = true
		case `"items"`:
			list = v
		}
	})
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return nil, err
	}
	if kind == "EventList" {
		if err := checkVersion(version); err != nil || len(list.raw) == 0 || string(list.raw) == "null" {
			return nil, err
		}
		return decodeList(&scanner{data: list.raw})
	}
	if err := checkKind(kind); err != nil {
		return nil, err
	}
	if kind == "" && !identified {
		return nil, errNoEvent
	}
	return []item{decodeItem(whole)}, nil
}

var errNoEvent = errors.New("neither an Event nor an EventList")

func decodeList(s *scanner) ([]item, error) {
	var items []item
	err := s.array(func(v value) { items = append(items, decodeItem(v)) })
	if err != nil {
		return nil, err
	}
	return items, nil
}

func decodeItem(v value) item {
	raw, leftOut := v.raw, error(nil)
	if v.depth > maxDepth || len(raw) > maxEvent {
		if raw, leftOut = trim(v); raw == nil {
			return item{err: leftOut}
		}
	}
	var a auditEvent
	if err := json.Unmarshal(raw, &a); err != nil {
		return item{err: describe(err)}
	}
	e, err := newEvent(a, raw)
	if err != nil {
		return item{err: err}
	}
	return item{e, leftOut}
}

func newEvent(a auditEvent, raw []byte) (*event.Event, error) {
	switch {
	case a.AuditID == "":
		return nil, errors.New("event without auditID")
	case a.StageTimestamp.IsZero():
		return nil, errors.New("event without stageTimestamp")
	}
	if err := errors.Join(checkKind(a.Kind), checkVersion(a.APIVersion)); err != nil {
		return nil, err
	}
	r := &record{auditEvent: a, raw: raw}
	r.request.raw, r.response.raw, r.whole.raw = a.RequestObject, a.ResponseObject, r.raw
	return &event.Event{Source: event.K8sAudit, ID: identity(a), Time: a.StageTimestamp, Record: r}, nil
}

// identity returns what tells one request from all others, at each of its
// stages and in each delivery. The audit ID alone does not: the API server
// takes it from a header of the client, who may send the same one again. Only
// the user name, which is last, may hold a NUL, so that no two requests look
// the same.
func identity(a auditEvent) string {
	return strings.Join([]string{a.AuditID, a.RequestReceived, a.Verb, a.RequestURI, a.User.Username}, "\x00")
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
