// Package enrichment adds fields to audit events that neither the event nor
// Falco's fields have: of which class a user is, what a pod or a role in the
// request amounts to, who is behind a pod, and whether a token is used where it
// belongs. Their names begin with "kg.".
//
// Some of them follow from earlier events. What is remembered of those is bounded,
// depends on nothing but the events and their order, and is lost with the process:
// a field that would need what is not known is missing.
package enrichment

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
)

// An Enricher adds fields to events. It is safe for concurrent use.
type Enricher struct {
	fields []extractor // by the number of the field; nil for those of others
	refs   refs
	unused sync.Pool // of records

	mu     sync.Mutex
	owners owners
	tokens tokens
}

// An extractor returns the value of one field.
type extractor func(*record) event.Value

// New returns an Enricher.
func New() *Enricher {
	return &Enricher{fields: newFields(), refs: newRefs(), owners: newOwners(), tokens: newTokens()}
}

// Enrich gives an event the fields of this package, and remembers what later ones
// may need. Events of other sources stay as they are.
func (en *Enricher) Enrich(e *event.Event) {
	if e.Source != event.K8sAudit {
		return
	}
	r, ok := en.unused.Get().(*record)
	if !ok {
		r = &record{enricher: en, scratch: &scratch{}}
	}
	r.Record = e.Record
	r.user, r.resource, r.verb = r.text(en.refs.user), r.text(en.refs.resource), r.text(en.refs.verb)
	r.class = class(r)
	r.readObject()
	en.mu.Lock()
	defer en.mu.Unlock()
	en.tokens.learn(r, e)
	en.owners.learn(r, e)
	en.owners.find(r)
	e.Record = r
}

// Release takes back what Enrich gave an event, whose fields must not be asked for
// any more, for use by later events. Without it only memory is taken anew.
func (en *Enricher) Release(e *event.Event) {
	r, ok := e.Record.(*record)
	if !ok {
		return
	}
	e.Record = r.Record
	*r = record{enricher: en, podMade: r.podMade.empty(), texts: r.texts[:0], scratch: r.scratch}
	en.unused.Put(r)
}

// Attribute says in the alerts of an enriched event who is behind it, and whom and
// what it involves.
func (en *Enricher) Attribute(e *event.Event, alerts []alert.Alert) []alert.Alert {
	r, ok := e.Record.(*record)
	if !ok || len(alerts) == 0 {
		return alerts
	}
	var behind *alert.Attribution
	if r.owner.known() {
		behind = r.owner.attribution()
	}
	entities := r.entities(behind)
	for i := range alerts {
		alerts[i].Attribution, alerts[i].Entities = behind, entities
	}
	return alerts
}

// Involve adds to an alert of a node what earlier audit events said of its pod:
// the workload that it belongs to.
func (en *Enricher) Involve(a *alert.Alert) {
	subject := &a.Subject
	if subject.Kind != "Pod" {
		return
	}
	en.mu.Lock()
	defer en.mu.Unlock()
	uid, known := en.owners.pods.get(podName{cut(subject.Namespace), cut(subject.Name)})
	if !known {
		return
	}
	l := lineage{chain: new([maxChain]owned)}
	if en.owners.follow(&l, uid); !l.known() {
		return
	}
	entities := entityList(slices.Clone(a.Entities))
	top := l.top()
	entities.add(alert.Workload, top.kind, top.namespace, top.name)
	a.Entities = entities
}

// A record is an audit event with further fields.
type record struct {
	event.Record
	enricher *Enricher

	user, resource, verb string
	class                string // of the user

	podRead, hasPod bool
	podMade         pod

	*scratch
	texts []string // of lists that were asked for

	object ownedObject // pod or workload in the response; without a uid: none

	owner lineage
	token tokenFacts // without an id for a request without a service account's token
}

// A scratch is memory that nothing is expected in.
type scratch struct {
	path      [12]string               // of the value that is asked for below
	addressed [maxAddresses]netip.Addr // of a list of a status
	chain     [maxChain]owned          // of the lineage
}

// Value returns the value of a field.
func (r *record) Value(ref event.Ref) event.Value {
	if fields := r.enricher.fields; int(ref.ID) < len(fields) && fields[ref.ID] != nil {
		return fields[ref.ID](r)
	}
	return r.Record.Value(ref)
}

