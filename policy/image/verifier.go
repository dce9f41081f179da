package image

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/kubeguardian/kubeguardian/registry"
)

// Options are how a [Verifier] works. The zero value is ready for use.
type Options struct {
	// Credentials are for registries that want to know who asks; nil is nobody.
	Credentials authn.Keychain
	// Timeout is for all that one image takes; 0 is 8 seconds. Whoever asks may
	// have less time, and then the work goes on for those who ask next.
	Timeout time.Duration
	// RequestsPerSecond to one registry, on average; 0 is 50. Twice as many may
	// come at once.
	RequestsPerSecond float64
	// KeepValid is for how long an image that satisfies a policy is not looked at
	// again; 0 is one hour.
	KeepValid time.Duration
	// KeepInvalid is the same for one that does not, and KeepFailure for one of
	// which a registry did not tell; 0 is 30 and 5 seconds.
	KeepInvalid, KeepFailure time.Duration
	// AllowLoopback lets images come from a registry on this machine.
	AllowLoopback bool
	// RootCAs are those that vouch for registries; nil is those of the system.
	RootCAs *x509.CertPool
	// Transport reaches registries; nil is one that refuses addresses which are
	// those of no registry.
	Transport http.RoundTripper
	// Now is the time; nil is the clock.
	Now func() time.Time
	// Log receives what went wrong in the program itself; nil is nobody.
	Log *slog.Logger
}

// maxCached bounds what a verifier remembers.
const maxCached = 10_000

// A Verifier looks at images for policies, and remembers what it saw. Sets that
// are loaded one after the other share it, so that a change of one policy does
// not forget the others. It is safe for concurrent use.
type Verifier struct {
	options    Options
	registries *registries
	flights    singleflight.Group

	mu     sync.Mutex
	cached map[string]kept
	stats  Stats
}

// Stats count what a verifier did.
type Stats struct {
	Verified   uint64 // images looked at for a policy
	Remembered uint64 // answers that were known
	Failed     uint64 // answers that no registry gave, for images and tags
}

// Stats returns what the verifier did so far.
func (v *Verifier) Stats() Stats {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.stats
}

// A kept outcome is good until a time.
type kept struct {
	outcome outcome
	until   time.Time
}

// New returns a verifier.
func New(options Options) *Verifier {
	orDefault(&options.Timeout, 8*time.Second)
	orDefault(&options.KeepValid, time.Hour)
	orDefault(&options.KeepInvalid, 30*time.Second)
	orDefault(&options.KeepFailure, 5*time.Second)
	orDefault(&options.RequestsPerSecond, 50)
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	if options.Transport == nil {
		options.Transport = registry.NewTransport(options.RootCAs, options.AllowLoopback)
	}
	if options.Credentials == nil {
		options.Credentials = authn.NewMultiKeychain()
	}
	return &Verifier{
		options: options,
		registries: &registries{
			transport: options.Transport, keys: options.Credentials, perSecond: rate.Limit(options.RequestsPerSecond), hosts: map[string]*host{},
		},
		cached: map[string]kept{},
	}
}

func orDefault[T time.Duration | float64](value *T, usual T) {
	if *value <= 0 {
		*value = usual
	}
}

// verify returns what a policy concludes of an image, at most once at a time for
// both, and from memory if that is fresh.
func (v *Verifier) verify(ctx context.Context, p *Policy, image name.Digest) outcome {
	done := v.begin(p, image)
	select { // what is known already is known in no time
	case o := <-done:
		return o
	default:
	}
	select {
	case o := <-done:
		return o
	case <-ctx.Done():
		return outcome{failure: fmt.Errorf("verify %s: %w", image, ctx.Err())}
	}
}

