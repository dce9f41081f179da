package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"

	"github.com/kubeguardian/kubeguardian/policy/expression"
)

// A mutatingPolicy is one compiled MutatingAdmissionPolicy with its bindings. It
// is safe for concurrent use.
type mutatingPolicy struct {
	name      string
	failOpen  bool // failurePolicy Ignore
	again     bool // reinvocationPolicy IfNeeded
	criteria  *criteria
	targets   map[target]bool          // what the criteria may match
	paramKind *schema.GroupVersionKind // nil: it has no parameters
	matcher   matchconditions.Matcher  // nil: it has no match conditions
	mutations []patch.Patcher
	reads     expression.Reads
	bindings  []binding // without actions
}

// compileMutating turns a checked policy and its bindings into a
// [mutatingPolicy], which is not usable if there is an error.
func compileMutating(d *document, bindings []*document, lang *expression.Language) (*mutatingPolicy, error) {
	spec := &d.mutating.Spec
	c := newCompiler(d, lang, spec.ParamKind)
	p := &mutatingPolicy{
		name:      d.mutating.Name,
		failOpen:  *spec.FailurePolicy == admissionregistrationv1.Ignore,
		again:     spec.ReinvocationPolicy == admissionregistrationv1.IfNeededReinvocationPolicy,
		criteria:  newCriteria(spec.MatchConstraints),
		paramKind: newParamKind(spec.ParamKind),
	}
	p.matcher = c.matcher(spec.MatchConditions, spec.FailurePolicy)
	c.compileVariables(spec.Variables)
	p.targets = p.criteria.targets()
	c.options.HasPatchTypes = true
	for i, m := range spec.Mutations {
		path := fmt.Sprintf("spec.mutations[%d]", i)
		if m.PatchType == admissionregistrationv1.PatchTypeJSONPatch && m.JSONPatch != nil {
			p.mutations = append(p.mutations, patch.NewJSONPatcher(c.mutation(path+".jsonPatch.expression", &patch.JSONPatchCondition{Expression: m.JSONPatch.Expression})))
		} else if m.ApplyConfiguration != nil {
			p.mutations = append(p.mutations, patch.NewApplyConfigurationPatcher(c.mutation(path+".applyConfiguration.expression", &patch.ApplyConfigurationCondition{Expression: m.ApplyConfiguration.Expression})))
		}
	}
	p.reads = c.Reads
	for _, b := range bindings {
		p.bindings = append(p.bindings, binding{
			name:     b.mutatingBinding.Name,
			criteria: newCriteria(b.mutatingBinding.Spec.MatchResources),
			params:   newParamRef(b.mutatingBinding.Spec.ParamRef),
		})
	}
	slices.SortFunc(p.bindings, func(a, b binding) int { return cmp.Compare(a.name, b.name) })
	return p, errors.Join(c.errs...)
}

// concerns reports whether a policy may match a request.
func (p *mutatingPolicy) concerns(req *Request) bool {
	r := req.Resource.GroupResource()
	for _, group := range []string{r.Group, "*"} {
		for _, resource := range []string{r.Resource, "*"} {
			if p.targets[target{req.Operation, schema.GroupResource{Group: group, Resource: resource}}] {
				return true
			}
		}
	}
	return false
}

// A mutation is a condition of one expression, as the API server's patchers
// take it.
type mutation struct{ *expression.Condition }

func (c *compiler) mutation(path string, e plugincel.ExpressionAccessor) mutation {
	return mutation{c.Condition([]plugincel.CompilationResult{c.expression(path, e)})}
}

// ForInput implements [plugincel.MutatingEvaluator].
func (m mutation) ForInput(ctx context.Context, attr *admission.VersionedAttributes, request *admissionv1.AdmissionRequest, vars plugincel.OptionalVariableBindings, namespace *corev1.Namespace, budget int64) (plugincel.EvaluationResult, int64, error) {
	results, left, err := m.Condition.ForInput(ctx, attr, request, vars, namespace, budget)
	if err != nil {
		return plugincel.EvaluationResult{}, left, err
	}
	return results[0], left, nil
}

func (d *document) checkMutating() error {
	c := checker{document: d}
	spec := d.mutating.Spec
	c.name(d.mutating.ObjectMeta)
	c.oneOf("spec.failurePolicy", string(*spec.FailurePolicy), "Fail", "Ignore")
	c.oneOf("spec.reinvocationPolicy", string(spec.ReinvocationPolicy), "Never", "IfNeeded")
	c.paramKind(spec.ParamKind)
	c.constraints(spec.MatchConstraints)
	c.mutates("spec.matchConstraints", spec.MatchConstraints)
	c.conditions(spec.MatchConditions)
	c.variables(spec.Variables)
	if len(spec.Mutations) == 0 {
		c.bad("spec.mutations", "at least one mutation is required")
	}
	for i, m := range spec.Mutations {
		c.mutation(fmt.Sprintf("spec.mutations[%d]", i), m)
	}
	return errors.Join(c.errs...)
}

func (c *checker) mutation(path string, m admissionregistrationv1.Mutation) {
	c.oneOf(path+".patchType", string(m.PatchType), "ApplyConfiguration", "JSONPatch")
	wanted, other := "applyConfiguration", m.JSONPatch != nil
	expression, given := "", m.ApplyConfiguration != nil
	if given {
		expression = m.ApplyConfiguration.Expression
	}
	if m.PatchType == admissionregistrationv1.PatchTypeJSONPatch {
		wanted, other, given = "jsonPatch", given, other
		if expression = ""; given {
			expression = m.JSONPatch.Expression
		}
	}
	c.required(path+"."+wanted+".expression", expression)
	if other {
		c.bad(path, "patchType %s and %s exclude each other", m.PatchType, map[bool]string{true: "applyConfiguration", false: "jsonPatch"}[wanted == "jsonPatch"])
	}
}

func (d *document) checkMutatingBinding() error {
	c := checker{document: d}
	spec := d.mutatingBinding.Spec
	c.name(d.mutatingBinding.ObjectMeta)
	c.required("spec.policyName", spec.PolicyName)
	c.paramRef(spec.ParamRef)
	if m := spec.MatchResources; m != nil {
		c.match("spec.matchResources", m)
		c.mutates("spec.matchResources", m)
	}
	return errors.Join(c.errs...)
}

// mutates reports operations that leave nothing to change.
func (c *checker) mutates(path string, m *admissionregistrationv1.MatchResources) {
	if m == nil {
		return
	}
	for i, rule := range m.ResourceRules {
		for j, op := range rule.Operations {
			if op == admissionregistrationv1.Delete || op == admissionregistrationv1.Connect {
				c.bad(fmt.Sprintf("%s.resourceRules[%d].operations[%d]", path, i, j), "%s cannot be mutated: want CREATE, UPDATE or *", op)
			}
		}
	}
}