func newFields() []extractor {
	named := map[string]extractor{
		"kg.user.class":          func(r *record) event.Value { return event.Text(r.class) },
		"kg.user.namespace":      userNamespace,
		"kg.pod.images":          ofPod(addImages),
		"kg.pod.registries":      ofPod(addRegistries),
		"kg.pod.unversioned":     ofPod(addUnversioned),
		"kg.pod.capabilities":    ofPod(addCapabilities),
		"kg.pod.host_namespaces": ofPod(addHostNamespaces),
		"kg.pod.node":            podNode,
		"kg.pod.tolerates_all":   podToleratesAll,
		"kg.role.powers":         func(r *record) event.Value { return event.List(rolePowers(r)) },

		"kg.owner.kind":      ofOwner(func(o *owned) string { return o.kind }),
		"kg.owner.name":      ofOwner(func(o *owned) string { return o.name }),
		"kg.owner.writer":    ofOwner(func(o *owned) string { return o.writer.User }),
		"kg.owner.auditid":   ofOwner(func(o *owned) string { return o.writer.AuditID }),
		"kg.token.id":        ofToken(func(f *tokenFacts) string { return f.id }),
		"kg.token.pod":       ofToken(func(f *tokenFacts) string { return f.pod }),
		"kg.token.node":      ofToken(func(f *tokenFacts) string { return f.node }),
		"kg.token.elsewhere": ofToken(func(f *tokenFacts) string { return f.elsewhere }),
		"kg.token.before":    ofToken(func(f *tokenFacts) string { return f.before }),
		"kg.token.dead_pod":  ofToken(func(f *tokenFacts) string { return f.dead }),
		"kg.token.minted_by": ofToken(func(f *tokenFacts) string { return f.mintedBy }),
		"kg.token.chain":     tokenChain,
		"kg.token.first_use": ofToken(func(f *tokenFacts) string {
			if f.firstUse {
				return "true"
			}
			return ""
		}),
	}
	var fields []extractor
	for name, get := range named {
		id := int(ref(name).ID)
		for len(fields) <= id {
			fields = append(fields, nil)
		}
		fields[id] = get
	}
	return fields
}

// refs are the fields of an event that this package reads.
type refs struct {
	user, groups, impersonated, verb, code, dryRun event.Ref
	resource, subresource, namespace, name         event.Ref
	auditID, sourceIPs, issued                     event.Ref
	credential, boundPod, boundPodUID, boundNode   event.Ref
	request, response                              event.Ref
	boundUsers, boundAccounts                      event.Ref
	asker, askedFor, askedPart                     event.Ref // of an access review
}

func newRefs() refs {
	return refs{
		user: ref("ka.user.name"), groups: ref("ka.user.groups"), impersonated: ref("ka.impuser.name"),
		verb: ref("ka.verb"), code: ref("ka.response.code"), dryRun: ref("ka.uri.param", "dryRun"),
		resource: ref("ka.target.resource"), subresource: ref("ka.target.subresource"),
		namespace: ref("ka.target.namespace"), name: ref("ka.target.name"),
		auditID: ref("ka.auditid"), sourceIPs: ref("ka.sourceips"),
		issued:      ref("jevt.value", "/annotations/authentication.kubernetes.io~1issued-credential-id"),
		credential:  ref("jevt.value", "/user/extra/authentication.kubernetes.io~1credential-id/0"),
		boundPod:    ref("jevt.value", "/user/extra/authentication.kubernetes.io~1pod-name/0"),
		boundPodUID: ref("jevt.value", "/user/extra/authentication.kubernetes.io~1pod-uid/0"),
		boundNode:   ref("jevt.value", "/user/extra/authentication.kubernetes.io~1node-name/0"),
		boundUsers:  ref("ka.req.binding.subjects.user_names"), boundAccounts: ref("ka.req.binding.subjects.serviceaccount_ns_names"),
		asker: ref("jevt.value", "/requestObject/spec/user"), askedFor: ref("jevt.value", "/requestObject/spec/resourceAttributes/resource"),
		askedPart: ref("jevt.value", "/requestObject/spec/resourceAttributes/subresource"),
		request:   ref("jevt.value", "/requestObject"), response: ref("jevt.value", "/responseObject"),
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

// below returns a value below another one; of a body it is much cheaper than the
// body as text.
func (r *record) below(ref event.Ref, first []string, rest ...string) event.Value {
	ref.Pointer = append(append(append(r.path[:0], ref.Pointer...), first...), rest...)
	return r.Record.Value(ref)
}
