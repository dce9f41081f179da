package clusterpolicies

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubeguardian/kubeguardian/audit"
	"github.com/kubeguardian/kubeguardian/clusterpolicy"
	"github.com/kubeguardian/kubeguardian/content"
)

const (
	mutators = "mutations.gatekeeper.sh/v1"

	mutator = `apiVersion: mutations.gatekeeper.sh/v1
kind: Assign
metadata: {name: %s}
spec:
  applyTo: [{groups: [""], versions: [v1], kinds: [%s]}]
  location: "%s"
  parameters: {assign: {value: "yes"}}
`
	native = `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: native}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [services]}]}
  validations: [{expression: "has(object.metadata.labels)", message: no labels}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: native}
spec: {policyName: native, validationActions: [Warn]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: loose}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [services]}]}
  validations: [{expression: "false"}]
`
	images = `apiVersion: kubeguardian.dev/v1alpha1
kind: ImagePolicy
metadata: {name: ours}
spec:
  validationActions: [Deny]
  mutateDigest: false
  match: {images: ['**']}
  rules: {requireDigest: false, allowedImages: ['registry.example.com/**']}
`
	settings = `apiVersion: config.gatekeeper.sh/v1alpha1
kind: Config
metadata: {name: config, namespace: kubeguardian}
spec: {match: [{processes: ["*"], excludedNamespaces: [default]}]}
`
	expansion = `apiVersion: expansion.gatekeeper.sh/v1beta1
kind: ExpansionTemplate
metadata: {name: deployments}
spec:
  applyTo: [{groups: [apps], versions: [v1], kinds: [Deployment]}]
  templateSource: spec.template
  generatedGVK: {version: v1, kind: Pod}
`
)

// TestKinds has an object of each kind in force, and some that are not.
func TestKinds(t *testing.T) {
	w := newWorld(t)
	for _, text := range [][]byte{content.RBAC(), content.CRDs(), content.Gatekeeper()} {
		w.apply(string(text))
	}
	files := t.TempDir()
	writeFile(t, files, "settings.yaml", policySettings)
	g := w.serve(t.TempDir(), fmt.Sprintf("settings: %q", filepath.Join(files, "settings.yaml")))
	w.apply(template("Labelled", ""))
	w.apply(constraint("Labelled", "team", "owner"))
	w.verdict("[Labelled] the label owner is missing")
	t.Run("files", func(t *testing.T) { g.testFiles(t, files) })
	t.Run("mutators", g.testMutators)
	t.Run("image policies", g.testImages)
	t.Run("native policies", g.testNative)
	t.Run("settings", g.testSettings)
	t.Run("inventory", g.testInventory)
	t.Run("replicas", g.testReplicas)
	t.Run("metrics", g.testMetrics)
}

const policySettings = "apiVersion: kubeguardian.dev/v1alpha1\nkind: PolicySettings\n"

func writeFile(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name+".new"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, name+".new"), filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// testFiles changes the settings of policies, which are in a file, while the
// policies are in the cluster.
func (g *guard) testFiles(t *testing.T, dir string) {
	w := g.world.in(t)
	writeFile(t, dir, "settings.yaml", policySettings+"exemptNamespaces: [default]\n")
	w.verdict("")
	writeFile(t, dir, "settings.yaml", policySettings+"parameters: {none: 1}\n")
	w.eventually("settings are refused", func() error {
		metrics, err := g.read("/metrics")
		if err == nil && !strings.Contains(string(metrics), "kubeguardian_policies_refused 1\n") {
			err = errors.New("they are not")
		}
		return err
	})
	w.verdict("")
	writeFile(t, dir, "settings.yaml", policySettings)
	w.verdict("[Labelled] the label owner is missing")
}

func (g *guard) testMutators(t *testing.T) {
	w := g.world.in(t)
	w.apply(fmt.Sprintf(mutator, "changed", "ConfigMap", "data.changed"))
	labelled := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "tried", Labels: map[string]string{"owner": "ops"}}}
	changed := func() error {
		made, err := w.client.CoreV1().ConfigMaps("default").Create(t.Context(), labelled, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil && made.Data["changed"] != "yes" {
			err = fmt.Errorf("data = %v", made.Data)
		}
		return err
	}
	w.eventually("a mutator changes", changed)
	w.apply(fmt.Sprintf(mutator, "one", "PodTemplate", "data.x.y"))
	w.apply(fmt.Sprintf(mutator, "other", "PodTemplate", "data.x[name: a].y"))
	for _, name := range []string{"one", "other"} {
		w.status(mutators, "Assign", name, func(found []map[string]any) error {
			if errs := fmt.Sprint(found[0]["errors"]); found[0]["enforced"] != false || !strings.Contains(errs, "contradicts that of") {
				return fmt.Errorf("status = %v", found)
			}
			return nil
		})
	}
	w.eventually("the mutator without a conflict still changes", changed)
	w.remove(mutators, "Assign", "other")
	w.status(mutators, "Assign", "one", good)
}