// begin starts to verify an image, unless that is known or under way. Its work
// has a time of its own: who stops waiting does not stop it for the others.
func (v *Verifier) begin(p *Policy, image name.Digest) <-chan outcome {
	out := make(chan outcome, 1)
	key := p.id + " " + image.Name()
	if known, ok := v.recall(key); ok {
		out <- known
		return out
	}
	flight := v.flights.DoChan(key, func() (any, error) {
		if known, ok := v.recall(key); ok { // of a flight that ended just now
			return known, nil
		}
		o := v.within(image.RegistryStr(), func(ctx context.Context) outcome {
			return p.verify(ctx, v.registries, image, v.options.Now())
		})
		v.keep(key, o)
		v.mu.Lock()
		v.stats.Verified++
		v.mu.Unlock()
		return o, nil
	})
	go func() { out <- (<-flight).Val.(outcome) }()
	return out
}

// resolve returns the digest of a tag, at most once at a time. It is not
// remembered, because the tag may move; only that a registry did not tell is, for
// a short time.
func (v *Verifier) resolve(ctx context.Context, tag name.Tag) (string, outcome) {
	type answer struct {
		digest  string
		outcome outcome
	}
	key := "tag " + tag.Name()
	if known, ok := v.recall(key); ok {
		return "", known
	}
	flight := v.flights.DoChan(key, func() (any, error) {
		var a answer
		a.outcome = v.within(tag.RegistryStr(), func(ctx context.Context) outcome {
			var err error
			if a.digest, err = v.registries.reader(ctx).resolve(tag); err != nil {
				return failed(tag.RegistryStr(), err)
			}
			if !digestForm.MatchString(a.digest) {
				return outcome{problems: []string{fmt.Sprintf("digest %s is not supported: want sha256", a.digest)}}
			}
			return outcome{}
		})
		if a.outcome.failure != nil {
			v.keep(key, a.outcome)
		}
		return a, nil
	})
	select {
	case done := <-flight:
		a := done.Val.(answer)
		return a.digest, a.outcome
	case <-ctx.Done():
		return "", outcome{failure: fmt.Errorf("resolve %s: %w", tag, ctx.Err())}
	}
}

// within does a piece of work in its time, when it is its turn. What an image
// holds is foreign: a panic over it is an outcome, not the end of the program.
func (v *Verifier) within(registry string, work func(context.Context) outcome) (o outcome) {
	ctx, cancel := context.WithTimeout(context.Background(), v.options.Timeout)
	defer cancel()
	defer func() {
		if cause := recover(); cause != nil {
			v.options.Log.Error("panic over an image", "registry", registry, "panic", cause, "stack", string(debug.Stack()))
			o = outcome{problems: []string{"internal error"}}
		}
	}()
	parallel := v.registries.host(registry).parallel
	if err := parallel.Acquire(ctx, 1); err != nil {
		return outcome{failure: fmt.Errorf("ask registry %s: too many images of it are looked at already", registry)}
	}
	defer parallel.Release(1)
	return work(ctx)
}

func (v *Verifier) recall(key string) (outcome, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	k, ok := v.cached[key]
	if ok = ok && v.options.Now().Before(k.until); ok {
		v.stats.Remembered++
	}
	return k.outcome, ok
}

// keep remembers an outcome for as long as it is good.
func (v *Verifier) keep(key string, o outcome) {
	now := v.options.Now()
	until := now.Add(v.options.KeepValid)
	switch {
	case o.failure != nil:
		until = now.Add(v.options.KeepFailure)
	case len(o.problems) > 0:
		until = now.Add(v.options.KeepInvalid)
	case !o.until.IsZero() && o.until.Before(until):
		until = o.until
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if o.failure != nil {
		v.stats.Failed++
	}
	if len(v.cached) >= maxCached {
		v.evict(now)
	}
	v.cached[key] = kept{o, until}
}

// evict makes room: what is over goes, and if that is nothing any tenth does.
func (v *Verifier) evict(now time.Time) {
	for key, k := range v.cached {
		if !now.Before(k.until) {
			delete(v.cached, key)
		}
	}
	for key := range v.cached {
		if len(v.cached) <= maxCached*9/10 {
			return
		}
		delete(v.cached, key)
	}
}
