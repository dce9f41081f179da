package gatekeeper

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// An index finds the constraints that may match an object by its kind and its
// namespace, so that the others cost nothing.
type index struct {
	byKind map[string]*bucket // that name the kind
	any    bucket             // that name no kind
}

// A bucket holds constraints by the namespaces they name.
type bucket struct {
	all         []*constraint
	unlisted    []*constraint // whatever the namespace, or some by wildcard
	byNamespace map[string][]*constraint
}

func newIndex(constraints []*constraint) index {
	x := index{byKind: map[string]*bucket{}}
	for _, c := range constraints {
		names := c.kinds()
		if names == nil {
			x.any.add(c)
		}
		for _, name := range names {
			if x.byKind[name] == nil {
				x.byKind[name] = &bucket{}
			}
			x.byKind[name].add(c)
		}
	}
	return x
}

// kinds returns the kinds that a constraint names, each once, or nil for all.
func (c *constraint) kinds() []string {
	if c.match == nil || len(c.match.Kinds) == 0 {
		return nil
	}
	var names []string
	for _, k := range c.match.Kinds {
		if len(k.Kinds) == 0 || slices.Contains(k.Kinds, "*") {
			return nil
		}
		names = append(names, k.Kinds...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (b *bucket) add(c *constraint) {
	b.all = append(b.all, c)
	if c.match == nil || len(c.match.Namespaces) == 0 || slices.ContainsFunc(c.match.Namespaces, func(w wildcard) bool { return !w.exact() }) {
		b.unlisted = append(b.unlisted, c)
		return
	}
	if b.byNamespace == nil {
		b.byNamespace = map[string][]*constraint{}
	}
	for i, w := range c.match.Namespaces {
		if !slices.Contains(c.match.Namespaces[:i], w) {
			b.byNamespace[string(w)] = append(b.byNamespace[string(w)], c)
		}
	}
}

// candidates appends those that may match an object in, or with, a namespace.
// Lists of namespaces do not keep a constraint from objects without one.
func (b *bucket) candidates(to []*constraint, namespace string) []*constraint {
	if namespace == "" {
		return append(to, b.all...)
	}
	return append(append(to, b.unlisted...), b.byNamespace[namespace]...)
}

// candidates returns the constraints that may match a request, in their order.
func (x *index) candidates(r *review) []*constraint {
	var out []*constraint
	for i, s := range []*subject{r.object, r.old} {
		if s == nil || i == 1 && r.object != nil && s.kind == r.object.kind && s.namespaceName() == r.object.namespaceName() {
			continue
		}
		if b := x.byKind[s.kind]; b != nil {
			out = b.candidates(out, s.namespaceName())
		}
		out = x.any.candidates(out, s.namespaceName())
	}
	if r.object == nil && r.old == nil { // none can be matched, which all have to say
		for _, b := range x.byKind {
			out = append(out, b.all...)
		}
		out = append(out, x.any.all...)
	}
	slices.SortFunc(out, func(a, b *constraint) int { return cmp.Compare(a.order, b.order) })
	return slices.Compact(out)
}

// kindOnly reports whether no constraint can match an object of this kind, so
// that it need not be read at all.
func (x *index) kindOnly(o *unstructured.Unstructured) bool {
	return o == nil || len(x.any.all) == 0 && x.byKind[o.GetKind()] == nil
}