func (g *guard) testImages(t *testing.T) {
	w := g.world.in(t)
	w.apply(images)
	w.eventually("an image is denied", func() error {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "tried"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "elsewhere.example.com/a:1"}}}}
		_, err := w.client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil && strings.Contains(err.Error(), "[ours] image elsewhere.example.com/a:1") {
			return nil
		}
		return fmt.Errorf("create = %v", err)
	})
	w.status("kubeguardian.dev/v1alpha1", "ImagePolicy", "ours", good)
	w.apply(strings.Replace(images, "'**'", "'['", 1))
	w.status("kubeguardian.dev/v1alpha1", "ImagePolicy", "ours", func(found []map[string]any) error {
		if found[0]["enforced"] != true || !strings.Contains(fmt.Sprint(found[0]["errors"]), "spec.match.images") {
			return fmt.Errorf("status = %v", found)
		}
		return nil
	})
}

// testNative: the API server warns once, the webhook is not asked, the audit finds
// what is there.
func (g *guard) testNative(t *testing.T) {
	w := g.world.in(t)
	w.apply(native)
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "bare"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	if _, err := w.client.CoreV1().Services("default").Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("the audit finds it", func() error {
		body, err := g.read("/api/v1/audit?policy=native")
		if err != nil {
			return err
		}
		var page struct{ Items []audit.Violation }
		if err := json.Unmarshal(body, &page); err != nil {
			return err
		}
		if n := len(slices.DeleteFunc(page.Items, func(v audit.Violation) bool { return v.Subject.Name != "bare" })); n != 1 {
			return fmt.Errorf("%d violations: %s", n, body)
		}
		return nil
	})
	config, err := w.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), "kubeguardian", metav1.GetOptions{})
	if err != nil || strings.Contains(fmt.Sprint(config.Webhooks), "services") {
		t.Errorf("registration = %v, %v, want it without services", config, err)
	}
	for name, want := range map[string]string{"native": "apiserver", "loose": "nobody"} {
		if p, err := g.policy("ValidatingAdmissionPolicy", name); err != nil || p.Enforced != want || len(p.Errors) > 0 {
			t.Errorf("%s is listed as %+v, %v", name, p, err)
		}
	}
}

