package enrichment

import (
	"strconv"
	"strings"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
)

// Limits of what is remembered.
const (
	maxObjects = 20_000 // objects whose owners are known, in each generation
	maxChain   = 8      // owners above an object
	maxName    = 256    // bytes of a user name or the like

	maxReferences = 64 // of an object to its owners
)

// An owned is an object in a chain of owners.
type owned struct {
	kind, namespace, name string
	owner                 string // uid of the controller; empty for the top
	generation            int64  // of its spec, when that was written last
	writer                alert.Writer
}

// An ownedObject is what a response says of the object in it.
type ownedObject struct {
	uid, kind, namespace, name string
	generation                 int64
	controller                 string // uid of the owner that controls it
}

// owners remembers who controls what, and who wrote it.
type owners struct {
	objects *memory[string, owned] // by uid
	pods    *memory[podName, string]
}

type podName struct{ namespace, name string }

func newOwners() owners {
	return owners{newMemory[string, owned](maxObjects), newMemory[podName, string](maxObjects)}
}

// learn takes in the object that a request has written. The writer is who changed
// the spec last: what controllers do to labels, annotations and status does not
// make them the author.
func (o *owners) learn(r *record, e *event.Event) {
	refs, object := &r.enricher.refs, &r.object
	if object.uid == "" || r.text(refs.subresource) != "" ||
		r.verb != "create" && r.verb != "update" && r.verb != "patch" ||
		!strings.HasPrefix(r.text(refs.code), "2") || r.text(refs.dryRun) != "" {
		return
	}
	old, known := o.objects.get(object.uid)
	if known && old.generation == object.generation && old.is(object) {
		return
	}
	next := owned{
		kind: clip(object.kind), namespace: clip(object.namespace), name: clip(object.name), generation: object.generation, owner: clip(object.controller),
		writer: alert.Writer{
			User: clip(r.user), Impersonating: clip(r.text(refs.impersonated)),
			AuditID: clip(r.text(refs.auditID)), Time: e.Time,
		},
	}
	if known && old.generation == next.generation {
		next.writer = old.writer
	}
	uid := clip(object.uid)
	o.objects.set(uid, next)
	if r.resource == "pods" {
		o.pods.set(podName{next.namespace, next.name}, uid)
	}
}

// is reports whether nothing but the generation may differ from an object.
func (o *owned) is(object *ownedObject) bool {
	return o.kind == object.kind && o.namespace == object.namespace && o.name == object.name && o.owner == object.controller
}

// A lineage is an object and its owners, as far as they are known.
type lineage struct {
	chain *[maxChain]owned // from the object up; in the scratch of the record
	n     int
}

func (l *lineage) known() bool { return l.n > 0 }

// top returns the topmost owner that is known.
func (l *lineage) top() *owned { return &l.chain[l.n-1] }

// attribution says who is behind the object: the last writer of its topmost
// owner.
func (l *lineage) attribution() *alert.Attribution {
	top := l.top()
	a := &alert.Attribution{Kind: top.kind, Namespace: top.namespace, Name: top.name, Writer: top.writer}
	for _, o := range l.chain[:l.n] {
		a.Chain = append(a.Chain, o.kind+"/"+o.name)
	}
	return a
}

// follow finds an object and its owners.
func (o *owners) follow(l *lineage, uid string) {
	for l.n = 0; l.n < maxChain && (l.n == 0 || uid != ""); l.n++ {
		object, known := o.objects.get(uid)
		if !known {
			return
		}
		l.chain[l.n], uid = object, object.owner
	}
}

// find finds who is behind the object that an event is about. For a pod and what
// is below it that is its owner's writer, also where only its name is known.
func (o *owners) find(r *record) {
	refs := &r.enricher.refs
	r.owner.chain = &r.scratch.chain
	if r.object.uid != "" {
		if o.follow(&r.owner, r.object.uid); r.owner.known() {
			return
		}
	}
	if r.resource != "pods" {
		return
	}
	if uid, known := o.pods.get(podName{cut(r.text(refs.namespace)), cut(r.text(refs.name))}); known {
		o.follow(&r.owner, uid)
	}
}

// readObject finds the pod or workload in the response. Its texts last as long as
// the event.
func (r *record) readObject() {
	response := r.enricher.refs.response
	if r.resource != "pods" && !isWorkload(r.resource) {
		return
	}
	metadata := func(name string) string { return cut(r.below(response, nil, "metadata", name).Text) }
	object := ownedObject{uid: metadata("uid")}
	if object.uid == "" {
		return
	}
	object.kind, object.namespace, object.name = cut(r.below(response, nil, "kind").Text), metadata("namespace"), metadata("name")
	object.generation, _ = strconv.ParseInt(metadata("generation"), 10, 64) // pods have none
	for i := range maxReferences {
		n := strconv.Itoa(i)
		if r.below(response, nil, "metadata", "ownerReferences", n).Missing() {
			break
		}
		if r.below(response, nil, "metadata", "ownerReferences", n, "controller").Text == "true" {
			object.controller = cut(r.below(response, nil, "metadata", "ownerReferences", n, "uid").Text)
			break
		}
	}
	r.object = object
}

// clip bounds and copies what is remembered of foreign text.
func clip(s string) string { return strings.Clone(cut(s)) }

// cut bounds foreign text as what is remembered of it.
func cut(s string) string { return s[:min(len(s), maxName)] }

func ofOwner(get func(*owned) string) extractor {
	return func(r *record) event.Value {
		if !r.owner.known() {
			return event.Value{}
		}
		return event.Text(get(r.owner.top()))
	}
}
