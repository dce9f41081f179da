package admission

import (
	"context"
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

// maxBodyBytes bounds a review. The API server takes objects of up to 3 MiB, and
// an update carries two of them; in a review, < and others are escaped as \u003c,
// six bytes for one. What is larger is denied: without a verdict the failure
// policy could let it pass.
const maxBodyBytes = 48 << 20

// slowBodyBytes is the size over which a review that takes too long is denied.
// No honest pod comes near; below it, slowness is the fault of the webhook and
// left to the failure policy.
const slowBodyBytes = 100 << 10

// How long the API server waits if it does not say, and at most, as its API has
// it.
const (
	defaultTimeout = 10 * time.Second
	maxTimeout     = 30 * time.Second
)

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
	decision, err := h.decide(r, review, start)
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
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBodyBytes+1))
	if err != nil {
		return nil, &callerError{http.StatusBadRequest, fmt.Errorf("read body: %w", err)}
	}
	if len(body) > maxBodyBytes {
		return readHead(r, body)
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
func readHead(r *http.Request, body []byte) (*review, error) {
	// Who is still sending does not read the answer.
	if _, err := io.Copy(io.Discard, io.LimitReader(r.Body, maxBodyBytes)); err != nil {
		return nil, &callerError{http.StatusBadRequest, fmt.Errorf("read body: %w", err)}
	}
	review, err := parseHead(body)
	if err != nil {
		return nil, &callerError{http.StatusRequestEntityTooLarge, fmt.Errorf("body is larger than %d bytes: %w", maxBodyBytes, err)}
	}
	return review, nil
}

// decide evaluates the policies and records the outcome. On an error only what
// names the request is set in the decision.
func (h *handler) decide(r *http.Request, review *review, start time.Time) (finding.Decision, error) {
	d := review.Request.decision()
	if !h.exempt(review.Request.Namespace) {
		violations, err := h.violations(r, review, start)
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

// violations evaluates the policies in four fifths of the time that the API
// server waits; the rest is for the way. What cannot be judged is a violation
// of its own.
func (h *handler) violations(r *http.Request, review *review, start time.Time) ([]finding.Violation, error) {
	if review.oversized {
		return []finding.Violation{{
			Policy: ConfigurationName, Enforcement: "deny", Message: fmt.Sprintf("the object is too large to be judged: its review is larger than %d bytes", maxBodyBytes),
		}}, nil
	}
	ctx, cancel := context.WithDeadline(r.Context(), start.Add(timeout(r)*4/5))
	defer cancel()
	violations, err := h.Policies().Evaluate(ctx, review.Request.policyRequest(h.Namespaces))
	var incomplete *policy.IncompleteError
	if !errors.As(err, &incomplete) || r.Context().Err() != nil { // done, or nobody is waiting
		return violations, err
	}
	first := incomplete.Policies[0]
	switch {
	case incomplete.Decided:
		h.Log.Warn("admission review out of time", "subject", review.Request.decision().Subject.String(), "size", review.size, "policies", incomplete.Policies)
		return append(violations, finding.Violation{
			Policy: first, Enforcement: "warn", Message: fmt.Sprintf("not evaluated for lack of time; policies left: %d", len(incomplete.Policies)),
		}), nil
	case review.size > slowBodyBytes:
		h.Log.Warn("admission review out of time, denied", "subject", review.Request.decision().Subject.String(), "size", review.size, "policies", incomplete.Policies)
		return append(violations, finding.Violation{
			Policy: first, Enforcement: "deny", Message: "the object is too large to be judged in time",
		}), nil
	}
	return nil, err
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
	return slices.Contains(SystemNamespaces(), namespace) || slices.Contains(h.Exempt, namespace)
}
