package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/kubeguardian/kubeguardian/registry"
)

// Bounds of what one verification may read from a registry.
const (
	maxAnswerBytes = 16 << 20 // one manifest or blob
	maxTotalBytes  = 64 << 20
	maxRequests    = 400
	maxSignatures  = 50 // at each place where they may be
	maxReads       = 8  // at a time
)

// Registries are asked for digests, signatures and attestations. It is safe for
// concurrent use.
type registries struct {
	transport http.RoundTripper
	keys      authn.Keychain
	perSecond rate.Limit

	mu    sync.Mutex
	hosts map[string]*host
}

// A host has its own bounds, so that a slow registry does not keep others from
// being asked.
type host struct {
	rate     *rate.Limiter
	parallel *semaphore.Weighted
}

// Bounds of hosts: how many are remembered, and how many images of one are looked
// at together.
const (
	maxHosts    = 1000
	maxParallel = 16
)

// host returns the bounds of a host.
func (r *registries) host(name string) *host {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.hosts[name]
	if h == nil {
		if len(r.hosts) >= maxHosts {
			clear(r.hosts)
		}
		h = &host{rate.NewLimiter(r.perSecond, max(1, int(2*r.perSecond))), semaphore.NewWeighted(maxParallel)}
		r.hosts[name] = h
	}
	return h
}

// A reader reads for one verification, within its bounds.
type reader struct {
	*registries
	options []remote.Option
}

func (r *registries) reader(ctx context.Context) *reader {
	return &reader{r, []remote.Option{
		remote.WithContext(ctx),
		remote.WithTransport(registry.Bound(r, registry.Bounds{Requests: maxRequests, Answer: maxAnswerBytes, Total: maxTotalBytes})),
		remote.WithAuthFromKeychain(r.keys),
		remote.WithUserAgent("kubeguardian"),
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.1, Steps: 2}),
		remote.WithRetryStatusCodes(http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout),
	}}
}

// RoundTrip implements [http.RoundTripper]: it waits for its turn.
func (r *registries) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := r.host(req.URL.Host).rate.Wait(req.Context()); err != nil {
		return nil, fmt.Errorf("wait for a turn at %s: %w", req.URL.Host, err)
	}
	return r.transport.RoundTrip(req)
}

// missing reports whether a registry says that a thing does not exist.
func missing(err error) bool {
	var answer *transport.Error
	return errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound
}

// resolve returns the digest that a tag leads to now.
func (r *reader) resolve(tag name.Tag) (string, error) {
	found, err := remote.Head(tag, r.options...)
	if err == nil {
		return found.Digest.String(), nil
	}
	var unreachable *url.Error
	if missing(err) || errors.As(err, &unreachable) {
		return "", err
	}
	full, err := remote.Get(tag, r.options...) // some registries know no HEAD
	if err != nil {
		return "", err
	}
	return full.Digest.String(), nil
}

// blob returns the content of a layer.
func blob(layer v1.Layer) ([]byte, error) {
	content, err := layer.Compressed()
	if err != nil {
		return nil, err
	}
	defer content.Close()
	return io.ReadAll(content)
}
