package inventory

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/kubeguardian/kubeguardian/helm"
)

// A manifest is one mapping of a file that may be an object or a list of them.
type manifest struct {
	source
	node  *yaml.Node // for the line numbers of errors
	value map[string]any
}

func (m manifest) text(field string) string {
	s, _ := m.value[field].(string)
	return s
}

// errorf reports a problem at the value that path leads to.
func (m manifest) errorf(path []any, format string, args ...any) error {
	return fmt.Errorf("%s: %s", m.at(line(m.node, path)), fmt.Sprintf(format, args...))
}

// broken keeps what keeps a manifest from being an object of which the kind is
// known.
func (r *reader) broken(m manifest, at []any, format string, args ...any) {
	r.failPart(m.at(m.node.Line), holdsValue(m.value), m.errorf(at, format, args...))
}

func (r *reader) object(m manifest) {
	_, hasVersion := m.value["apiVersion"]
	_, hasKind := m.value["kind"]
	if !hasVersion && !hasKind {
		r.noObject(m.source, m.node.Line, "no apiVersion and kind")
		return
	}
	for _, field := range []string{"apiVersion", "kind"} {
		if m.text(field) == "" {
			r.broken(m, []any{field}, "%s is missing or not text", field)
			return
		}
	}
	gv, err := schema.ParseGroupVersion(m.text("apiVersion"))
	if err != nil {
		r.broken(m, []any{"apiVersion"}, "%v", err)
		return
	}
	if items, ok := m.value["items"].([]any); ok && strings.HasSuffix(m.text("kind"), "List") {
		r.list(m, items)
		return
	}
	r.single(m, gv.WithKind(m.text("kind")))
}

// list takes the items of a list one by one. In a list of one kind, as the API
// server sends it, the items do not repeat apiVersion and kind.
func (r *reader) list(m manifest, items []any) {
	kind := strings.TrimSuffix(m.text("kind"), "List")
	for i, item := range items {
		at := []any{"items", i}
		if !r.count(m.source, line(m.node, at)) {
			return
		}
		value, ok := item.(map[string]any)
		if !ok {
			r.failPart(m.at(line(m.node, at)), holdsValue(item), m.errorf(at, "an item of a list must be an object"))
			continue
		}
		if _, has := value["kind"]; !has && kind != "" {
			value = maps.Clone(value) // it may be shared
			value["apiVersion"], value["kind"] = m.text("apiVersion"), kind
		}
		_, items := find(m.node, "items")
		_, node := find(items, i)
		r.object(manifest{m.source, node, value})
	}
}

func (r *reader) single(m manifest, gvk schema.GroupVersionKind) {
	meta, _ := m.value["metadata"].(map[string]any)
	review := r.in.Reviews && gvk.Group == "admission.k8s.io" && gvk.Kind == "AdmissionReview"
	if meta["name"] == nil && meta["generateName"] == nil && !review {
		r.unnamed(m, gvk)
		return
	}
	if hook := text(mapping(meta["annotations"])[helm.HookAnnotation]); m.chart && helm.IsTest(hook) {
		return
	}
	r.pool.share(m.value)
	o := &Object{Unstructured: &unstructured.Unstructured{Object: m.value}, Source: m.at(m.node.Line), RenderedFrom: m.from}
	if r.in.Loose {
		r.objects = append(r.objects, o)
	} else if at, err := known(gvk); err != nil {
		r.broken(m, at, "%v", err)
	} else if errs := r.check(m, gvk); len(errs) > 0 {
		r.hide(o.Subject(), 1, errs...)
	} else {
		r.objects = append(r.objects, o)
	}
}

// check returns all that is wrong with an object of a known kind.
func (r *reader) check(m manifest, gvk schema.GroupVersionKind) (errs []error) {
	c := checker{fields: r.fields, fail: func(path []any, problem string) { errs = append(errs, m.errorf(path, "%s", problem)) }}
	if t, ok := scheme.Scheme.AllKnownTypes()[gvk]; ok {
		c.check(t, m.value, nil)
	} else {
		c.check(reflect.TypeFor[metav1.ObjectMeta](), m.value["metadata"], []any{"metadata"})
	}
	return errs
}

