package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/kubeguardian/kubeguardian/health"
	"github.com/kubeguardian/kubeguardian/web"
)

// small answers like an API server that has one ConfigMap and whose only user
// with rights is alice. What else is asked waits.
func small(t *testing.T) *rest.Config {
	t.Helper()
	answers := map[string]string{
		"/api":    `{"kind":"APIVersions","versions":["v1"]}`,
		"/apis":   `{"kind":"APIGroupList","apiVersion":"v1","groups":[]}`,
		"/api/v1": `{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"configmaps","namespaced":true,"kind":"ConfigMap","verbs":["get","list"]}]}`,
		"/api/v1/namespaces/shop/configmaps/limits": `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"limits","namespace":"shop"},"data":{"team":"red"}}`,
	}
	stop := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/apis/authorization.k8s.io/v1/subjectaccessreviews" {
			var asked struct{ Spec struct{ User string } }
			if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
				t.Error(err)
			}
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintf(w, `{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":%v}}`, asked.Spec.User == "alice")
			return
		}
		if answer, ok := answers[r.URL.Path]; ok {
			fmt.Fprint(w, answer)
			return
		}
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(stop) })
	return &rest.Config{Host: srv.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
}

// startWith starts a server with policies of its own.
func startWith(t *testing.T, text string) *running {
	t.Helper()
	return startBeside(t, text, "")
}

// startBeside is startWith for one that has more fields of admission.
func startBeside(t *testing.T, text, more string) *running {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policies.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	opts := options(t, t.TempDir(), fmt.Sprintf("admission: {policies: [%q]%s}\n", file, more))
	opts.Cluster = small(t)
	return start(t, opts)
}

// podReview is the review of a pod in the namespace shop.
func podReview(user, metadata, image string) string {
	return fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-1","operation":"CREATE",
		"kind":{"version":"v1","kind":"Pod"},"resource":{"version":"v1","resource":"pods"},"namespace":"shop","name":"web","userInfo":{"username":%q},
		"object":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"shop",%s},"spec":{"containers":[{"name":"main","image":%q}]}}}}`, user, metadata, image)
}

const template = `apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: ownedpod}
spec:
  crd: {spec: {names: {kind: OwnedPod}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    rego: |
      package ownedpod
      violation[{"msg": "say whose it is"}] { not input.review.object.metadata.labels.owner }
---
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: OwnedPod
metadata: {name: all}
spec: {match: {kinds: [{apiGroups: [""], kinds: [Pod]}]}}
---
`

// native returns a policy on pods and its binding.
func native(kind, name, spec, binding string) string {
	return fmt.Sprintf(`apiVersion: admissionregistration.k8s.io/v1
kind: %[1]sAdmissionPolicy
metadata: {name: %[2]s}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]}
  %[3]s
---
apiVersion: admissionregistration.k8s.io/v1
kind: %[1]sAdmissionPolicyBinding
metadata: {name: %[2]s}
spec: {policyName: %[2]s, %[4]s}
---
`, kind, name, spec, binding)
}

// TestPoliciesOfAllKinds: each kind of policy is answered for by the webhook.
func TestPoliciesOfAllKinds(t *testing.T) {
	r := startWith(t, template+
		native("Validating", "team", "paramKind: {apiVersion: v1, kind: ConfigMap}\n  validations: [{expression: \"object.metadata.labels.team == params.data.team\", message: another team}]",
			"paramRef: {name: limits, parameterNotFoundAction: Deny}, validationActions: [Deny]")+
		native("Validating", "allowed", `validations: [{expression: "authorizer.group('').resource('pods').namespace('shop').check('delete').allowed()", message: may not delete}]`,
			"validationActions: [Deny]")+
		native("Mutating", "tier", `reinvocationPolicy: Never
  mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{metadata: Object.metadata{labels: {'tier': 'web'}}}"}}]`, "matchResources: {}")+
		"apiVersion: kubeguardian.dev/v1alpha1\nkind: ImagePolicy\nmetadata: {name: ours}\n"+
		"spec: {validationActions: [Deny], mutateDigest: false, match: {images: ['**']}, rules: {requireDigest: false, allowedImages: ['registry.example.com/**']}}\n")
	const good, ours = `"labels":{"owner":"shop","team":"red"}`, "registry.example.com/web:1"
	for name, test := range map[string]struct{ review, want string }{
		"good":       {podReview("alice", good, ours), `"allowed":true`},
		"constraint": {podReview("alice", `"labels":{"team":"red"}`, ours), "[OwnedPod] say whose it is"},
		"parameters": {podReview("alice", `"labels":{"owner":"shop","team":"blue"}`, ours), "[team] another team"},
		"authorizer": {podReview("mallory", good, ours), "[allowed] may not delete"},
		"image":      {podReview("alice", good, "nginx"), "[ours] image nginx"},
	} {
		if _, body := r.webhook("/admit", test.review); !strings.Contains(body, test.want) {
			t.Errorf("%s: %s, want %s", name, body, test.want)
		}
	}
	if _, body := r.webhook("/mutate", podReview("alice", good, ours)); !strings.Contains(body, `"patchType":"JSONPatch"`) {
		t.Errorf("mutate: %s", body)
	}
	mutating := r.registration.Mutating()
	if mutating == nil || len(mutating.Webhooks[0].Rules) != 1 || mutating.Webhooks[0].Rules[0].Resources[0] != "pods" {
		t.Errorf("registration = %+v", mutating)
	}
}

