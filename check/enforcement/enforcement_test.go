package enforcement_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/check/enforcement"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

func read(t *testing.T, origin inventory.Origin, manifests string, gaps ...inventory.Gap) *inventory.Inventory {
	t.Helper()
	manifests += "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: unrelated}}\n"
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(manifests))
	if err != nil {
		t.Fatal(err)
	}
	if inv, err = inventory.New(origin, inv.Objects(), gaps); err != nil {
		t.Fatal(err)
	}
	return inv
}

const (
	policy     = "---\n{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, metadata: {name: privileged, annotations: {kubeguardian.dev/control: CON-SEC-01}}, spec: {validations: [{expression: 'true'}]}}\n"
	lowPolicy  = "---\n{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, metadata: {name: privileged, annotations: {kubeguardian.dev/control: CON-LOW-01}}, spec: {validations: [{expression: 'true'}]}}\n"
	constraint = "---\n{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: K8sPSPPrivilegedContainer, metadata: {name: p}, spec: {%s}}\n"
	namespace  = "---\n{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {pod-security.kubernetes.io/%s: %s}}}\n"
)

func binding(actions string) string {
	return fmt.Sprintf("---\n{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicyBinding, metadata: {name: b}, spec: {policyName: privileged, validationActions: [%s]}}\n", actions)
}

func kyverno(action, rule string) string {
	return fmt.Sprintf("---\n{apiVersion: kyverno.io/v1, kind: ClusterPolicy, metadata: {name: disallow-privileged}, spec: {%s, rules: [{name: r, %s}]}}\n", action, rule)
}

func TestActive(t *testing.T) {
	hook := webhook("gatekeeper-validating", "{}")
	for name, tt := range map[string]struct {
		manifests string
		live      finding.Status
	}{
		"a level":                      {fmt.Sprintf(namespace, "enforce", "baseline"), finding.Pass},
		"a level that allows all":      {fmt.Sprintf(namespace, "enforce", "privileged"), finding.Fail},
		"a level that warns":           {fmt.Sprintf(namespace, "warn", "restricted"), finding.Fail},
		"a policy that denies":         {policy + binding("Deny, Audit"), finding.Pass},
		"a policy that warns":          {policy + binding("Warn"), finding.Fail},
		"a policy alone":               {policy, finding.Fail},
		"Kyverno enforces":             {kyverno("validationFailureAction: Enforce", "validate: {message: m}"), finding.Pass},
		"Kyverno enforces by rule":     {kyverno("background: true", "validate: {failureAction: Enforce}"), finding.Pass},
		"Kyverno audits":               {kyverno("validationFailureAction: Audit", "validate: {message: m}"), finding.Fail},
		"Kyverno by default":           {kyverno("background: true", "validate: {message: m}"), finding.Fail},
		"Kyverno mutates":              {kyverno("validationFailureAction: Enforce", "mutate: {}"), finding.Fail},
		"Gatekeeper by default":        {fmt.Sprintf(constraint, ""), finding.Pass},
		"Gatekeeper watches":           {fmt.Sprintf(constraint, "enforcementAction: dryrun"), finding.Fail},
		"Gatekeeper denies in part":    {fmt.Sprintf(constraint, "enforcementAction: scoped, scopedEnforcementActions: [{action: deny}]"), finding.Pass},
		"an engine, policies not read": {hook, finding.Unknown},
		"nothing":                      {"", finding.Fail},
	} {
		live := enforcement.Active(read(t, inventory.Cluster, tt.manifests))
		if len(live) != 1 || live[0].Status != tt.live {
			t.Errorf("%s, live: %+v, want %s", name, live, tt.live)
		}
		files := enforcement.Active(read(t, inventory.Files, tt.manifests))
		if passes := tt.live == finding.Pass; passes != (len(files) == 1) || passes && files[0].Status != finding.Pass {
			t.Errorf("%s, files: %+v", name, files)
		}
	}
	lost := inventory.Gap{Kind: schema.GroupKind{Kind: "Namespace"}, Reason: "forbidden"}
	if got := enforcement.Active(read(t, inventory.Cluster, "", lost)); got[0].Status != finding.Unknown {
		t.Errorf("namespaces that could not be read: %+v", got)
	}
}

