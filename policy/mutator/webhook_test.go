package mutator

import (
	"fmt"
	"testing"

	"github.com/kubeguardian/kubeguardian/policy"
)

// TestMutatingWebhookRules expects the kinds that mutators apply to, and all for
// metadata.
func TestMutatingWebhookRules(t *testing.T) {
	set, err := Load(policy.File{Name: "m.yaml", Data: []byte(`
apiVersion: mutations.gatekeeper.sh/v1
kind: Assign
metadata: {name: policy}
spec:
  applyTo: [{groups: [apps], versions: [v1], kinds: [Deployment]}]
  location: spec.template.spec.restartPolicy
  parameters: {assign: {value: Always}}
`)})
	if err != nil {
		t.Fatal(err)
	}
	rules := set.MutatingWebhookRules()
	if len(rules) != 1 || fmt.Sprint(rules[0].APIGroups, rules[0].Resources, rules[0].Operations) != "[apps] [deployments] [CREATE UPDATE]" {
		t.Errorf("rules %+v", rules)
	}
}
