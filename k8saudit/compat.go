package k8saudit

import (
	"fmt"
	"io"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
)

// Compat says what the fields mean whose reference implementation departs from
// what their names promise.
type Compat uint8

const (
	// Falco keeps what the reference does, so that existing rules give the same
	// alerts. ka.sourceips alone always has the addresses, which the reference
	// never finds.
	Falco Compat = iota
	// Fixed makes ka.req.pod.*.add_capabilities one element for each capability,
	// ka.req.pod.*.image.repository the whole repository although the registry
	// has a port, ka.req.pod.*.eff_run_as_user and eff_run_as_group what the
	// container or else its pod asks for, missing if neither does, and
	// ka.uri.param all values of a parameter, joined by blanks.
	Fixed
)

// ParseCompat returns the compatibility named s.
func ParseCompat(s string) (Compat, error) {
	switch s {
	case "falco":
		return Falco, nil
	case "fixed":
		return Fixed, nil
	}
	return 0, fmt.Errorf("unknown compatibility %q: want falco or fixed", s)
}

// Decode is [Decode] with fields of this meaning.
func (c Compat) Decode(r io.Reader, yield func(*event.Event) error) (Stats, error) {
	return decode(r, c, yield)
}

// repository cuts tag and digest off an image. The reference takes the port of
// a registry for a tag.
func (n node) repository(image string) string {
	if n.r.arena.compat == Fixed {
		image, _, _ = strings.Cut(image, "@")
		if name := strings.LastIndexByte(image, '/') + 1; strings.IndexByte(image[name:], ':') >= 0 {
			image = image[:name+strings.IndexByte(image[name:], ':')]
		}
		return image
	}
	image, _, _ = strings.Cut(image, ":")
	image, _, _ = strings.Cut(image, "@")
	return image
}

// imageRepository picks the repository of a container's image, and is not ok
// without.
func imageRepository(n node) bool {
	image, ok := n.at("image").text()
	n.add(n.repository(image))
	return ok
}

// addedCapabilities picks what is added to the capabilities of a container. In
// the reference that is one JSON text, so that only contains and alike see into
// it.
func addedCapabilities(n node) bool {
	if n.r.arena.compat == Fixed {
		return elements("add")(n.at("securityContext", "capabilities"))
	}
	return texts("securityContext", "capabilities", "add")(n)
}

// effective picks a user or group. The reference looks for it where no pod has
// it, and says 0.
func effective(key string) picker {
	return func(n node) bool {
		spec := n.r.requestObject().at("spec")
		places := [...]node{n.at(key), spec.at(key)}
		if n.r.arena.compat == Fixed {
			places = [...]node{n.at("securityContext", key), spec.at("securityContext", key)}
		}
		for _, at := range places {
			if s, ok := at.text(); ok {
				n.add(s)
				return true
			}
		}
		if n.r.arena.compat == Falco {
			n.add("0")
		}
		return true
	}
}
