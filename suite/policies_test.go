package suite

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/review"
)

// TestAssertions counts violations: what one policy says with several actions
// counts once, what several policies or validations say counts each time.
func TestAssertions(t *testing.T) {
	violations := []review.Violation{
		{Policy: "a", Constraint: "x", Enforcement: "deny", Message: "one"},
		{Policy: "a", Constraint: "x", Enforcement: "deny", Message: "one"},
		{Policy: "a", Constraint: "x", Enforcement: "audit", Message: "one"},
		{Policy: "a", Constraint: "x", Enforcement: "audit", Message: "one"},
		{Policy: "a", Constraint: "y", Enforcement: "warn", Message: "two"},
		{Policy: "b", Constraint: "x", Enforcement: "deny", Message: "two"},
	}
	tests := []struct{ assertion, want string }{
		{"{}", ""},
		{"{violations: yes}", ""},
		{"{violations: 4}", ""},
		{"{violations: '4'}", ""},
		{"{violations: no}", "want violations: none, have 4 in: deny [a] one; "},
		{"{violations: 3}", "want violations: 3, have 4"},
		{"{violations: 2, message: ^o}", ""},
		{"{violations: no, message: three}", ""},
		{"{message: three}", `want violations with "three": at least one, have 0`},
		{"{violations: 3, enforcement: deny}", ""},
		{"{violations: 0, enforcement: deny, message: two}", `want deny violations with "two": 0, have 1`},
	}
	for _, test := range tests {
		var a assertion
		if err := yaml.Unmarshal([]byte(test.assertion), &a); err != nil {
			t.Fatalf("%s: %v", test.assertion, err)
		}
		err := a.check(violations)
		if (err == nil) != (test.want == "") || err != nil && !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: error = %v, want %q", test.assertion, err, test.want)
		}
	}
}

// FuzzSuite reads whatever is named as a suite: it is one, or an error says why
// not.
func FuzzSuite(f *testing.F) {
	f.Add("apiVersion: test.gatekeeper.sh/v1alpha1\nkind: Suite\ntests:\n- cases:\n  - assertions: [{violations: no, message: a}]\n")
	f.Add("apiVersion: kubeguardian.dev/v1alpha1\nkind: Suite\ntests: [{policies: [a], context: [b], cases: [{old: c, assertions: [{enforcement: deny}]}]}]\n")
	f.Add("a: &a [*a, kind: Suite, test.gatekeeper.sh/v1alpha1]\n")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parseSuite("s.yaml", []byte(text), true)
		if (d == nil) == (err == nil) {
			t.Fatalf("suite %v, error %v", d, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "s.yaml") {
			t.Errorf("the error does not name the file: %v", err)
		}
	})
}
