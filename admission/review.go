package admission

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

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

// A review is an AdmissionReview whose objects are decoded in the same pass.
type review struct {
	metav1.TypeMeta `json:",inline"`
	Request         *request `json:"request"`

	size       int    // of the body, in bytes
	unreadable string // why the objects were not read; empty: they were
}

type request struct {
	UID         types.UID                   `json:"uid"`
	Kind        metav1.GroupVersionKind     `json:"kind"`
	Resource    metav1.GroupVersionResource `json:"resource"`
	Subresource string                      `json:"subResource"`

	// What the user asked for, when the API server has converted the object.
	RequestKind        metav1.GroupVersionKind     `json:"requestKind"`
	RequestResource    metav1.GroupVersionResource `json:"requestResource"`
	RequestSubresource string                      `json:"requestSubResource"`

	Name      string                    `json:"name"`
	Namespace string                    `json:"namespace"`
	Operation admissionv1.Operation     `json:"operation"`
	User      authenticationv1.UserInfo `json:"userInfo"`
	Object    map[string]any            `json:"object"`
	OldObject map[string]any            `json:"oldObject"`
	Options   map[string]any            `json:"options"`
	DryRun    bool                      `json:"dryRun"`
}

func parseReview(body []byte) (*review, error) {
	var r review
	if err := kjson.UnmarshalCaseSensitivePreserveInts(body, &r); err != nil {
		return nil, fmt.Errorf("parse AdmissionReview: %w", err)
	}
	if r.APIVersion != admissionv1.SchemeGroupVersion.String() || r.Kind != "AdmissionReview" {
		return nil, fmt.Errorf("parse AdmissionReview: have %q %q, want %q AdmissionReview", r.APIVersion, r.Kind, admissionv1.SchemeGroupVersion)
	}
	switch {
	case r.Request == nil:
		return nil, errors.New("parse AdmissionReview: request is missing")
	case r.Request.UID == "":
		return nil, errors.New("parse AdmissionReview: request.uid is missing")
	case r.Request.Resource.Resource == "" || r.Request.Operation == "":
		return nil, errors.New("parse AdmissionReview: request.resource and request.operation are required")
	}
	r.size = len(body)
	return &r, nil
}

// parseHead parses a review up to its objects, which are not to be read for the
// reason given: the API server writes them after all that names the request. The
// bytes searched for cannot be inside a string, where quotes are escaped.
func parseHead(body []byte, why string) (*review, error) {
	end := bytes.Index(body, []byte(`,"object":{`))
	if end < 0 { // an object is deleted
		end = bytes.Index(body, []byte(`,"object":null,"oldObject":{`))
	}
	if end < 0 {
		return nil, errors.New("parse AdmissionReview: request.object is missing")
	}
	r, err := parseReview(append(slices.Clip(body[:end]), "}}"...))
	if err != nil {
		return nil, err
	}
	// It follows the objects, and nothing that a user writes follows it.
	tail := body[max(bytes.LastIndex(body, []byte(`,"dryRun":`)), 0):]
	r.Request.DryRun = bytes.HasPrefix(tail, []byte(`,"dryRun":true`))
	r.size, r.unreadable = len(body), why
	return r, nil
}

// tooDeep reports whether JSON is nested deeper than maxDepth. What is no JSON is
// left to the parser.
func tooDeep(body []byte) bool {
	depth := 0
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '{', '[':
			if depth++; depth > maxDepth {
				return true
			}
		case '}', ']':
			depth--
		case '"':
			i = stringEnd(body, i)
		}
	}
	return false
}

// stringEnd returns the index of the quote that ends the string which begins at
// i, or the length of the text.
func stringEnd(body []byte, i int) int {
	for from := i + 1; ; {
		quote := bytes.IndexByte(body[from:], '"')
		if quote < 0 {
			return len(body)
		}
		end := from + quote
		slashes := 0
		for end-1-slashes > i && body[end-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return end
		}
		from = end + 1
	}
}

// request returns what policies judge of a review.
func (h *handler) request(review *review) policy.Request {
	r := review.Request
	return policy.Request{
		UID:         r.UID,
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
		Namespaces:  h.Namespaces,
		Params:      h.Params,
		Authorizer:  h.Authorizer,

		RequestKind:        schema.GroupVersionKind(r.RequestKind),
		RequestResource:    schema.GroupVersionResource(r.RequestResource),
		RequestSubresource: r.RequestSubresource,
	}
}

func object(content map[string]any) *unstructured.Unstructured {
	if content == nil {
		return nil
	}
	return &unstructured.Unstructured{Object: content}
}

// decision returns what is known of a decision before it is made.
func (r *request) decision() finding.Decision {
	name := r.Name
	if name == "" {
		name, _, _ = unstructured.NestedString(r.Object, "metadata", "name")
	}
	if name == "" { // the API server has yet to generate it
		name, _, _ = unstructured.NestedString(r.Object, "metadata", "generateName")
	}
	kind := schema.GroupVersionKind(r.Kind)
	return finding.Decision{
		ID:        string(r.UID),
		Operation: string(r.Operation),
		User:      r.User.Username,
		DryRun:    r.DryRun,
		Subject: finding.Subject{
			APIVersion: kind.GroupVersion().String(), Kind: kind.Kind, Namespace: r.Namespace, Name: name,
		},
	}
}
