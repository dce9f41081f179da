// Package inventory holds Kubernetes resources from a cluster or from files,
// indexed, with their source positions; it answers "which workload owns this?".
package inventory

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/finding"
)

// An Object is one resource. It is read-only once it is in an [Inventory].
type Object struct {
	*unstructured.Unstructured
	Source string // "file:line" of its first line; empty for a live object
}

// Subject names the object in findings.
func (o *Object) Subject() finding.Subject {
	return finding.Subject{
		APIVersion: o.GetAPIVersion(), Kind: o.GetKind(),
		Namespace: o.GetNamespace(), Name: o.GetName(), Source: o.Source,
	}
}

// A Workload is an object that makes pods and that no other object of the
// inventory controls.
type Workload struct {
	*Object
	Template corev1.PodTemplateSpec // the pod itself for a Pod
}

// An Origin says where an inventory comes from, and so what its silence means.
type Origin string

// The origins.
const (
	Files   Origin = "files"   // what is not here may exist elsewhere
	Cluster Origin = "cluster" // what is not here does not exist, unless a Gap says otherwise
)

// A Gap is something an inventory could not read.
type Gap struct {
	Kind   schema.GroupKind
	Reason string
}

// An Inventory is an immutable, indexed set of objects, safe for concurrent
// use.
type Inventory struct {
	Origin Origin
	Gaps   []Gap

	objects   []*Object
	byKind    map[schema.GroupKind][]*Object
	byKey     map[key]*Object
	workloads []*Workload
}

type key struct {
	kind            schema.GroupKind
	namespace, name string
}

// New indexes objects. It fails on a workload whose pod template is not one.
// Objects are ordered by kind, namespace and name, whatever their order in the
// input. Objects that share kind, namespace and name, as two variants of an
// application in one folder do, are all kept; Get returns the last.
func New(origin Origin, objects []*Object, gaps []Gap) (*Inventory, error) {
	inv := &Inventory{
		Origin: origin, Gaps: gaps,
		byKind: map[schema.GroupKind][]*Object{},
		byKey:  map[key]*Object{},
	}
	inv.objects = slices.SortedStableFunc(slices.Values(objects), compare)
	for _, o := range inv.objects {
		inv.byKey[keyOf(o)] = o
		gk := o.GroupVersionKind().GroupKind()
		inv.byKind[gk] = append(inv.byKind[gk], o)
	}
	return inv, inv.indexWorkloads()
}

func keyOf(o *Object) key {
	return key{o.GroupVersionKind().GroupKind(), o.GetNamespace(), o.GetName()}
}

func compare(a, b *Object) int {
	return cmp.Or(
		cmp.Compare(a.GetKind(), b.GetKind()),
		cmp.Compare(a.GroupVersionKind().Group, b.GroupVersionKind().Group),
		cmp.Compare(a.GetNamespace(), b.GetNamespace()),
		cmp.Compare(a.GetName(), b.GetName()),
	)
}

func (inv *Inventory) indexWorkloads() error {
	for _, o := range inv.objects {
		if inv.Controller(o) != nil {
			continue
		}
		template, ok, err := podTemplate(o)
		if err != nil {
			return fmt.Errorf("read pod template of %s: %w", o.Subject(), err)
		}
		if ok {
			inv.workloads = append(inv.workloads, &Workload{Object: o, Template: template})
		}
	}
	return nil
}

// Objects returns all objects, ordered by kind, namespace and name.
func (inv *Inventory) Objects() []*Object { return inv.objects }

// Kind returns the objects of a kind, ordered by namespace and name.
func (inv *Inventory) Kind(group, kind string) []*Object {
	return inv.byKind[schema.GroupKind{Group: group, Kind: kind}]
}

// Get returns one object, or nil.
func (inv *Inventory) Get(group, kind, namespace, name string) *Object {
	return inv.byKey[key{schema.GroupKind{Group: group, Kind: kind}, namespace, name}]
}

// Workloads returns the workloads, ordered by kind, namespace and name.
func (inv *Inventory) Workloads() []*Workload { return inv.workloads }

// Controller returns the object that controls o, or nil if there is none or it
// is not in the inventory.
func (inv *Inventory) Controller(o *Object) *Object {
	for _, ref := range o.GetOwnerReferences() {
		if ref.Controller != nil && *ref.Controller {
			gv, err := schema.ParseGroupVersion(ref.APIVersion)
			if err != nil {
				return nil
			}
			return inv.Get(gv.Group, ref.Kind, o.GetNamespace(), ref.Name)
		}
	}
	return nil
}

// Owner returns the workload that o is part of, following controllers to the
// top, or nil.
func (inv *Inventory) Owner(o *Object) *Workload {
	for parent := inv.Controller(o); parent != nil; parent = inv.Controller(o) {
		o = parent
	}
	for _, w := range inv.workloads {
		if w.Object == o {
			return w
		}
	}
	return nil
}

// Gap returns why objects of a kind could not be read, or "".
func (inv *Inventory) Gap(group, kind string) string {
	for _, g := range inv.Gaps {
		if g.Kind.Group == group && g.Kind.Kind == kind {
			return g.Reason
		}
	}
	return ""
}

// templatePath says where each workload kind keeps its pod template.
var templatePath = map[schema.GroupKind][]string{
	{Kind: "Pod"}:                        {},
	{Kind: "ReplicationController"}:      {"spec", "template"},
	{Group: "apps", Kind: "Deployment"}:  {"spec", "template"},
	{Group: "apps", Kind: "StatefulSet"}: {"spec", "template"},
	{Group: "apps", Kind: "DaemonSet"}:   {"spec", "template"},
	{Group: "apps", Kind: "ReplicaSet"}:  {"spec", "template"},
	{Group: "batch", Kind: "Job"}:        {"spec", "template"},
	{Group: "batch", Kind: "CronJob"}:    {"spec", "jobTemplate", "spec", "template"},
}

// IsWorkload reports whether objects of this kind make pods, or are pods.
func IsWorkload(gk schema.GroupKind) bool {
	_, ok := templatePath[gk]
	return ok
}

func podTemplate(o *Object) (template corev1.PodTemplateSpec, ok bool, err error) {
	path, ok := templatePath[o.GroupVersionKind().GroupKind()]
	if !ok {
		return template, false, nil
	}
	content, found := o.Object, true
	if len(path) > 0 {
		content, found, err = unstructured.NestedMap(o.Object, path...)
	}
	if err != nil || !found {
		return template, true, err
	}
	err = runtime.DefaultUnstructuredConverter.FromUnstructured(content, &template)
	return template, true, err
}
