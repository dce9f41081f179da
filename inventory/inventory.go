// Package inventory holds Kubernetes resources from a cluster or from files,
// indexed, with their source positions; it answers "which workload owns this?".
package inventory

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	goruntime "runtime"
	"slices"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/finding"
)

// An Object is one resource. It is read-only once it is in an [Inventory].
type Object struct {
	*unstructured.Unstructured
	Source string // "file:line" of its first line; empty for a live object
	// RenderedFrom is the chart or kustomization that made the object, if one did;
	// Source is then where most of it is written.
	RenderedFrom string
	// Normal says that a built-in kind is in the form in which the API server
	// shows it to policies, because it was read as its Go type.
	Normal bool
}

// Subject names the object in findings.
func (o *Object) Subject() finding.Subject {
	return finding.Subject{
		APIVersion: o.GetAPIVersion(), Kind: o.GetKind(),
		Namespace: o.GetNamespace(), Name: o.GetName(), Source: o.Source, RenderedFrom: o.RenderedFrom,
	}
}

// A Workload is an object that makes pods, or a pod, and that is not part of
// another workload of the inventory: see [Inventory.Owner].
type Workload struct {
	*Object
	Template *corev1.PodTemplateSpec // the pod itself for a Pod; read-only, as the object
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

// A Skip is a part of the input that holds no Kubernetes object. It is kept so
// that nothing is left out without being named.
type Skip struct {
	Source string // file, or "file:line"
	Reason string
}

// An Inventory is an immutable, indexed set of objects, safe for concurrent
// use.
type Inventory struct {
	Origin     Origin
	Gaps       []Gap
	Skipped    []Skip
	Unreadable []Unreadable
	Problems   error // joins all that was wrong with the input; nil for none

	server    string // the version of the API server, see [Inventory.ServerVersion]
	objects   []*Object
	byKind    map[schema.GroupKind][]*Object
	byKey     map[key]*Object
	home      map[*Object]string // the namespace that it lives in, see [Inventory.NamespaceOf]
	workloads []*Workload
	workload  map[*Object]*Workload       // that an object is part of
	scopes    map[schema.GroupKind]string // of custom resources whose definition is here
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
	return index(origin, objects, gaps, newTemplates())
}

// index is New with what is known of pod templates.
func index(origin Origin, objects []*Object, gaps []Gap, known *templates) (*Inventory, error) {
	inv := &Inventory{
		Origin: origin, Gaps: gaps,
		objects:  slices.SortedStableFunc(slices.Values(objects), compare),
		byKind:   map[schema.GroupKind][]*Object{},
		byKey:    map[key]*Object{},
		home:     map[*Object]string{},
		workload: map[*Object]*Workload{},
	}
	for _, o := range inv.objects {
		gk := o.GroupVersionKind().GroupKind()
		inv.byKind[gk] = append(inv.byKind[gk], o)
	}
	inv.scopes = customScopes(inv.Kind("apiextensions.k8s.io", "CustomResourceDefinition"))
	for _, o := range inv.objects {
		gk := o.GroupVersionKind().GroupKind()
		inv.home[o] = inv.namespace(gk, o.GetNamespace())
		inv.byKey[key{gk, inv.home[o], o.GetName()}] = o
	}
	if err := inv.indexWorkloads(known); err != nil {
		return nil, err
	}
	return inv, nil
}

func compare(a, b *Object) int {
	return cmp.Or(
		cmp.Compare(a.GetKind(), b.GetKind()),
		cmp.Compare(a.GroupVersionKind().Group, b.GroupVersionKind().Group),
		cmp.Compare(a.GetNamespace(), b.GetNamespace()),
		cmp.Compare(a.GetName(), b.GetName()),
	)
}

func (inv *Inventory) indexWorkloads(known *templates) error {
	read := map[*unstructured.Unstructured]*corev1.PodTemplateSpec{}
	parts := map[*Object]*Object{} // and the top of each
	for _, o := range inv.objects {
		if top := inv.top(o); top != o {
			parts[o] = top
			continue
		}
		template, err := known.of(o)
		if err != nil {
			return fmt.Errorf("read pod template of %s: %w", o.Subject(), err)
		}
		if template != nil {
			read[o.Unstructured] = template
			w := &Workload{Object: o, Template: template}
			inv.workloads = append(inv.workloads, w)
			inv.workload[o] = w
		}
	}
	for o, top := range parts {
		inv.workload[o] = inv.workload[top]
	}
	known.read = read
	return nil
}

// Objects returns all objects, ordered by kind, namespace and name.
func (inv *Inventory) Objects() []*Object { return inv.objects }

// Each calls f for each of [Inventory.Objects], with its place among them, shared
// out among the processors. It ends early, with the error of ctx, when that ends.
func (inv *Inventory) Each(ctx context.Context, f func(i int, o *Object)) error {
	var next atomic.Int64
	var wait sync.WaitGroup
	for range goruntime.GOMAXPROCS(0) {
		wait.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(inv.objects) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				f(i, inv.objects[i])
			}
		})
	}
	wait.Wait()
	return ctx.Err()
}

// Kind returns the objects of a kind, ordered by namespace and name.
func (inv *Inventory) Kind(group, kind string) []*Object {
	return inv.byKind[schema.GroupKind{Group: group, Kind: kind}]
}

// Get returns one object, or nil. For a namespaced kind, an empty namespace
// means "default"; for a cluster-scoped one, namespace has no meaning.
func (inv *Inventory) Get(group, kind, namespace, name string) *Object {
	gk := schema.GroupKind{Group: group, Kind: kind}
	return inv.byKey[key{gk, inv.namespace(gk, namespace), name}]
}

// Workloads returns the workloads, ordered by kind, namespace and name.
func (inv *Inventory) Workloads() []*Workload { return inv.workloads }

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

// TemplatePath returns where objects of a kind that makes pods keep the pod
// template: nowhere for a Pod, which is its own.
func TemplatePath(gk schema.GroupKind) (path []string, ok bool) {
	path, ok = templatePath[gk]
	return slices.Clone(path), ok
}

// WorkloadKinds returns the kinds of objects that make pods, or are pods.
func WorkloadKinds() []schema.GroupKind { return slices.Collect(maps.Keys(templatePath)) }
