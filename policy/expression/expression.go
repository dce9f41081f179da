// Package expression compiles and evaluates the CEL of admission policies as the
// API server does, many policies over one request.
//
// Policies of one set ask the same of an object over and over: where its pod
// template is, which containers it has. The API server evaluates every
// expression of every policy anew; here expressions that read the same, down to
// the variables that they use, are evaluated once for each [View] of a request.
// What they cost is still charged to each policy that uses them, so that the
// limits of the API server end the same policies. What a policy has decided may
// also be recalled for other requests: see [Recall].
package expression

import (
	"fmt"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types/traits"
	"k8s.io/apimachinery/pkg/util/version"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/lazy"
)

// A Language is the CEL of admission policies. Making it takes longer than
// compiling a policy, so that many policies may share it, one after the other:
// the variables in it are those of one policy at a time.
type Language struct {
	compiler plugincel.Compiler
	fields   map[string]*apiservercel.DeclField
}

// NewLanguage returns the language of the API server that this program is built
// with.
func NewLanguage() (*Language, error) {
	l := &Language{fields: map[string]*apiservercel.DeclField{}}
	variables := apiservercel.NewObjectType(variablesType, l.fields)
	env, err := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()).Extend(environment.VersionedOptions{
		IntroducedVersion: version.MajorMinor(1, 0),
		EnvOptions:        []cel.EnvOption{cel.Variable(plugincel.VariableVarName, variables.CelType())},
		DeclTypes:         []*apiservercel.DeclType{variables},
	})
	if err != nil {
		return nil, fmt.Errorf("prepare CEL: %w", err)
	}
	l.compiler = plugincel.NewCompiler(env)
	return l, nil
}

// variablesType is the name of the type of "variables".
const variablesType = "kubernetes.variables"

// declare gives the variable of the policy that is compiled now its type.
func (l *Language) declare(name string, t *cel.Type) {
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

// A Compiler compiles the expressions of one policy. What it has compiled stays
// usable when the language turns to another policy.
type Compiler struct {
	Reads Reads // of what is compiled so far

	language  *Language
	variables []variable
}

// Reads says what the expressions of a policy ask for besides the request.
type Reads struct{ Namespace, Authorizer bool }

// Compiler returns a compiler for the next policy. The one before is done.
func (l *Language) Compiler() *Compiler {
	clear(l.fields)
	return &Compiler{language: l}
}

// Compile compiles one expression, which sees the variables that were compiled
// before it; a [*validating.Variable] is one for those after it. What is wrong
// with the expression is in the result.
func (c *Compiler) Compile(e plugincel.ExpressionAccessor, options plugincel.OptionalVariableDeclarations) plugincel.CompilationResult {
	c.Reads.Namespace = c.Reads.Namespace || strings.Contains(e.GetExpression(), plugincel.NamespaceVarName)
	c.Reads.Authorizer = c.Reads.Authorizer || strings.Contains(e.GetExpression(), plugincel.AuthorizerVarName)
	result := c.language.compiler.CompileCELExpression(e, options, environment.StoredExpressions)
	if v, ok := e.(*validating.Variable); ok {
		c.language.declare(v.Name, result.OutputType)
		c.variables = append(c.variables, variable{v.Name, newShared(v.Name, v.Expression, result, c.variables)})
	}
	return result
}

// Condition joins compiled expressions, which may use the variables so far. A
// zero result is a placeholder, whose outcome is zero too.
func (c *Compiler) Condition(results []plugincel.CompilationResult) *Condition {
	out := &Condition{variables: c.variables, empty: lazy.NewMapValue(apiservercel.NewObjectType(variablesType, nil))}
	for _, r := range results {
		if r.ExpressionAccessor == nil {
			out.expressions = append(out.expressions, sharedExpression{})
			continue
		}
		out.expressions = append(out.expressions, newShared("", r.ExpressionAccessor.GetExpression(), r, c.variables))
	}
	return out
}

// Messages is [Compiler.Condition] for texts about validations, one for each:
// when these have all passed, nobody reads them, and they are not evaluated.
func (c *Compiler) Messages(results []plugincel.CompilationResult, validations *Condition) *Condition {
	out := c.Condition(results)
	out.follows = validations
	return out
}
