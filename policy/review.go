package policy

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"

	"github.com/kubeguardian/kubeguardian/finding"
)

// failuresKey and maxAudited are those of the API server.
const (
	failuresKey = "validation.policy.admission.k8s.io/validation_failure"
	maxAudited  = 50
)

// A Verdict is all that the API server would make of what validating policies
// say about a request.
type Verdict struct {
	// Violations are those of all policies. The API server tells the first one
	// that denies, in an order that it does not promise.
	Violations []finding.Violation
	// Reasons are why the request is refused, one for each violation, of those
	// that deny: they become the status of the response.
	Reasons []metav1.StatusReason
	// Audit are the annotations of the audit event: what policies publish, as
	// "policy/key", and the failures that bindings want audited.
	Audit map[string]string
}

// Review judges a request as [Set.Evaluate] does, and also collects what goes to
// the audit log even when nothing is violated.
//
// When ctx ends first, Review returns the error of ctx and no verdict.
func (s *Set) Review(ctx context.Context, req Request) (Verdict, error) {
	var v Verdict
	candidates := s.candidates(&req)
	if len(candidates) == 0 {
		return v, nil
	}
	in := newInput(ctx, &req)
	in.audit = &audit{annotations: map[string][]string{}, reasons: map[reasonKey][]metav1.StatusReason{}}
	for _, p := range candidates {
		v.Violations = append(v.Violations, p.violations(in)...)
		if err := ctx.Err(); err != nil {
			return Verdict{}, fmt.Errorf("review by policy %q: %w", p.name, err)
		}
	}
	v.Reasons = make([]metav1.StatusReason, len(v.Violations))
	for i, violation := range v.Violations {
		if violation.Enforcement == "deny" {
			v.Reasons[i] = in.audit.reason(violation)
		}
	}
	v.Audit = in.audit.publish()
	return v, nil
}

// An audit collects what policies say beside their violations.
type audit struct {
	annotations map[string][]string // values by "policy/key"
	failures    []validating.ValidationFailureValue
	reasons     map[reasonKey][]metav1.StatusReason // of denials, in their order
}

type reasonKey struct{ policy, binding, message string }

// add keeps what a result is worth to a binding.
func (a *audit) add(p *Policy, b binding, result *validating.ValidateResult) {
	for i, d := range result.Decisions {
		if d.Action != validating.ActionDeny {
			continue
		}
		if slices.Contains(b.actions, admissionregistrationv1.Deny) {
			key := reasonKey{p.name, b.name, d.Message}
			a.reasons[key] = append(a.reasons[key], d.Reason)
		}
		if slices.Contains(b.actions, admissionregistrationv1.Audit) {
			a.failures = append(a.failures, validating.ValidationFailureValue{
				Message: d.Message, Policy: p.name, Binding: b.name, ExpressionIndex: i, ValidationActions: b.actions,
			})
		}
	}
	values, _ := annotations(result)
	for key, value := range values {
		key = p.name + "/" + key
		if !slices.Contains(a.annotations[key], value) {
			a.annotations[key] = append(a.annotations[key], value)
		}
	}
}

// reason takes the reason of a denial, of which there may be several with one
// message.
func (a *audit) reason(v finding.Violation) metav1.StatusReason {
	key := reasonKey{v.Policy, v.Binding, v.Message}
	list := a.reasons[key]
	if len(list) == 0 { // the policy could not be evaluated
		return metav1.StatusReasonInvalid
	}
	a.reasons[key] = list[1:]
	return cmp.Or(list[0], metav1.StatusReasonInvalid)
}

// publish returns the annotations as the API server writes them.
func (a *audit) publish() map[string]string {
	out := map[string]string{}
	for key, values := range a.annotations {
		out[key] = strings.Join(values, ", ")
	}
	if len(a.failures) == 0 {
		return out
	}
	// What these fields hold is always text that can be encoded.
	if data, err := json.Marshal(a.failures[:min(len(a.failures), maxAudited)]); err == nil {
		out[failuresKey] = string(data)
	}
	return out
}
