package admission

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"runtime/debug"
	"slices"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
)

// maxBodyBytes bounds a review. The API server takes objects of up to 3 MiB,
// and an update carries two of them.
const maxBodyBytes = 8 << 20

// Options are what a handler needs.
type Options struct {
	// Policies returns the policies in force. It is called once for each
	// request, so that they can be exchanged while the handler runs.
	Policies func() *policy.Set
	// Namespaces finds the namespaces that policies ask for.
	Namespaces policy.Namespaces
	// Record receives each decision before it is answered, from many goroutines
	// at once. It must not block.
	Record func(finding.Decision)
	// Exempt are namespaces that are not checked, besides those of
	// [SystemNamespaces]. The namespace of the webhook itself belongs here.
	Exempt []string
	// Log receives what goes wrong.
	Log *slog.Logger
}

// NewHandler returns the handler of admission reviews (admission.k8s.io/v1).
// Whether requests come from the API server is the business of
// [Authority.RequireClient].
func NewHandler(opts Options) http.Handler { return &handler{opts} }

type handler struct{ Options }

// A callerError is a mistake of the caller, with its HTTP status.
type callerError struct {
	status int
	error
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer h.recover(w, r)
	start := time.Now()
	review, err := readReview(w, r)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	decision, err := h.decide(r, review.Request, start)
	if err != nil {
		h.refuse(w, r, fmt.Errorf("review %s: %w", decision.Subject, err))
		return
	}
	answer, err := review.answer(decision)
	if err != nil {
		h.refuse(w, r, fmt.Errorf("answer review of %s: %w", decision.Subject, err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(answer); err != nil {
		h.Log.Warn("send admission decision", "subject", decision.Subject.String(), "error", err)
	}
}

// recover answers a panic as an internal error of this one request.
func (h *handler) recover(w http.ResponseWriter, r *http.Request) {
	if cause := recover(); cause != nil {
		h.Log.Error("panic in admission review", "remote", r.RemoteAddr, "panic", cause, "stack", string(debug.Stack()))
		http.Error(w, "internal error", http.StatusInternalServerError)
	}
}

// refuse answers without a decision. The API server then applies the failure
// policy.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusInternalServerError
	var caller *callerError
	if errors.As(err, &caller) {
		status = caller.status
	}
	h.Log.Warn("admission review without decision", "remote", r.RemoteAddr, "status", status, "error", err)
	http.Error(w, err.Error(), status)
}

// readReview reads the body of a request.
func readReview(w http.ResponseWriter, r *http.Request) (*review, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, &callerError{http.StatusMethodNotAllowed, fmt.Errorf("method %s: want POST", r.Method)}
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return nil, &callerError{http.StatusUnsupportedMediaType, fmt.Errorf("content type %q: want application/json", r.Header.Get("Content-Type"))}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, &callerError{http.StatusRequestEntityTooLarge, fmt.Errorf("body is larger than %d bytes", maxBodyBytes)}
	}
	if err != nil {
		return nil, &callerError{http.StatusBadRequest, fmt.Errorf("read body: %w", err)}
	}
	review, err := parseReview(body)
	if err != nil {
		return nil, &callerError{http.StatusBadRequest, err}
	}
	return review, nil
}

// decide evaluates the policies and records the outcome. On an error only what
// names the request is set in the decision.
func (h *handler) decide(r *http.Request, req *request, start time.Time) (finding.Decision, error) {
	d := req.decision()
	if !h.exempt(req.Namespace) {
		violations, err := h.Policies().Evaluate(r.Context(), req.policyRequest(h.Namespaces))
		if err != nil {
			return d, err
		}
		d.Violations = violations
	}
	d.Allowed = !slices.ContainsFunc(d.Violations, func(v finding.Violation) bool { return v.Enforcement == "deny" })
	d.Time = start.UTC()
	d.Microseconds = time.Since(start).Microseconds()
	h.Record(d)
	return d, nil
}

// exempt reports whether a namespace is never checked. A Namespace object is
// in itself.
func (h *handler) exempt(namespace string) bool {
	return slices.Contains(SystemNamespaces(), namespace) || slices.Contains(h.Exempt, namespace)
}
