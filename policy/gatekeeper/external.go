package gatekeeper

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/types"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy/externaldata"
)

// externalData is the name of Gatekeeper's own built-in of Rego: it asks a
// provider of external data about keys.
const externalData = "external_data"

func externalDataBuiltin() *ast.Builtin {
	return &ast.Builtin{Name: externalData, Decl: types.NewFunction(types.Args(types.A), types.A)}
}

// WithExternalData returns a set whose templates ask providers by this client.
// Without one there are no providers.
func (s *Set) WithExternalData(client *externaldata.Client) *Set {
	variant := *s
	variant.providers = client
	return &variant
}

// AsksProviders reports whether a template calls external_data.
func (s *Set) AsksProviders() bool {
	for _, t := range s.templates {
		if rego, ok := t.engine.(*regoEngine); ok && rego.external {
			return true
		}
	}
	return false
}

// asksProviders reports whether code calls external_data.
func asksProviders(compiler *ast.Compiler) bool {
	asks := false
	for _, module := range compiler.Modules {
		ast.WalkRefs(module, func(ref ast.Ref) bool {
			asks = asks || isExternalData(ref)
			return false
		})
	}
	return asks
}

func isExternalData(ref ast.Ref) bool {
	return len(ref) == 1 && ref[0].Equal(ast.VarTerm(externalData))
}

// An externalAnswer is what Rego sees of an answer.
type externalAnswer struct {
	Responses   [][2]any `json:"responses"`
	Errors      [][2]any `json:"errors"`
	StatusCode  int      `json:"status_code"`
	SystemError string   `json:"system_error"`
}

var errNoProviders = errors.New("there are no Providers")

// builtins returns those that are not OPA's. The same question has one answer
// all through a review.
func (r *review) builtins() map[string]*topdown.Builtin {
	return map[string]*topdown.Builtin{externalData: {
		Decl: externalDataBuiltin(),
		Func: func(_ topdown.BuiltinContext, terms []*ast.Term, found func(*ast.Term) error) error {
			question := terms[0].String()
			if answer := r.answers[question]; answer != nil {
				return found(answer)
			}
			answer, err := r.ask(terms[0].Value)
			if err != nil { // undefined, as for all built-ins
				return &topdown.Error{Code: topdown.BuiltinErr, Message: externalData + ": " + err.Error()}
			}
			if r.answers == nil {
				r.answers = map[string]*ast.Term{}
			}
			r.answers[question] = answer
			return found(answer)
		},
	}}
}

// ask asks a provider. That it gives no answer is part of what Rego sees; an error
// is one of the question.
func (r *review) ask(question ast.Value) (*ast.Term, error) {
	var q struct {
		Provider string   `json:"provider"`
		Keys     []string `json:"keys"`
	}
	if err := ast.As(question, &q); err != nil {
		return nil, err
	}
	if r.providers == nil {
		return newExternalAnswer(&externalAnswer{StatusCode: http.StatusBadRequest, SystemError: errNoProviders.Error()})
	}
	answer, err := r.providers.Ask(r, q.Provider, q.Keys)
	if errors.Is(err, externaldata.ErrNotAsked) {
		r.ungiven = err
	}
	if failed := (*externaldata.Error)(nil); errors.As(err, &failed) {
		return newExternalAnswer(&externalAnswer{StatusCode: failed.StatusCode, SystemError: err.Error()})
	}
	if err != nil {
		return nil, err
	}
	out := &externalAnswer{Responses: [][2]any{}, Errors: [][2]any{}, StatusCode: answer.StatusCode, SystemError: answer.SystemError}
	for _, i := range answer.Items {
		if i.Error != "" {
			out.Errors = append(out.Errors, [2]any{i.Key, i.Error})
		} else {
			out.Responses = append(out.Responses, [2]any{i.Key, i.Value})
		}
	}
	return newExternalAnswer(out)
}

// leaveOut leaves out the constraints that ask providers, when an answer was not
// given. Which of them it is for, nobody knows: they share answers.
func (e *evaluation) leaveOut() {
	if e.ungiven == nil || e.req.Unjudged == nil {
		return
	}
	for _, g := range e.groups {
		if rego, ok := g.template.engine.(*regoEngine); !ok || !rego.external {
			continue
		}
		for _, c := range g.constraints {
			e.req.Unjudged(c.template.kind+"/"+c.name, e.ungiven)
		}
		e.out = slices.DeleteFunc(e.out, func(v finding.Violation) bool { return v.Policy == g.template.kind })
	}
}

// newExternalAnswer converts an answer by way of JSON, as Gatekeeper does:
// templates see the same numbers.
func newExternalAnswer(a *externalAnswer) (*ast.Term, error) {
	data, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	value, err := ast.ValueFromReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return ast.NewTerm(value), nil
}
