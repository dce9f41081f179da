package admission

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
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

// What an answer may hold. The API server may cut warnings over 256 characters.
const (
	maxWarningBytes = 256
	maxMessageBytes = 8 << 10
)

// A review is an AdmissionReview whose objects are decoded in the same pass.
type review struct {
	metav1.TypeMeta `json:",inline"`
	Request         *request `json:"request"`

	size      int  // of the body, in bytes
	oversized bool // the objects were not read
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

// parseHead parses an oversized review up to its objects: the API server writes
// them after all that names the request. The bytes searched for cannot be
// inside a string, where quotes are escaped.
func parseHead(body []byte) (*review, error) {
	const endOfHead = `,"object":{`
	head, _, found := bytes.Cut(body, []byte(endOfHead))
	if !found {
		return nil, errors.New("parse AdmissionReview: request.object is missing")
	}
	r, err := parseReview(append(slices.Clip(head), "}}"...))
	if err != nil {
		return nil, err
	}
	r.size, r.oversized = len(body), true
	return r, nil
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

// answer returns the review with the response, as JSON.
func (r *review) answer(d finding.Decision) ([]byte, error) {
	response := &admissionv1.AdmissionResponse{
		UID:              r.Request.UID,
		Allowed:          d.Allowed,
		Warnings:         warnings(d.Violations),
		AuditAnnotations: auditAnnotations(d.Violations),
	}
	if !d.Allowed {
		response.Result = &metav1.Status{
			Status:  metav1.StatusFailure,
			Code:    http.StatusForbidden,
			Reason:  metav1.StatusReasonForbidden,
			Message: cut(strings.Join(messages(d.Violations, "deny"), "\n"), maxMessageBytes),
		}
	}
	return json.Marshal(admissionv1.AdmissionReview{TypeMeta: r.TypeMeta, Response: response})
}

// messages returns the violations with this enforcement as "[policy] message",
// equal ones of several bindings once.
func messages(violations []finding.Violation, enforcement string) []string {
	var out []string
	for _, v := range violations {
		if v.Enforcement != enforcement {
			continue
		}
		text := fmt.Sprintf("[%s] %s", v.Policy, strings.Join(strings.Fields(v.Message), " "))
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}

func warnings(violations []finding.Violation) []string {
	out := messages(violations, "warn")
	for i, text := range out {
		out[i] = cut(text, maxWarningBytes)
	}
	return out
}

// auditAnnotations returns the violations that are only audited, by policy.
// The API server puts the name of the webhook in front of the keys.
func auditAnnotations(violations []finding.Violation) map[string]string {
	var out map[string]string
	for _, v := range violations {
		if v.Enforcement != "audit" || strings.Contains(out[v.Policy], v.Message) {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		text := v.Message
		if before := out[v.Policy]; before != "" {
			text = before + "; " + text
		}
		out[v.Policy] = cut(text, maxMessageBytes)
	}
	return out
}

// cut shortens text to at most n bytes of whole characters.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	const ellipsis = "..."
	end := n - len(ellipsis)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + ellipsis
}