func (g *guard) testSettings(t *testing.T) {
	w := g.world.in(t)
	w.apply(expansion)
	w.status("expansion.gatekeeper.sh/v1beta1", "ExpansionTemplate", "deployments", good)
	w.apply(strings.Replace(settings, "namespace: kubeguardian", "namespace: default", 1))
	w.eventually("a Config elsewhere is listed", func() error {
		p, err := g.policy("Config", "config")
		if err == nil && (p.Enforced != "nobody" || len(p.Errors) != 1) {
			err = fmt.Errorf("%+v", p)
		}
		return err
	})
	w.verdict("[Labelled]")
	w.removeIn("config.gatekeeper.sh/v1alpha1", "Config", "default", "config")
	w.apply(settings)
	w.verdict("") // the namespace is exempt
	config := w.objects.Resource(mustResource("config.gatekeeper.sh/v1alpha1", "configs")).Namespace("kubeguardian")
	w.eventually("the status of the Config", func() error {
		o, err := config.Get(t.Context(), "config", metav1.GetOptions{})
		if err == nil && (len(entries(o)) != 1 || entries(o)[0]["configUID"] != string(o.GetUID())) {
			err = fmt.Errorf("status = %v", o.Object["status"])
		}
		return err
	})
	if err := config.Delete(t.Context(), "config", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.verdict("[Labelled]")
}

// testInventory has a template come, go and come back that reads what is in the
// cluster.
func (g *guard) testInventory(t *testing.T) {
	w := g.world.in(t)
	unique := func(message string) string {
		text := strings.Replace(template("Unique", ""), "not input.review.object.metadata.labels[input.parameters.label]",
			`other := data.inventory.namespace["default"]["v1"]["ConfigMap"][_].metadata.labels.number; other == input.review.object.metadata.labels.number`, 1)
		return strings.Replace(text, "the label %s is missing", message+" %s", 1)
	}
	twice := func(number, want string) {
		t.Helper()
		w.eventually(fmt.Sprintf("the verdict on %s is %q", number, want), func() error {
			denied, err := w.create(map[string]string{"owner": "ops", "number": number})
			if err == nil && ((denied == "") != (want == "") || !strings.Contains(denied, want)) {
				err = fmt.Errorf("denied: %q", denied)
			}
			return err
		})
	}
	number := func(name, number string) {
		w.apply(fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: default, labels: {owner: ops, number: '%s'}}\n", name, number))
	}
	number("first", "1")
	w.apply(unique("there is another"))
	w.apply(constraint("Unique", "number", "number"))
	twice("1", "[Unique] there is another number")
	twice("2", "")
	number("first", "2")
	twice("2", "[Unique] there is another number")
	twice("1", "")
	w.remove(constraints, "Unique", "number")
	w.remove(templates, "ConstraintTemplate", "unique")
	twice("2", "")
	number("first", "3") // nobody looks
	w.apply(unique("once more"))
	w.apply(constraint("Unique", "number", "number"))
	twice("3", "[Unique] once more number")
	twice("2", "")
}

// testReplicas: the entry of a replica that lives stays, that of one that is gone
// goes, and what others write into the status stays.
func (g *guard) testReplicas(t *testing.T) {
	w := g.world.in(t)
	resource := w.objects.Resource(mustResource(constraints, "labelled"))
	if err := clusterpolicy.ApplyConstraintStatus(t.Context(), w.objects, "Labelled", "team", "kubeguardian-audit", map[string]any{"totalViolations": 7}); err != nil {
		t.Fatal(err)
	}
	holder := "alive"
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "policies-alive", Labels: map[string]string{"app.kubernetes.io/managed-by": "kubeguardian"}},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: new(metav1.NewMicroTime(time.Now().Add(time.Hour)))},
	}
	if _, err := w.client.CoordinationV1().Leases("kubeguardian").Create(t.Context(), lease, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	o, err := resource.Get(t.Context(), "team", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	own := entries(o)[0]
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"byPod": []any{map[string]any{"id": "alive"}, map[string]any{"id": "gone"}, own}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := resource.Patch(t.Context(), "team", types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	w.eventually("the entry of the replica that is gone is removed", func() error {
		o, err := resource.Get(t.Context(), "team", metav1.GetOptions{})
		if err != nil {
			return err
		}
		total, _, _ := unstructured.NestedInt64(o.Object, "status", "totalViolations")
		if found := entries(o); len(found) != 2 || found[0]["id"] != "alive" || found[1]["id"] != own["id"] || total != 7 {
			return fmt.Errorf("status = %v", o.Object["status"])
		}
		return nil
	})
}

func (g *guard) testMetrics(t *testing.T) {
	body, err := g.read("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`kubeguardian_policies{in_force="true",kind="ConstraintTemplate",source="cluster"} 2`,
		`kubeguardian_policies{in_force="false",kind="ValidatingAdmissionPolicy",source="cluster"} 1`,
		`kubeguardian_policy_errors{code="ingest_error",kind="ImagePolicy"} 1`,
	} {
		if !strings.Contains(string(body), want+"\n") {
			t.Errorf("metrics lack %s", want)
		}
	}
	if health, err := g.read("/api/v1/health"); err != nil || !strings.Contains(string(health), "Policies with mistakes: 1") {
		t.Errorf("health = %s, %v", health, err)
	}
}

// TestRightsAreMissing: what may not be read is said, and nothing else is held up.
func TestRightsAreMissing(t *testing.T) {
	w := newWorld(t)
	var rights []string
	for doc := range strings.SplitSeq(string(content.RBAC()), "\n---\n") {
		if !strings.Contains(doc, "name: kubeguardian-policies") {
			rights = append(rights, doc)
		}
	}
	w.apply(strings.Join(rights, "\n---\n"))
	g := w.serve(t.TempDir(), "")
	w.eventually("the lack is told", func() error {
		body, err := g.read("/api/v1/health")
		if err == nil && !strings.Contains(string(body), "Policies of the cluster are not read: read customresourcedefinitions.apiextensions.k8s.io") {
			err = errors.New(string(body))
		}
		return err
	})
}
