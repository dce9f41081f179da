package image

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/kubeguardian/kubeguardian/registry"
)

// maxReference bounds the text of an image reference. Registries take names of
// up to 255 characters.
const maxReference = 1024

// A reference is an image as a pod names it, with what it leaves out filled in.
type reference struct {
	// name is the repository in full, such as "docker.io/library/nginx". Every
	// spelling that leads to the same host and repository has the same name, so
	// that no spelling gets around a pattern.
	name   string
	repo   name.Repository
	tag    string // "" if there is a digest
	digest string // "sha256:…", or ""
}

// at returns the image with this digest in its repository.
func (r reference) at(digest string) name.Digest { return r.repo.Digest(digest) }

// parseReference reads the image of a container. What the container runtime
// would read in another way is an error.
func parseReference(text string) (reference, error) {
	if len(text) > maxReference {
		return reference{}, fmt.Errorf("reference has %d characters, more than the limit of %d", len(text), maxReference)
	}
	var r reference
	var err error
	if strings.Contains(text, "@") {
		var parsed name.Digest
		parsed, err = name.NewDigest(text)
		r.repo, r.digest = parsed.Repository, parsed.DigestStr()
	} else {
		var parsed name.Tag
		parsed, err = name.NewTag(text)
		r.repo, r.tag = parsed.Repository, parsed.TagStr()
	}
	if err != nil {
		return reference{}, errors.New("not an image reference")
	}
	if r.digest != "" && !digestForm.MatchString(r.digest) {
		return reference{}, fmt.Errorf("digest %s is not supported: want sha256", r.digest)
	}
	host := registry.CanonicalHost(r.repo.RegistryStr())
	if r.name = host + "/" + r.repo.RepositoryStr(); !nameForm.MatchString(r.name) {
		return reference{}, errors.New("not an image reference")
	}
	if host != r.repo.RegistryStr() {
		if r.repo, err = name.NewRepository(r.name); err != nil {
			return reference{}, errors.New("not an image reference")
		}
	}
	return r, nil
}

// nameForm is the grammar of names, which the library does not check in full: a
// host and components of a path.
var nameForm = regexp.MustCompile(`^(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:]+\])(?::[0-9]+)?(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)+$`)

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// Patterns select images by the full name of their repository.
type patterns []*regexp.Regexp

func (p patterns) match(name string) bool {
	for _, pattern := range p {
		if pattern.MatchString(name) {
			return true
		}
	}
	return false
}

var patternForm = regexp.MustCompile(`^[a-zA-Z0-9._:/*\[\]-]+$`)

// parsePattern compiles a glob over full names: * stands for any text without a
// slash, ** for any number of path components.
func parsePattern(glob string) (*regexp.Regexp, error) {
	if glob == "**" {
		return regexp.Compile(`^.*$`)
	}
	host, path, ok := strings.Cut(glob, "/")
	switch {
	case !patternForm.MatchString(glob):
		return nil, fmt.Errorf("%q is not a pattern of image names, which have neither tag nor digest", glob)
	case !ok || path == "":
		return nil, fmt.Errorf("%q names no repository: want a pattern such as registry.example.com/shop/**, or ** for every image", glob)
	case !strings.ContainsAny(host, ".:*") && host != "localhost":
		return nil, fmt.Errorf("%q names no registry: write docker.io/… for images of Docker Hub", glob)
	case strings.Contains(path, ":"):
		return nil, fmt.Errorf("%q has a tag: patterns match names without tag and digest", glob)
	}
	if host = registry.CanonicalHost(host); host == "docker.io" && !strings.Contains(path, "/") && path != "**" {
		path = "library/" + path
	}
	var expr strings.Builder
	for i, part := range strings.Split(host+"/"+path, "/") {
		if i > 0 {
			expr.WriteString("/")
		}
		if part == "**" {
			expr.WriteString(".*")
			continue
		}
		if strings.Contains(part, "**") {
			return nil, fmt.Errorf("%q: ** stands for whole components, between slashes", glob)
		}
		expr.WriteString(strings.ReplaceAll(regexp.QuoteMeta(part), `\*`, `[^/]*`))
	}
	return regexp.Compile(`^` + expr.String() + `$`)
}

// anchored compiles an expression that must match the whole of a text. It is
// compiled alone first: one like "a)|(b" would undo the anchors.
func anchored(expr string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(expr); err != nil {
		return nil, err
	}
	return regexp.Compile(`^(?:` + expr + `)$`)
}
