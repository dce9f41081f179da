package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLoadPoliciesThatCannotBeAnswered expects policies that would fail for
// every request to be refused before there is one.
func TestLoadPoliciesThatCannotBeAnswered(t *testing.T) {
	const rules = `
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]}
`
	tests := map[string]struct{ kind, spec, want string }{
		"parameters": {"Validating", "paramKind: {apiVersion: v1, kind: ConfigMap}\n  validations: [{expression: params == null}]", "parameters (paramKind ConfigMap) are not supported"},
		"authorizer": {"Validating", `validations: [{expression: "authorizer.path('/').check('get').allowed()"}]`, "the authorizer is not supported"},
		"mutation":   {"Mutating", "reinvocationPolicy: Never\n  mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: 'Object{}'}}]", "mutating policies (p) are not supported"},
		"none":       {"Validating", "validations: [{expression: 'true'}]", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			kind := test.kind + "AdmissionPolicy"
			binding := "{policyName: p, validationActions: [Deny]}"
			if test.kind == "Mutating" {
				binding = "{policyName: p}"
			}
			file := filepath.Join(t.TempDir(), "p.yaml")
			text := "apiVersion: admissionregistration.k8s.io/v1\nkind: " + kind + "\nmetadata: {name: p}\nspec:" + rules + "  " + test.spec +
				"\n---\napiVersion: admissionregistration.k8s.io/v1\nkind: " + kind + "Binding\nmetadata: {name: p}\nspec: " + binding + "\n"
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := loadPolicies([]string{file})
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), "load policies: "+test.want)) {
				t.Errorf("error = %v, want %q", err, test.want)
			}
		})
	}
}
