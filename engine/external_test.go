package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/externaldata"
	"github.com/kubeguardian/kubeguardian/policy/externaldata/providertest"
)

// expanded denies what Deployments make unless it has the tier "web" and an owner
// whom the provider knows.
const expanded = `apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: owned}
spec:
  crd: {spec: {names: {kind: Owned}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    rego: |
      package owned
      violation[{"msg": msg}] {
        labels := object.get(input.review.object.metadata, "labels", {})
        answer := external_data({"provider": "people", "keys": [labels.owner]})
        msg := sprintf("%v %v %v", [labels, answer.responses, answer.errors])
      }
---
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: Owned
metadata: {name: all}
spec: {match: {kinds: [{apiGroups: [""], kinds: [Pod]}]}}
---
apiVersion: expansion.gatekeeper.sh/v1beta1
kind: ExpansionTemplate
metadata: {name: pods}
spec:
  applyTo: [{groups: [apps], versions: [v1], kinds: [Deployment]}]
  templateSource: spec.template
  generatedGVK: {group: "", version: v1, kind: Pod}
---
`

// labelled is a mutator that sets a label.
func labelled(name, match, assign string) string {
	return fmt.Sprintf(`apiVersion: mutations.gatekeeper.sh/v1
kind: AssignMetadata
metadata: {name: %[1]s}
spec: {match: %[2]s, location: metadata.labels.%[1]s, parameters: {assign: %[3]s}}
---
`, name, match, assign)
}

func deployment(t *testing.T) policy.Request {
	t.Helper()
	var o unstructured.Unstructured
	text := "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}, spec: {selector: {}, template: {spec: {containers: []}}}}"
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	req, err := policy.NewCreateRequest(&o)
	if err != nil {
		t.Fatal(err)
	}
	req.User.Username = "jane"
	return req
}

func messages(t *testing.T, s *Set, req policy.Request) []string {
	t.Helper()
	violations, err := s.Evaluate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, v := range violations {
		out = append(out, fmt.Sprintf("%s/%s %s: %s", v.Policy, v.Binding, v.Enforcement, v.Message))
	}
	return out
}

// TestExpandedObjects expects what a Deployment makes to be changed by the
// mutators for generated objects, with external data, before it is judged.
func TestExpandedObjects(t *testing.T) {
	p := providertest.New(t, providertest.Answers(func(key string) (any, string) { return "known " + key, "" }))
	set, err := Load(file(p.Document("people")+"---\n"+expanded+
		labelled("generated", "{source: Generated}", "{value: x}")+labelled("original", "{source: Original}", "{value: x}")+labelled("all", "{source: All}", "{value: x}")+
		labelled("nodes", "{kinds: [{kinds: [Node]}]}", "{value: x}")+
		labelled("owner", "{}", "{externalData: {provider: people, dataSource: Username}}")), file(text("none", "[Deny]", "true")))
	if err != nil {
		t.Fatal(err)
	}
	if !set.AsksProviders() || !slices.Equal(set.Providers().Names(), []string{"people"}) || set.Len() != 2 {
		t.Errorf("providers %v, %d policies", set.Providers().Names(), set.Len())
	}
	client, err := externaldata.NewClient(set.Providers(), externaldata.Options{CertFile: p.CertFile, KeyFile: p.KeyFile, TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	req := deployment(t)
	before := req.Object.DeepCopy()
	want := []string{`Owned/all deny: [Implied by pods] {"all": "x", "generated": "x", "owner": "known jane"} [["known jane", "known known jane"]] []`}
	if got := messages(t, set.WithExternalData(client), req); !slices.Equal(got, want) {
		t.Errorf("violations %q, want %q", got, want)
	}
	if fmt.Sprint(req.Object) != fmt.Sprint(before) {
		t.Error("the object of the request was changed")
	}
	if n := p.Calls.Load(); n != 2 {
		t.Errorf("%d calls, want 2", n)
	}
	refused := `AssignMetadata/owner deny: [Implied by pods] metadata.labels.owner: ask provider "people": there are no Providers`
	if got := messages(t, set, req); !slices.Equal(got, []string{refused}) {
		t.Errorf("violations %q, want %q", got, refused)
	}
	var told []string
	req.Unjudged = func(policy string, err error) { told = append(told, policy+": "+err.Error()) }
	messages(t, set, req)
	if want := []string{"AssignMetadata/owner: assign external data: no provider may be asked", "Owned/all: call external_data: no provider may be asked"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

// TestProviderMistakes expects a Provider with a mistake to be told at its line.
func TestProviderMistakes(t *testing.T) {
	p := providertest.New(t, providertest.Answers(nil))
	_, err := Load(file(text("a", "[Deny]", "true") + "---\n" + strings.Replace(p.Document("people"), "https", "http", 1)))
	if err == nil || !strings.HasPrefix(err.Error(), "p.yaml:17: spec.url: ") {
		t.Errorf("error %v", err)
	}
}
