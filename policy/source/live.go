package source

import (
	"context"
	"fmt"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/dynamic"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"

	"github.com/kubeguardian/kubeguardian/policy"
)

// maxParams is how many parameters one binding may have: each is an evaluation
// of its policy for every request.
const maxParams = 1000

// NewClusterParams returns the parameters that a cluster has at the moment of
// each request. They are read with the rights of the client.
func NewClusterParams(client dynamic.Interface, mapper meta.RESTMapper) policy.Params {
	return clusterParams{client, mapper}
}

type clusterParams struct {
	client dynamic.Interface
	mapper meta.RESTMapper
}

// Namespaced implements [policy.Params].
func (p clusterParams) Namespaced(_ context.Context, kind schema.GroupVersionKind) (bool, error) {
	mapping, err := p.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return false, err
	}
	return mapping.Scope.Name() == meta.RESTScopeNameNamespace, nil
}

// Params implements [policy.Params].
func (p clusterParams) Params(ctx context.Context, kind schema.GroupVersionKind, namespace, name string, selector labels.Selector) ([]*unstructured.Unstructured, error) {
	mapping, err := p.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, err
	}
	var where dynamic.ResourceInterface = p.client.Resource(mapping.Resource)
	if namespace != "" {
		where = p.client.Resource(mapping.Resource).Namespace(namespace)
	}
	if name != "" {
		param, err := where.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return []*unstructured.Unstructured{param}, nil
	}
	list, err := where.List(ctx, metav1.ListOptions{LabelSelector: selector.String(), Limit: maxParams})
	if err != nil {
		return nil, err
	}
	if list.GetContinue() != "" {
		return nil, tooMany()
	}
	var found []*unstructured.Unstructured
	for i := range list.Items {
		found = append(found, &list.Items[i])
	}
	return found, nil
}

func tooMany() error { return fmt.Errorf("more than %d objects are selected", maxParams) }

// NewAccessReviews returns an authorizer that asks the API server, by
// SubjectAccessReviews.
func NewAccessReviews(client authorizationclient.SubjectAccessReviewInterface) policy.Authorizer {
	return accessReviews{client}
}

type accessReviews struct {
	client authorizationclient.SubjectAccessReviewInterface
}

// Authorize implements [policy.Authorizer]. An error of the evaluation that came with
// a decision is a reason, as the API server takes it.
func (r accessReviews) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	review, err := r.client.Create(ctx, &authorizationv1.SubjectAccessReview{Spec: reviewSpec(a)}, metav1.CreateOptions{})
	if err != nil {
		return authorizer.DecisionNoOpinion, "", fmt.Errorf("review access: %w", err)
	}
	reason := review.Status.Reason
	if reason == "" {
		reason = review.Status.EvaluationError
	}
	switch {
	case review.Status.Allowed:
		return authorizer.DecisionAllow, reason, nil
	case review.Status.Denied:
		return authorizer.DecisionDeny, reason, nil
	}
	return authorizer.DecisionNoOpinion, reason, nil
}

func reviewSpec(a authorizer.Attributes) authorizationv1.SubjectAccessReviewSpec {
	spec := authorizationv1.SubjectAccessReviewSpec{}
	if u := a.GetUser(); u != nil {
		spec.User, spec.UID, spec.Groups = u.GetName(), u.GetUID(), u.GetGroups()
		spec.Extra = map[string]authorizationv1.ExtraValue{}
		for key, values := range u.GetExtra() {
			spec.Extra[key] = values
		}
	}
	if !a.IsResourceRequest() {
		spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Path: a.GetPath(), Verb: a.GetVerb()}
		return spec
	}
	spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
		Namespace: a.GetNamespace(), Verb: a.GetVerb(), Group: a.GetAPIGroup(), Version: a.GetAPIVersion(),
		Resource: a.GetResource(), Subresource: a.GetSubresource(), Name: a.GetName(),
	}
	if wanted, err := a.GetFieldSelector(); err == nil && len(wanted) > 0 {
		spec.ResourceAttributes.FieldSelector = &authorizationv1.FieldSelectorAttributes{RawSelector: fieldSelector(wanted)}
	}
	if wanted, err := a.GetLabelSelector(); err == nil && len(wanted) > 0 {
		spec.ResourceAttributes.LabelSelector = &authorizationv1.LabelSelectorAttributes{RawSelector: labels.NewSelector().Add(wanted...).String()}
	}
	return spec
}

func fieldSelector(wanted fields.Requirements) string {
	var terms []string
	for _, r := range wanted {
		terms = append(terms, r.Field+string(r.Operator)+fields.EscapeValue(r.Value))
	}
	return strings.Join(terms, ",")
}
