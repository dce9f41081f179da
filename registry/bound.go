package registry

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
)

// Bounds are what one piece of work may ask of registries.
type Bounds struct {
	Requests int64
	Answer   int64 // bytes of one
	Total    int64 // bytes of all
}

// A BoundError is an answer that is too large, or one too many: a fault of what
// the registry holds, which no waiting cures.
type BoundError struct{ what string }

// Error says which bound was exceeded.
func (e *BoundError) Error() string { return e.what }

// Bound returns a transport for one piece of work, which fails with a
// [*BoundError] when a bound is exceeded, and asks by HTTPS only: see [CheckURL].
func Bound(transport http.RoundTripper, bounds Bounds) http.RoundTripper {
	b := &bounded{transport: transport, bounds: bounds}
	b.left.Store(bounds.Total)
	return b
}

type bounded struct {
	transport http.RoundTripper
	bounds    Bounds
	requests  atomic.Int64
	left      atomic.Int64 // bytes
}

// RoundTrip implements [http.RoundTripper].
func (b *bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	if b.requests.Add(1) > b.bounds.Requests {
		return nil, &BoundError{fmt.Sprintf("it takes more than %d requests", b.bounds.Requests)}
	}
	if err := CheckURL(req.URL); err != nil {
		return nil, err
	}
	resp, err := b.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, of: b, left: b.bounds.Answer}
	return resp, nil
}

// A boundedBody fails when it has passed on as much as it may.
type boundedBody struct {
	io.ReadCloser
	of   *bounded
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if b.left < 0 || b.of.left.Add(-int64(n)) < 0 {
		return 0, &BoundError{fmt.Sprintf("the registry sends more than %d MiB, or %d MiB in all", b.of.bounds.Answer>>20, b.of.bounds.Total>>20)}
	}
	return n, err
}
