package policy

import (
	"context"
	"errors"
	"fmt"

	admissionauthorizer "k8s.io/apiserver/pkg/admission/plugin/authorizer"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// An Authorizer answers what the expressions of policies ask of rights. Any
// authorizer of the API server is one.
//
// An error says that the answer is not known: the policy that asked cannot be
// evaluated then, whatever its expression makes of it.
type Authorizer interface {
	Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error)
}

// rights are what one request has asked the authorizer: nothing is asked twice.
// They keep the last error, because expressions take an unknown answer for a
// no.
type rights struct {
	source Authorizer
	cache  authorizer.UnconditionalAuthorizer // nil before the first question
	err    error
}

func newRights(source Authorizer) *rights { return &rights{source: source} }

// Authorize implements [authorizer.UnconditionalAuthorizer].
func (r *rights) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if r.source == nil {
		r.err = errors.New("ask the authorizer: no rights are known here")
		return authorizer.DecisionNoOpinion, "", r.err
	}
	if r.cache == nil {
		r.cache = admissionauthorizer.NewCachingAuthorizer(r.source)
	}
	decision, reason, err := r.cache.Authorize(ctx, a)
	if err != nil {
		r.err = fmt.Errorf("ask the authorizer whether %q may %s %s: %w", nameOf(a.GetUser()), a.GetVerb(), askedFor(a), err)
	}
	return decision, reason, err
}

func nameOf(u user.Info) string {
	if u == nil {
		return ""
	}
	return u.GetName()
}

// askedFor names what an authorizer is asked about.
func askedFor(a authorizer.Attributes) string {
	if !a.IsResourceRequest() {
		return a.GetPath()
	}
	name := a.GetResource()
	if a.GetSubresource() != "" {
		name += "/" + a.GetSubresource()
	}
	return name
}
