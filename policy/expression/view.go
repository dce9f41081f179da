package expression

import (
	"context"

	"github.com/google/cel-go/common/types"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"

	"github.com/kubeguardian/kubeguardian/policy/memory"
)

// A View is one request as the expressions of many policies see it, in one
// version of its kind. It is the context of their evaluation, and belongs to one
// goroutine. Attributes that are evaluated with it are the same each time.
type View struct {
	context.Context
	shows      func(*admissionv1.AdmissionRequest) bool
	values     *memory.Values // what memories ask about; nil: nothing is recalled
	trace      *memory.Trace  // of an evaluation that is to be learned
	namespaced bool           // values have the namespace, or there is none

	memos   map[identity]*memo
	ofParam map[runtime.Object]map[identity]*memo // the same, of what reads a parameter
	request any                                   // as expressions see it
	sharing sharing                               // of the condition that is evaluated now
	passed  *Condition                            // the last one of which all expressions were true
}

// NewView returns a view in which nothing has been evaluated. shows, which may be
// nil, is asked before each condition whether it sees the request as all others
// do, and may complete the request that it sees; one that does not shares
// nothing.
func NewView(ctx context.Context, shows func(*admissionv1.AdmissionRequest) bool) *View {
	return &View{Context: ctx, shows: shows, memos: make(map[identity]*memo, 64)}
}

// Remember lets memories recall what they know of the request. Of an object in
// another version than the one of the request, they must not.
func (v *View) Remember(attr *admission.VersionedAttributes) {
	v.values = memory.NewValues(content(attr.VersionedObject.Object()), content(attr.VersionedOldObject.Object()), requestContent(attr.Attributes))
}

// RememberNamespace lets memories recall what they know of the namespace of the
// object too. It comes before the first evaluation that reads it; nil says that
// there is none.
func (v *View) RememberNamespace(namespace *corev1.Namespace) {
	if v.values == nil || v.namespaced {
		return
	}
	v.namespaced = true
	if namespace == nil {
		return
	}
	seen, err := runtime.DefaultUnstructuredConverter.ToUnstructured(plugincel.CreateNamespaceObject(namespace))
	if err != nil { // not for a Namespace
		v.values = nil
		return
	}
	v.values.SetNamespace(seen)
}

// Recall returns the outcome that a memory knows for a request, or evaluates,
// and lets the memory learn the outcome where that is worth it. A nil memory
// knows nothing. What evaluates gets the view to do it with, and asks nothing but
// that and what is always the same.
func Recall[T any](v *View, m *memory.Memory[T], evaluate func(*View) (*T, error)) (*T, error) {
	if m == nil || v.values == nil {
		return evaluate(v)
	}
	known, worth := m.Recall(v.values)
	switch {
	case known != nil:
		return known, nil
	case !worth:
		return evaluate(v)
	}
	learning := v.learning()
	outcome, err := evaluate(learning)
	if v.Err() == nil && err == nil { // else it may have been cut
		m.Learn(v.values, learning.trace, outcome)
	}
	return outcome, err
}

// learning returns the same view for an evaluation that shares nothing with
// others, so that its trace has all that it asks.
func (v *View) learning() *View {
	return &View{
		Context: v.Context, shows: v.shows, values: v.values, trace: memory.NewTrace(v.values),
		memos: make(map[identity]*memo, 8),
	}
}

// memosOf returns the values that expressions have with this parameter, and nil
// when there is none: then nothing is gained.
func (v *View) memosOf(param runtime.Object) map[identity]*memo {
	if param == nil {
		return nil
	}
	if v.ofParam == nil {
		v.ofParam = map[runtime.Object]map[identity]*memo{}
	}
	memos := v.ofParam[param]
	if memos == nil {
		memos = map[identity]*memo{}
		v.ofParam[param] = memos
	}
	return memos
}

// paramValue returns a parameter as expressions see it.
func paramValue(param runtime.Object) any {
	if u, ok := param.(*unstructured.Unstructured); ok {
		return types.DefaultTypeAdapter.NativeToValue(u.Object)
	}
	return nil
}

// content returns the content of an object, or nil.
func content(o runtime.Object) map[string]any {
	if u, ok := o.(*unstructured.Unstructured); ok && u != nil {
		return u.Object
	}
	return nil
}

// requestContent returns the parts of a request that memories may ask about. A
// part that expressions see and is not here, such as the random uid, is never
// learned.
func requestContent(a admission.Attributes) map[string]any {
	kind, resource := a.GetKind(), a.GetResource()
	out := map[string]any{
		"operation": string(a.GetOperation()),
		"kind":      map[string]any{"group": kind.Group, "version": kind.Version, "kind": kind.Kind},
		"resource":  map[string]any{"group": resource.Group, "version": resource.Version, "resource": resource.Resource},
		"dryRun":    a.IsDryRun(),
	}
	for key, value := range map[string]string{"subResource": a.GetSubresource(), "name": a.GetName(), "namespace": a.GetNamespace()} {
		if value != "" {
			out[key] = value
		}
	}
	user := map[string]any{}
	if name := a.GetUserInfo().GetName(); name != "" {
		user["username"] = name
	}
	if names := a.GetUserInfo().GetGroups(); len(names) > 0 {
		groups := make([]any, len(names))
		for i, group := range names {
			groups[i] = group
		}
		user["groups"] = groups
	}
	out["userInfo"] = user
	return out
}