// known refuses kinds that Kubernetes would have if it had them, and no longer
// served ones; at is what is wrong of the object.
func known(gvk schema.GroupVersionKind) (at []any, err error) {
	typed, err := scheme.Scheme.New(gvk)
	switch {
	case err == nil:
		return nil, served(typed, gvk)
	case scheme.Scheme.IsGroupRegistered(gvk.Group):
		return []any{"kind"}, fmt.Errorf("%s has no kind %s%s", gvk.GroupVersion(), gvk.Kind, suggestKind(gvk))
	}
	return nil, nil
}

// unnamed tells a broken object from the configuration file of a tool, such as
// a kubeconfig, which also has apiVersion and kind but no metadata.
func (r *reader) unnamed(m manifest, gvk schema.GroupVersionKind) {
	if _, has := m.value["metadata"]; has || scheme.Scheme.Recognizes(gvk) {
		r.broken(m, []any{"metadata"}, "%s has no metadata.name", gvk.Kind)
		return
	}
	r.noObject(m.source, m.node.Line, gvk.Kind+" without metadata")
}

// served refuses a version that Kubernetes no longer serves: policies match
// served versions, so they would not see the object.
func served(typed any, gvk schema.GroupVersionKind) error {
	old, ok := typed.(interface{ APILifecycleRemoved() (int, int) })
	if !ok {
		return nil
	}
	major, minor := old.APILifecycleRemoved()
	if major > 1 || minor > kubernetesMinor {
		return nil
	}
	err := fmt.Errorf("%s %s was removed in Kubernetes %d.%d", gvk.GroupVersion(), gvk.Kind, major, minor)
	if r, ok := typed.(interface {
		APILifecycleReplacement() schema.GroupVersionKind
	}); ok {
		err = fmt.Errorf("%w: use %s", err, r.APILifecycleReplacement().GroupVersion())
	}
	return err
}

// kubernetesMinor is the Kubernetes 1.x whose types and policies are built in.
const kubernetesMinor = 37

// suggestKind looks for the kind in other groups, then for a similar one.
func suggestKind(gvk schema.GroupVersionKind) string {
	var versions, kinds []string
	for known := range scheme.Scheme.AllKnownTypes() {
		if typed, err := scheme.Scheme.New(known); known.Kind == gvk.Kind && err == nil && served(typed, known) == nil {
			versions = append(versions, known.GroupVersion().String())
		}
	}
	if len(versions) > 0 {
		slices.Sort(versions)
		return ": it is in " + strings.Join(versions, ", ")
	}
	for kind := range scheme.Scheme.KnownTypes(gvk.GroupVersion()) {
		kinds = append(kinds, kind)
	}
	return didYouMean(gvk.Kind, kinds)
}

// line returns the line of what path leads to, or of the last step on the way
// that is written in the file.
func line(n *yaml.Node, path []any) int {
	at := n.Line
	for _, step := range path {
		key, value := find(n, step)
		if value == nil {
			break
		}
		at, n = key.Line, value
	}
	return at
}

// find returns the value at one step, the name of a key or the index of an
// item, and the node that it begins with. Aliases are followed.
func find(n *yaml.Node, step any) (key, value *yaml.Node) {
	for range maxDepth {
		if n.Kind != yaml.AliasNode {
			break
		}
		n = n.Alias
	}
	switch step := step.(type) {
	case int:
		if n.Kind == yaml.SequenceNode && step < len(n.Content) {
			return n.Content[step], n.Content[step]
		}
	case string:
		if n.Kind == yaml.MappingNode {
			return findKey(n, step)
		}
	}
	return nil, nil
}

func findKey(n *yaml.Node, name string) (key, value *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}
