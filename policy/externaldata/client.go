package externaldata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/singleflight"
	"k8s.io/apimachinery/pkg/util/cache"
)

// DefaultTTL is how long Gatekeeper keeps answers.
const DefaultTTL = 3 * time.Minute

// The bounds of what is asked and kept.
const (
	MaxCalls = 16 // of one provider at a time

	maxKeys      = 10_000  // of one question
	maxKeyBytes  = 1 << 20 // all of one question
	maxKept      = 10_000  // answers
	maxKeptBytes = 8 << 10 // of one answer; a larger one is not kept
	errorTTL     = 5 * time.Second
)

// Options are what a [Client] needs besides the providers.
type Options struct {
	// CertFile and KeyFile are PEM files with the certificate that providers know
	// us by; both or neither. They are read again when they change.
	CertFile, KeyFile string
	// TTL is how long answers are kept; zero keeps none.
	TTL time.Duration
	// Failed is told of each call that fails, from many goroutines at once; nil
	// means that nobody wants to know.
	Failed func(provider string, err error)
}

// A Client asks providers. It is safe for concurrent use. Close ends it.
type Client struct {
	callers map[string]*caller
	opts    Options
	flights singleflight.Group
	kept    *cache.LRUExpireCache // entry by place
	given   map[place]entry       // not nil: nobody is asked
	base    context.Context       // of all calls
	end     context.CancelFunc
}

// A place is where an answer is kept.
type place struct{ provider, key string }

type entry struct {
	item       Item
	idempotent bool
}

// NewClient returns a client for the providers of a set, which may be nil. It
// does not connect to any yet. An error is for a certificate that cannot be read.
func NewClient(providers *Set, opts Options) (*Client, error) {
	own, err := newCertificate(opts.CertFile, opts.KeyFile)
	if err != nil {
		return nil, err
	}
	c := &Client{callers: map[string]*caller{}, opts: opts, kept: cache.NewLRUExpireCache(maxKept)}
	c.base, c.end = context.WithCancel(context.Background())
	if providers != nil {
		for _, p := range providers.providers {
			c.callers[p.name] = newCaller(p, own)
		}
	}
	return c, nil
}

// Close ends the calls that run, and the connections.
func (c *Client) Close() error {
	c.end()
	for _, p := range c.callers {
		p.http.CloseIdleConnections()
	}
	return nil
}

// An Answer is what a provider says of keys.
type Answer struct {
	Items       []Item // in the order of the keys; those that nobody asked for last
	StatusCode  int    // of HTTP
	SystemError string // empty: none
	Idempotent  bool   // the same question has the same answer
}

// An Item is what a provider says of one key: a value, or an error.
type Item struct {
	Key   string `json:"key"`
	Value any    `json:"value"`
	Error string `json:"error"`
}

// An Error is a question that has no answer.
type Error struct {
	Provider   string
	Keys       []string
	StatusCode int // that Rego sees
	Err        error
}