func TestAuditOnly(t *testing.T) {
	critical := func(id string) bool { return id == "CON-SEC-01" }
	for name, tt := range map[string]struct {
		manifests   string
		live, files finding.Status
	}{
		"denies":                   {policy + binding("Deny"), finding.Pass, finding.Pass},
		"warns":                    {policy + binding("Warn, Audit"), finding.Fail, finding.Fail},
		"not bound":                {policy, finding.Fail, finding.Unknown},
		"of a lesser control":      {lowPolicy + binding("Audit"), finding.NotApplicable, finding.NotApplicable},
		"Kyverno, by its name":     {kyverno("validationFailureAction: Audit", "validate: {message: m}"), finding.Fail, finding.Fail},
		"Kyverno, by its severity": {strings.ReplaceAll(kyverno("background: true", "validate: {message: m}"), "{name: disallow-privileged}", "{name: x, annotations: {policies.kyverno.io/severity: high}}"), finding.Fail, finding.Fail},
		"Kyverno, not critical":    {strings.ReplaceAll(kyverno("background: true", "validate: {message: m}"), "disallow-privileged", "labels"), finding.NotApplicable, finding.NotApplicable},
		"Gatekeeper, by its kind":  {fmt.Sprintf(constraint, "enforcementAction: warn"), finding.Fail, finding.Fail},
		"Gatekeeper denies":        {fmt.Sprintf(constraint, ""), finding.Pass, finding.Pass},
		"Gatekeeper, not critical": {strings.ReplaceAll(fmt.Sprintf(constraint, "enforcementAction: warn"), "K8sPSPPrivilegedContainer", "K8sRequiredLabels"), finding.NotApplicable, finding.NotApplicable},
	} {
		for origin, want := range map[inventory.Origin]finding.Status{inventory.Cluster: tt.live, inventory.Files: tt.files} {
			if got := enforcement.AuditOnly(read(t, origin, tt.manifests), critical); len(got) != 1 || got[0].Status != want {
				t.Errorf("%s, %s: %+v, want %s", name, origin, got, want)
			}
		}
	}
}

// webhook writes a configuration with one webhook on pods.
func webhook(name, more string) string {
	return fmt.Sprintf("---\n{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: %s}, webhooks: [{name: h.example.com, sideEffects: None, admissionReviewVersions: [v1], "+
		"clientConfig: {service: {name: s, namespace: guard}}, rules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [pods]}], namespaceSelector: %s}]}\n", name, more)
}

