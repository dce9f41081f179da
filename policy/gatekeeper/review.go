package gatekeeper

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/externaldata"
	"github.com/kubeguardian/kubeguardian/policy/plan"
	"github.com/kubeguardian/kubeguardian/policy/referential"
)

// A review is one request that constraints judge. It belongs to one goroutine.
// Engines only read the request: what they need in another form, they make for
// themselves.
type review struct {
	context.Context
	req           *policy.Request
	source        source
	object, old   *subject // what constraints match
	namespaceName string   // of the objects; empty for those without

	lookedUp bool // what is below is set
	found    *corev1.Namespace
	lookup   error

	stop   stop
	store  storage.Store
	time   time.Time
	fields [][2]*ast.Term // input.review but for namespaceObject
	values [2]*ast.Term   // input.review, without and with it
	caches map[*program]*layer

	providers *externaldata.Client // may be nil
	answers   map[string]*ast.Term // of them, by question
	ungiven   error                // of a question whose answer is to be given and is not

	native *nativeReview // for CEL

	sessions map[*regoEngine]*plan.Run
}

// newReview reads what constraints match. As in Gatekeeper, the object of a
// DELETE is the one that is deleted.
func newReview(ctx context.Context, req *policy.Request, from source, inventory *referential.Inventory) (*review, error) {
	r := &review{Context: ctx, req: req, source: from, store: inventory.Store(), time: time.Now()}
	object := req.Object
	if req.Operation == admissionv1.Delete {
		if req.OldObject == nil {
			return nil, fmt.Errorf("review DELETE of %s %q: the request has no oldObject", req.Kind.Kind, req.Name)
		}
		object = req.OldObject
	}
	if req.Kind.Group != "" || req.Kind.Kind != "Namespace" {
		r.namespaceName = req.Namespace
	}
	r.object = newSubject(object, r.namespaceName)
	r.old = newSubject(req.OldObject, r.namespaceName)
	for _, s := range []*subject{r.object, r.old} {
		if s != nil && r.namespaceName == "" {
			r.namespaceName = s.namespace
		}
	}
	return r, nil
}

// cache returns the cache of rules for one constraint.
func (r *review) cache(p *program) *layeredCache {
	if r.caches == nil {
		r.caches = map[*program]*layer{}
	}
	if r.caches[p] == nil {
		r.caches[p] = &layer{}
	}
	return newLayeredCache(p, r.caches[p])
}

// value returns input.review, made once for all that read the same. Looking up
// the namespace may cost a request, so that it is in it only for those that may
// read it.
func (r *review) value(namespace bool) *ast.Term {
	at := 0
	if namespace {
		at = 1
	}
	if r.values[at] != nil {
		return r.values[at]
	}
	if r.fields == nil {
		r.fields = r.reviewFields()
	}
	object := ast.NewTerm(ast.NewObject())
	if namespace && r.namespaceName != "" {
		if ns, err := r.namespace(); err == nil {
			object = typed(ns)
		}
	}
	fields := append(r.fields[:len(r.fields):len(r.fields)], [2]*ast.Term{ast.InternedTerm("namespaceObject"), object})
	r.values[at] = ast.NewTerm(ast.NewObject(fields...))
	return r.values[at]
}

// reviewFields are those of an AdmissionRequest in JSON.
func (r *review) reviewFields() [][2]*ast.Term {
	req := r.req
	object, old := untyped(req.Object), untyped(req.OldObject)
	if req.Operation == admissionv1.Delete {
		object = old
	}
	fields := [][2]*ast.Term{
		{ast.InternedTerm("uid"), ast.StringTerm(string(req.UID))},
		{ast.InternedTerm("kind"), texts("group", req.Kind.Group, "version", req.Kind.Version, "kind", req.Kind.Kind)},
		{ast.InternedTerm("resource"), texts("group", req.Resource.Group, "version", req.Resource.Version, "resource", req.Resource.Resource)},
		{ast.InternedTerm("operation"), ast.InternedTerm(string(req.Operation))},
		{ast.InternedTerm("userInfo"), typed(req.User)},
		{ast.InternedTerm("object"), object},
		{ast.InternedTerm("oldObject"), old},
		{ast.InternedTerm("options"), untyped(req.Options)},
	}
	if req.UID != "" || req.DryRun { // a request that is made up says nothing of it
		fields = append(fields, [2]*ast.Term{ast.InternedTerm("dryRun"), ast.InternedTerm(req.DryRun)})
	}
	if k := req.RequestKind; !k.Empty() {
		fields = append(fields, [2]*ast.Term{ast.InternedTerm("requestKind"), texts("group", k.Group, "version", k.Version, "kind", k.Kind)})
	}
	if g := req.RequestResource; !g.Empty() {
		fields = append(fields, [2]*ast.Term{ast.InternedTerm("requestResource"), texts("group", g.Group, "version", g.Version, "resource", g.Resource)})
	}
	for _, optional := range [][2]string{
		{"subResource", req.Subresource}, {"requestSubResource", req.RequestSubresource}, {"name", req.Name}, {"namespace", r.requestNamespace()},
	} {
		if optional[1] != "" {
			fields = append(fields, [2]*ast.Term{ast.InternedTerm(optional[0]), ast.StringTerm(optional[1])})
		}
	}
	return fields
}

// requestNamespace is the namespace that a request names: a namespace is in
// none.
func (r *review) requestNamespace() string {
	if r.req.Kind.Group == "" && r.req.Kind.Kind == "Namespace" {
		return ""
	}
	return r.req.Namespace
}

func texts(pairs ...string) *ast.Term {
	var fields [][2]*ast.Term
	for i := 0; i+1 < len(pairs); i += 2 {
		fields = append(fields, [2]*ast.Term{ast.InternedTerm(pairs[i]), ast.InternedTerm(pairs[i+1])})
	}
	return ast.NewTerm(ast.NewObject(fields...))
}

// typed converts a Go value by way of JSON.
func typed(v any) *ast.Term {
	var plain any
	data, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(data, &plain)
	}
	if err != nil { // not for types of the API
		return ast.InternedNullTerm
	}
	value, err := referential.Value(plain)
	if err != nil {
		return ast.InternedNullTerm
	}
	return ast.NewTerm(value)
}

func untyped(o *unstructured.Unstructured) *ast.Term {
	if o == nil || o.Object == nil {
		return ast.InternedNullTerm
	}
	value, err := referential.Value(o.Object)
	if err != nil { // a Go type that JSON does not have
		return typed(o.Object)
	}
	return ast.NewTerm(value)
}
