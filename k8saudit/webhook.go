package k8saudit

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kubeguardian/kubeguardian/event"
)

// Handle takes events, in the order of the API server. It returns nil only once
// what follows from them is safe: the API server then forgets them. The events
// are valid until it returns.
type Handle func(ctx context.Context, events []*event.Event) error

// ReceiverOptions are what [NewReceiver] needs. What is over its limits is
// refused for now, and the API server sends it again.
type ReceiverOptions struct {
	Handle  Handle
	Compat  Compat
	Batches int   // that are worked on at a time; at least one
	Bytes   int64 // of these batches, unpacked; one batch alone may be larger
}

// A Receiver is the HTTP handler for the audit webhook of API servers. It
// answers 200 after the batch is handled, and an error that makes the API
// server send the batch again otherwise. It is safe for concurrent use.
type Receiver struct {
	opts  ReceiverOptions
	slots chan struct{}
	held  atomic.Int64 // bytes of batches
	pool  sync.Pool    // of *delivery

	batches, events                   atomic.Uint64
	method, mediaType, tooLarge       atomic.Uint64
	invalid, incomplete, busy, failed atomic.Uint64

	mu     sync.Mutex
	faults Faults
}

// NewReceiver returns a receiver. A batch has at most 256 MiB; the API server
// does not bound them, and who may write large objects can make them.
func NewReceiver(opts ReceiverOptions) *Receiver {
	return &Receiver{opts: opts, slots: make(chan struct{}, max(opts.Batches, 1))}
}

// Counters says what a [Receiver] has seen since it was made.
type Counters struct {
	Batches  uint64 // batches handled
	Events   uint64 // events in them
	Faults   Faults // of items in them, by cause
	Rejected Rejected
}

// Rejected counts requests that were refused, by cause.
type Rejected struct {
	Method     uint64 // not a POST
	MediaType  uint64 // not JSON, or an encoding other than gzip
	TooLarge   uint64 // over the size limit
	Invalid    uint64 // not the JSON of audit events
	Incomplete uint64 // the body ended early
	Busy       uint64 // too much in flight
	Failed     uint64 // the batch could not be handled
}

// Counters returns a snapshot of the counters.
func (r *Receiver) Counters() Counters {
	r.mu.Lock()
	faults := r.faults
	r.mu.Unlock()
	return Counters{
		Batches: r.batches.Load(), Events: r.events.Load(), Faults: faults,
		Rejected: Rejected{
			Method: r.method.Load(), MediaType: r.mediaType.Load(), TooLarge: r.tooLarge.Load(),
			Invalid: r.invalid.Load(), Incomplete: r.incomplete.Load(), Busy: r.busy.Load(), Failed: r.failed.Load(),
		},
	}
}

// A delivery is the memory that one request needs; it is used again.
type delivery struct {
	body  []byte
	held  int64 // bytes that are counted as in flight
	unzip gzip.Reader
	batch *batch
}

// keepBody is what is kept of a body's memory for the next one.
const keepBody = 4 << 20

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
		r.refuse(w)
		return
	}
	d, ok := r.pool.Get().(*delivery)
	if !ok {
		d = &delivery{batch: newBatch(maxBatch, r.opts.Compat)}
	}
	defer r.release(d)
	if r.readBody(w, req, d) {
		r.handleBatch(w, req, d)
	}
}

func (r *Receiver) refuse(w http.ResponseWriter) {
	retryLater(w, &r.busy, http.StatusTooManyRequests, "too many audit events in flight")
}

func (r *Receiver) release(d *delivery) {
	r.held.Add(-d.held)
	d.held, d.body = 0, d.body[:0]
	if cap(d.body) > keepBody {
		d.body = nil
	}
	d.batch.reset()
	r.pool.Put(d)
}

var errBusy = errors.New("too many bytes in flight")

// hold counts bytes as in flight, unless that were too many and others are
// there that will end.
func (r *Receiver) hold(d *delivery, n int64) error {
	for {
		held := r.held.Load()
		if held+n > r.opts.Bytes && held > d.held {
			return errBusy
		}
		if r.held.CompareAndSwap(held, held+n) {
			d.held += n
			return nil
		}
	}
}

func (r *Receiver) readBody(w http.ResponseWriter, req *http.Request, d *delivery) bool {
	var body io.Reader = http.MaxBytesReader(w, req.Body, maxDocument)
	size := req.ContentLength + 1 // the last byte is for the end to be seen
	switch encoding := strings.ToLower(req.Header.Get("Content-Encoding")); encoding {
	case "", "identity":
	case "gzip":
		if err := d.unzip.Reset(body); err != nil {
			reject(w, &r.invalid, http.StatusBadRequest, "body is not gzip")
			return false
		}
		body, size = &d.unzip, 0
	default:
		w.Header().Set("Accept-Encoding", "gzip")
		reject(w, &r.mediaType, http.StatusUnsupportedMediaType, "Content-Encoding must be gzip or absent")
		return false
	}
	err := r.readAll(body, d, size)
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return true
	case errors.Is(err, errBusy):
		r.refuse(w)
	case errors.Is(err, errTooLong) || errors.As(err, &tooLarge):
		reject(w, &r.tooLarge, http.StatusRequestEntityTooLarge, "batch is larger than 256 MiB")
	case errors.Is(err, io.ErrUnexpectedEOF):
		reject(w, &r.incomplete, http.StatusBadRequest, "body ended early")
	default:
		reject(w, &r.invalid, http.StatusBadRequest, "body could not be read")
	}
	return false
}

// readAll reads a body whose size may be known, and holds the memory that it
// takes.
func (r *Receiver) readAll(body io.Reader, d *delivery, size int64) error {
	grow := min(max(size, 64<<10), maxDocument+1)
	for {
		if len(d.body) == cap(d.body) || d.held < int64(cap(d.body)) {
			want := max(grow, int64(cap(d.body)))
			if len(d.body) == cap(d.body) && len(d.body) > 0 {
				want = min(2*int64(cap(d.body)), maxDocument+1)
			}
			if err := r.hold(d, want-d.held); err != nil {
				return err
			}
			if int64(cap(d.body)) < want {
				d.body = append(make([]byte, 0, want), d.body...)
			}
		}
		n, err := body.Read(d.body[len(d.body):cap(d.body)])
		d.body = d.body[:len(d.body)+n]
		switch {
		case len(d.body) > maxDocument:
			return errTooLong
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

func (r *Receiver) handleBatch(w http.ResponseWriter, req *http.Request, d *delivery) {
	events, faults := 0, Faults{}
	p := newParser(d.batch, func(list []*event.Event) error {
		events += len(list)
		return r.opts.Handle(req.Context(), list)
	}, func(err error) { faults.count(err) })
	err := p.documents(d.body)
	// What was read before a fault is handled: the API server does not send a
	// batch again that it cannot have refused for a while.
	if p.flush() != nil {
		// The cause is for the log of the handler, not for the caller.
		retryLater(w, &r.failed, http.StatusServiceUnavailable, "batch could not be stored")
		return
	}
	r.events.Add(uint64(events))
	r.mu.Lock()
	r.faults = r.faults.Plus(faults)
	r.mu.Unlock()
	if err != nil && !errors.Is(err, errForeign) {
		reject(w, &r.invalid, http.StatusBadRequest, err.Error())
		return
	}
	r.batches.Add(1)
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
