package policy

import (
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"

	"github.com/kubeguardian/kubeguardian/policy/equivalent"
	"github.com/kubeguardian/kubeguardian/policy/expression"
)

// A match says in which version of its kind a policy wants to see an object.
type match struct {
	resource schema.GroupVersionResource
	kind     schema.GroupVersionKind
}

// equivalents returns the resources that a rule for one of them selects too.
func (c *criteria) equivalents(r schema.GroupResource) []schema.GroupResource {
	same := equivalent.Resources(r)
	if len(same) == 0 || c.resources.MatchPolicy == nil || *c.resources.MatchPolicy == admissionregistrationv1.Exact {
		return []schema.GroupResource{r}
	}
	return same
}

// matching returns in which version the criteria select the request, and nil if
// they do not. No criteria select all.
func (in *input) matching(c *criteria) (*match, error) {
	if c == nil {
		return &in.matched, nil
	}
	if !c.plain {
		return in.selected(c)
	}
	key := place{in.matched, in.req.Subresource, in.req.Operation, in.req.Namespace != ""}
	if known, ok := c.known.Load(key); ok {
		return known.(*match), nil
	}
	found, err := in.selected(c)
	if err == nil {
		c.known.Store(key, found)
	}
	return found, err
}

// A place is all of a request that criteria without selectors and names of
// objects look at.
type place struct {
	match
	subresource string
	operation   admissionv1.Operation
	namespaced  bool
}

// selected asks the API server's matcher.
func (in *input) selected(c *criteria) (*match, error) {
	in.namespaces.nameOnly = c.nameOnly
	matches, resource, kind, err := in.matcher.Matches(in.attr.Attributes, in.interfaces, c)
	in.namespaces.nameOnly = false // who asks next may need more
	if !matches || err != nil {
		return nil, err
	}
	if resource == in.matched.resource {
		kind = in.matched.kind
	}
	return &match{resource, kind}, nil
}

// as returns the request in another version of its kind.
func (in *input) as(m *match) (*input, error) {
	if *m == in.matched {
		return in, nil
	}
	if other := in.others[*m]; other != nil {
		return other, nil
	}
	object, err := equivalent.Convert(in.req.Object, m.kind)
	if err != nil {
		return nil, fmt.Errorf("failed to convert object version: %w", err)
	}
	oldObject, err := equivalent.Convert(in.req.OldObject, m.kind)
	if err != nil {
		return nil, fmt.Errorf("failed to convert object version: %w", err)
	}
	other := *in
	other.matched, other.others = *m, nil
	other.View = expression.NewView(in.Context, other.shows)
	other.attr = &admission.VersionedAttributes{
		Attributes:         in.attr.Attributes,
		VersionedObject:    admission.NewLazyObject(runtimeObject(object)),
		VersionedOldObject: admission.NewLazyObject(runtimeObject(oldObject)),
		VersionedKind:      m.kind,
	}
	if in.others == nil {
		in.others = map[match]*input{}
	}
	in.others[*m] = &other
	return &other, nil
}

// shows reports whether expressions about this request see what others see. The
// API server's match conditions do not, for an object in another version: they
// see the resource as the user asked for it. What the user asked for, where it is
// not what the object is now, is written down on the way.
func (in *input) shows(request *admissionv1.AdmissionRequest) bool {
	if r := in.req; !r.RequestKind.Empty() {
		request.RequestKind = (*metav1.GroupVersionKind)(&r.RequestKind)
	}
	if r := in.req; !r.RequestResource.Empty() {
		request.RequestResource = (*metav1.GroupVersionResource)(&r.RequestResource)
	}
	return schema.GroupVersionResource(request.Resource) == in.matched.resource
}
