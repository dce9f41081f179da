package expression

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"unique"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/common"
	"k8s.io/apiserver/pkg/cel/lazy"
	"k8s.io/apiserver/pkg/cel/library"

	"github.com/kubeguardian/kubeguardian/policy/memory"
)

// An identity is an expression with all that its value depends on besides the
// request. The zero value is shared with nothing.
type identity = unique.Handle[string]

// A shared expression is compiled, with its identity.
type sharedExpression struct {
	compiled plugincel.CompilationResult
	identity identity
	params   bool // it reads params, so that its value is that of one parameter
}

// newShared returns a compiled expression that may use the variables before it.
func newShared(name, expression string, compiled plugincel.CompilationResult, before []variable) sharedExpression {
	used := uses(expression, before)
	reads := func(v variable) bool { return v.params }
	return sharedExpression{
		compiled: compiled,
		identity: identify(name, expression, before),
		params:   paramsUse.MatchString(expression) || slices.ContainsFunc(used, reads),
	}
}

// A variable is a shared expression that has a name in its policy.
type variable struct {
	name string
	sharedExpression
}

var (
	paramsUse    = regexp.MustCompile(`\bparams\b`)
	variablesUse = regexp.MustCompile(`\bvariables\b`)
	variableName = regexp.MustCompile(`\bvariables\s*\.\s*\??\s*([_a-zA-Z][_a-zA-Z0-9]*)`)
)

// identify returns the identity of an expression that may use the variables
// before it. One that reads the namespace has none: match conditions see no
// namespace, the other expressions do. Nor has one that asks the authorizer,
// which is not there for messages and may not know an answer.
func identify(name, expression string, before []variable) identity {
	if strings.Contains(expression, plugincel.NamespaceVarName) || strings.Contains(expression, plugincel.AuthorizerVarName) {
		return identity{}
	}
	key := name + "\x00" + expression
	for _, v := range uses(expression, before) {
		if v.identity == (identity{}) {
			return identity{}
		}
		key += "\x00" + v.identity.Value()
	}
	return unique.Make(key)
}

// uses returns which of the variables before it an expression may use.
func uses(expression string, before []variable) (used []variable) {
	named := variableName.FindAllStringSubmatch(expression, -1)
	all := len(named) != len(variablesUse.FindAllString(expression, -1))
	for _, v := range before {
		if all || slices.ContainsFunc(named, func(m []string) bool { return m[1] == v.name }) {
			used = append(used, v)
		}
	}
	return used
}

// A memo is the outcome of one expression for one request.
type memo struct {
	value  ref.Val                    // of a variable
	result plugincel.EvaluationResult // of another expression
	cost   int64                      // without that of the variables
	uses   []*memo                    // variables whose values it has asked for
}

// A Condition evaluates expressions of one policy, with its variables, all within
// one budget. It implements [plugincel.ConditionEvaluator] and is safe for
// concurrent use.
type Condition struct {
	expressions []sharedExpression
	variables   []variable
	empty       *lazy.MapValue // stands for the variables where they are taken for a value
	follows     *Condition     // for messages: the validations that they are about
}

// CompilationErrors implements [plugincel.ConditionEvaluator]; such policies do
// not load.
func (c *Condition) CompilationErrors() []error { return nil }

// ForInput evaluates all expressions, within the budget that they have
// together. It does as the API server does, but for what is shared.
func (c *Condition) ForInput(ctx context.Context, attr *admission.VersionedAttributes, request *admissionv1.AdmissionRequest, vars plugincel.OptionalVariableBindings, namespace *corev1.Namespace, budget int64) ([]plugincel.EvaluationResult, int64, error) {
	view, _ := ctx.(*View)
	if view != nil && view.shows != nil && !view.shows(request) {
		view = nil
	}
	if view != nil && view.passed == c.follows && c.affordable(view, budget) {
		return make([]plugincel.EvaluationResult, len(c.expressions)), budget, nil
	}
	s, err := c.share(ctx, view, attr, request, vars, namespace)
	if err != nil {
		return nil, -1, err
	}
	if view != nil {
		view.passed = nil
	}
	passed := true
	results := make([]plugincel.EvaluationResult, len(c.expressions))
	for i := range c.expressions {
		e := &c.expressions[i]
		if e.compiled.ExpressionAccessor == nil {
			continue // a placeholder
		}
		m := s.shared(e)[e.identity]
		if m == nil {
			if m, err = s.evaluate(e); err != nil {
				return nil, -1, err
			}
		}
		if budget -= s.charge(m); budget < 0 {
			return nil, -1, &apiservercel.Error{
				Type:   apiservercel.ErrorTypeInvalid,
				Detail: "validation failed due to running out of cost budget, no further validation rules will be run",
				Cause:  apiservercel.ErrOutOfBudget,
			}
		}
		results[i] = m.result
		results[i].ExpressionAccessor = e.compiled.ExpressionAccessor
		passed = passed && results[i].EvalResult == types.True
	}
	if view != nil && passed {
		view.passed = c
	}
	return results, budget, nil
}

