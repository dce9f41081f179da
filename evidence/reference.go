package evidence

import (
	"net/url"
	"regexp"
	"strings"
)

// A Reference is the name of an image in full: where Kubernetes and tools leave
// parts out, they mean those of Docker.
type Reference struct {
	Name   string // "docker.io/library/nginx"
	Tag    string // "" if only a digest is given
	Digest string // "sha256:…", or ""
}

// digestForm is the shape of a digest.
var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// ParseReference reads an image as written in a pod, a report or the status of a
// container; of the empty text and of a bare digest it returns no Name. It never
// fails: a name that no registry accepts equals only itself.
func ParseReference(s string) Reference {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	var r Reference
	if digestForm.MatchString(s) {
		return Reference{Digest: s}
	}
	if name, digest, ok := strings.Cut(s, "@"); ok {
		s = name
		if digestForm.MatchString(digest) {
			r.Digest = digest
		}
	}
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, '/') {
		s, r.Tag = s[:i], s[i+1:]
	}
	if s == "" {
		return Reference{Digest: r.Digest}
	}
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	r.Name = fullName(s)
	return r
}

func fullName(s string) string {
	host, path, ok := strings.Cut(s, "/")
	switch {
	case !ok || !strings.ContainsAny(host, ".:") && host != "localhost":
		host, path = "docker.io", s
	case host == "index.docker.io" || host == "registry-1.docker.io":
		host = "docker.io"
	}
	if host == "docker.io" && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	return host + "/" + path
}

// String returns the reference in full.
func (r Reference) String() string {
	s := r.Name
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// name adds a name that the image goes by, and its digest if it has one. What
// is no name, as the path of an archive, matches no workload.
func (i *ImageReport) name(refs ...string) {
	for _, ref := range refs {
		r := ParseReference(ref)
		if r.Name != "" {
			i.Refs = append(i.Refs, ref)
		}
		if r.Digest != "" {
			i.Digests = append(i.Digests, r.Digest)
		}
	}
}

// purl adds the name and digest of a package URL of type oci, such as
// pkg:oci/shop@sha256:…?repository_url=ghcr.io/acme/shop&tag=1.2.
func (i *ImageReport) purl(text string) {
	if purlType(text) != "oci" {
		return
	}
	path, query, _ := strings.Cut(strings.TrimPrefix(text, "pkg:"), "?")
	_, version, _ := strings.Cut(path, "@")
	if digest, err := url.PathUnescape(version); err == nil && digestForm.MatchString(digest) {
		i.Digests = append(i.Digests, digest)
	}
	values, err := url.ParseQuery(query)
	if repository := values.Get("repository_url"); err == nil && repository != "" && values.Get("tag") != "" {
		i.Refs = append(i.Refs, repository+":"+values.Get("tag"))
	}
}
