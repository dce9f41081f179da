// Package enrichment adds fields to audit events that neither the event nor
// Falco's fields have: of which class a user is, what a pod or a role in the
// request amounts to. Their names begin with "kg.".
package enrichment

import (
	"fmt"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
)

// An Enricher adds fields to events. It is safe for concurrent use.
type Enricher struct {
	fields map[string]extractor
	refs   refs
}

// An extractor returns the value of one field.
type extractor func(*record) event.Value

// New returns an Enricher.
func New() *Enricher {
	return &Enricher{fields: newFields(), refs: newRefs()}
}

// Enrich gives an event the fields of this package. Events of other sources stay
// as they are.
func (en *Enricher) Enrich(e *event.Event) {
	if e.Source == event.K8sAudit {
		e.Record = &record{Record: e.Record, enricher: en}
	}
}

// A record is an audit event with further fields.
type record struct {
	event.Record
	enricher *Enricher

	podRead bool
	podMade *pod
}

// Value returns the value of a field.
func (r *record) Value(ref event.Ref) event.Value {
	if !strings.HasPrefix(ref.Name, "kg.") {
		return r.Record.Value(ref)
	}
	if get, ok := r.enricher.fields[ref.Name]; ok {
		return get(r)
	}
	return event.Value{}
}

func newFields() map[string]extractor {
	return map[string]extractor{
		"kg.user.class":          func(r *record) event.Value { return event.Text(class(r)) },
		"kg.user.namespace":      userNamespace,
		"kg.pod.images":          ofPod((*pod).images),
		"kg.pod.registries":      ofPod((*pod).registries),
		"kg.pod.unversioned":     ofPod((*pod).unversioned),
		"kg.pod.capabilities":    ofPod((*pod).capabilities),
		"kg.pod.host_namespaces": ofPod((*pod).hostNamespaces),
		"kg.pod.node":            podNode,
		"kg.pod.tolerates_all":   podToleratesAll,
		"kg.role.powers":         func(r *record) event.Value { return event.List(rolePowers(r)) },
	}
}

// refs are the fields of an event that this package reads.
type refs struct {
	user, groups, verb, resource, subresource, code event.Ref
	request, response                               event.Ref
}

func newRefs() refs {
	return refs{
		user: ref("ka.user.name"), groups: ref("ka.user.groups"), verb: ref("ka.verb"),
		resource: ref("ka.target.resource"), subresource: ref("ka.target.subresource"), code: ref("ka.response.code"),
		request: ref("jevt.value", "/requestObject"), response: ref("jevt.value", "/responseObject"),
	}
}

// ref resolves a field that there must be.
func ref(name string, arg ...string) event.Ref {
	f, _ := event.Lookup(event.K8sAudit, name)
	var given *string
	if len(arg) > 0 {
		given = &arg[0]
	}
	r, err := event.Resolve(f, given)
	if err != nil || f.Name == "" {
		panic(fmt.Sprintf("field %s: %v", name, err)) // the names are those above
	}
	return r
}

// text returns the value of a field, "" if it is missing.
func (r *record) text(ref event.Ref) string { return r.Record.Value(ref).Text }
