package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// compile turns a checked policy and its bindings into a [Policy]. The policy
// is not usable if there is an error.
func compile(d *document, bindings []*document) (*Policy, error) {
	spec := &d.policy.Spec
	c, err := newCompiler(d)
	if err != nil {
		return nil, err
	}
	p := &Policy{
		name:        d.policy.Name,
		annotations: d.policy.Annotations,
		failOpen:    *spec.FailurePolicy == admissionregistrationv1.Ignore,
		criteria:    newCriteria(spec.MatchConstraints),
		validator:   c.validator(spec),
		namespace:   c.namespace,
	}
	for _, b := range bindings {
		p.bindings = append(p.bindings, binding{
			name:     b.binding.Name,
			actions:  b.binding.Spec.ValidationActions,
			criteria: newCriteria(b.binding.Spec.MatchResources),
		})
		p.denies = p.denies || slices.Contains(b.binding.Spec.ValidationActions, admissionregistrationv1.Deny)
	}
	return p, errors.Join(c.errs...)
}

// A compiler compiles the expressions of one policy and keeps what is wrong
// with them.
type compiler struct {
	*document
	cel       *plugincel.CompositedCompiler
	namespace bool // an expression reads namespaceObject
	errs      []error
}

func newCompiler(d *document) (*compiler, error) {
	env := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
	cel, err := plugincel.NewCompositedCompiler(env)
	if err != nil {
		return nil, d.at("", "prepare CEL: %v", err)
	}
	return &compiler{document: d, cel: cel}, nil
}

// validator compiles all expressions in the order in which the API server
// does: variables first, because the others use them.
func (c *compiler) validator(spec *admissionregistrationv1.ValidatingAdmissionPolicySpec) validating.Validator {
	for i, v := range spec.Variables {
		c.expression(fmt.Sprintf("spec.variables[%d].expression", i), &validating.Variable{Name: v.Name, Expression: v.Expression})
	}
	var conditions, validations, messages, annotations []plugincel.CompilationResult
	for i := range spec.MatchConditions {
		conditions = append(conditions, c.expression(fmt.Sprintf("spec.matchConditions[%d].expression", i),
			(*matchconditions.MatchCondition)(&spec.MatchConditions[i])))
	}
	for i, v := range spec.Validations {
		path := fmt.Sprintf("spec.validations[%d]", i)
		validations = append(validations, c.expression(path+".expression",
			&validating.ValidationCondition{Expression: v.Expression, Message: v.Message, Reason: v.Reason}))
		var message plugincel.CompilationResult // the zero value is a placeholder
		if v.MessageExpression != "" {
			message = c.expression(path+".messageExpression", &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression})
		}
		messages = append(messages, message)
	}
	for i, a := range spec.AuditAnnotations {
		annotations = append(annotations, c.expression(fmt.Sprintf("spec.auditAnnotations[%d].valueExpression", i),
			&validating.AuditAnnotationCondition{Key: a.Key, ValueExpression: a.ValueExpression}))
	}
	var matcher matchconditions.Matcher
	if len(conditions) > 0 {
		matcher = matchconditions.NewMatcher(c.condition(conditions), spec.FailurePolicy, "policy", "validate", c.policy.Name)
	}
	return validating.NewValidator(c.condition(validations), matcher, c.condition(annotations), c.condition(messages), spec.FailurePolicy, nil)
}

// expression compiles one expression; a variable is stored for the others.
func (c *compiler) expression(path string, e plugincel.ExpressionAccessor) plugincel.CompilationResult {
	if strings.Contains(e.GetExpression(), plugincel.NamespaceVarName) {
		c.namespace = true
	}
	var none plugincel.OptionalVariableDeclarations // neither params nor authorizer
	var result plugincel.CompilationResult
	if v, ok := e.(*validating.Variable); ok {
		result = c.cel.CompileAndStoreVariable(v, none, environment.StoredExpressions)
	} else {
		result = c.cel.CompileCELExpression(e, none, environment.StoredExpressions)
	}
	if result.Error != nil {
		c.celErrors(path, result.Error)
	}
	return result
}

// celErrors keeps one error for each mistake in an expression, at its line.
func (c *compiler) celErrors(path string, err *apiservercel.Error) {
	node := find(c.root, path)
	var compilation *apiservercel.CompilationError
	if !errors.As(err.Cause, &compilation) {
		c.errs = append(c.errs, fmt.Errorf("%s:%d: policy %q: %s: %s", c.file, node.Line, c.policy.Name, path, oneLine(err.Detail)))
		return
	}
	for _, issue := range compilation.Issues.Errors() {
		message := oneLine(issue.Message)
		if strings.Contains(message, "undeclared reference to 'authorizer") {
			message = "authorizer is not supported: what it would answer is not known here"
		}
		c.errs = append(c.errs, fmt.Errorf("%s:%d: policy %q: %s: %s", c.file, sourceLine(node, issue.Location.Line()), c.policy.Name, path, message))
	}
}

// sourceLine maps a line of a CEL expression to a line of the file. That is
// exact for an expression on one line and for a literal block; a folded block
// is one line to CEL.
func sourceLine(node *yaml.Node, line int) int {
	if node.Style == yaml.LiteralStyle && line > 0 {
		return node.Line + line
	}
	return node.Line
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// A condition evaluates compiled expressions with the variables of the policy.
type condition struct {
	plugincel.ConditionEvaluator
	cel *plugincel.CompositedCompiler
}

func (c *compiler) condition(results []plugincel.CompilationResult) plugincel.ConditionEvaluator {
	return condition{plugincel.NewCondition(results), c.cel}
}

func (c condition) ForInput(ctx context.Context, attr *admission.VersionedAttributes, request *admissionv1.AdmissionRequest, vars plugincel.OptionalVariableBindings, namespace *corev1.Namespace, budget int64) ([]plugincel.EvaluationResult, int64, error) {
	return c.ConditionEvaluator.ForInput(c.cel.CreateContext(ctx), attr, request, vars, namespace, budget)
}