// TestPoliciesThatReadTheCluster are not answered before it was read.
func TestPoliciesThatReadTheCluster(t *testing.T) {
	r := startWith(t, strings.Replace(template, "not input.review.object.metadata.labels.owner", `data.inventory.namespace[_]["v1"]["Pod"][other]; other == "web"`, 1))
	review := podReview("alice", `"labels":{}`, "nginx")
	if _, body := r.webhook("/admit", review); !strings.Contains(body, "not judged (failed)") {
		t.Errorf("before: %s", body)
	}
	r.read(podsIn(t, "bank"))
	if _, body := r.webhook("/admit", review); !strings.Contains(body, "[OwnedPod] say whose it is") {
		t.Errorf("after: %s", body)
	}
	r.read(podsIn(t))
	if _, body := r.webhook("/admit", review); !strings.Contains(body, `"allowed":true`) || strings.Contains(body, "not judged") {
		t.Errorf("after the other is gone: %s", body)
	}
}

// TestSettings: policies are enforced as a file of settings says.
func TestSettings(t *testing.T) {
	const head = "apiVersion: kubeguardian.dev/v1alpha1\nkind: PolicySettings\n"
	privileged := strings.Replace(podReview("alice", `"labels":{}`, "nginx:1"), `"image":"nginx:1"`, `"image":"nginx:1","securityContext":{"privileged":true}`, 1)
	for settings, want := range map[string]string{
		"enforcement: {default: dryrun}":                                          `"allowed":true`,
		"enforcement: {default: dryrun, policies: {privileged-containers: deny}}": "[privileged-containers] privileged containers: main",
	} {
		r := start(t, options(t, t.TempDir(), fmt.Sprintf("admission: {settings: %q}\n", write(t, head+settings))))
		if _, body := r.webhook("/admit", privileged); !strings.Contains(body, want) || strings.Contains(body, `"warnings"`) {
			t.Errorf("%s: %s, want %s", settings, body, want)
		}
	}
	file := write(t, head+"parameters: {none: 1}")
	if _, err := New(t.Context(), options(t, t.TempDir(), fmt.Sprintf("admission: {settings: %q}\n", file))); err == nil || !strings.Contains(err.Error(), file+`:3: parameters: no policy has a parameter "none"`) {
		t.Errorf("New = %v", err)
	}
}

