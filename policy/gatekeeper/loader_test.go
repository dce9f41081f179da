package gatekeeper

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/policy"
)

// TestLoaderKeepsTemplates loads a second time: only a template whose file has
// changed is compiled again, whether or not the load before has failed.
func TestLoaderKeepsTemplates(t *testing.T) {
	file := func(name, message string) policy.File {
		return policy.File{Name: name, Data: fmt.Appendf(nil, `apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: %s}
spec:
  crd: {spec: {names: {kind: %s}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    rego: |
      package p
      violation[{"msg": "%s"}] { input.review }
`, strings.ToLower(name), name, message)}
	}
	var l Loader
	compiled := func(files ...policy.File) (out []*template) {
		set, err := l.Load(files...)
		if err != nil {
			return nil
		}
		return set.templates
	}
	first := compiled(file("First", "one"), file("Second", "two"))
	second := compiled(file("First", "one"), file("Second", "three"))
	if len(second) != 2 || first[0] != second[0] || first[1] == second[1] {
		t.Error("want the first template to be kept, and the second to be new")
	}
	if compiled(file("First", "one"), file("Second", `"`)) != nil {
		t.Error("want an error")
	}
	if third := compiled(file("First", "one")); len(third) != 1 || third[0] != first[0] {
		t.Error("a load that failed has cost what was compiled")
	}
}
