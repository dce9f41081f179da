package falco

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/kubeguardian/kubeguardian/alert"
)

// Bounds of one request. Falco and Falcosidekick send one alert in each, of a
// few kilobytes.
const (
	maxBody   = 4 << 20
	maxAlerts = 5000
)

// Handle takes alerts, in the order of the request. It returns nil only once they
// are safe: whoever sent them then forgets them.
type Handle func(ctx context.Context, alerts []alert.Alert) error

// ReceiverOptions are what [NewReceiver] needs.
type ReceiverOptions struct {
	Handle Handle
	// Token is what senders must know. Empty accepts everybody whom the listener
	// lets through: then it must demand certificates of clients.
	Token string
	// Requests is how many bodies are read at a time, each of at most 4 MiB; the
	// others wait. At least one.
	Requests int
}

// A Receiver is the HTTP handler that stands where Falcosidekick's input does:
// POST / takes alerts, /ping and /healthz say that it is there. It answers 200
// only after the alerts are handled. It is safe for concurrent use.
type Receiver struct {
	handle Handle
	token  *[sha256.Size]byte
	slots  chan struct{}
	mux    *http.ServeMux

	accepted, rejected, failed atomic.Uint64
	refused                    [causes]atomic.Uint64
}

// A cause is why the alerts of a request were not taken.
type cause int

const (
	notFound cause = iota
	unauthorized
	method
	mediaType
	tooLarge
	invalid
	incomplete
	abandoned // the sender did not wait for its turn
	failed    // alerts could not be stored
	causes
)

// String returns the name that metrics have the cause by.
func (c cause) String() string {
	return [causes]string{"not_found", "unauthorized", "method", "media_type", "too_large", "invalid", "incomplete", "abandoned", "failed"}[c]
}

// NewReceiver returns a receiver.
func NewReceiver(opts ReceiverOptions) *Receiver {
	r := &Receiver{handle: opts.Handle, slots: make(chan struct{}, max(opts.Requests, 1)), mux: http.NewServeMux()}
	if opts.Token != "" {
		r.token = new(sha256.Sum256([]byte(opts.Token)))
	}
	r.mux.HandleFunc("/", r.receive)
	r.mux.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "pong") })
	r.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, `{"status": "ok"}`)
	})
	return r
}

// Counters says what became of the requests to a [Receiver] since it was made.
type Counters struct {
	Accepted uint64 // their alerts were handled
	Rejected uint64 // not from who may send, or no alerts
	Failed   uint64 // their alerts could not be handled
}

// Counters returns a snapshot of the counters.
func (r *Receiver) Counters() Counters {
	return Counters{Accepted: r.accepted.Load(), Rejected: r.rejected.Load(), Failed: r.failed.Load()}
}

// ServeHTTP answers one request.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) { r.mux.ServeHTTP(w, req) }

// A refusal is an answer other than 200.
type refusal struct {
	cause cause
	code  int
	text  string
}

func (e *refusal) Error() string { return e.text }

func (r *Receiver) receive(w http.ResponseWriter, req *http.Request) {
	err := r.take(w, req)
	var no *refusal
	switch {
	case err == nil:
		r.accepted.Add(1)
	case errors.As(err, &no):
		r.rejected.Add(1)
		r.refused[no.cause].Add(1)
		http.Error(w, no.text, no.code)
	case errors.Is(err, errAbandoned):
		r.failed.Add(1)
		r.refused[abandoned].Add(1)
	default:
		// The cause is for the log of the handler, not for the sender.
		r.failed.Add(1)
		r.refused[failed].Add(1)
		w.Header().Set("Retry-After", "1")
		http.Error(w, "alerts could not be stored", http.StatusServiceUnavailable)
	}
}

var errAbandoned = errors.New("the sender left before its turn")

// take handles the alerts of one request: all of them, or none.
func (r *Receiver) take(w http.ResponseWriter, req *http.Request) error {
	if req.URL.Path != "/" {
		return &refusal{notFound, http.StatusNotFound, "alerts are taken at /"}
	}
	if !r.knows(req) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="kubeguardian"`)
		return &refusal{unauthorized, http.StatusUnauthorized, "want the token: as Authorization: Bearer TOKEN, or as the password in the URL"}
	}
	if req.Method != http.MethodPost {
		return &refusal{method, http.StatusBadRequest, "alerts must be sent with POST"}
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-req.Context().Done(): // neither Falco nor Falcosidekick would try again, so they wait
		return errAbandoned
	}
	body, err := readBody(w, req)
	if err != nil {
		return err
	}
	alerts, err := Parse(body)
	if err != nil {
		return &refusal{invalid, http.StatusBadRequest, err.Error()}
	}
	return r.handle(req.Context(), alerts)
}

// knows reports whether a request has the token: as a bearer token or, because
// Falco can send no header of its own, as the password of basic authentication,
// which it takes from its URL.
func (r *Receiver) knows(req *http.Request) bool {
	if r.token == nil {
		return true
	}
	_, token, _ := req.BasicAuth()
	if scheme, value, _ := strings.Cut(req.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		token = strings.TrimSpace(value)
	}
	sum := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(sum[:], r.token[:]) == 1
}

// readBody reads a body, which may be compressed, within its bounds.
func readBody(w http.ResponseWriter, req *http.Request) ([]byte, error) {
	var body io.Reader = http.MaxBytesReader(w, req.Body, maxBody)
	switch encoding := strings.ToLower(req.Header.Get("Content-Encoding")); encoding {
	case "", "identity":
	case "gzip":
		unzip, err := gzip.NewReader(body)
		if err != nil {
			return nil, &refusal{invalid, http.StatusBadRequest, "body is not gzip"}
		}
		body = unzip
	default:
		return nil, &refusal{mediaType, http.StatusUnsupportedMediaType, "Content-Encoding must be gzip or absent"}
	}
	data, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	var large *http.MaxBytesError
	switch {
	case len(data) > maxBody || errors.As(err, &large):
		return nil, &refusal{tooLarge, http.StatusRequestEntityTooLarge, fmt.Sprintf("body is larger than %d bytes", maxBody)}
	case err != nil:
		return nil, &refusal{incomplete, http.StatusBadRequest, "body ended early"}
	}
	return data, nil
}
