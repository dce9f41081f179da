// Package artifact keeps policies in OCI registries: it reads them as they stand
// there under a digest, and puts files there so that the digest follows from
// nothing but their names and content.
//
// An artifact is what oras and gator make of files: each layer is a file that its
// title names, or an archive (tar, or tar compressed by gzip) of files and
// folders; an image that holds nothing but files is one too. As in a folder, YAML
// files are read and others are left out. Nothing but files and folders may be in
// an archive.
//
// A reference is oci://HOST/REPOSITORY@sha256:DIGEST. A tag may stand before the
// digest, for people; a tag alone is refused, because it may lead to other
// policies tomorrow.
package artifact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/registry"
)

// scheme begins a reference to an artifact.
const scheme = "oci://"

// IsReference reports whether a path names an artifact rather than a file.
func IsReference(path string) bool { return strings.HasPrefix(path, scheme) }

// Options are how a [Client] works.
type Options struct {
	// Registries reaches them.
	Registries *registry.Access
	// Cache is a folder that keeps what was read, by digest, so that it can be
	// read again without its registry, until [Client.Prune]. "" keeps nothing.
	Cache string
	// Timeout is for one artifact; 0 is 30 seconds.
	Timeout time.Duration
}

// A Client reads and writes artifacts. It is safe for concurrent use.
type Client struct {
	registries *registry.Access
	cache      *cache
	timeout    time.Duration
}

// New returns a client.
func New(o Options) *Client {
	return &Client{registries: o.Registries, cache: &cache{dir: o.Cache, used: map[string]bool{}}, timeout: cmp.Or(o.Timeout, 30*time.Second)}
}

// Read is [content.Read] of policies, for paths that may be references too.
func (c *Client) Read(ctx context.Context, builtin fs.FS, paths ...string) ([]policy.File, error) {
	if len(paths) == 0 {
		return content.Read[policy.File](builtin)
	}
	var files []policy.File
	for _, path := range paths {
		var found []policy.File
		var err error
		if IsReference(path) {
			found, err = c.Pull(ctx, path)
		} else {
			found, err = content.Read[policy.File](builtin, path)
		}
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	return files, nil
}

// Pull returns the YAML files of the artifact that a reference names, in the order
// of their names, which begin with the reference.
func (c *Client) Pull(ctx context.Context, reference string) ([]policy.File, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	at, err := c.parse(ctx, reference)
	if err != nil {
		return nil, err
	}
	r := &reading{c, at, c.options(ctx)}
	files, err := r.files()
	if err != nil {
		return nil, fmt.Errorf("read policies from %s: %w", reference, err)
	}
	for i := range files {
		files[i].Name = shown(at) + "/" + files[i].Name
	}
	return files, nil
}

// Prune removes from the cache what this client has not read: what nobody has for 30
// days, and the oldest of the others while all is more than 256 MiB. It returns the
// number of files. Whoever calls it has read all that he still needs.
func (c *Client) Prune() (removed int, err error) { return c.cache.prune(time.Now()) }

// shown returns a reference with a digest that is short enough for each line of
// an error, and long enough to be found.
func shown(at name.Digest) string {
	return scheme + at.Context().Name() + "@" + at.DigestStr()[:len("sha256:")+12]
}

// options are those of requests for one artifact.
func (c *Client) options(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithTransport(registry.Bound(c.registries, registry.Bounds{Requests: 3 * maxLayers, Answer: maxBytes, Total: 2 * maxBytes})),
		remote.WithAuthFromKeychain(c.registries),
		remote.WithUserAgent("kubeguardian"),
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.1, Steps: 2}),
		remote.WithRetryStatusCodes(http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout),
	}
}

// parse reads a reference. For one without a digest it asks the registry which
// one the tag has now, to say so.
func (c *Client) parse(ctx context.Context, reference string) (name.Digest, error) {
	at, err := locate(reference)
	if err != nil {
		return name.Digest{}, err
	}
	if _, _, pinned := strings.Cut(at, "@"); pinned {
		digest, err := name.NewDigest(at)
		if err != nil {
			return name.Digest{}, fmt.Errorf("%s: %w", reference, err)
		}
		if _, err := v1.NewHash(digest.DigestStr()); err != nil {
			return name.Digest{}, fmt.Errorf("%s: %w", reference, err)
		}
		return digest, nil
	}
	tag, err := name.NewTag(at)
	if err != nil {
		return name.Digest{}, fmt.Errorf("%s: %w", reference, err)
	}
	unpinned := &UnpinnedError{reference: reference}
	if found, err := remote.Head(tag, c.options(ctx)...); err == nil {
		unpinned.digest = found.Digest.String()
	}
	return name.Digest{}, unpinned
}

// locate returns a reference without its scheme. The library would look for one
// without a host at Docker Hub.
func locate(reference string) (string, error) {
	at := strings.TrimPrefix(reference, scheme)
	host, _, below := strings.Cut(at, "/")
	if !below || host != "localhost" && !strings.ContainsAny(host, ".:") {
		return "", fmt.Errorf("%s: want %sHOST/REPOSITORY@sha256:DIGEST", reference, scheme)
	}
	return at, nil
}

// An UnpinnedError is a reference without a digest.
type UnpinnedError struct{ reference, digest string }

// Error says why a tag is not enough.
func (e *UnpinnedError) Error() string {
	return e.reference + ": an artifact is named by its digest: a tag may lead to other policies tomorrow"
}

// Hint says what to write instead.
func (e *UnpinnedError) Hint() string {
	if e.digest == "" {
		return "add @sha256:DIGEST, which 'kubeguardian policy push' printed; the registry does not tell it now"
	}
	return "the tag has this one now: " + e.reference + "@" + e.digest
}

// Below returns files that were read from a path with the names that they have
// below it, as an artifact has them: that of a file is its own.
func Below(path string, files []policy.File) []policy.File {
	prefix := filepath.Clean(path) + string(filepath.Separator)
	out := make([]policy.File, len(files))
	for i, f := range files {
		below, ok := strings.CutPrefix(f.Name, prefix)
		switch {
		case ok:
		case f.Name == path:
			below = filepath.Base(path)
		default: // of the current folder, or built in
			below = f.Name
		}
		out[i] = policy.File{Name: filepath.ToSlash(below), Data: f.Data}
	}
	return out
}

// Push stores files as an artifact, and returns the reference with its digest. A
// reference may have a tag, which then leads to the artifact. The names of the
// files are those in the artifact.
func (c *Client) Push(ctx context.Context, reference string, files []policy.File) (pinned string, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	at, err := locate(reference)
	if err != nil {
		return "", err
	}
	if strings.Contains(at, "@") {
		return "", fmt.Errorf("%s: the digest follows from the files: name a tag, or none", reference)
	}
	tag, err := name.NewTag(at)
	if err != nil {
		return "", fmt.Errorf("%s: %w", reference, err)
	}
	image, err := pack(files)
	if err != nil {
		return "", err
	}
	hash, err := image.Digest()
	if err != nil {
		return "", fmt.Errorf("pack policies: %w", err)
	}
	digest := tag.Context().Digest(hash.String())
	to := []name.Reference{digest}
	if strings.Contains(at[strings.LastIndex(at, "/"):], ":") {
		to = append(to, tag)
	}
	for _, ref := range to {
		if err := remote.Write(ref, image, c.options(ctx)...); err != nil {
			return "", fmt.Errorf("push policies to %s: %w", reference, err)
		}
	}
	return scheme + digest.Name(), nil
}

var _ authn.Keychain = (*registry.Access)(nil)

// errDamaged is content that is not what its digest says.
var errDamaged = errors.New("the content does not have this digest")
