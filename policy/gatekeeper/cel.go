package gatekeeper

import (
	"errors"
	"fmt"
	"regexp"
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

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/expression"
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
	validator  validating.Validator
	namespace  bool // an expression reads namespaceObject
	constraint bool // one reads more of the constraint than the parameters
	source     celSource
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
	lang, err := expression.NewLanguage()
	if err != nil {
		return nil, err
	}
	c := &celCompiler{Compiler: lang.Compiler(), document: d, path: path}
	c.checkNames(&source)
	c.variable("", "anyObject", anyObject)
	c.variable("", "params", params)
	e := &celEngine{source: source}
	for i, v := range source.Variables {
		c.variable(fmt.Sprintf("variables[%d].expression", i), v.Name, v.Expression)
		e.constraint = e.constraint || constraintUse.MatchString(v.Expression)
	}
	e.validator = c.validator(d.Text("kind"), &source)
	e.namespace = c.Reads.Namespace
	return e, errors.Join(c.errs...)
}

// constraintUse finds expressions that may read params itself.
var constraintUse = regexp.MustCompile(`(^|[^.\s])\s*\bparams\b`)

// A celCompiler compiles the expressions of one template and keeps what is
// wrong with them.
type celCompiler struct {
	*expression.Compiler
	document *policy.Document
	path     string
	errs     []error
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

// variable compiles a variable, which sees the constraint as params.
func (c *celCompiler) variable(field, name, expression string) {
	c.compile(field, &validating.Variable{Name: name, Expression: expression}, plugincel.OptionalVariableDeclarations{HasParams: true})
}

func (c *celCompiler) compile(field string, e plugincel.ExpressionAccessor, options plugincel.OptionalVariableDeclarations) plugincel.CompilationResult {
	result := c.Compile(e, options)
	if result.Error != nil {
		c.fail(field, result.Error)
	}
	return result
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

// conditions compiles expressions that stand in a list; nil is a placeholder.
func (c *celCompiler) conditions(field string, list []plugincel.ExpressionAccessor) []plugincel.CompilationResult {
	results := make([]plugincel.CompilationResult, len(list))
	for i, e := range list {
		if e != nil {
			results[i] = c.compile(fmt.Sprintf(field, i), e, plugincel.OptionalVariableDeclarations{})
		}
	}
	return results
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
	matcher := matchconditions.NewMatcher(c.Condition(c.conditions("matchCondition[%d].expression", conditions)), failure, "policy", "validate", name)
	valid := c.Condition(c.conditions("validations[%d].expression", validations))
	texts := c.Messages(c.conditions("validations[%d].messageExpression", messages), valid)
	return validating.NewValidator(valid, matcher, c.Condition(nil), texts, failure, nil)
}

// A nativeReview is a request in the form that the CEL of Kubernetes reads,
// made once for all templates.
type nativeReview struct {
	*expression.View
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
	attributes := &admission.VersionedAttributes{
		Attributes: admission.NewAttributesRecord(object, old, req.Kind, r.requestNamespace(), req.Name, req.Resource,
			req.Subresource, admission.Operation(req.Operation), runtimeObject(req.Options), req.DryRun, info),
		VersionedObject:    admission.NewLazyObject(object),
		VersionedOldObject: admission.NewLazyObject(old),
		VersionedKind:      req.Kind,
	}
	r.native = &nativeReview{expression.NewView(r, nil), attributes}
	r.native.Remember(attributes)
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
// call of the API server, or recalls what they said. An expression that fails
// violates, unless the failure policy of the template ignores it.
func (e *celEngine) judge(r *review, c *constraint) ([]verdict, error) {
	native := r.nativeReview()
	var namespace *corev1.Namespace
	if e.namespace {
		if r.namespaceName != "" {
			namespace, _ = r.namespace() // an unknown one is null
		}
		native.RememberNamespace(namespace)
	}
	out, err := expression.Recall(native.View, &c.parameters.known, func(v *expression.View) (*[]verdict, error) {
		result := e.validator.Validate(v, r.req.Resource, native.attributes, c.object, namespace, celconfig.PerCallLimit, nil)
		return violated(result.Decisions), nil
	})
	return *out, err
}

func violated(decisions []validating.PolicyDecision) *[]verdict {
	var out []verdict
	for _, decision := range decisions {
		if decision.Action == validating.ActionDeny {
			out = append(out, verdict{message: decision.Message})
		}
	}
	return &out
}
