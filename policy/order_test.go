package policy_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubeguardian/kubeguardian/policy"
)

// A member is a policy of a set, under its name; fails is what it does.
type member struct{ name, actions, body string }

const (
	fails  = "validations: [{expression: 'false', message: nope}]"
	holds  = "validations: [{expression: 'true'}]"
	asking = "validations: [{expression: namespaceObject == null, message: nope}]"
)

func set(t *testing.T, members ...member) *policy.Set {
	t.Helper()
	var texts []string
	for _, m := range members {
		texts = append(texts, strings.NewReplacer("name: p}", "name: "+m.name+"}", "policyName: p", "policyName: "+m.name, "[Deny]", m.actions).Replace(document(pods+m.body)))
	}
	return load(t, strings.Join(texts, "---\n"))
}

// TestDenialsComeFirst expects that policies that only warn or audit come last,
// and are judged even when the request is denied anyway.
func TestDenialsComeFirst(t *testing.T) {
	tests := []struct {
		name    string
		members []member
		want    []string
	}{
		{"one denies", []member{{"a", "[Warn]", fails}, {"b", "[Audit]", fails}, {"c", "[Deny]", fails}}, []string{"deny c/c: nope", "warn a/a: nope", "audit b/b: nope"}},
		{"all denials", []member{{"a", "[Warn]", fails}, {"b", "[Deny, Audit]", fails}, {"c", "[Deny]", holds}, {"d", "[Deny]", fails}},
			[]string{"deny b/b: nope", "audit b/b: nope", "deny d/d: nope", "warn a/a: nope"}},
		{"none denies", []member{{"a", "[Warn]", fails}, {"b", "[Deny]", holds}, {"c", "[Audit]", fails}}, []string{"warn a/a: nope", "audit c/c: nope"}},
		{"a warning that cannot be evaluated denies", []member{{"a", "[Warn]", asking}, {"b", "[Warn]", fails}},
			[]string{`deny a/a: failed to configure binding: look up namespace "shop": no namespaces are known`, "warn b/b: nope"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			violations, err := set(t, test.members...).Evaluate(t.Context(), create(t, webPod))
			if err != nil {
				t.Fatal(err)
			}
			if got := lines(violations); !slices.Equal(got, test.want) {
				t.Errorf("violations = %q, want %q", got, test.want)
			}
		})
	}
}

// TestTimeRunsOut ends the time when a policy asks for the namespace, so that
// each test says where.
func TestTimeRunsOut(t *testing.T) {
	tests := []struct {
		name    string
		members []member
		want    []string
		left    []string
		decided bool
	}{
		{"in the first denial", []member{{"a", "[Warn]", fails}, {"b", "[Deny]", asking}, {"c", "[Deny]", fails}}, nil, []string{"b", "c", "a"}, false},
		{"after a denial", []member{{"a", "[Warn]", fails}, {"b", "[Deny]", fails}, {"c", "[Deny]", asking}}, []string{"deny b/b: nope"}, []string{"c", "a"}, true},
		{"among the warnings", []member{{"a", "[Warn]", fails}, {"b", "[Audit]", asking}, {"c", "[Deny]", holds}, {"d", "[Warn]", fails}}, []string{"warn a/a: nope"}, []string{"b", "d"}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			req := create(t, webPod)
			req.Namespaces = policy.NamespacesFunc(func(context.Context, string) (*corev1.Namespace, error) {
				cancel()
				return &corev1.Namespace{}, nil
			})
			violations, err := set(t, test.members...).Evaluate(ctx, req)
			var incomplete *policy.IncompleteError
			if !errors.As(err, &incomplete) || !errors.Is(err, context.Canceled) {
				t.Fatalf("error = %v, want an IncompleteError", err)
			}
			if got := lines(violations); !slices.Equal(got, test.want) || !slices.Equal(incomplete.Policies, test.left) || incomplete.Decided != test.decided {
				t.Errorf("violations %q, left %q, decided %v; want %q, %q, %v", got, incomplete.Policies, incomplete.Decided, test.want, test.left, test.decided)
			}
		})
	}
}
