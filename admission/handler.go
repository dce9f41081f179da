package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
)

// The paths of the handler. The API server is told them by a [Registration].
const (
	ValidatePath       = "/admit"        // the failure policy is the configured one
	ValidateClosedPath = "/admit/closed" // the failure policy is Fail
	MutatePath         = "/mutate"       // the failure policy is Ignore
)

// maxBodyBytes bounds a review. The API server takes objects of up to 3 MiB, and
// an update carries two of them; in a review, < and others are escaped as \u003c,
// six bytes for one. What is larger is denied: without a verdict the failure
// policy could let it pass.
const maxBodyBytes = 48 << 20

// slowBodyBytes is the size over which a review that takes too long is denied.
// No honest pod comes near; below it, slowness is the fault of the webhook and
// left to the failure policy.
const slowBodyBytes = 100 << 10

// maxDepth bounds the nesting of a review. The deepest object of Kubernetes has
// some 30 levels, the schema of a custom resource some 100. What is deeper is
// denied, like what is too large.
const maxDepth = 512

// What may be in memory at a time. A review counts with its size, and a small one
// with minWeight, which bounds their number. Large reviews have room of their own:
// small ones, which are nearly all, do not wait for them.
const (
	maxBytesInFlight = 48 << 20
	maxSmallInFlight = 16 << 20
	smallBytes       = 256 << 10
	minWeight        = 16 << 10
)

// evaluationsPerCPU bounds the reviews that are judged at a time. The rest wait
// in line: were all of them to share the processor, all would be late. More than
// one, because a policy may wait for a namespace.
const evaluationsPerCPU = 16

// How long the API server waits if it does not say, and at most, as its API has
// it.
const (
	defaultTimeout = 10 * time.Second
	maxTimeout     = 30 * time.Second
)

// Policies judge requests. Where the time ends first, the error is a
// [*policy.IncompleteError].
type Policies interface {
	Evaluate(ctx context.Context, req policy.Request) ([]finding.Violation, error)
}

// Options are what a handler needs.
type Options struct {
	// Policies returns the policies in force. It is called once for each
	// request, so that they can be exchanged while the handler runs.
	Policies func() Policies
	// Mutator changes objects before they are judged; nil changes nothing.
	Mutator Mutator
	// Namespaces finds the namespaces that policies ask for.
	Namespaces policy.Namespaces
	// Params and Authorizer are what policies ask for besides; without them, such
	// policies fail.
	Params     policy.Params
	Authorizer policy.Authorizer
	// FailurePolicy is that of the registration for [ValidatePath]: what becomes
	// of a request that could not be judged. Empty means Ignore.
	FailurePolicy admissionregistrationv1.FailurePolicyType
	// BreakGlass says when denials are not enforced; nil means never.
	BreakGlass *BreakGlass
	// Record receives each decision before it is answered, from many goroutines
	// at once. It must not block.
	Record func(finding.Decision)
	// Unjudged is told why a review got no verdict, from many goroutines at
	// once; nil means that nobody wants to know.
	Unjudged func(Cause)
	// Namespace is that of the webhook, see [RegistrationOptions].
	Namespace string
	// Exempt are more namespaces that are not checked, besides those of
	// [SystemNamespaces].
	Exempt []string
	// Log receives what goes wrong.
	Log *slog.Logger
}

// NewHandler returns the handler of admission reviews (admission.k8s.io/v1) on
// [ValidatePath], [ValidateClosedPath] and [MutatePath]. Whether requests come
// from the API server is the business of [Authority.RequireClient].
func NewHandler(opts Options) http.Handler {
	refusals := map[Cause]*rate.Sometimes{}
	for _, cause := range Causes() {
		refusals[cause] = &rate.Sometimes{First: 10, Interval: time.Second}
	}
	return &handler{
		Options:     opts,
		refusals:    refusals,
		large:       newRoom(maxBytesInFlight),
		small:       newRoom(maxSmallInFlight),
		evaluations: semaphore.NewWeighted(int64(evaluationsPerCPU * runtime.GOMAXPROCS(0))),
	}
}

// HTTP2 returns the settings of a server for reviews. An API server sends all of
// them over one connection: what waits to be read, for lack of memory, must leave
// room in the connection for what is read.
func HTTP2() *http.HTTP2Config {
	const streams, perStream = 250, 64 << 10
	return &http.HTTP2Config{
		MaxConcurrentStreams: streams, MaxReceiveBufferPerStream: perStream, MaxReceiveBufferPerConnection: 2 * streams * perStream,
	}
}

type handler struct {
	Options
	refusals     map[Cause]*rate.Sometimes // told in the log: strangers can make any number of them
	large, small *room
	evaluations  *semaphore.Weighted
}

