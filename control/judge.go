package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/check/rbac"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
)

// A Judge knows an inventory and judges single objects against it: those that
// have changed since.
type Judge struct{ e *evaluation }

// Judge prepares an input for judging single objects.
func (c *Catalogue) Judge(in Input) (*Judge, error) {
	e, err := newEvaluation(c, in)
	if err != nil {
		return nil, fmt.Errorf("evaluate controls: %w", err)
	}
	return &Judge{e}, nil
}

// Object returns the state of every control that is judged by policy for one
// object, which may be new, or another version of one in the inventory. Gains
// are not in it: they are a matter of all findings.
func (j *Judge) Object(ctx context.Context, o *inventory.Object) ([]finding.Finding, error) {
	controls := j.e.controlsOf(o, map[subjectKind][]int{})
	v := policyVerdict{controls, j.e.object(ctx, o, controls)}
	w := newWriter(j.e)
	subject := w.subject(o.Subject())
	out := make([]finding.Finding, len(controls))
	for n, i := range controls {
		out[n] = w.object(&j.e.catalogue.controls[i], subject, v, n)
	}
	return out, ctx.Err()
}

// A subjectKind is what decides which controls an object is a subject of.
type subjectKind struct {
	schema.GroupKind
	workload bool
}

// controlsOf returns the controls judged by policy that an object is a subject
// of, by their place in the catalogue.
func (e *evaluation) controlsOf(o *inventory.Object, known map[subjectKind][]int) []int {
	kind := subjectKind{o.GroupVersionKind().GroupKind(), e.isWorkload(o)}
	controls, ok := known[kind]
	if !ok {
		for i := range e.catalogue.controls {
			if ctl := &e.catalogue.controls[i]; ctl.Evaluator == byPolicy && ctl.judges(kind.GroupKind, kind.workload) {
				controls = append(controls, i)
			}
		}
		known[kind] = controls
	}
	return controls
}

// isWorkload reports whether an object is a workload of its own. One that is
// not in the inventory is what the version there is.
func (e *evaluation) isWorkload(o *inventory.Object) bool {
	gk := o.GroupVersionKind().GroupKind()
	if !inventory.IsWorkload(gk) {
		return false
	}
	w := e.inv.Owner(o)
	if w == nil {
		if o = e.inv.Get(gk.Group, gk.Kind, e.inv.NamespaceOf(o), o.GetName()); o == nil {
			return true
		}
		w = e.inv.Owner(o)
	}
	return w != nil && w.Object == o
}

// A policyVerdict is what policies say of one object.
type policyVerdict struct {
	controls []int    // that the object is a subject of, shared by all of its kind
	states   []*state // of each; nil stands for a pass of which there is nothing to say, as most are
}

// byPolicy judges every object by the policies of the controls that it is a
// subject of, shared out among the processors.
func (e *evaluation) byPolicy(ctx context.Context) ([]policyVerdict, error) {
	objects, known := e.inv.Objects(), map[subjectKind][]int{}
	out := make([]policyVerdict, len(objects))
	for k, o := range objects {
		out[k].controls = e.controlsOf(o, known)
	}
	err := e.inv.Each(ctx, func(k int, o *inventory.Object) { out[k].states = e.object(ctx, o, out[k].controls) })
	return out, err
}

// A state is what is said of a control for one object, other than that it passes.
type state struct {
	status                    finding.Status
	reason, message, evidence string
	container                 string // the containers that it speaks of
}

func unknown(format string, args ...any) *state {
	return &state{status: finding.Unknown, reason: fmt.Sprintf(format, args...)}
}

func notApplicable(reason string) *state {
	return &state{status: finding.NotApplicable, reason: reason}
}

// object judges an object by some controls.
func (e *evaluation) object(ctx context.Context, o *inventory.Object, controls []int) []*state {
	states := make([]*state, len(controls))
	if len(controls) == 0 {
		return states
	}
	req, unreadable := request(o)
	req.Namespaces = policy.NamespacesFunc(e.namespace)
	c := policy.NewCase(ctx, req)
	for n, i := range controls {
		if unreadable != nil {
			states[n] = unknown("%v", unreadable)
		} else {
			states[n] = e.judge(&e.catalogue.controls[i], o, c)
		}
	}
	return states
}

// request makes the request to create an object. What an API server returned as
// its Go type needs no conversion.
func request(o *inventory.Object) (policy.Request, error) {
	if o.Normal {
		return policy.NewNormalCreateRequest(o.Unstructured), nil
	}
	return policy.NewCreateRequest(o.Unstructured)
}

// judge asks the policies of a control about an object. One that fails decides;
// one that cannot be evaluated leaves the control unknown.
func (e *evaluation) judge(ctl *Control, o *inventory.Object, c *policy.Case) *state {
	policies := e.policies[ctl.ID]
	if len(policies) == 0 {
		return unknown("no policy with annotation %s: %s is loaded", annotation, ctl.ID)
	}
	if strings.HasSuffix(o.GetKind(), "Role") && e.access.BuiltIn(o) {
		return notApplicable(rbac.BuiltInReason)
	}
	applied := false
	var names, messages []string
	var broken error
	container := ""
	for _, p := range policies {
		applies, violations, err := p.Judge(c)
		if err != nil {
			broken = err
			continue
		}
		applied = applied || applies
		for _, v := range violations {
			names, messages = append(names, v.Policy), append(messages, v.Message)
			container = v.Details["containers"]
		}
	}
	switch {
	case len(messages) > 0:
		return e.excuse(ctl, o, &state{
			status:    finding.Fail,
			message:   strings.Join(slices.Compact(messages), "; "),
			evidence:  "policy " + strings.Join(slices.Compact(names), ", "),
			container: container,
		})
	case broken != nil:
		return unknown("%v", broken)
	case applied:
		return nil
	}
	return notApplicable(cmp.Or(ctl.NotApplicable, "the policy does not match this object"))
}

// excuse turns a failure into a pass where another object makes up for it.
func (e *evaluation) excuse(ctl *Control, o *inventory.Object, failed *state) *state {
	find, ok := excuses[ctl.Unless]
	if !ok {
		return failed
	}
	by := find(e.inv, e.inv.NamespaceOf(o))
	if by == nil {
		return failed
	}
	return &state{status: finding.Pass, evidence: by.Subject().String() + " makes up for it"}
}