// TestPoliciesAreReloaded: changed files of policies and of their settings, here
// those of a mounted ConfigMap, take effect. Those with a mistake do not, and what
// was in force stays so.
func TestPoliciesAreReloaded(t *testing.T) {
	const head = "apiVersion: kubeguardian.dev/v1alpha1\nkind: PolicySettings\n"
	dir, versions := t.TempDir(), 0
	mount := func(settings, policies string) {
		t.Helper()
		versions++
		data := filepath.Join(dir, fmt.Sprintf("..%d", versions))
		if err := os.Mkdir(data, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"settings.yaml": head + settings, "policies.yaml": policies} {
			if err := os.WriteFile(filepath.Join(data, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_ = os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)) // it is there from the second time on
		}
		if err := os.Symlink(data, filepath.Join(dir, "..new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	rule := func(name, value string) string {
		return native("Validating", name, fmt.Sprintf("validations: [{expression: \"object.metadata.labels.team == '%s'\", message: want %s}]", value, value), "validationActions: [Deny]")
	}
	mount("enforcement: {default: deny}", rule("team", "red"))
	opts := options(t, t.TempDir(), fmt.Sprintf("admission: {policies: [%q], settings: %q}\n", filepath.Join(dir, "policies.yaml"), filepath.Join(dir, "settings.yaml")))
	opts.Cluster = small(t)
	r := start(t, opts)
	steps := []struct{ name, settings, policies, verdict, not, mistake string }{
		{"at the start", "", "", "[team] want red", "", ""},
		{"policies", "enforcement: {default: deny}", rule("team", "blue") + rule("other", "green"), "[other] want green", "want red", ""},
		{"settings", "enforcement: {default: dryrun}", rule("team", "blue"), `"allowed":true`, "[other]", ""},
		{"settings with a mistake", "enforcement: {default: maybe}", rule("team", "blue"), `"allowed":true`, "", `unknown stage "maybe"`},
		{"settings of a policy that is not there", "enforcement: {policies: {team: deny, other: deny}}", rule("team", "blue"), `"allowed":true`, "", `no policy that judges is called "other"`},
		{"policies with a mistake", "enforcement: {default: deny}", rule("team", "blue'"), `"allowed":true`, "", "Syntax error"},
		{"all is well", "enforcement: {default: deny}", rule("team", "black"), "[team] want black", "", ""},
	}
	for _, step := range steps {
		if step.settings != "" {
			mount(step.settings, step.policies)
		}
		eventually(t, step.name, func() (bool, string) {
			_, body := r.webhook("/admit", podReview("alice", `"labels":{"team":"none"}`, "nginx"))
			if !strings.Contains(body, step.verdict) || step.not != "" && strings.Contains(body, step.not) {
				return false, body
			}
			check, refused := r.checked()["Policies"], 0
			if step.mistake != "" {
				refused = 1
			}
			_, metrics := r.page("/metrics")
			said := (check.State == health.Bad) == (refused == 1) && strings.Contains(check.Detail, step.mistake)
			return said && strings.Contains(metrics, fmt.Sprintf("kubeguardian_policies_refused %d\n", refused)), check.Detail
		})
	}
	if _, body := r.page("/api/v1/policies"); !strings.Contains(body, `"name":"team"`) || strings.Contains(body, `"name":"other"`) {
		t.Errorf("listed: %s", body)
	}
}

// TestListedPolicies: mutators that contradict each other are shown as disabled.
func TestListedPolicies(t *testing.T) {
	mutator := func(name, location string) string {
		return fmt.Sprintf("apiVersion: mutations.gatekeeper.sh/v1\nkind: Assign\nmetadata: {name: %s}\nspec: {applyTo: [{groups: [''], versions: [v1], kinds: [Pod]}], location: '%s', parameters: {assign: {value: a}}}\n---\n", name, location)
	}
	r := startWith(t, template+mutator("one", "spec.x.y")+mutator("other", "spec.x[name: a].y")+mutator("third", "spec.z"))
	code, body := r.page("/api/v1/policies")
	var page web.Policies
	if err := json.Unmarshal([]byte(body), &page); err != nil || code != 200 || len(page.Items) != 5 {
		t.Fatalf("%d %s: %v", code, body, err)
	}
	for _, p := range page.Items {
		disabled := p.Name == "one" || p.Name == "other"
		if (p.Enforced == "nobody") != disabled || (len(p.Errors) > 0) != disabled || !strings.HasSuffix(p.Source, "policies.yaml") {
			t.Errorf("%+v", p)
		}
	}
	if _, metrics := r.page("/metrics"); !strings.Contains(metrics, `kubeguardian_policies{in_force="false",kind="Assign",source="files"} 2`) {
		t.Error("metrics do not count what is disabled")
	}
}
