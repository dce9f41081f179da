package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/policy"
)

// A Mutator changes objects before they are judged. It has no side effects: the
// API server asks for dry runs too, and asks again when another webhook changed
// the object, so that an object that was changed already must come out as it
// went in.
type Mutator interface {
	// Mutate returns the object as it should be and warnings for the user. A nil
	// object means that nothing is to change. The request is only read. An error
	// refuses the request: whoever wants it to pass returns a warning.
	Mutate(ctx context.Context, req policy.Request) (*unstructured.Unstructured, []string, error)
}

// MutatorFunc lets a plain function be a [Mutator].
type MutatorFunc func(ctx context.Context, req policy.Request) (*unstructured.Unstructured, []string, error)

// Mutate calls f.
func (f MutatorFunc) Mutate(ctx context.Context, req policy.Request) (*unstructured.Unstructured, []string, error) {
	return f(ctx, req)
}

// mutate returns the response with the changes as a JSON patch. A request that
// could not be worked on passes unchanged, with a warning: the validating
// webhook, which comes after, judges it as it is.
func (h *handler) mutate(ctx context.Context, review *review) *admissionv1.AdmissionResponse {
	if h.Mutator == nil || review.Request.Object == nil || review.unreadable != "" || h.exempt(review.Request.Namespace) {
		return &admissionv1.AdmissionResponse{Allowed: true}
	}
	if _, relaxed := h.relaxed(); relaxed { // the policy may be what is broken
		return &admissionv1.AdmissionResponse{Allowed: true}
	}
	response, err := h.patch(ctx, review)
	switch {
	case err == nil:
		return response
	case errors.Is(ctx.Err(), context.Canceled):
		return nil
	}
	lack := h.lack(review, err)
	return &admissionv1.AdmissionResponse{
		Allowed:          true,
		Warnings:         []string{cut(fmt.Sprintf("[%s] not changed by policies (%s)", ConfigurationName, lack.cause), maxWarningBytes)},
		AuditAnnotations: annotate(nil, unjudgedKey, string(lack.cause)),
	}
}

// patch waits for its turn and runs the mutator.
func (h *handler) patch(ctx context.Context, review *review) (_ *admissionv1.AdmissionResponse, err error) {
	if err := h.evaluations.Acquire(ctx, 1); err != nil {
		return nil, &unjudgedError{Overloaded, err}
	}
	defer h.evaluations.Release(1)
	defer h.recover(review, &err)
	changed, notes, err := h.Mutator.Mutate(ctx, h.request(review))
	switch {
	case ctx.Err() != nil:
		return nil, &unjudgedError{OutOfTime, ctx.Err()}
	case err != nil:
		return refusedChange(err), nil
	}
	response := &admissionv1.AdmissionResponse{Allowed: true, Warnings: warnings(slices.Clone(notes))}
	if changed == nil {
		return response, nil
	}
	operations := difference("", review.Request.Object, changed.Object)
	if len(operations) == 0 {
		return response, nil
	}
	if response.Patch, err = json.Marshal(operations); err != nil {
		return nil, fmt.Errorf("encode patch: %w", err)
	}
	response.PatchType = new(admissionv1.PatchTypeJSONPatch)
	return response, nil
}

// refusedChange is the response to an object that a mutating policy refuses.
func refusedChange(err error) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Result: &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: cut(err.Error(), maxMessageBytes),
	}}
}

// An operation is one of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value *any   `json:"value,omitempty"` // a null is a value
}

// difference returns the operations that turn before into after, in the order of
// keys. Lists of the same length are changed item by item, others replaced: what
// an item of a list is, only its kind knows.
func difference(path string, before, after map[string]any) []operation {
	var out []operation
	for _, key := range slices.Sorted(maps.Keys(before)) {
		at := path + "/" + escapePointer(key)
		if value, ok := after[key]; ok {
			out = append(out, changes(at, before[key], value)...)
		} else {
			out = append(out, operation{Op: "remove", Path: at})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(after)) {
		if _, ok := before[key]; !ok {
			value := after[key]
			out = append(out, operation{"add", path + "/" + escapePointer(key), &value})
		}
	}
	return out
}

// changes returns the operations for one value.
func changes(path string, before, after any) []operation {
	switch b := before.(type) {
	case map[string]any:
		if a, ok := after.(map[string]any); ok {
			return difference(path, b, a)
		}
	case []any:
		if a, ok := after.([]any); ok && len(a) == len(b) {
			var out []operation
			for i := range b {
				out = append(out, changes(path+"/"+strconv.Itoa(i), b[i], a[i])...)
			}
			return out
		}
	}
	if reflect.DeepEqual(before, after) {
		return nil
	}
	return []operation{{"replace", path, &after}}
}

// escapePointer escapes a key for a JSON pointer (RFC 6901).
func escapePointer(key string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}