// Error names the provider and the first of the keys.
func (e *Error) Error() string {
	about := "nothing"
	if len(e.Keys) > 0 {
		about = fmt.Sprintf("%q", clip(e.Keys[0]))
	}
	if more := len(e.Keys) - 1; more > 0 {
		about += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("ask provider %q about %s: %v", clip(e.Provider), about, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

var errUnknown = errors.New("there is no such Provider")

// ErrNotAsked is why a policy that asks providers cannot judge where nobody may be
// asked.
var ErrNotAsked = errors.New("no provider may be asked")

// Ask returns what a provider says of keys, from what is kept or by one call. An
// error is an [*Error]: there is no such provider, or it gives no answer before
// ctx ends. That it has no answer to a key is no error, but part of the answer.
func (c *Client) Ask(ctx context.Context, provider string, keys []string) (*Answer, error) {
	known, missing := c.recall(provider, keys)
	out := &Answer{StatusCode: http.StatusOK, Idempotent: true}
	var fresh []Item
	if len(missing) > 0 {
		called, err := c.share(ctx, provider, missing)
		if err != nil {
			return nil, err
		}
		fresh, out.StatusCode, out.SystemError, out.Idempotent = called.Items, called.StatusCode, called.SystemError, called.Idempotent
	}
	for _, e := range known {
		out.Idempotent = out.Idempotent && e.idempotent
	}
	out.Items = arrange(keys, known, fresh)
	return out, nil
}

// recall returns what is kept, and the keys of which nothing is, each once.
func (c *Client) recall(provider string, keys []string) (known map[string]entry, missing []string) {
	known = map[string]entry{}
	seen := make(map[string]bool, len(keys))
	for _, key := range keys {
		if seen[key] {
			continue
		}
		seen[key] = true
		if e, ok := c.find(place{provider, key}); ok {
			known[key] = e
		} else {
			missing = append(missing, key)
		}
	}
	return known, missing
}

// find returns what is given, or kept.
func (c *Client) find(at place) (e entry, ok bool) {
	if c.given != nil {
		e, ok = c.given[at]
		return e, ok
	}
	if kept, found := c.kept.Get(at); found {
		e, ok = kept.(entry)
	}
	return e, ok
}

// arrange puts items into the order of the keys, a key that is given twice twice,
// as a provider would. What nobody asked for comes last: it may say that something
// is wrong.
func arrange(keys []string, known map[string]entry, fresh []Item) []Item {
	byKey := map[string][]Item{}
	for _, i := range fresh {
		byKey[i.Key] = append(byKey[i.Key], i)
	}
	for key, e := range known {
		byKey[key] = append(byKey[key], e.item)
	}
	out := make([]Item, 0, len(keys))
	asked := make(map[string]bool, len(keys))
	for _, key := range keys {
		out = append(out, byKey[key]...)
		asked[key] = true
	}
	for _, i := range fresh {
		if !asked[i.Key] {
			out = append(out, i)
		}
	}
	return out
}

// share calls a provider, together with all who ask the same at this time.
func (c *Client) share(ctx context.Context, provider string, keys []string) (*Answer, error) {
	failed := func(status int, err error) error {
		return &Error{Provider: provider, Keys: keys, StatusCode: status, Err: err}
	}
	if c.given != nil {
		return nil, failed(http.StatusBadRequest, fmt.Errorf("no answer is given, and %w", ErrNotAsked))
	}
	p := c.callers[provider]
	if p == nil {
		return nil, failed(http.StatusBadRequest, errUnknown)
	}
	if err := bounded(keys); err != nil {
		return nil, failed(http.StatusBadRequest, err)
	}
	flight := slices.Sorted(slices.Values(keys))
	name, err := json.Marshal(append([]string{provider}, flight...))
	if err != nil {
		return nil, failed(http.StatusBadRequest, err)
	}
	called := c.flights.DoChan(string(name), func() (any, error) { return c.call(p, flight) })
	select {
	case <-ctx.Done():
		return nil, failed(http.StatusInternalServerError, ctx.Err())
	case result := <-called:
		if answer, ok := result.Val.(*Answer); ok && result.Err == nil {
			return answer, nil
		}
		return nil, failed(http.StatusInternalServerError, result.Err)
	}
}

// call asks a provider and keeps what it says. Another call may have ended since
// the keys were looked for.
func (c *Client) call(p *caller, keys []string) (*Answer, error) {
	known, missing := c.recall(p.name, keys)
	if len(missing) == 0 {
		out := &Answer{StatusCode: http.StatusOK, Idempotent: true, Items: arrange(keys, known, nil)}
		for _, e := range known {
			out.Idempotent = out.Idempotent && e.idempotent
		}
		return out, nil
	}
	ctx, cancel := context.WithTimeout(c.base, p.timeout)
	defer cancel()
	answer, err := p.call(ctx, keys)
	if err != nil {
		if c.opts.Failed != nil && c.base.Err() == nil {
			c.opts.Failed(p.name, err)
		}
		return nil, err
	}
	c.keep(p.name, keys, answer)
	return answer, nil
}

// keep keeps the items of an answer that were asked for.
func (c *Client) keep(provider string, keys []string, answer *Answer) {
	if c.opts.TTL <= 0 || answer.SystemError != "" || answer.StatusCode < 200 || answer.StatusCode > 299 {
		return
	}
	for _, i := range answer.Items {
		ttl := c.opts.TTL
		if i.Error != "" {
			ttl = min(ttl, errorTTL)
		}
		if _, asked := slices.BinarySearch(keys, i.Key); asked && i.bytes() <= maxKeptBytes {
			c.kept.Add(place{provider, i.Key}, entry{i, answer.Idempotent}, ttl)
		}
	}
}

// bytes returns about what an item takes.
func (i *Item) bytes() int {
	value, err := json.Marshal(i.Value)
	if err != nil {
		return maxKeptBytes + 1
	}
	return len(i.Key) + len(i.Error) + len(value)
}

// bounded refuses a question that is too large.
func bounded(keys []string) error {
	if len(keys) > maxKeys {
		return fmt.Errorf("more than %d keys", maxKeys)
	}
	total := 0
	for _, key := range keys {
		total += len(key)
	}
	if total > maxKeyBytes {
		return fmt.Errorf("more than %d bytes of keys", maxKeyBytes)
	}
	return nil
}

// clip shortens what a message shows.
func clip(text string) string {
	const most = 200
	if len(text) <= most {
		return text
	}
	return text[:most] + "…"
}