func TestWebhooks(t *testing.T) {
	swap := strings.ReplaceAll
	names := func(list string) string {
		return webhook("policies", "{matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: ["+list+"]}]}")
	}
	for name, tt := range map[string]struct {
		manifests string
		want      finding.Status
		says      string
	}{
		"closed":                               {webhook("policies", "{}"), finding.Pass, ""},
		"open":                                 {swap(webhook("policies", "{}"), "sideEffects", "failurePolicy: Ignore, sideEffects"), finding.Fail, "fails open"},
		"system namespaces and its own":        {names("kube-system, kube-node-lease, guard"), finding.Pass, ""},
		"another namespace":                    {names("kube-system, shop"), finding.Fail, "leaves out namespaces shop"},
		"only those that opt in":               {webhook("policies", "{matchLabels: {guarded: 'yes'}}"), finding.Fail, "only namespaces with guarded=yes"},
		"those that a label selects":           {webhook("policies", "{matchExpressions: [{key: guarded, operator: Exists}]}"), finding.Fail, "only namespaces that a label guarded"},
		"a label to leave":                     {webhook("policies", "{matchExpressions: [{key: ignore, operator: DoesNotExist}]}"), finding.Fail, "carries a label ignore"},
		"a label of the object":                {swap(webhook("policies", "{}"), "sideEffects", "objectSelector: {matchExpressions: [{key: skip, operator: DoesNotExist}]}, sideEffects"), finding.Fail, "labels of the object"},
		"of other things":                      {swap(webhook("certificates", "{}"), "[pods]", "[configmaps]"), finding.NotApplicable, ""},
		"of custom resources":                  {swap(swap(webhook("certificates", "{}"), "['']", "[cert-manager.io]"), "[pods]", "['*']"), finding.NotApplicable, ""},
		"everything":                           {swap(swap(webhook("policies", "{}"), "['']", "['*']"), "[pods]", "['*/*']"), finding.Pass, ""},
		"an injector":                          {swap(webhook("sidecar", "{}"), "Validating", "Mutating"), finding.NotApplicable, ""},
		"an engine that does not judge itself": {webhook("kyverno-resource", "{}"), finding.Fail, "its own policies in kyverno.io"},
		"an engine that does":                  {swap(webhook("kyverno-resource", "{}"), "['']", "['*']"), finding.Pass, ""},
	} {
		got := enforcement.Webhooks(read(t, inventory.Cluster, tt.manifests))
		if len(got) != 1 || got[0].Status != tt.want || !strings.Contains(got[0].Evidence, tt.says) {
			t.Errorf("%s: %+v, want %s %q", name, got, tt.want, tt.says)
		}
	}
	gatekeeper := swap(webhook("gatekeeper", "{matchExpressions: [{key: admission.gatekeeper.sh/ignore, operator: DoesNotExist}]}"), "['']", "['*']")
	guard := swap(gatekeeper, "}]}\n", "}, {name: check-ignore-label.gatekeeper.sh, sideEffects: None, admissionReviewVersions: [v1], clientConfig: {url: 'https://x'}}]}\n")
	if got := enforcement.Webhooks(read(t, inventory.Cluster, guard)); got[0].Status != finding.Pass {
		t.Errorf("Gatekeeper guards its label: %+v", got)
	}
	if got := enforcement.Webhooks(read(t, inventory.Files, webhook("kyverno-resource", "{}"))); got[0].Status != finding.Pass {
		t.Errorf("what judges the policies may be in other files: %+v", got)
	}
}

var sum = regexp.MustCompile(`sha256:[0-9a-f]{64}`)

// TestBundle: the digest of files is that of the cluster they are applied to.
func TestBundle(t *testing.T) {
	files := read(t, inventory.Files, policy+binding("Deny"))
	f := enforcement.Bundle(files, nil)
	if len(f) != 1 || f[0].Status != finding.Unknown {
		t.Fatalf("%+v", f)
	}
	seen := &evidence.Set{Bundles: []evidence.Bundle{{Origin: evidence.Origin{Kind: evidence.Repo, SeenAt: time.Unix(1, 0)}, Digest: sum.FindString(f[0].Reason)}}}
	applied := strings.ReplaceAll(policy, "spec: {", "spec: {failurePolicy: Fail, matchConstraints: {matchPolicy: Equivalent, namespaceSelector: {}, objectSelector: {}}, ") + binding("Deny")
	for name, tt := range map[string]struct {
		manifests string
		want      finding.Status
	}{
		"applied":           {applied, finding.Pass},
		"in another order":  {binding("Deny") + policy, finding.Pass},
		"weakened":          {policy + binding("Warn"), finding.Fail},
		"missing":           {"", finding.Fail},
		"ignored on errors": {strings.ReplaceAll(applied, "failurePolicy: Fail", "failurePolicy: Ignore"), finding.Fail},
	} {
		if got := enforcement.Bundle(read(t, inventory.Cluster, tt.manifests), seen); len(got) != 1 || got[0].Status != tt.want {
			t.Errorf("%s: %+v, want %s", name, got, tt.want)
		}
	}
	lost := inventory.Gap{Kind: schema.GroupKind{Group: "kyverno.io", Kind: "Policy"}, Reason: "forbidden"}
	if got := enforcement.Bundle(read(t, inventory.Cluster, "", lost), seen); got[0].Status != finding.Unknown {
		t.Errorf("policies that could not be read: %+v", got)
	}
	if got := enforcement.Bundle(read(t, inventory.Files, ""), nil); got != nil {
		t.Errorf("nothing to compare: %+v", got)
	}
}
