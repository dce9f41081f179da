// Package team says whose an alert is: the workload that a pod is part of, and the
// team that the object which it is about names as its owner, or else what made the
// object, or else the namespace.
package team

import (
	"slices"
	"strings"
	"unicode"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Keys are labels or annotations whose value is the name of a team. The first
// that an object has counts, as a label before an annotation.
type Keys []string

// Own gives alerts the team that owns what they are about, as far as a cluster
// shows it. Those that have an owner keep it; without an inventory nobody has one.
func (k Keys) Own(inv *inventory.Inventory, alerts []alert.Alert) {
	if inv == nil || len(k) == 0 {
		return
	}
	for i := range alerts {
		if alerts[i].Owner == "" {
			alerts[i].Owner = k.owner(inv, &alerts[i])
		}
	}
}

// Involve adds to alerts about pods the workload that the pod is part of, as far as
// a cluster shows it and nobody has said it before. It leaves the entities as they
// are for others that have them.
func Involve(inv *inventory.Inventory, alerts []alert.Alert) {
	if inv == nil {
		return
	}
	for i := range alerts {
		a := &alerts[i]
		if a.Subject.Kind != "Pod" || slices.ContainsFunc(a.Entities, func(e alert.Entity) bool { return e.Kind == alert.Workload }) {
			continue
		}
		pod := inv.Get("", "Pod", a.Subject.Namespace, a.Subject.Name)
		if pod == nil {
			continue
		}
		if w := inv.Owner(pod); w != nil && w.Object != pod {
			a.Entities = append(slices.Clip(a.Entities), alert.Entity{Kind: alert.Workload, Name: w.Subject().String()})
		}
	}
}

// owner asks the object, what controls it, the workloads that are involved, and
// the namespace, in this order.
func (k Keys) owner(inv *inventory.Inventory, a *alert.Alert) string {
	s := &a.Subject
	gv, _ := schema.ParseGroupVersion(s.APIVersion) // what is none is of no group
	places := []*inventory.Object{}
	if s.Kind != "" && s.Name != "" {
		places = above(inv, inv.Get(gv.Group, s.Kind, s.Namespace, s.Name))
	}
	for _, e := range a.Entities {
		if e.Kind == alert.Workload {
			places = append(places, workload(inv, e.Name))
		}
	}
	if s.Namespace != "" {
		places = append(places, inv.Get("", "Namespace", "", s.Namespace))
	}
	for _, o := range places {
		if name := k.of(o); name != "" {
			return name
		}
	}
	return ""
}

// maxChain bounds the controllers above an object.
const maxChain = 8

// above returns an object and what controls it.
func above(inv *inventory.Inventory, o *inventory.Object) (out []*inventory.Object) {
	for ; o != nil && len(out) < maxChain; o = inv.Controller(o) {
		out = append(out, o)
	}
	return out
}

// workload returns the object that an entity names as Kind/namespace/name.
func workload(inv *inventory.Inventory, entity string) *inventory.Object {
	parts := strings.Split(entity, "/")
	if len(parts) != 3 {
		return nil
	}
	for _, group := range []string{"apps", "batch", ""} {
		if o := inv.Get(group, parts[0], parts[1], parts[2]); o != nil {
			return o
		}
	}
	return nil
}

// of returns what an object says of its owner, "" if it says nothing.
func (k Keys) of(o *inventory.Object) string {
	if o == nil {
		return ""
	}
	labels, annotations := o.GetLabels(), o.GetAnnotations()
	for _, key := range k {
		for _, values := range []map[string]string{labels, annotations} {
			if name := clean(values[key]); name != "" {
				return name
			}
		}
	}
	return ""
}

// maxName bounds the name of a team, in bytes: annotations may have any text.
const maxName = 100

// clean returns a name in one line.
func clean(s string) string {
	s = s[:min(len(s), maxName)]
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, ""), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || !unicode.IsPrint(r)
	}), " ")
}
