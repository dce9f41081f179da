package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	apiservercel "k8s.io/apiserver/pkg/cel"

	"github.com/kubeguardian/kubeguardian/policy/expression"
	"github.com/kubeguardian/kubeguardian/policy/memory"
)

// compile turns a checked policy and its bindings into a [Policy]. The policy
// is not usable if there is an error.
func compile(d *document, bindings []*document, lang *expression.Language) (*Policy, error) {
	spec := &d.policy.Spec
	c := newCompiler(d, lang, spec.ParamKind)
	p := &Policy{
		name:        d.policy.Name,
		annotations: d.policy.Annotations,
		failOpen:    *spec.FailurePolicy == admissionregistrationv1.Ignore,
		criteria:    newCriteria(spec.MatchConstraints),
		paramKind:   newParamKind(spec.ParamKind),
		validator:   c.validator(spec),
		reads:       c.Reads,
	}
	if !p.reads.Authorizer && p.paramKind == nil {
		p.memory = &memory.Memory[validating.ValidateResult]{}
	}
	for _, b := range bindings {
		p.bindings = append(p.bindings, binding{
			name:     b.binding.Name,
			actions:  b.binding.Spec.ValidationActions,
			criteria: newCriteria(b.binding.Spec.MatchResources),
			params:   newParamRef(b.binding.Spec.ParamRef),
		})
		p.denies = p.denies || slices.Contains(b.binding.Spec.ValidationActions, admissionregistrationv1.Deny)
	}
	return p, errors.Join(c.errs...)
}

// A compiler compiles the expressions of one policy and keeps what is wrong
// with them.
type compiler struct {
	*document
	*expression.Compiler
	options plugincel.OptionalVariableDeclarations
	errs    []error
}

func newCompiler(d *document, lang *expression.Language, params *admissionregistrationv1.ParamKind) *compiler {
	return &compiler{
		document: d, Compiler: lang.Compiler(),
		options: plugincel.OptionalVariableDeclarations{HasParams: params != nil, HasAuthorizer: true},
	}
}

// validator compiles all expressions: match conditions first, which must not use
// variables, and then the variables, because the others use them.
func (c *compiler) validator(spec *admissionregistrationv1.ValidatingAdmissionPolicySpec) validating.Validator {
	matcher := c.matcher(spec.MatchConditions, spec.FailurePolicy)
	c.compileVariables(spec.Variables)
	var validations, messages, annotations []plugincel.CompilationResult
	for i, v := range spec.Validations {
		path := fmt.Sprintf("spec.validations[%d]", i)
		validations = append(validations, c.expression(path+".expression",
			&validating.ValidationCondition{Expression: v.Expression, Message: v.Message, Reason: v.Reason}))
		var message plugincel.CompilationResult // the zero value is a placeholder
		if v.MessageExpression != "" {
			message = c.message(path+".messageExpression", v.MessageExpression)
		}
		messages = append(messages, message)
	}
	for i, a := range spec.AuditAnnotations {
		annotations = append(annotations, c.expression(fmt.Sprintf("spec.auditAnnotations[%d].valueExpression", i),
			&validating.AuditAnnotationCondition{Key: a.Key, ValueExpression: a.ValueExpression}))
	}
	valid := c.Condition(validations)
	return validating.NewValidator(valid, matcher, c.Condition(annotations), c.Messages(messages, valid), spec.FailurePolicy, nil)
}

func (c *compiler) compileVariables(list []admissionregistrationv1.Variable) {
	for i, v := range list {
		c.expression(fmt.Sprintf("spec.variables[%d].expression", i), &validating.Variable{Name: v.Name, Expression: v.Expression})
	}
}

// matcher returns nil when there are no match conditions.
func (c *compiler) matcher(list []admissionregistrationv1.MatchCondition, failure *admissionregistrationv1.FailurePolicyType) matchconditions.Matcher {
	if len(list) == 0 {
		return nil
	}
	var conditions []plugincel.CompilationResult
	for i := range list {
		conditions = append(conditions, c.expression(fmt.Sprintf("spec.matchConditions[%d].expression", i), (*matchconditions.MatchCondition)(&list[i])))
	}
	return matchconditions.NewMatcher(c.Condition(conditions), failure, "policy", "validate", c.name())
}

// message compiles an expression for a message, which must not use the
// authorizer.
func (c *compiler) message(path, expression string) plugincel.CompilationResult {
	options := c.options
	defer func() { c.options = options }()
	c.options.HasAuthorizer = false
	return c.expression(path, &validating.MessageExpressionCondition{MessageExpression: expression})
}

// expression compiles one expression; a variable is stored for the others.
func (c *compiler) expression(path string, e plugincel.ExpressionAccessor) plugincel.CompilationResult {
	result := c.Compile(e, c.options)
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
		c.errs = append(c.errs, fmt.Errorf("%s:%d: policy %q: %s: %s", c.file, node.Line, c.name(), path, oneLine(err.Detail)))
		return
	}
	for _, issue := range compilation.Issues.Errors() {
		c.errs = append(c.errs, fmt.Errorf("%s:%d: policy %q: %s: %s", c.file, sourceLine(node, issue.Location.Line()), c.name(), path, oneLine(issue.Message)))
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
