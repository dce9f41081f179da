package policy

import (
	"encoding/json"
	"errors"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// IsReview reports whether an object is an AdmissionReview, of any version.
func IsReview(o *unstructured.Unstructured) bool {
	gk := o.GroupVersionKind().GroupKind()
	return gk == schema.GroupKind{Group: admissionv1.GroupName, Kind: "AdmissionReview"}
}

// NewReviewRequest returns the request of an AdmissionReview of version v1, as
// it is: nothing is brought into another form, because an API server has done
// so. Unknown fields of the review are an error.
func NewReviewRequest(o *unstructured.Unstructured) (Request, error) {
	if got := o.GetAPIVersion(); got != admissionv1.SchemeGroupVersion.String() {
		return Request{}, fmt.Errorf("read AdmissionReview: apiVersion %s is not supported: want %s", got, admissionv1.SchemeGroupVersion)
	}
	var review admissionv1.AdmissionReview
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, &review, true); err != nil {
		return Request{}, fmt.Errorf("read AdmissionReview: %w", err)
	}
	r := review.Request
	switch {
	case r == nil:
		return Request{}, errors.New("read AdmissionReview: request is missing")
	case r.Kind.Kind == "" || r.Resource.Resource == "" || r.Operation == "":
		return Request{}, errors.New("read AdmissionReview: request.kind, request.resource and request.operation are required")
	case r.Object.Raw == nil && r.OldObject.Raw == nil:
		return Request{}, errors.New("read AdmissionReview: request has neither object nor oldObject")
	}
	req := Request{
		UID: r.UID, Operation: r.Operation, Kind: schema.GroupVersionKind(r.Kind), Resource: schema.GroupVersionResource(r.Resource),
		Subresource: r.SubResource, Namespace: r.Namespace, Name: r.Name, User: r.UserInfo, DryRun: r.DryRun != nil && *r.DryRun,
		RequestSubresource: r.RequestSubResource,
	}
	if r.RequestKind != nil {
		req.RequestKind = schema.GroupVersionKind(*r.RequestKind)
	}
	if r.RequestResource != nil {
		req.RequestResource = schema.GroupVersionResource(*r.RequestResource)
	}
	var errs [3]error
	req.Object, errs[0] = embedded("object", r.Object)
	req.OldObject, errs[1] = embedded("oldObject", r.OldObject)
	req.Options, errs[2] = embedded("options", r.Options)
	return req, errors.Join(errs[:]...)
}

// embedded decodes an object of a request; there may be none.
func embedded(field string, raw runtime.RawExtension) (*unstructured.Unstructured, error) {
	if raw.Raw == nil || string(raw.Raw) == "null" {
		return nil, nil
	}
	o := &unstructured.Unstructured{}
	if err := json.Unmarshal(raw.Raw, o); err != nil {
		return nil, fmt.Errorf("read AdmissionReview: request.%s: %w", field, err)
	}
	return o, nil
}

// NewRequest returns the request for an operation on an object that stands in a
// file, in the form of [NewCreateRequest]. An update needs the object as it was
// before; for a deletion obj is what is deleted.
func NewRequest(operation admissionv1.Operation, obj, old *unstructured.Unstructured) (Request, error) {
	req, err := NewCreateRequest(obj)
	if err != nil {
		return Request{}, err
	}
	switch operation {
	case admissionv1.Create:
	case admissionv1.Update:
		if old == nil {
			return Request{}, fmt.Errorf("update %s %q: the object as it was before is not known", obj.GetKind(), obj.GetName())
		}
		before, err := NewCreateRequest(old)
		if err != nil {
			return Request{}, err
		}
		req.OldObject = before.Object
	case admissionv1.Delete:
		req.Object, req.OldObject = nil, req.Object
	default:
		return Request{}, fmt.Errorf("%s %s %q: only CREATE, UPDATE and DELETE can be made up for an object: give an AdmissionReview", operation, obj.GetKind(), obj.GetName())
	}
	req.Operation = operation
	return req, nil
}
