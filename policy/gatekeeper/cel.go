package gatekeeper

import (
	"errors"
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/kubeguardian/kubeguardian/policy"
)

// A celSource is the code of a template in CEL. generateVAP concerns the API
// server alone.
type celSource struct {
	Validations []struct {
		Expression        string `json:"expression"`
		Message           string `json:"message"`
		MessageExpression string `json:"messageExpression"`
	} `json:"validations"`
	FailurePolicy   *admissionregistrationv1.FailurePolicyType `json:"failurePolicy"`
	MatchConditions []named                                    `json:"matchCondition"`
	Variables       []named                                    `json:"variables"`
	GenerateVAP     *bool                                      `json:"generateVAP"`
}

type named struct {
	Name       string `json:"name"`
	Expression string `json:"expression"`
}

// A celEngine is the compiled CEL of a template.
type celEngine struct {
	validator validating.Validator
	namespace bool // an expression reads namespaceObject
	source    celSource
}

// What every template has as variables.anyObject, also when it is deleted, and
// as variables.params.
const (
	anyObject = `has(request.operation) && request.operation == "DELETE" && object == null ? oldObject : object`
	params    = `has(params.spec) && has(params.spec.parameters) ? params.spec.parameters : null`
)

// newCELEngine compiles the code of a template. Expressions see neither the
// constraint itself nor an authorizer.
func newCELEngine(d *policy.Document, path string, raw map[string]any) (engine, error) {
	var source celSource
	if err := decodeSource(d, path, raw, &source); err != nil {
		return nil, err
	}
	composed, err := plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		return nil, fmt.Errorf("prepare CEL: %w", err)
	}
	c := &celCompiler{document: d, path: path, composed: composed}
	composed.ConditionCompiler = c
	c.checkNames(&source)
	withParams := plugincel.OptionalVariableDeclarations{HasParams: true}
	c.variable("", "anyObject", anyObject, withParams)
	c.variable("", "params", params, withParams)
	for i, v := range source.Variables {
		c.variable(fmt.Sprintf("variables[%d].expression", i), v.Name, v.Expression, withParams)
	}
	validator := c.validator(d.Text("kind"), &source)
	return &celEngine{validator: validator, namespace: c.namespace, source: source}, errors.Join(c.errs...)
}

// A celCompiler compiles the expressions of one template and keeps what is
// wrong with them. It implements [plugincel.ConditionCompiler].
type celCompiler struct {
	document  *policy.Document
	path      string
	composed  *plugincel.CompositedCompiler
	field     string // of the conditions that are compiled now, with %d
	namespace bool
	errs      []error
}

// checkNames refuses names that Gatekeeper keeps for itself.
func (c *celCompiler) checkNames(source *celSource) {
	const reserved = "gatekeeper_internal_"
	for i, v := range source.Variables {
		if v.Name == "params" || v.Name == "anyObject" || strings.HasPrefix(v.Name, reserved) {
			c.bad(fmt.Sprintf("variables[%d].name", i), 0, "the name %q is reserved", v.Name)
		}
	}
	for i, m := range source.MatchConditions {
		if strings.HasPrefix(m.Name, reserved) {
			c.bad(fmt.Sprintf("matchCondition[%d].name", i), 0, "the name %q is reserved", m.Name)
		}
	}
	if p := source.FailurePolicy; p != nil && *p != admissionregistrationv1.Fail && *p != admissionregistrationv1.Ignore {
		c.bad("failurePolicy", 0, "%q is not supported: want Fail or Ignore", *p)
	}
	if len(source.Validations) == 0 {
		c.bad("validations", 0, "at least one is required")
	}
}

func (c *celCompiler) bad(field string, row int, format string, args ...any) {
	path := c.path + "." + field
	c.errs = append(c.errs, c.document.AtRow(path, row, "%s: %s", path, fmt.Sprintf(format, args...)))
}

func (c *celCompiler) variable(field, name, expression string, decls plugincel.OptionalVariableDeclarations) {
	c.note(expression)
	v := &validating.Variable{Name: name, Expression: expression}
	if result := c.composed.CompileAndStoreVariable(v, decls, environment.StoredExpressions); result.Error != nil {
		c.fail(field, result.Error)
	}
}

// note keeps whether an expression needs the namespace.
func (c *celCompiler) note(expression string) {
	c.namespace = c.namespace || strings.Contains(expression, plugincel.NamespaceVarName)
}

