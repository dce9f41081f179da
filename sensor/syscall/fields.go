package syscall

import (
	"maps"

	"github.com/kubeguardian/kubeguardian/event"
)

// An extractor returns the value of one field.
type extractor func(e *Event, ref event.Ref) event.Value

// extractors has how each field is had, by its number, and by its name for a
// reference that was not made by [event.Resolve].
var extractors = newExtractors()

type extractorTable struct {
	byID   []extractor
	byName map[string]extractor
}

func newExtractors() extractorTable {
	m := map[string]extractor{}
	for _, part := range []map[string]extractor{
		eventFields(), pathFields(), descriptorFields(), processFields(), ancestorFields(), executableFields(), usageFields(), userFields(),
		containerFields(), podFields(), silentFields(),
	} {
		maps.Copy(m, part)
	}
	fields := event.Fields(event.Syscall)
	t := extractorTable{byID: make([]extractor, len(fields)+1), byName: m}
	for i, f := range fields {
		t.byID[i+1] = m[f.Name]
	}
	return t
}

// Value implements [event.Record].
func (e *Event) Value(ref event.Ref) event.Value {
	if ref.ID > 0 && int(ref.ID) < len(extractors.byID) {
		if get := extractors.byID[ref.ID]; get != nil {
			return get(e, ref)
		}
		return event.Value{}
	}
	if get, ok := extractors.byName[ref.Name]; ok {
		return get(e, ref)
	}
	return event.Value{}
}

// missing is the value of a field that no event has.
func missing(*Event, event.Ref) event.Value { return event.Value{} }

// silentFields are those that the language knows and that Falco has no value for
// either, and those that conditions take apart: fd.ip is fd.cip or fd.sip.
func silentFields() map[string]extractor {
	m := map[string]extractor{}
	for _, name := range []string{
		"evt.latency", "evt.latency.human", "evt.latency.ns", "evt.latency.s", "evt.wait_latency",
		"fd.ip", "fd.net", "fd.port", "fd.proto",
		"container.healthcheck", "container.liveness_probe", "container.readiness_probe",
		"proc.is_container_healthcheck", "proc.is_container_liveness_probe", "proc.is_container_readiness_probe",
		"k8s.ns.id", "k8s.ns.label", "k8s.ns.labels",
	} {
		m[name] = missing
	}
	for _, kind := range []string{"rc", "svc", "rs", "deployment"} {
		for _, field := range []string{"id", "label", "labels", "name"} {
			m["k8s."+kind+"."+field] = missing
		}
	}
	return m
}

// known returns a text that is never empty when it is known.
func known(s string) event.Value {
	if s == "" {
		return event.Value{}
	}
	return event.Text(s)
}

// elapsed returns the nanoseconds between two times, missing if one is not known
// or they are in the wrong order.
func elapsed(from, to Instant) event.Value {
	if from == 0 || to == 0 || to < from {
		return event.Value{}
	}
	return event.Uint(uint64(to - from))
}

// stamp returns a time; missing if it is not known.
func stamp(t Instant) event.Value {
	if t == 0 {
		return event.Value{}
	}
	return event.Uint(uint64(t))
}
