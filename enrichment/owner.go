package enrichment

import (
	"encoding/json"
	"slices"
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
)

// An owned is an object in a chain of owners.
type owned struct {
	kind, namespace, name string
	owner                 string // uid of the controller; empty for the top
	generation            int64  // of its spec, when that was written last
	writer                alert.Writer
}

// An ownerReference is what an object says of its controller.
type ownerReference struct {
	UID        string `json:"uid"`
	Controller bool   `json:"controller"`
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
	pods    *memory[string, string]
}

func newOwners() owners {
	return owners{newMemory[string, owned](maxObjects), newMemory[string, string](maxObjects)}
}

// learn takes in the object that a request has written. The writer is who changed
// the spec last: what controllers do to labels, annotations and status does not
// make them the author.
func (o *owners) learn(r *record, e *event.Event) {
	refs := &r.enricher.refs
	verb := r.text(refs.verb)
	if r.object == nil || r.text(refs.subresource) != "" ||
		verb != "create" && verb != "update" && verb != "patch" ||
		!strings.HasPrefix(r.text(refs.code), "2") || r.text(refs.dryRun) != "" {
		return
	}
	object := r.object
	next := owned{kind: object.kind, namespace: object.namespace, name: object.name, generation: object.generation, owner: object.controller}
	next.writer = alert.Writer{
		User: clip(r.text(refs.user)), Impersonating: clip(r.text(refs.impersonated)),
		AuditID: clip(r.text(refs.auditID)), Time: e.Time,
	}
	if old, known := o.objects.get(object.uid); known && old.generation == next.generation {
		next.writer = old.writer
	}
	o.objects.set(object.uid, next)
	if r.text(refs.resource) == "pods" {
		o.pods.set(next.namespace+"/"+next.name, object.uid)
	}
}

// attribution returns who is behind an object: the last writer of the topmost
// owner that is known.
func (o *owners) attribution(uid string) *alert.Attribution {
	var a *alert.Attribution
	for range maxChain {
		object, known := o.objects.get(uid)
		if !known {
			break
		}
		if a == nil {
			a = &alert.Attribution{}
		}
		a.Kind, a.Namespace, a.Name, a.Writer = object.kind, object.namespace, object.name, object.writer
		a.Chain = append(a.Chain, object.kind+"/"+object.name)
		if uid = object.owner; uid == "" {
			break
		}
	}
	return a
}

// of returns who is behind the object that an event is about. For a pod and what
// is below it that is its owner's writer, also where only its name is known.
func (o *owners) of(r *record) *alert.Attribution {
	refs := &r.enricher.refs
	if r.object != nil {
		if a := o.attribution(r.object.uid); a != nil {
			return a
		}
	}
	if r.text(refs.resource) != "pods" {
		return nil
	}
	uid, known := o.pods.get(clip(r.text(refs.namespace)) + "/" + clip(r.text(refs.name)))
	if !known {
		return nil
	}
	return o.attribution(uid)
}

// readObject returns the pod or workload in the response, or nil.
func readObject(r *record) *ownedObject {
	refs := &r.enricher.refs
	if resource := r.text(refs.resource); resource != "pods" && !isWorkload(resource) {
		return nil
	}
	metadata := func(name string) string { return clip(r.below(refs.response, nil, "metadata", name).Text) }
	object := &ownedObject{uid: metadata("uid")}
	if object.uid == "" {
		return nil
	}
	object.kind, object.namespace, object.name = clip(r.below(refs.response, nil, "kind").Text), metadata("namespace"), metadata("name")
	object.generation, _ = strconv.ParseInt(metadata("generation"), 10, 64) // pods have none
	var owners []ownerReference
	text := r.below(refs.response, nil, "metadata", "ownerReferences").Text
	if text == "" || json.Unmarshal([]byte(text), &owners) != nil {
		return object
	}
	if i := slices.IndexFunc(owners, func(ref ownerReference) bool { return ref.Controller }); i >= 0 {
		object.controller = clip(owners[i].UID)
	}
	return object
}

// clip bounds and copies what is remembered of foreign text.
func clip(s string) string { return strings.Clone(cut(s)) }

// cut bounds foreign text as what is remembered of it.
func cut(s string) string { return s[:min(len(s), maxName)] }

func ofOwner(get func(*alert.Attribution) string) extractor {
	return func(r *record) event.Value {
		if r.owner == nil {
			return event.Value{}
		}
		return event.Text(get(r.owner))
	}
}
