package evidence

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// RegistriesVersion is the apiVersion of a file of [Registries].
const RegistriesVersion = "kubeguardian.dev/registries/v1"

// maxAllowed bounds an allow list.
const maxAllowed = 1000

// Registries say where images may come from. Several lists add up.
type Registries struct {
	Origin
	// Allow are registries, or repositories under which all are allowed:
	// "registry.example.org", "ghcr.io/example", "*.example.org" for the hosts
	// of a domain. An image of Docker Hub is docker.io/library/nginx.
	Allow []string
}

// prefixForm is a host, with a port if need be, and the beginning of a path.
var prefixForm = regexp.MustCompile(`^(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9._/-]*[a-z0-9])?$`)

// registries reads an allow list. An empty one is allowed: it says that nobody
// has decided yet.
func registries(d document) (*Set, error) {
	var file struct {
		APIVersion string      `yaml:"apiVersion"`
		Allow      []yaml.Node `yaml:"allow"`
	}
	if err := d.strict(&file); err != nil {
		return nil, err
	}
	if len(file.Allow) > maxAllowed {
		return nil, d.errorf(0, "more than %d registries", maxAllowed)
	}
	list := Registries{Origin: Origin{Kind: Attestation, Source: d.name}}
	var errs []error
	for i := range file.Allow {
		n := &file.Allow[i]
		prefix := strings.TrimSuffix(n.Value, "/")
		if n.Kind != yaml.ScalarNode || !prefixForm.MatchString(prefix) {
			errs = append(errs, d.errorf(n.Line, "%s is no registry: want a host and the beginning of a path, as in ghcr.io/example", shown(n)))
			continue
		}
		list.Allow = append(list.Allow, prefix)
	}
	return &Set{Registries: []Registries{list}}, errors.Join(errs...)
}

// shown quotes a value for an error.
func shown(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode {
		return "an entry"
	}
	return fmt.Sprintf("%.80q", n.Value)
}
