package ruletest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"time"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// maxEventFile bounds a file of recorded events.
const maxEventFile = 64 << 20

// start is when the first event happens that has no time of its own. Each
// further one follows a second later.
var start = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// merge returns what is below with what is above put over it: objects are
// merged, all else is replaced, and null removes.
func merge(below, above fields) fields {
	out := maps.Clone(below)
	if out == nil {
		out = fields{}
	}
	for key, value := range above {
		if value == nil {
			delete(out, key)
			continue
		}
		if inner, ok := value.(fields); ok {
			old, _ := out[key].(fields)
			value = merge(old, inner)
		}
		out[key] = value
	}
	return out
}

// defaults are what an event of a source has that does not say otherwise. n tells
// the events of a case apart.
func defaults(source string, n int) fields {
	at := start.Add(time.Duration(n) * time.Second).Format(time.RFC3339Nano)
	if source == event.Syscall {
		return fields{"id": fmt.Sprintf("event-%d", n+1), "time": at, "result": 0, "container": fields{"id": syscall.HostID}}
	}
	return fields{
		"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse",
		"auditID": fmt.Sprintf("event-%d", n+1), "stage": "ResponseComplete",
		"requestReceivedTimestamp": at, "stageTimestamp": at,
		"responseStatus": fields{"code": 200},
	}
}

// inline returns the JSON of the n-th event of a case.
func inline(source string, n int, parts ...fields) ([]byte, error) {
	all := defaults(source, n)
	for _, part := range parts {
		all = merge(all, part)
	}
	data, err := json.Marshal(all)
	if err != nil {
		return nil, fmt.Errorf("write event as JSON: %w", err)
	}
	return data, nil
}

// recorded reads a file of events.
func recorded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxEventFile {
		return nil, fmt.Errorf("%s: over the limit of %d MiB for events", path, maxEventFile>>20)
	}
	return os.ReadFile(path)
}

// decodeCall calls see with the event of the kernel in data, completed by what
// follows from it.
func decodeCall(data []byte, see func(*event.Event) error) error {
	e, err := syscall.Decode(data)
	if err != nil {
		return err
	}
	e.Record.(*syscall.Event).Complete()
	return see(e)
}

// decode calls see with each of the audit events in data. All of them must be
// sound.
func decode(data []byte, see func(*event.Event) error) error {
	stats, err := k8saudit.Decode(bytes.NewReader(data), see)
	if err != nil {
		return err
	}
	for _, problem := range stats.Problems {
		return problem
	}
	if stats.Events == 0 {
		return errors.New("no event")
	}
	return nil
}
