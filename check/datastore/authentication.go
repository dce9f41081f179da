package datastore

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Authentication says for each Service of a data store whether it asks for
// credentials, as far as manifests show it.
func Authentication(inv *inventory.Inventory) []finding.Verdict {
	stores := map[string][]*inventory.Workload{} // by namespace
	for _, w := range inv.Workloads() {
		if len(Ports(w)) > 0 {
			stores[inv.NamespaceOf(w.Object)] = append(stores[inv.NamespaceOf(w.Object)], w)
		}
	}
	var out []finding.Verdict
	for _, o := range inv.Kind("", "Service") {
		f := finding.Verdict{Status: finding.NotApplicable, Reason: "no data store is known behind it"}
		selector, _, _ := unstructured.NestedStringMap(o.Object, "spec", "selector")
		for _, w := range stores[inv.NamespaceOf(o)] {
			if len(selector) == 0 || !labels.SelectorFromSet(selector).Matches(labels.Set(w.Template.Labels)) {
				continue
			}
			if got := authentication(inv, w); f.Status == finding.NotApplicable || got.Status == finding.Fail {
				f = got
			}
		}
		f.Subject = o.Subject()
		out = append(out, f)
	}
	return out
}

func authentication(inv *inventory.Inventory, w *inventory.Workload) finding.Verdict {
	c, s := container(w)
	set := read(inv, w, c)
	fail := func(by string) finding.Verdict {
		return finding.Verdict{Status: finding.Fail, Message: w.Subject().String() + " answers without authentication", Evidence: by}
	}
	if by := set.first(s.open); by != "" {
		return fail(by)
	}
	if by := set.first(s.closed); by != "" {
		return finding.Verdict{Status: finding.Pass, Evidence: by + " of " + w.Subject().String()}
	}
	if by := set.first(s.lax); by != "" {
		return fail(by)
	}
	if s.bare && set.unseen == "" {
		return fail("no setting asks for credentials, and " + s.images[0] + " does not by itself")
	}
	return finding.Verdict{
		Status: finding.Unknown,
		Reason: cmp.Or(set.unseen, "no setting in the manifests says whether it asks for credentials") + "; set them there, or attest it",
	}
}

// settings are what manifests set for a container, by name. A value that a
// manifest only refers to is "".
type settings struct {
	values map[string][]string
	unseen string // what may set more, and is not here
}

// first returns the name of the first setting that is there, with its value
// where that is part of what is looked for.
func (s settings) first(wanted []string) string {
	for _, want := range wanted {
		name, list, valued := strings.Cut(want, "=")
		values, ok := s.values[name]
		if ok && !valued {
			return name
		}
		for _, v := range values {
			if slices.ContainsFunc(strings.Split(list, ","), func(one string) bool { return valued && strings.EqualFold(one, v) }) {
				return name + "=" + v
			}
		}
	}
	return ""
}

func read(inv *inventory.Inventory, w *inventory.Workload, c *corev1.Container) settings {
	s := settings{values: map[string][]string{}}
	ns := inv.NamespaceOf(w.Object)
	for _, e := range c.Env {
		if e.ValueFrom != nil || e.Value != "" {
			s.add(e.Name, e.Value)
		}
	}
	for _, from := range c.EnvFrom {
		switch {
		case from.ConfigMapRef != nil:
			for name, value := range s.configMap(inv, ns, from.ConfigMapRef.Name) {
				s.add(from.Prefix+name, value)
			}
		case from.SecretRef != nil:
			s.unseen = "Secret " + from.SecretRef.Name + " may set more"
		}
	}
	s.words(slices.Concat(c.Command, c.Args))
	for _, m := range c.VolumeMounts {
		for _, v := range w.Template.Spec.Volumes {
			if v.Name == m.Name {
				s.volume(inv, ns, v)
			}
		}
	}
	return s
}

func (s *settings) add(name, value string) { s.values[name] = append(s.values[name], value) }

// words reads a command line, also one inside a shell's argument.
func (s *settings) words(args []string) {
	words := strings.Fields(strings.Join(args, " "))
	for i, word := range words {
		name, value, _ := strings.Cut(strings.Trim(word, `"'`), "=")
		if value == "" && i+1 < len(words) && !strings.HasPrefix(words[i+1], "-") {
			value = strings.Trim(words[i+1], `"'`)
		}
		if strings.HasPrefix(name, "-") || strings.Contains(word, "=") {
			s.add(name, value)
		}
	}
}

// volume reads the files that a volume puts beside a program.
func (s *settings) volume(inv *inventory.Inventory, ns string, v corev1.Volume) {
	switch {
	case v.ConfigMap != nil:
		data := s.configMap(inv, ns, v.ConfigMap.Name)
		for _, key := range slices.Sorted(maps.Keys(data)) {
			s.file(data[key])
		}
	case v.Secret != nil:
		s.unseen = cmp.Or(s.unseen, "Secret "+v.Secret.SecretName+" may configure it")
	case v.Projected != nil, v.CSI != nil:
		s.unseen = cmp.Or(s.unseen, "volume "+v.Name+" may configure it")
	}
}

// configMap returns the entries of a ConfigMap.
func (s *settings) configMap(inv *inventory.Inventory, ns, name string) map[string]string {
	o := inv.Get("", "ConfigMap", ns, name)
	if o == nil {
		s.unseen = "ConfigMap " + name + " was not read"
		return nil
	}
	data, _, err := unstructured.NestedStringMap(o.Object, "data")
	if err != nil {
		s.unseen = "ConfigMap " + name + " is not of its kind's shape"
	}
	return data
}

// file reads a configuration file line by line: "name value", "name = value" or
// "name: value".
func (s *settings) file(text string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		end := strings.IndexAny(line, " \t=:")
		if end < 0 {
			s.add(line, "")
			continue
		}
		s.add(line[:end], strings.Trim(line[end:], " \t=:\"'"))
	}
}
