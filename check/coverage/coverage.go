// Package coverage says which tools of the field serve a system: what runs in
// the cluster, what a plan sets up in a cloud, what a pipeline runs, and what
// wrote the evidence.
package coverage

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/tool"
)

// maxPlaces bounds where a tool was seen.
const maxPlaces = 5

// Detect returns the matrix with where each tool was seen, each place once. A
// tool that was not seen may be there nevertheless: only what is named in the
// matrix is recognised.
func Detect(m *tool.Matrix, inv *inventory.Inventory, set *evidence.Set) []tool.Need {
	s := &signs{}
	if inv != nil {
		s.inventory(inv)
	}
	if set != nil {
		s.evidence(set)
	}
	out := make([]tool.Need, len(m.Needs))
	for i, n := range m.Needs {
		out[i] = n
		out[i].Tools = slices.Clone(n.Tools)
		for j := range out[i].Tools {
			out[i].Tools[j].Detected = s.of(out[i].Tools[j])
		}
	}
	return out
}

// signs are what was seen, by kind of sign, and where: the first places.
type signs struct{ seen map[sign][]string }

type sign struct{ kind, value string }

func (s *signs) add(kind, value, place string) {
	if s.seen == nil {
		s.seen = map[sign][]string{}
	}
	key := sign{kind, value}
	if value != "" && len(s.seen[key]) < maxPlaces && !slices.Contains(s.seen[key], place) {
		s.seen[key] = append(s.seen[key], place)
	}
}

// of returns where a tool was seen.
func (s *signs) of(t tool.Tool) []string {
	var out []string
	for _, by := range []struct {
		kind   string
		values []string
	}{
		{"image", t.Images}, {"group", t.Groups}, {"kind", t.Kinds}, {"annotation", t.Annotations}, {"namespace", t.Namespaces},
		{"driver", t.Drivers}, {"resource", t.Resources}, {"file", t.Files}, {"step", []string{t.Name}},
	} {
		for _, value := range by.values {
			out = append(out, s.seen[sign{by.kind, value}]...)
		}
	}
	for key, places := range s.seen {
		begins := func(name string) bool { return strings.HasPrefix(strings.ToLower(key.value), strings.ToLower(name)) }
		if key.kind == "system" && slices.ContainsFunc(t.Systems, begins) || key.kind == "evidence" && slices.ContainsFunc(t.Evidence, begins) {
			out = append(out, places...)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return out[:min(len(out), maxPlaces)]
}

// inventory notes what objects show. An object that is part of another counts
// as that one.
func (s *signs) inventory(inv *inventory.Inventory) {
	for _, w := range inv.Workloads() {
		spec := w.Template.Spec
		for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
			s.add("image", tool.ImageName(c.Image), place(w.Object))
		}
		for key := range w.Template.Annotations {
			s.add("annotation", key, place(w.Object))
		}
		for _, v := range spec.Volumes {
			if v.CSI != nil {
				s.add("driver", v.CSI.Driver, place(w.Object))
			}
		}
	}
	for _, o := range inv.Objects() {
		gk := o.GroupVersionKind().GroupKind()
		s.add("kind", gk.String(), place(o))
		if strings.Contains(gk.Group, ".") {
			s.add("group", gk.Group, place(o))
		}
		if gk.Kind == "CustomResourceDefinition" {
			_, group, _ := strings.Cut(o.GetName(), ".")
			s.add("group", group, place(o))
		}
		if gk.Kind == "Namespace" {
			s.add("namespace", o.GetName(), place(o))
		}
		for key := range o.GetAnnotations() {
			s.add("annotation", key, place(o))
		}
		for key := range o.GetLabels() {
			s.add("annotation", key, place(o))
		}
		if gk.Kind == "Node" {
			s.node(o)
		}
	}
}

func (s *signs) node(o *inventory.Object) {
	var n corev1.Node
	if runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &n) == nil {
		s.add("system", n.Status.NodeInfo.OSImage, place(o))
	}
}

// place says where an object is: in its file, or in the cluster.
func place(o *inventory.Object) string {
	if o.Source != "" {
		return o.Source
	}
	return o.Subject().String()
}

// evidence notes what evidence shows, and who wrote it.
func (s *signs) evidence(set *evidence.Set) {
	for _, p := range set.Plans {
		for _, kind := range p.Kinds {
			s.add("resource", kind, p.Place(kind))
		}
	}
	for _, r := range set.Repositories {
		for _, w := range r.Workflows {
			for _, step := range w.Steps {
				s.add("step", step.Tool, step.Place)
			}
		}
		for _, file := range r.Updates {
			s.add("file", strings.TrimPrefix(strings.ReplaceAll(strings.TrimPrefix(file, r.Source), `\`, "/"), "/"), file)
		}
	}
	for _, v := range set.Verdicts {
		s.add("evidence", v.Tool, v.Source)
	}
	for _, a := range set.Analyses {
		s.add("evidence", a.Tool, a.Source)
	}
	for _, i := range set.Images {
		s.add("evidence", i.Tool, i.Source)
	}
	for _, sig := range set.Signatures {
		s.add("evidence", sig.Tool, sig.Source)
	}
	for _, p := range set.Protections {
		s.add("evidence", p.Tool, p.Source)
	}
}
