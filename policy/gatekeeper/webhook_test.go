package gatekeeper

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/policy"
)

// rules loads constraints of one template and returns what is asked for.
func rules(t *testing.T, operations string, specs ...string) []string {
	t.Helper()
	return ruleLines(webhookSet(t, operations, specs...))
}

func webhookSet(t *testing.T, operations string, specs ...string) *Set {
	t.Helper()
	text := `apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: never}
spec:
  crd: {spec: {names: {kind: Never}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    operations: [` + operations + `]
    rego: |
      package never
      violation[{"msg": "never"}] { true }
`
	for i, spec := range specs {
		text += fmt.Sprintf("---\napiVersion: constraints.gatekeeper.sh/v1beta1\nkind: Never\nmetadata: {name: c%d}\nspec: {%s}\n", i, spec)
	}
	set, err := Load(policy.File{Name: "p.yaml", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func ruleLines(set *Set) (out []string) {
	for _, r := range set.WebhookRules() {
		out = append(out, fmt.Sprint(r.APIGroups, r.APIVersions, r.Resources, r.Operations))
	}
	return out
}

func TestWebhookRules(t *testing.T) {
	for name, test := range map[string]struct {
		operations string
		specs      []string
		want       []string
	}{
		"two kinds": {"", []string{"match: {kinds: [{apiGroups: ['', apps], kinds: [Deployment, Ingress]}]}"},
			[]string{"[] [*] [*] [CREATE UPDATE]", "[apps] [*] [* deployments] [CREATE UPDATE]"}},
		"built-in":     {"DELETE", []string{"match: {kinds: [{apiGroups: [networking.k8s.io], kinds: [NetworkPolicy]}]}"}, []string{"[networking.k8s.io] [*] [networkpolicies] [DELETE]"}},
		"any group":    {"", []string{"match: {kinds: [{apiGroups: ['*'], kinds: [Endpoints]}]}"}, []string{"[*] [*] [endpoints] [CREATE UPDATE]"}},
		"subresources": {"CONNECT", []string{"match: {kinds: [{apiGroups: [''], kinds: [PodExecOptions]}]}"}, []string{"[*] [*] [pods/exec] [CONNECT]"}},
		"custom":       {"", []string{"match: {kinds: [{apiGroups: [example.com], kinds: [Fish]}]}"}, []string{"[example.com] [*] [*] [CREATE UPDATE]"}},
		"audit only":   {"", []string{"enforcementAction: scoped, scopedEnforcementActions: [{action: deny, enforcementPoints: [{name: audit.gatekeeper.sh}]}]"}, nil},
		"none":         {"", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := rules(t, test.operations, test.specs...); !slices.Equal(got, test.want) {
				t.Errorf("rules = %q, want %q", got, test.want)
			}
		})
	}
	all := rules(t, "'*'", "match: {}")
	if len(all) != 1 || !strings.Contains(all[0], "[*] [*] [*") || !strings.Contains(all[0], "pods/exec") || !strings.HasSuffix(all[0], "[CONNECT CREATE DELETE UPDATE]") {
		t.Errorf("of all kinds: %q", all)
	}
}

// TestServed: a deletion that another policy has the webhook asked about is not
// judged by templates that name no operations.
func TestServed(t *testing.T) {
	for operations, want := range map[string]int{"": 0, "DELETE": 1, "'*'": 1} {
		set := webhookSet(t, operations, "match: {}")
		web := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "web", "namespace": "shop"}}}
		req := policy.Request{Operation: admissionv1.Delete, OldObject: web, Kind: web.GroupVersionKind(), Name: "web"}
		if before, err := set.Evaluate(t.Context(), req); err != nil || len(before) != 1 {
			t.Errorf("%s: %v, %v", operations, before, err)
		}
		if got, err := set.Served().Evaluate(t.Context(), req); err != nil || len(got) != want {
			t.Errorf("served, %s: %v, %v", operations, got, err)
		}
	}
}