// A callerError is a mistake of the caller, with its HTTP status.
type callerError struct {
	status int
	error
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	deadline := time.Now().Add(timeout(r) * 4 / 5) // the rest is for the way
	ctx, cancel := context.WithDeadline(r.Context(), deadline)
	defer cancel()
	answer := h.answerer(r.URL.Path)
	if answer == nil {
		http.NotFound(w, r)
		return
	}
	defer h.recoverAll(w, r)
	review, release, err := h.receive(ctx, w, r, deadline)
	defer release()
	switch {
	case errors.Is(err, errNoMemory):
		h.overloaded(w, r, err)
		return
	case err != nil:
		h.refuse(w, r, Malformed, err)
		return
	}
	response := answer(ctx, review)
	if r.Context().Err() != nil { // nobody is waiting, and nothing was decided
		h.refuse(w, r, Cancelled, r.Context().Err())
		return
	}
	h.send(w, review, response)
}

var errNoMemory = errors.New("no memory for the review in time")

// receive reads a review, which holds room until it is released.
func (h *handler) receive(ctx context.Context, w http.ResponseWriter, r *http.Request, deadline time.Time) (_ *review, release func(), err error) {
	nothing := func() {}
	if err := acceptable(w, r); err != nil {
		return nil, nothing, err
	}
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(deadline); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, nothing, fmt.Errorf("limit time to read body: %w", err)
	}
	in := h.large
	if r.ContentLength >= 0 && r.ContentLength <= smallBytes {
		in = h.small
	}
	place, err := in.take(ctx, remote(r), weight(r), func() {
		control.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // it was set above, or the deadline of the caller ends it
	})
	if err != nil {
		return nil, nothing, fmt.Errorf("%w: %w", errNoMemory, err)
	}
	body, err := readBody(r)
	if err != nil && place.gaveWay() {
		return nil, place.leave, fmt.Errorf("%w: others waited for its body: %w", errNoMemory, err)
	}
	if err != nil {
		return nil, place.leave, &callerError{http.StatusBadRequest, fmt.Errorf("read body: %w", err)}
	}
	place.came()
	review, err := readReview(body)
	return review, place.leave, err
}

// remote returns the address of who sends a request.
func remote(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// overloaded answers a review that there was no memory for within its time.
func (h *handler) overloaded(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		h.refuse(w, r, Cancelled, err)
		return
	}
	w.Header().Set("Retry-After", "1") // which the API server heeds within its timeout
	h.refuse(w, r, Overloaded, &callerError{http.StatusTooManyRequests, errors.New("too many reviews at a time: try again")})
}

// An answerer makes the response to a review. When the context of the caller
// ends the response is not sent.
type answerer func(ctx context.Context, review *review) *admissionv1.AdmissionResponse

// answerer returns what answers on a path, or nil.
func (h *handler) answerer(path string) answerer {
	closed := h.FailurePolicy == admissionregistrationv1.Fail
	switch path {
	case ValidateClosedPath:
		closed = true
	case ValidatePath:
	case MutatePath:
		return h.mutate
	default:
		return nil
	}
	return func(ctx context.Context, review *review) *admissionv1.AdmissionResponse {
		return h.validate(ctx, review, closed)
	}
}

// weight returns what a request counts in the bytes at a time.
func weight(r *http.Request) int64 {
	if n := r.ContentLength; n >= 0 && n <= maxBodyBytes {
		return max(n, minWeight)
	}
	return maxBodyBytes
}

// refuse answers without a response to the review. The API server then applies
// the failure policy itself.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, cause Cause, err error) {
	status := http.StatusInternalServerError
	var caller *callerError
	if errors.As(err, &caller) {
		status = caller.status
	}
	h.unjudged(cause)
	h.refusals[cause].Do(func() {
		h.Log.Warn("admission review without decision", "remote", r.RemoteAddr, "status", status, "cause", string(cause), "error", err)
	})
	http.Error(w, err.Error(), status)
}

func (h *handler) send(w http.ResponseWriter, review *review, response *admissionv1.AdmissionResponse) {
	response.UID = review.Request.UID
	body, err := json.Marshal(admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: response})
	if err != nil {
		h.Log.Error("encode admission response", "subject", review.Request.decision().Subject.String(), "error", err)
		http.Error(w, "encode admission response", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(body); err != nil {
		h.Log.Warn("send admission response", "subject", review.Request.decision().Subject.String(), "error", err)
	}
}

// acceptable refuses what can be no review.
func acceptable(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return &callerError{http.StatusMethodNotAllowed, fmt.Errorf("method %s: want POST", r.Method)}
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return &callerError{http.StatusUnsupportedMediaType, fmt.Errorf("content type %q: want application/json", r.Header.Get("Content-Type"))}
	}
	return nil
}

// readBody reads the body of a request, and keeps no more than it takes to know
// that it is too large.
func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBodyBytes+1))
	if err == nil && len(body) > maxBodyBytes { // who is still sending does not read the answer
		_, err = io.Copy(io.Discard, io.LimitReader(r.Body, maxBodyBytes))
	}
	return body, err
}

// readReview reads the review in a body.
func readReview(body []byte) (*review, error) {
	if len(body) > maxBodyBytes {
		return readHead(body)
	}
	if tooDeep(body) {
		review, err := parseHead(body, fmt.Sprintf("the object is nested deeper than %d levels", maxDepth))
		if err != nil {
			return nil, &callerError{http.StatusBadRequest, fmt.Errorf("body is nested deeper than %d levels: %w", maxDepth, err)}
		}
		return review, nil
	}
	review, err := parseReview(body)
	if err != nil {
		return nil, &callerError{http.StatusBadRequest, err}
	}
	return review, nil
}