// fail keeps one error for each mistake in an expression, at its line.
func (c *celCompiler) fail(field string, err *apiservercel.Error) {
	var compilation *apiservercel.CompilationError
	if !errors.As(err.Cause, &compilation) {
		c.bad(field, 0, "%s", oneLine(err.Detail))
		return
	}
	for _, issue := range compilation.Issues.Errors() {
		c.bad(field, issue.Location.Line(), "%s", oneLine(issue.Message))
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// CompileCondition implements [plugincel.ConditionCompiler].
func (c *celCompiler) CompileCondition(list []plugincel.ExpressionAccessor, decls plugincel.OptionalVariableDeclarations, mode environment.Type) plugincel.ConditionEvaluator {
	results := make([]plugincel.CompilationResult, len(list))
	for i, accessor := range list {
		if accessor == nil {
			continue
		}
		c.note(accessor.GetExpression())
		if results[i] = c.composed.CompileCELExpression(accessor, decls, mode); results[i].Error != nil {
			c.fail(fmt.Sprintf(c.field, i), results[i].Error)
		}
	}
	return plugincel.NewCondition(results)
}

// conditions compiles expressions that stand in a list.
func (c *celCompiler) conditions(field string, list []plugincel.ExpressionAccessor) plugincel.ConditionEvaluator {
	c.field = field
	return c.composed.CompileCondition(list, plugincel.OptionalVariableDeclarations{}, environment.StoredExpressions)
}

func (c *celCompiler) validator(name string, source *celSource) validating.Validator {
	var conditions, validations []plugincel.ExpressionAccessor
	messages := make([]plugincel.ExpressionAccessor, len(source.Validations))
	for _, m := range source.MatchConditions {
		conditions = append(conditions, &matchconditions.MatchCondition{Name: m.Name, Expression: m.Expression})
	}
	for i, v := range source.Validations {
		validations = append(validations, &validating.ValidationCondition{Expression: v.Expression, Message: v.Message})
		if v.MessageExpression != "" {
			messages[i] = &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression}
		}
	}
	failure := source.FailurePolicy
	if failure == nil {
		failure = new(admissionregistrationv1.Fail)
	}
	matcher := matchconditions.NewMatcher(c.conditions("matchCondition[%d].expression", conditions), failure, "policy", "validate", name)
	return validating.NewValidator(
		c.conditions("validations[%d].expression", validations), matcher, c.conditions("", nil),
		c.conditions("validations[%d].messageExpression", messages), failure, nil)
}

// A nativeReview is a request in the form that the CEL of Kubernetes reads,
// made once for all templates.
type nativeReview struct {
	attributes *admission.VersionedAttributes
}

// nativeReview returns the review for CEL. There a DELETE has no object.
func (r *review) nativeReview() *nativeReview {
	if r.native != nil {
		return r.native
	}
	req := r.req
	object, old := runtimeObject(req.Object), runtimeObject(req.OldObject)
	if req.Operation == admissionv1.Delete {
		object = nil
	}
	info := &user.DefaultInfo{Name: req.User.Username, UID: req.User.UID, Groups: req.User.Groups, Extra: map[string][]string{}}
	for key, values := range req.User.Extra {
		info.Extra[key] = values
	}
	r.native = &nativeReview{&admission.VersionedAttributes{
		Attributes: admission.NewAttributesRecord(object, old, req.Kind, r.requestNamespace(), req.Name, req.Resource,
			req.Subresource, admission.Operation(req.Operation), runtimeObject(req.Options), req.DryRun, info),
		VersionedObject:    admission.NewLazyObject(object),
		VersionedOldObject: admission.NewLazyObject(old),
		VersionedKind:      req.Kind,
	}}
	return r.native
}

// runtimeObject keeps a nil object a nil interface.
func runtimeObject(u *unstructured.Unstructured) runtime.Object {
	if u == nil {
		return nil
	}
	return u
}

// judge evaluates the validations for one constraint, within the budget of one
// call of the API server. An expression that fails violates, unless the failure
// policy of the template ignores it.
func (e *celEngine) judge(r *review, c *constraint) ([]verdict, error) {
	var namespace *corev1.Namespace
	if e.namespace && r.namespaceName != "" {
		namespace, _ = r.namespace() // an unknown one is null
	}
	result := e.validator.Validate(r, r.req.Resource, r.nativeReview().attributes, c.object, namespace, celconfig.PerCallLimit, nil)
	var out []verdict
	for _, decision := range result.Decisions {
		if decision.Action == validating.ActionDeny {
			out = append(out, verdict{message: decision.Message})
		}
	}
	return out, nil
}