// affordable reports whether messages about validations that all passed need no
// evaluation: nobody reads them, and though one that is over the budget makes
// the API server deny, these cannot be, since each call has a limit of its own.
func (c *Condition) affordable(view *View, budget int64) bool {
	if c.follows == nil {
		return false
	}
	most := int64(len(c.expressions)) * celconfig.PerCallLimit
	for _, v := range c.variables {
		if m := view.memos[v.identity]; m != nil {
			most += m.cost
		} else {
			most += celconfig.PerCallLimit
		}
	}
	return most <= budget
}

// A sharing is one evaluation of a condition: it is what expressions see.
type sharing struct {
	context.Context
	condition *Condition
	memos     map[identity]*memo // of the request; nil if it shares nothing
	ofParam   map[identity]*memo // the same, of what reads the parameter
	own       map[string]*memo   // of variables that are not shared, by name
	charged   []*memo
	asking    *memo // what is evaluated now
	variables variables

	object, oldObject, request, namespace, params any

	user       user.Info
	resource   library.Resource
	authorizer authorizer.UnconditionalAuthorizer // nil where there is none
}

// share makes the values that expressions see, the same for all that see the
// same.
func (c *Condition) share(ctx context.Context, view *View, attr *admission.VersionedAttributes, request *admissionv1.AdmissionRequest, vars plugincel.OptionalVariableBindings, namespace *corev1.Namespace) (*sharing, error) {
	s := &sharing{}
	if view != nil { // one after the other may have it
		s = &view.sharing
	}
	*s = sharing{Context: ctx, condition: c, charged: s.charged[:0]}
	s.variables = variables{c.empty, s}
	var err error
	if s.oldObject, err = attr.VersionedOldObject.CELValue(); err != nil {
		return nil, fmt.Errorf("failed to prepare oldObject variable for evaluation: %w", err)
	}
	if s.object, err = attr.VersionedObject.CELValue(); err != nil {
		return nil, fmt.Errorf("failed to prepare object variable for evaluation: %w", err)
	}
	if view == nil {
		s.request = common.SchemalessTypedToVal(request)
	} else {
		if view.request == nil { // the same for all policies that see this version
			view.request = common.SchemalessTypedToVal(request)
		}
		s.memos, s.ofParam, s.request = view.memos, view.memosOf(vars.VersionedParams), view.request
	}
	s.user, s.resource, s.authorizer = attr.GetUserInfo(), attr, vars.Authorizer
	s.params = paramValue(vars.VersionedParams)
	s.namespace = common.SchemalessTypedToVal(namespace)
	if view != nil && view.trace != nil {
		s.object = traced(view.trace, memory.Object, s.object)
		s.oldObject = traced(view.trace, memory.OldObject, s.oldObject)
		s.request = traced(view.trace, memory.Request, s.request)
		if namespace != nil { // match conditions never see one
			s.namespace = traced(view.trace, memory.Namespace, s.namespace)
		}
	}
	return s, nil
}

// traced returns what expressions see of a value that a trace follows.
func traced(t *memory.Trace, place int, value any) any {
	if v, ok := value.(ref.Val); ok {
		return t.See(place, v)
	}
	return value
}

// ResolveName implements [cel.Activation].
func (s *sharing) ResolveName(name string) (any, bool) {
	switch name {
	case plugincel.ObjectVarName:
		return s.object, true
	case plugincel.OldObjectVarName:
		return s.oldObject, true
	case plugincel.RequestVarName:
		return s.request, true
	case plugincel.NamespaceVarName:
		return s.namespace, true
	case plugincel.VariableVarName:
		return &s.variables, true
	case plugincel.ParamsVarName:
		return s.params, true
	case plugincel.AuthorizerVarName:
		return library.NewAuthorizerVal(s.user, s.authorizer), s.authorizer != nil
	case plugincel.RequestResourceAuthorizerVarName:
		return library.NewResourceAuthorizerVal(s.user, s.authorizer, s.resource), s.authorizer != nil
	}
	return nil, false
}

