package alert

import (
	"fmt"
	"slices"
	"strings"
)

// EntityKinds lists the kinds of entities, those first that people ask for most.
func EntityKinds() []EntityKind {
	return []EntityKind{Pod, Workload, User, Node, Image, Address, Object, Container, Token}
}

// ParseEntityKind returns the kind named s.
func ParseEntityKind(s string) (EntityKind, error) {
	if k := EntityKind(s); slices.Contains(EntityKinds(), k) {
		return k, nil
	}
	return "", fmt.Errorf("unknown kind of entity %q: want one of %v", s, EntityKinds())
}

// ParseEntity reads an entity as String writes it.
func ParseEntity(s string) (Entity, error) {
	kind, name, ok := strings.Cut(s, ":")
	if !ok || name == "" {
		return Entity{}, fmt.Errorf("want an entity such as pod:shop/web-0, have %q", s)
	}
	k, err := ParseEntityKind(kind)
	return Entity{Kind: k, Name: name}, err
}

// String returns "kind:name".
func (e Entity) String() string { return string(e.Kind) + ":" + e.Name }

// Involves returns the entities of the alert, each once, with those that its
// fields name though nobody has listed them: the pod, container, image and node
// of a system call, and the remote address of its connection.
func (a *Alert) Involves() []Entity {
	var out []Entity
	add := func(kind EntityKind, parts ...string) {
		if slices.Contains(parts, "") {
			return
		}
		if e := (Entity{kind, strings.Join(parts, "/")}); !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	for _, e := range a.Entities {
		add(e.Kind, e.Name)
	}
	if a.Subject.Kind == "Pod" {
		add(Pod, a.Subject.Namespace, a.Subject.Name)
	}
	if a.Subject.Kind == "Node" {
		add(Node, a.Subject.Name)
	}
	if a.Source != "syscall" {
		return out
	}
	add(Node, a.Hostname)
	add(Pod, a.text("k8s.ns.name"), a.text("k8s.pod.name"))
	if id := a.text("container.id"); id != "host" {
		add(Container, id)
	}
	image := a.text("container.image.repository")
	if tag := a.text("container.image.tag"); image != "" && tag != "" {
		image += ":" + tag
	}
	add(Image, image)
	add(Address, a.text("fd.rip"))
	return out
}

// text returns an output field that is a text, "" if it is none or not known.
func (a *Alert) text(field string) string {
	s, _ := a.OutputFields[field].(string)
	if s == "<NA>" {
		return ""
	}
	return s
}
