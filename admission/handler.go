package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	kjson "sigs.k8s.io/json"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
)

const (
	// maxReview bounds the body of a request. The API server takes objects of
	// up to 3 MiB, and an update carries two.
	maxReview = 8 << 20
	// maxWarning is the length after which the API server cuts a warning.
	maxWarning = 256
	// maxMessage bounds the message of a denial.
	maxMessage = 8 << 10
)

// A Handler is the admission webhook: it answers one AdmissionReview v1 for
// each POST. It is safe for concurrent use.
type Handler struct {
	// Policies returns the policies in force. It is called for each request, so
	// that they can be exchanged while the handler runs.
	Policies func() *policy.Set
	// Namespaces finds the namespaces that policies ask for.
	Namespaces policy.Namespaces
	// Exempt are namespaces that are never checked, as from [Exempt].
	Exempt []string
	// Record is told each decision before it is answered, from many goroutines
	// at once. It must not block.
	Record func(finding.Decision)
	Log    *slog.Logger
}

// A review is an AdmissionReview with its objects decoded in the same pass.
// They are read-only.
type review struct {
	metav1.TypeMeta `json:",inline"`
	Request         *request `json:"request"`
}

type request struct {
	UID         types.UID                   `json:"uid"`
	Kind        metav1.GroupVersionKind     `json:"kind"`
	Resource    metav1.GroupVersionResource `json:"resource"`
	Subresource string                      `json:"subResource"`
	Name        string                      `json:"name"`
	Namespace   string                      `json:"namespace"`
	Operation   admissionv1.Operation       `json:"operation"`
	User        authenticationv1.UserInfo   `json:"userInfo"`
	Object      map[string]any              `json:"object"`
	OldObject   map[string]any              `json:"oldObject"`
	Options     map[string]any              `json:"options"`
	DryRun      bool                        `json:"dryRun"`
}

// ServeHTTP answers one review. What cannot be decided is answered with an
// HTTP error, so that the failure policy of the registration decides.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req, failure := readReview(w, r)
	if failure != nil {
		h.Log.Debug("not an admission review", "remote", r.RemoteAddr, "error", failure.text)
		http.Error(w, failure.text, failure.code)
		return
	}
	response, err := h.review(r.Context(), req)
	if err != nil {
		if r.Context().Err() == nil {
			h.Log.Error("admission request is not decided", "uid", req.UID, "subject", req.subject().String(), "error", err)
		}
		http.Error(w, "the request could not be decided", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	answer := admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"},
		Response: response,
	}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		h.Log.Debug("admission response is not sent", "uid", req.UID, "error", err)
	}
}

// A refusal is the answer to a request that is not an AdmissionReview.
type refusal struct {
	code int
	text string
}

func readReview(w http.ResponseWriter, r *http.Request) (*request, *refusal) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, &refusal{http.StatusMethodNotAllowed, "admission reviews must be sent with POST"}
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return nil, &refusal{http.StatusUnsupportedMediaType, "Content-Type must be application/json"}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReview))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("the review is larger than %d bytes", maxReview)}
	}
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, "the body ended early"}
	}
	req, err := parseReview(body)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, "parse AdmissionReview: " + err.Error()}
	}
	return req, nil
}

// parseReview returns the request of a review. Whole numbers in its objects
// are int64, as policies want them.
func parseReview(body []byte) (*request, error) {
	var r review
	if err := kjson.UnmarshalCaseSensitivePreserveInts(body, &r); err != nil {
		return nil, err
	}
	switch {
	case r.APIVersion != admissionv1.SchemeGroupVersion.String() || r.Kind != "AdmissionReview":
		return nil, fmt.Errorf("have %q %q, want %s AdmissionReview", r.APIVersion, r.Kind, admissionv1.SchemeGroupVersion)
	case r.Request == nil:
		return nil, errors.New("request is missing")
	case r.Request.UID == "" || r.Request.Resource.Resource == "" || r.Request.Operation == "":
		return nil, errors.New("request.uid, request.resource and request.operation are required")
	}
	return r.Request, nil
}

// review decides a request and records the decision. A panic in a library
// becomes an error of this request alone.
func (h *Handler) review(ctx context.Context, req *request) (response *admissionv1.AdmissionResponse, err error) {
	defer func() {
		if p := recover(); p != nil {
			response, err = nil, fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	start := time.Now()
	var violations []finding.Violation
	if !h.exempt(req) {
		if violations, err = h.Policies().Evaluate(ctx, req.policyRequest(h.Namespaces)); err != nil {
			return nil, err
		}
	}
	response = respond(req.UID, violations)
	h.Record(finding.Decision{
		ID: string(req.UID), Time: start, Operation: string(req.Operation), User: req.User.Username,
		Subject: req.subject(), Allowed: response.Allowed, DryRun: req.DryRun,
		Violations: violations, Microseconds: time.Since(start).Microseconds(),
	})
	return response, nil
}

// exempt reports whether a request is in, or about, a namespace that is never
// checked, even if the API server asks.
func (h *Handler) exempt(req *request) bool {
	namespace := req.Namespace
	if req.Kind.Group == "" && req.Kind.Kind == "Namespace" {
		namespace = req.Name
	}
	return slices.Contains(h.Exempt, namespace)
}

func (r *request) policyRequest(namespaces policy.Namespaces) policy.Request {
	return policy.Request{
		Operation:   r.Operation,
		Kind:        schema.GroupVersionKind(r.Kind),
		Resource:    schema.GroupVersionResource(r.Resource),
		Subresource: r.Subresource,
		Namespace:   r.Namespace,
		Name:        r.Name,
		Object:      object(r.Object),
		OldObject:   object(r.OldObject),
		Options:     object(r.Options),
		User:        r.User,
		DryRun:      r.DryRun,
		Namespaces:  namespaces,
	}
}

func object(content map[string]any) *unstructured.Unstructured {
	if content == nil {
		return nil
	}
	return &unstructured.Unstructured{Object: content}
}

// subject names the object of the request. A name that the API server has yet
// to make is given by its prefix.
func (r *request) subject() finding.Subject {
	name := r.Name
	for _, field := range []string{"name", "generateName"} {
		if name == "" {
			name, _, _ = unstructured.NestedString(r.Object, "metadata", field)
		}
	}
	return finding.Subject{
		APIVersion: schema.GroupVersion{Group: r.Kind.Group, Version: r.Kind.Version}.String(),
		Kind:       r.Kind.Kind, Namespace: r.Namespace, Name: name,
	}
}

// respond turns violations into the answer: denials refuse with one message,
// warnings and audit annotations go along.
func respond(uid types.UID, violations []finding.Violation) *admissionv1.AdmissionResponse {
	response := &admissionv1.AdmissionResponse{UID: uid, Allowed: true}
	var denials []string
	for _, v := range violations {
		text := v.Policy + ": " + v.Message
		switch v.Enforcement {
		case "deny":
			denials = append(denials, text)
		case "warn":
			response.Warnings = append(response.Warnings, cut(text, maxWarning))
		case "audit":
			if response.AuditAnnotations == nil {
				response.AuditAnnotations = map[string]string{}
			}
			response.AuditAnnotations[v.Policy] = v.Message
		}
	}
	if len(denials) > 0 {
		response.Allowed = false
		response.Result = &metav1.Status{
			Status: metav1.StatusFailure, Reason: metav1.StatusReasonForbidden, Code: http.StatusForbidden,
			Message: cut(strings.Join(denials, "; "), maxMessage),
		}
	}
	return response
}

// cut shortens text to at most n bytes, between characters.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	const more = "…"
	end := n - len(more)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + more
}
