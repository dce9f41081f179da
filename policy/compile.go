package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types/traits"
	"go.yaml.in/yaml/v3"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/version"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/lazy"

	"github.com/kubeguardian/kubeguardian/policy/memory"
)

// compile turns a checked policy and its bindings into a [Policy]. The policy
// is not usable if there is an error.
func compile(d *document, bindings []*document, lang *language) (*Policy, error) {
	spec := &d.policy.Spec
	c := &compiler{document: d, language: lang, options: plugincel.OptionalVariableDeclarations{HasParams: spec.ParamKind != nil, HasAuthorizer: true}}
	clear(lang.fields)
	p := &Policy{
		name:        d.policy.Name,
		annotations: d.policy.Annotations,
		failOpen:    *spec.FailurePolicy == admissionregistrationv1.Ignore,
		criteria:    newCriteria(spec.MatchConstraints),
		paramKind:   newParamKind(spec.ParamKind),
		validator:   c.validator(spec),
		reads:       c.reads,
	}
	if !p.reads.namespace && !p.reads.authorizer && p.paramKind == nil {
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

// A language is the CEL of admission policies. Making it takes longer than
// compiling a policy, so that all policies of a load share it; the variables in
// it are those of one policy at a time.
type language struct {
	plugincel.Compiler
	fields map[string]*apiservercel.DeclField
}

func newLanguage() (*language, error) {
	l := &language{fields: map[string]*apiservercel.DeclField{}}
	variables := apiservercel.NewObjectType(variablesType, l.fields)
	env, err := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()).Extend(environment.VersionedOptions{
		IntroducedVersion: version.MajorMinor(1, 0),
		EnvOptions:        []cel.EnvOption{cel.Variable(plugincel.VariableVarName, variables.CelType())},
		DeclTypes:         []*apiservercel.DeclType{variables},
	})
	if err != nil {
		return nil, fmt.Errorf("prepare CEL: %w", err)
	}
	l.Compiler = plugincel.NewCompiler(env)
	return l, nil
}

// declare gives the variable of the policy that is compiled now its type.
func (l *language) declare(name string, t *cel.Type) {
	l.fields[name] = apiservercel.NewDeclField(name, declType(t), true, nil, nil)
}

// declType returns a type as the API server's type provider knows it. Of lists
// and mappings the types of the items are kept, all else but the basic types
// can hold anything.
func declType(t *cel.Type) *apiservercel.DeclType {
	basic := map[*cel.Type]*apiservercel.DeclType{
		cel.AnyType: apiservercel.AnyType, cel.BoolType: apiservercel.BoolType, cel.BytesType: apiservercel.BytesType,
		cel.DoubleType: apiservercel.DoubleType, cel.DurationType: apiservercel.DurationType, cel.IntType: apiservercel.IntType,
		cel.NullType: apiservercel.NullType, cel.StringType: apiservercel.StringType, cel.TimestampType: apiservercel.TimestampType,
		cel.UintType: apiservercel.UintType,
	}
	if known := basic[t]; known != nil {
		return known
	}
	if t != nil && t.HasTrait(traits.ContainerType) && t.HasTrait(traits.IndexerType) {
		switch of := t.Parameters(); len(of) {
		case 1:
			return apiservercel.NewListType(declType(of[0]), -1)
		case 2:
			return apiservercel.NewMapType(declType(of[0]), declType(of[1]), -1)
		}
	}
	return apiservercel.DynType
}

// variablesType is the name of the type of "variables".
const variablesType = "kubernetes.variables"

// A compiler compiles the expressions of one policy and keeps what is wrong
// with them.
type compiler struct {
	*document
	*language
	options   plugincel.OptionalVariableDeclarations
	variables []variable
	reads     reads
	errs      []error
}

// reads says what the expressions of a policy ask for besides the request.
type reads struct{ namespace, authorizer bool }

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
	texts := c.condition(messages)
	texts.follows = c.condition(validations)
	return validating.NewValidator(texts.follows, matcher, c.condition(annotations), texts, spec.FailurePolicy, nil)
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
	return matchconditions.NewMatcher(c.condition(conditions), failure, "policy", "validate", c.name())
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
	c.reads.namespace = c.reads.namespace || strings.Contains(e.GetExpression(), plugincel.NamespaceVarName)
	c.reads.authorizer = c.reads.authorizer || strings.Contains(e.GetExpression(), plugincel.AuthorizerVarName)
	result := c.CompileCELExpression(e, c.options, environment.StoredExpressions)
	if v, ok := e.(*validating.Variable); ok {
		c.declare(v.Name, result.OutputType)
		c.variables = append(c.variables, variable{v.Name, newShared(v.Name, v.Expression, result, c.variables)})
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

// condition joins compiled expressions, which may use all variables. The
// variables come first.
func (c *compiler) condition(results []plugincel.CompilationResult) *condition {
	out := &condition{variables: c.variables, empty: lazy.NewMapValue(apiservercel.NewObjectType(variablesType, nil))}
	for _, r := range results {
		if r.ExpressionAccessor == nil {
			out.expressions = append(out.expressions, sharedExpression{})
			continue
		}
		out.expressions = append(out.expressions, newShared("", r.ExpressionAccessor.GetExpression(), r, c.variables))
	}
	return out
}
