package isolate

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubeguardian/kubeguardian/inventory"
)

// A setting is one value that a workload is given.
type setting struct {
	name, value string
	secret      bool
}

// settings are the ConfigMaps and Secrets of an inventory. Of a Secret nothing
// but the names of Services is ever said.
type settings struct {
	inv  *inventory.Inventory
	data map[string]map[string]string // by "Kind/namespace/name"
}

func newSettings(inv *inventory.Inventory) (*settings, error) {
	s := &settings{inv, map[string]map[string]string{}}
	for _, o := range inv.Kind("", "ConfigMap") {
		var m corev1.ConfigMap
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &m); err != nil {
			return nil, fmt.Errorf("read %s: %w", o.Subject(), err)
		}
		s.data["ConfigMap/"+inv.NamespaceOf(o)+"/"+o.GetName()] = m.Data
	}
	for _, o := range inv.Kind("", "Secret") {
		var m corev1.Secret
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &m); err != nil {
			return nil, fmt.Errorf("read %s: its data is not as it should be", o.Subject())
		}
		data := maps.Clone(m.StringData)
		if data == nil {
			data = map[string]string{}
		}
		for key, value := range m.Data {
			data[key] = string(value)
		}
		s.data["Secret/"+inv.NamespaceOf(o)+"/"+o.GetName()] = data
	}
	return s, nil
}

// of returns all settings of a workload: variables, arguments, and what its
// ConfigMaps and Secrets hold.
func (s *settings) of(w *inventory.Workload) []setting {
	var out []setting
	for _, c := range containers(w) {
		for _, e := range c.Env {
			out = append(out, setting{name: e.Name, value: e.Value})
		}
		before := ""
		for _, arg := range append(slices.Clone(c.Command), c.Args...) {
			name, value, ok := strings.Cut(arg, "=")
			if !ok || !strings.HasPrefix(arg, "-") {
				name, value = before, arg
			}
			out = append(out, setting{name: name, value: value})
			before = arg
		}
	}
	for _, r := range s.refs(w) {
		data := s.data[r.object]
		for _, key := range slices.Sorted(maps.Keys(data)) {
			if r.key == "" || r.key == key {
				out = append(out, setting{key, data[key], strings.HasPrefix(r.object, "Secret/")})
			}
		}
	}
	return out
}

// hidden returns the objects with settings of a workload that are not in the
// inventory.
func (s *settings) hidden(w *inventory.Workload) []string {
	var out []string
	for _, r := range s.refs(w) {
		if s.data[r.object] == nil && !r.optional {
			out = append(out, r.object)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// A ref is an object, or one key of it, that a workload takes settings from.
type ref struct {
	object, key string
	optional    bool
}

func (s *settings) refs(w *inventory.Workload) []ref {
	ns := s.inv.NamespaceOf(w.Object)
	var out []ref
	add := func(kind, name, key string, optional *bool) {
		out = append(out, ref{kind + "/" + ns + "/" + name, key, optional != nil && *optional})
	}
	for _, c := range containers(w) {
		for _, from := range c.EnvFrom {
			if r := from.ConfigMapRef; r != nil {
				add("ConfigMap", r.Name, "", r.Optional)
			}
			if r := from.SecretRef; r != nil {
				add("Secret", r.Name, "", r.Optional)
			}
		}
		for _, e := range c.Env {
			if e.ValueFrom == nil {
				continue
			}
			if r := e.ValueFrom.ConfigMapKeyRef; r != nil {
				add("ConfigMap", r.Name, r.Key, r.Optional)
			}
			if r := e.ValueFrom.SecretKeyRef; r != nil {
				add("Secret", r.Name, r.Key, r.Optional)
			}
		}
	}
	for _, v := range w.Template.Spec.Volumes {
		if v.ConfigMap != nil {
			add("ConfigMap", v.ConfigMap.Name, "", v.ConfigMap.Optional)
		}
		if v.Secret != nil {
			add("Secret", v.Secret.SecretName, "", v.Secret.Optional)
		}
	}
	return out
}

func containers(w *inventory.Workload) []corev1.Container {
	return slices.Concat(w.Template.Spec.InitContainers, w.Template.Spec.Containers)
}
