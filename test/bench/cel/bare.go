package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/kubeguardian/kubeguardian/policy"
)

// Bare is what the API server does with policies in CEL, and nothing else: they
// are compiled once, and evaluated for each request. Which policies match is not
// looked at.
type bare []validating.Validator

func newBare(text string) (bare, error) {
	var out bare
	for decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096); ; {
		var p admissionregistrationv1.ValidatingAdmissionPolicy
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if p.Kind != "ValidatingAdmissionPolicy" {
			continue
		}
		v, err := compiled(&p)
		if err != nil {
			return nil, fmt.Errorf("compile %s: %w", p.Name, err)
		}
		out = append(out, v)
	}
}

// compiled is what the API server makes of a policy: its own function for that is
// private.
func compiled(p *admissionregistrationv1.ValidatingAdmissionPolicy) (validating.Validator, error) {
	c, err := plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		return nil, err
	}
	withAuthorizer := plugincel.OptionalVariableDeclarations{HasAuthorizer: true}
	for _, v := range p.Spec.Variables {
		if result := c.CompileAndStoreVariable(&validating.Variable{Name: v.Name, Expression: v.Expression}, withAuthorizer, environment.StoredExpressions); result.Error != nil {
			return nil, result.Error
		}
	}
	var validations, messages []plugincel.ExpressionAccessor
	for _, v := range p.Spec.Validations {
		validations = append(validations, &validating.ValidationCondition{Expression: v.Expression, Message: v.Message, Reason: v.Reason})
		messages = append(messages, &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression})
	}
	failure := admissionregistrationv1.Fail
	return validating.NewValidator(
		c.CompileCondition(validations, withAuthorizer, environment.StoredExpressions), nil,
		c.CompileCondition(nil, withAuthorizer, environment.StoredExpressions),
		c.CompileCondition(messages, plugincel.OptionalVariableDeclarations{}, environment.StoredExpressions), &failure, nil,
	), nil
}

// evaluate returns how many validations deny.
func (b bare) evaluate(ctx context.Context, req *policy.Request, namespace *corev1.Namespace) (denials int) {
	attr := &admission.VersionedAttributes{
		Attributes: admission.NewAttributesRecord(req.Object, nil, req.Kind, req.Namespace, req.Name, req.Resource, "", admission.Create, nil, false,
			&user.DefaultInfo{Name: req.User.Username, Groups: req.User.Groups}),
		VersionedObject: admission.NewLazyObject(req.Object), VersionedOldObject: admission.NewLazyObject(nil), VersionedKind: req.Kind,
	}
	for _, v := range b {
		result := v.Validate(ctx, schema.GroupVersionResource(req.Resource), attr, nil, namespace, celconfig.RuntimeCELCostBudget, nil)
		for _, d := range result.Decisions {
			if d.Action == validating.ActionDeny {
				denials++
			}
		}
	}
	return denials
}