// Parent implements [cel.Activation].
func (s *sharing) Parent() cel.Activation { return nil }

// evaluate runs one expression.
func (s *sharing) evaluate(e *sharedExpression) (*memo, error) {
	m := &memo{}
	s.asking = m
	value, details, err := e.compiled.Program.ContextEval(s, s)
	cost, known := actualCost(details)
	expression := e.compiled.ExpressionAccessor.GetExpression()
	if !known {
		return nil, &apiservercel.Error{
			Type:   apiservercel.ErrorTypeInvalid,
			Detail: fmt.Sprintf("runtime cost could not be calculated for expression: %v, no further expression will be run", expression),
			Cause:  apiservercel.ErrOutOfBudget,
		}
	}
	if m.cost = cost; err != nil {
		m.result.Error = &apiservercel.Error{
			Type: apiservercel.ErrorTypeInvalid, Detail: fmt.Sprintf("expression '%v' resulted in error: %v", expression, err),
		}
	} else {
		m.result.EvalResult = value
	}
	s.keep(e, m)
	return m, nil
}

// shared returns the values that an expression may have in common with others.
func (s *sharing) shared(e *sharedExpression) map[identity]*memo {
	if e.params {
		return s.ofParam
	}
	return s.memos
}

func (s *sharing) keep(e *sharedExpression, m *memo) {
	if memos := s.shared(e); memos != nil && e.identity != (identity{}) {
		memos[e.identity] = m
	}
}

// charge returns what an expression costs: itself, and the variables that it
// used and no other expression before it.
func (s *sharing) charge(m *memo) int64 {
	if slices.Contains(s.charged, m) {
		return 0
	}
	s.charged = append(s.charged, m)
	cost := m.cost
	for _, used := range m.uses {
		cost += s.charge(used)
	}
	return cost
}

// variables is the value of "variables" in an expression.
type variables struct {
	*lazy.MapValue
	sharing *sharing
}

// Find implements [traits.Mapper].
func (v *variables) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(key), true
	}
	plain := string(name)
	if strings.Contains(plain, "__") { // as the names of CEL's own words are written
		if plain, ok = apiservercel.Unescape(plain); !ok {
			return nil, false
		}
	}
	for i := range v.sharing.condition.variables {
		if x := &v.sharing.condition.variables[i]; x.name == plain {
			return v.sharing.value(x), true
		}
	}
	return nil, false
}

// Get implements [traits.Mapper].
func (v *variables) Get(key ref.Val) ref.Val {
	if value, found := v.Find(key); found {
		return value
	}
	return types.ValOrErr(key, "no such key: %v", key)
}

// Contains implements [traits.Mapper].
func (v *variables) Contains(key ref.Val) ref.Val {
	value, found := v.Find(key)
	if value != nil && types.IsUnknownOrError(value) {
		return value
	}
	return types.Bool(found)
}

// value returns the value of a variable for whoever is asking.
func (s *sharing) value(v *variable) ref.Val {
	m := s.shared(&v.sharedExpression)[v.identity]
	if m == nil {
		m = s.own[v.name]
	}
	if m == nil {
		m = &memo{}
		outer := s.asking
		s.asking = m
		m.value, m.cost = s.run(v)
		s.asking = outer
		s.keep(&v.sharedExpression, m)
		if s.shared(&v.sharedExpression) == nil || v.identity == (identity{}) {
			if s.own == nil {
				s.own = map[string]*memo{}
			}
			s.own[v.name] = m
		}
	}
	if !slices.Contains(s.asking.uses, m) {
		s.asking.uses = append(s.asking.uses, m)
	}
	return m.value
}

func (s *sharing) run(v *variable) (ref.Val, int64) {
	value, details, err := v.compiled.Program.ContextEval(s, s)
	cost, known := actualCost(details)
	switch {
	case !known:
		return types.NewErr("unable to calculate cost of variable %q", v.name), 0
	case err != nil:
		return types.NewErr("composited variable %q fails to evaluate: %v", v.name, err), cost
	}
	return value, cost
}

func actualCost(details *cel.EvalDetails) (cost int64, known bool) {
	if details == nil || details.ActualCost() == nil {
		return 0, false
	}
	return int64(min(*details.ActualCost(), math.MaxInt64)), true
}
