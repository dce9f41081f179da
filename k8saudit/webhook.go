package k8saudit

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/kubeguardian/kubeguardian/event"
)

// Handle takes a batch of events, in the order of the API server; they are its
// own. It returns nil only once what follows from them is safe: the API server
// then forgets them.
type Handle func(ctx context.Context, events []*event.Event) error

// A Receiver is the HTTP handler for the audit webhook of API servers. It
// answers 200 after the batch is handled, and an error that makes the API
// server send the batch again otherwise. It is safe for concurrent use.
type Receiver struct {
	handle Handle
	slots  chan struct{}

	batches, events, malformed        atomic.Uint64
	method, mediaType, tooLarge       atomic.Uint64
	invalid, incomplete, busy, failed atomic.Uint64
}

// NewReceiver returns a receiver that works on at most inFlight batches at a
// time, which bounds its memory: a batch has at most 256 MiB, and while it is
// worked on it takes several times its size, as each level of a body that a
// rule looks into is a copy. Choose inFlight for the largest batches: the API
// server does not bound them, and who may write large objects can make them.
func NewReceiver(handle Handle, inFlight int) *Receiver {
	return &Receiver{handle: handle, slots: make(chan struct{}, max(inFlight, 1))}
}

// Counters says what a [Receiver] has seen since it was made.
type Counters struct {
	Batches   uint64 // batches handled
	Events    uint64 // events in them
	Malformed uint64 // items in them that are no audit event, and are lost, or lost a body over the limits
	Rejected  Rejected
}

// Rejected counts requests that were refused, by cause.
type Rejected struct {
	Method     uint64 // not a POST
	MediaType  uint64 // not JSON, or an encoding other than gzip
	TooLarge   uint64 // over the size limit
	Invalid    uint64 // not the JSON of audit events
	Incomplete uint64 // the body ended early
	Busy       uint64 // too many batches in flight
	Failed     uint64 // the batch could not be handled
}

// Counters returns a snapshot of the counters.
func (r *Receiver) Counters() Counters {
	return Counters{
		Batches: r.batches.Load(), Events: r.events.Load(), Malformed: r.malformed.Load(),
		Rejected: Rejected{
			Method: r.method.Load(), MediaType: r.mediaType.Load(), TooLarge: r.tooLarge.Load(),
			Invalid: r.invalid.Load(), Incomplete: r.incomplete.Load(), Busy: r.busy.Load(), Failed: r.failed.Load(),
		},
	}
}

// ServeHTTP takes one batch.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		reject(w, &r.method, http.StatusMethodNotAllowed, "audit events must be sent with POST")
		return
	}
	if media, _, err := mime.ParseMediaType(req.Header.Get("Content-Type")); err != nil || media != "application/json" {
		reject(w, &r.mediaType, http.StatusUnsupportedMediaType, "Content-Type must be application/json")
		return
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	default:
		retryLater(w, &r.busy, http.StatusTooManyRequests, "too many batches in flight")
		return
	}
	if body, ok := r.readBody(w, req); ok {
		r.handleBatch(w, req, body)
	}
}

func (r *Receiver) readBody(w http.ResponseWriter, req *http.Request) ([]byte, bool) {
	var body io.Reader = http.MaxBytesReader(w, req.Body, maxDocument)
	switch encoding := strings.ToLower(req.Header.Get("Content-Encoding")); encoding {
	case "", "identity":
	case "gzip":
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			reject(w, &r.invalid, http.StatusBadRequest, "body is not gzip")
			return nil, false
		}
		body = unzipped
	default:
		w.Header().Set("Accept-Encoding", "gzip")
		reject(w, &r.mediaType, http.StatusUnsupportedMediaType, "Content-Encoding must be gzip or absent")
		return nil, false
	}
	data, err := io.ReadAll(io.LimitReader(body, maxDocument+1))
	var tooLarge *http.MaxBytesError
	switch {
	case len(data) > maxDocument || errors.As(err, &tooLarge):
		reject(w, &r.tooLarge, http.StatusRequestEntityTooLarge, "batch is larger than 256 MiB")
	case errors.Is(err, io.ErrUnexpectedEOF):
		reject(w, &r.incomplete, http.StatusBadRequest, "body ended early")
	case err != nil:
		reject(w, &r.invalid, http.StatusBadRequest, "body could not be read")
	default:
		return data, true
	}
	return nil, false
}

func (r *Receiver) handleBatch(w http.ResponseWriter, req *http.Request, body []byte) {
	items, err := decodeDocument(body)
	if err != nil {
		reject(w, &r.invalid, http.StatusBadRequest, err.Error())
		return
	}
	events, malformed := make([]*event.Event, 0, len(items)), 0
	for _, it := range items {
		if it.event != nil {
			events = append(events, it.event)
		}
		if it.err != nil {
			malformed++
		}
	}
	if len(events) > 0 {
		if err := r.handle(req.Context(), events); err != nil {
			// The cause is for the log of the handler, not for the caller.
			retryLater(w, &r.failed, http.StatusServiceUnavailable, "batch could not be stored")
			return
		}
	}
	r.batches.Add(1)
	r.events.Add(uint64(len(events)))
	r.malformed.Add(uint64(malformed))
	w.WriteHeader(http.StatusOK)
}

func retryLater(w http.ResponseWriter, count *atomic.Uint64, code int, message string) {
	w.Header().Set("Retry-After", "1")
	reject(w, count, code, message)
}

func reject(w http.ResponseWriter, count *atomic.Uint64, code int, message string) {
	count.Add(1)
	http.Error(w, message, code)
}
