package policy_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestReview(t *testing.T) {
	const failure = "validation.policy.admission.k8s.io/validation_failure"
	tests := []struct {
		name, text string
		want       []string
		audit      map[string]string
	}{
		{"annotations of what holds", document(valid + "\nauditAnnotations: [{key: a, valueExpression: \"'x'\"}, {key: b, valueExpression: \"' '\"}]"), nil, map[string]string{"p/a": "x"}},
		{"condition", document(valid + "\nmatchConditions: [{name: a, expression: 'false'}]\nauditAnnotations: [{key: a, valueExpression: \"'x'\"}]"), nil, nil},
		{"reasons, of one message too", document(pods + "validations: [{expression: 'false', message: nope}, {expression: 'false', message: nope, reason: Forbidden}, {expression: 'false', message: other, reason: RequestEntityTooLarge}]"),
			[]string{"deny p/p: nope Invalid", "deny p/p: nope Forbidden", "deny p/p: other RequestEntityTooLarge"}, nil},
		{"audited", strings.Replace(document(pods+"validations: [{expression: 'true'}, {expression: 'false', message: nope}]"), "[Deny]", "[Warn, Audit]", 1), []string{"warn p/p: nope ", "audit p/p: nope "},
			map[string]string{failure: `[{"message":"nope","policy":"p","binding":"p","expressionIndex":1,"validationActions":["Warn","Audit"]}]`}},
		{"values of several parameters", bound(configMaps, valid+"\nauditAnnotations: [{key: a, valueExpression: string(params.data.who)}, {key: b, valueExpression: \"'x'\"}]", "{selector: {}, parameterNotFoundAction: Deny}"), nil,
			map[string]string{"p/a": "shop, more", "p/b": "x"}},
		{"cannot be evaluated", bound(configMaps, valid, "{name: none, parameterNotFoundAction: Deny}"),
			[]string{"deny p/b1: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction Invalid"}, nil},
		{"all policies, though the request is denied", document(pods+fails) + "---\n" + strings.NewReplacer("name: p}", "name: q}", "policyName: p", "policyName: q", "[Deny]", "[Warn]").Replace(document(pods+fails)),
			[]string{"deny p/p: nope Invalid", "warn q/q: nope "}, nil},
		{"other resource", document(strings.Replace(pods, "[pods]", "[nodes]", 1) + fails), nil, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			req := create(t, webPod)
			req.Params = objects(t, "")
			verdict, err := load(t, test.text).Review(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for i, line := range lines(verdict.Violations) {
				got = append(got, fmt.Sprintf("%s %s", line, verdict.Reasons[i]))
			}
			if !slices.Equal(got, test.want) || !maps.Equal(verdict.Audit, test.audit) {
				t.Errorf("violations %q, audit %q; want %q, %q", got, verdict.Audit, test.want, test.audit)
			}
		})
	}
}

func TestReviewCutsFailures(t *testing.T) {
	text := strings.Replace(document(pods+"validations:"+repeat(60, "\n- {expression: 'false', message: m%d}")), "[Deny]", "[Audit]", 1)
	verdict, err := load(t, text).Review(t.Context(), create(t, webPod))
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(slices.Collect(maps.Values(verdict.Audit)), "")
	if len(verdict.Violations) != 60 || strings.Count(all, "expressionIndex") != 50 {
		t.Errorf("%d violations, %d failures audited, want 60 and 50", len(verdict.Violations), strings.Count(all, "expressionIndex"))
	}
}

func TestReviewStopsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if verdict, err := load(t, document(pods+fails)).Review(ctx, create(t, webPod)); !errors.Is(err, context.Canceled) || verdict.Violations != nil {
		t.Errorf("Review = %v, %v, want no verdict", verdict, err)
	}
}