// readHead reads what an oversized review says before its objects, which is
// enough to deny it. If that is not to be found the answer is 413, which leaves
// the request to the failure policy; the API server sends no such review.
func readHead(body []byte) (*review, error) {
	review, err := parseHead(body, fmt.Sprintf("the object is too large to be judged: its review is larger than %d bytes", maxBodyBytes))
	if err != nil {
		return nil, &callerError{http.StatusRequestEntityTooLarge, fmt.Errorf("body is larger than %d bytes: %w", maxBodyBytes, err)}
	}
	return review, nil
}

// validate evaluates the policies, records the outcome and returns the response.
// closed says what becomes of a request that cannot be judged.
func (h *handler) validate(ctx context.Context, review *review, closed bool) *admissionv1.AdmissionResponse {
	if response := h.heartbeat(review); response != nil {
		return response
	}
	start := time.Now()
	d := review.Request.decision()
	var lack *unjudgedError
	if !h.exempt(review.Request.Namespace) {
		var err error
		d.Violations, err = h.violations(ctx, review)
		switch {
		case errors.Is(ctx.Err(), context.Canceled):
			return nil
		case err != nil:
			lack = h.lack(review, err)
			d.Violations = append(d.Violations, lack.violation(closed))
		}
	}
	relaxation, relaxed := h.relaxed()
	if relaxed = relaxed && slices.ContainsFunc(d.Violations, denies); relaxed {
		h.relax(&d, relaxation)
	}
	d.Allowed = !slices.ContainsFunc(d.Violations, denies)
	d.Time = start.UTC()
	d.Microseconds = time.Since(start).Microseconds()
	h.Record(d)
	response := respond(d, lack)
	if relaxed {
		response.AuditAnnotations = annotate(response.AuditAnnotations, breakGlassKey, relaxation.Reason)
	}
	return response
}

func denies(v finding.Violation) bool { return v.Enforcement == "deny" }

// violations waits for its turn and evaluates the policies. What cannot be
// judged for the fault of the object is a violation of its own.
func (h *handler) violations(ctx context.Context, review *review) (violations []finding.Violation, err error) {
	if review.unreadable != "" {
		return []finding.Violation{{Policy: ConfigurationName, Enforcement: "deny", Message: review.unreadable}}, nil
	}
	if err := h.evaluations.Acquire(ctx, 1); err != nil {
		return nil, &unjudgedError{Overloaded, err}
	}
	defer h.evaluations.Release(1)
	defer h.recover(review, &err)
	violations, err = h.Policies().Evaluate(ctx, h.request(review))
	var incomplete *policy.IncompleteError
	if !errors.As(err, &incomplete) || errors.Is(ctx.Err(), context.Canceled) {
		return violations, err
	}
	late := errors.Is(err, context.DeadlineExceeded)
	first := incomplete.Policies[0]
	subject := review.Request.decision().Subject.String()
	switch {
	case incomplete.Decided:
		h.Log.Warn("admission review out of time", "subject", subject, "size", review.size, "policies", incomplete.Policies)
		return append(violations, finding.Violation{
			Policy: first, Enforcement: "warn", Message: fmt.Sprintf("not evaluated for lack of time; policies left: %d", len(incomplete.Policies)),
		}), nil
	case review.size > slowBodyBytes && late:
		h.Log.Warn("admission review out of time, denied", "subject", subject, "size", review.size, "policies", incomplete.Policies)
		return append(violations, finding.Violation{
			Policy: first, Enforcement: "deny", Message: "the object is too large to be judged in time",
		}), nil
	}
	if !late {
		return violations, &unjudgedError{Overloaded, err}
	}
	return violations, &unjudgedError{OutOfTime, err}
}

// recover turns a panic into an error of this one review.
func (h *handler) recover(review *review, err *error) {
	if cause := recover(); cause != nil {
		h.Log.Error("panic in admission review", "subject", review.Request.decision().Subject.String(), "panic", cause, "stack", string(debug.Stack()))
		*err = &unjudgedError{Panicked, errors.New("internal error")}
	}
}

// recoverAll answers a panic outside of the evaluation.
func (h *handler) recoverAll(w http.ResponseWriter, r *http.Request) {
	if cause := recover(); cause != nil {
		h.Log.Error("panic in admission webhook", "panic", cause, "stack", string(debug.Stack()))
		h.refuse(w, r, Panicked, errors.New("internal error"))
	}
}

// timeout returns how long the API server waits for the answer: it says so in
// the URL.
func timeout(r *http.Request) time.Duration {
	d, err := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err != nil || d <= 0 {
		return defaultTimeout
	}
	return min(d, maxTimeout)
}

// exempt reports whether a namespace is never checked. A Namespace object is
// in itself.
func (h *handler) exempt(namespace string) bool {
	return namespace != "" && namespace == h.Namespace || slices.Contains(SystemNamespaces(), namespace) || slices.Contains(h.Exempt, namespace)
}
