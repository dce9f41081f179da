package content_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	podsecurity "k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/setting"
)

// loadPolicies loads the built-in policies.
func loadPolicies(t testing.TB) *policy.Set {
	t.Helper()
	files, err := content.Read[policy.File](content.Policies())
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Load(files...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// readObject reads the one object of a file.
func readObject(t *testing.T, file string) (*unstructured.Unstructured, []byte) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, data), data
}

func parse(t *testing.T, data []byte) *unstructured.Unstructured {
	t.Helper()
	text, err := yaml.YAMLToJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	var obj unstructured.Unstructured
	if err := obj.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	return &obj
}

// create returns the request to create an object, or that of an AdmissionReview,
// in a cluster in which every namespace exists; the one named protected is.
func create(t *testing.T, obj *unstructured.Unstructured) policy.Request {
	t.Helper()
	newRequest := policy.NewCreateRequest
	if policy.IsReview(obj) {
		newRequest = policy.NewReviewRequest
	}
	req, err := newRequest(obj)
	if err != nil {
		t.Fatal(err)
	}
	req.Namespaces = policy.NamespacesFunc(func(_ context.Context, name string) (*corev1.Namespace, error) {
		ns := &corev1.Namespace{}
		ns.Name = name
		ns.Labels = map[string]string{corev1.LabelMetadataName: name}
		if name == "protected" {
			ns.Labels["kubeguardian.dev/protected"] = "true"
		}
		return ns, nil
	})
	return req
}

func check(t *testing.T, p *policy.Policy, req policy.Request) (bool, []finding.Violation) {
	t.Helper()
	applies, violations, err := p.Check(t.Context(), req)
	if err != nil {
		t.Errorf("%s: %v", p.Name(), err)
	}
	return applies, violations
}

// TestPolicyExamples holds each policy to its examples: pass-* and fail-* say
// the verdict, na-* that the policy does not apply. A first line
// "# containers: a,b" says which containers it must name.
func TestPolicyExamples(t *testing.T) {
	for _, p := range loadPolicies(t).Policies() {
		t.Run(p.Name(), func(t *testing.T) {
			seen := map[string]bool{}
			files, err := filepath.Glob(filepath.Join("policies/testdata", p.Name(), "*.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				verdict, _, _ := strings.Cut(filepath.Base(file), "-")
				seen[verdict] = true
				t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
					testExample(t, p, file, verdict)
				})
			}
			// What refuses all that it applies to defines no control.
			if !seen["fail"] || !seen["pass"] && (p.Annotation(controlAnnotation) != "" || !seen["na"]) {
				t.Errorf("examples = %v, want at least one pass and one fail", slices.Sorted(maps.Keys(seen)))
			}
		})
	}
}

func testExample(t *testing.T, p *policy.Policy, file, verdict string) {
	obj, data := readObject(t, file)
	p = configured(t, p, string(data))
	applies, violations := check(t, p, create(t, obj))
	if got := verdictOf(applies, violations); got != verdict {
		t.Fatalf("verdict = %s, want %s: %v", got, verdict, violations)
	}
	first, _, _ := strings.Cut(string(data), "\n")
	want, named := strings.CutPrefix(first, "# containers: ")
	if named && violations[0].Details["containers"] != want {
		t.Errorf("containers = %q, want %q", violations[0].Details["containers"], want)
	}
	for container := range strings.SplitSeq(want, ",") {
		if named && !strings.HasPrefix(p.Annotation(controlAnnotation), "CON-SEC-1") && !strings.Contains(violations[0].Message, container) {
			t.Errorf("message %q does not name container %s", violations[0].Message, container)
		}
	}
}

// configured returns a policy with the parameters that the first line of an
// example, "# parameters: {…}", gives it.
func configured(t *testing.T, p *policy.Policy, example string) *policy.Policy {
	t.Helper()
	first, _, _ := strings.Cut(example, "\n")
	given, ok := strings.CutPrefix(first, "# parameters: ")
	if !ok {
		return p
	}
	settings, err := setting.Parse(p.Name(), []byte("apiVersion: kubeguardian.dev/v1alpha1\nkind: PolicySettings\nparameters: "+given))
	if err != nil {
		t.Fatal(err)
	}
	files, err := content.Read[policy.File](content.Policies())
	if err != nil {
		t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(f policy.File) bool { return f.Name != p.Name()+".yaml" })
	set, err := setting.With(settings, files, func(files []policy.File) (*policy.Set, error) { return policy.Load(files...) })
	if err != nil {
		t.Fatal(err)
	}
	return set.Policy(p.Name())
}

func verdictOf(applies bool, violations []finding.Violation) string {
	switch {
	case !applies:
		return "na"
	case len(violations) > 0:
		return "fail"
	}
	return "pass"
}

const controlAnnotation = "kubeguardian.dev/control"

// TestPolicyControls keeps the list of controls that the policies define.
func TestPolicyControls(t *testing.T) {
	want := strings.Fields(`APP-EXP-02 APP-SEC-01 APP-SEC-03 APP-SEC-09 CLU-NET-05 CLU-NET-10 CLU-NET-11 CLU-NSP-01 CLU-NSP-02
		CLU-RBA-01 CLU-RBA-02 COD-SYN-01 CON-IMG-01 CON-IMG-02 CON-IMG-12
		CON-RES-01 CON-RES-02 CON-RES-03 CON-RUN-05 CON-SEC-01 CON-SEC-02 CON-SEC-03 CON-SEC-04 CON-SEC-05 CON-SEC-06
		CON-SEC-07 CON-SEC-08 CON-SEC-09 CON-SEC-10 CON-SEC-11 CON-SEC-12 CON-SEC-13 CON-SEC-14 CON-SEC-15 CON-SEC-16
		CON-SEC-17 CON-SEC-18 CON-SEC-19 CON-SEC-20 CON-SEC-21 CON-SEC-22 CON-SEC-23 CON-SEC-24 CON-SEC-25`)
	var got []string
	for _, p := range loadPolicies(t).Policies() {
		if id := p.Annotation(controlAnnotation); id != "" {
			got = append(got, id)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("controls = %v, want %v", got, want)
	}
}

// TestGuards expects that a policy that defines no control says which control
// it keeps from failing, if any does.
func TestGuards(t *testing.T) {
	controls := loadControls(t)
	guards := 0
	for _, p := range loadPolicies(t).Policies() {
		id := p.Annotation("kubeguardian.dev/guards")
		if id == "" {
			continue
		}
		guards++
		known := slices.ContainsFunc(controls.Controls(), func(ctl control.Control) bool { return ctl.ID == id })
		if !known || p.Annotation(controlAnnotation) != "" {
			t.Errorf("policy %s guards %s, which is no control or defined by the policy itself", p.Name(), id)
		}
	}
	if guards < 12 {
		t.Errorf("%d guards", guards)
	}
}

// TestWorkloadKinds expects the verdict on a pod for every kind that makes the
// pod, and for its containers as init containers.
func TestWorkloadKinds(t *testing.T) {
	set := loadPolicies(t)
	files, err := filepath.Glob("policies/testdata/*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		pod, _ := readObject(t, file)
		p := set.Policy(filepath.Base(filepath.Dir(file)))
		if pod.GetKind() != "Pod" || pod.GetNamespace() != "" {
			continue
		}
		wantApplies, want := check(t, p, create(t, pod))
		for _, obj := range workloads(pod) {
			applies, got := check(t, p, create(t, obj))
			if applies != wantApplies || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s as %s: applies %v, violations %v; as Pod %v, %v", file, obj.GetKind(), applies, got, wantApplies, want)
			}
		}
	}
}

// workloads returns objects of all other kinds whose pods are like pod.
func workloads(pod *unstructured.Unstructured) []*unstructured.Unstructured {
	template := map[string]any{
		"metadata": map[string]any{"labels": map[string]any{"app": "web"}, "annotations": stringMap(pod.GetAnnotations())},
		"spec":     pod.Object["spec"],
	}
	spec := map[string]any{"template": template, "selector": map[string]any{"matchLabels": map[string]any{"app": "web"}}}
	object := func(apiVersion, kind string, spec map[string]any) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": apiVersion, "kind": kind, "metadata": map[string]any{"name": "web"}, "spec": spec,
		}}
	}
	return []*unstructured.Unstructured{
		object("apps/v1", "Deployment", spec),
		object("apps/v1", "StatefulSet", spec),
		object("apps/v1", "DaemonSet", spec),
		object("apps/v1", "ReplicaSet", spec),
		object("v1", "ReplicationController", map[string]any{"template": template}),
		object("batch/v1", "Job", map[string]any{"template": template}),
		object("batch/v1", "CronJob", map[string]any{"schedule": "@daily", "jobTemplate": map[string]any{"spec": map[string]any{"template": template}}}),
	}
}

func stringMap(in map[string]string) map[string]any {
	out := map[string]any{}
	for k, v := range in {
		out[k] = v
	}
	return out
}

// TestCredentialsStayOut expects that no message and no detail of any policy
// holds the value of a credential.
func TestCredentialsStayOut(t *testing.T) {
	obj := parse(t, []byte(`
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - name: web
    image: web
    args: [--password=hunter2secret, --token, hunter2secret]
    env:
    - {name: DB_PASSWORD, value: hunter2secret}
    - {name: URL, value: "postgres://app:hunter2secret@db/app"}
`))
	violations, err := loadPolicies(t).Evaluate(t.Context(), create(t, obj))
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(violations)
	if strings.Contains(text, "hunter2secret") {
		t.Errorf("violations hold the value of a credential: %s", text)
	}
	if !strings.Contains(text, "web (env DB_PASSWORD, env URL, args)") {
		t.Errorf("violations do not say where the credentials are: %s", text)
	}
}

// What policies stand for in Kubernetes' Pod Security admission: a pod violates
// one of the policies if and only if it violates one of the checks.
var podSecurity = []struct{ policies, checks []string }{
	{[]string{"privilege-escalation"}, []string{"allowPrivilegeEscalation"}},
	{[]string{"apparmor-selinux"}, []string{"appArmorProfile", "seLinuxOptions"}},
	{[]string{"added-capabilities"}, []string{"capabilities_baseline"}},
	{[]string{"undropped-capabilities"}, []string{"capabilities_restricted"}},
	{[]string{"host-process-namespaces", "host-network"}, []string{"hostNamespaces"}},
	{[]string{"host-path-volumes"}, []string{"hostPathVolumes"}},
	{[]string{"host-ports"}, []string{"hostPorts"}},
	{[]string{"privileged-containers"}, []string{"privileged"}},
	{[]string{"probe-hosts"}, []string{"hostProbesAndHostLifecycle"}},
	{[]string{"proc-mount"}, []string{"procMount", "procMount_restricted"}},
	{[]string{"run-as-root"}, []string{"runAsNonRoot", "runAsUser"}},
	{[]string{"seccomp-profile"}, []string{"seccompProfile_restricted"}},
	{[]string{"unsafe-sysctls"}, []string{"sysctls"}},
	{[]string{"volume-types"}, []string{"restrictedVolumes"}},
	{[]string{"windows-host-process"}, []string{"windowsHostProcess"}},
}

// TestPodSecurity compares the policies with the newest version of each check
// on all labelled pods that the module of Pod Security admission has, of both
// levels and all versions.
func TestPodSecurity(t *testing.T) {
	checks := map[string]podsecurity.CheckPodFn{}
	for _, c := range podsecurity.DefaultChecks() {
		checks[string(c.ID)] = c.Versions[len(c.Versions)-1].CheckPod
	}
	set := loadPolicies(t)
	failed := make([]int, len(podSecurity))
	pods := map[*unstructured.Unstructured]string{}
	for _, p := range labelledPods(t) {
		pods[p.pod] = p.file
	}
	for obj, file := range pods {
		var pod corev1.Pod
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &pod); err != nil {
			t.Fatal(err)
		}
		for i, v := range pod.Spec.Volumes {
			if v.VolumeSource == (corev1.VolumeSource{}) { // as the API server does it before the checks
				pod.Spec.Volumes[i].EmptyDir = &corev1.EmptyDirVolumeSource{}
			}
		}
		req := create(t, obj)
		for i, pair := range podSecurity {
			want := slices.ContainsFunc(pair.checks, func(id string) bool { return !checks[id](&pod.ObjectMeta, &pod.Spec).Allowed })
			got := slices.ContainsFunc(pair.policies, func(name string) bool {
				_, violations := check(t, set.Policy(name), req)
				return len(violations) > 0
			})
			if got != want {
				t.Errorf("%s: %v: violated = %v, but Pod Security %v = %v", file, pair.policies, got, pair.checks, want)
			}
			if want {
				failed[i]++
			}
		}
	}
	for i, n := range failed {
		if n < 2 || n == len(pods) {
			t.Errorf("%v fails for %d of %d pods, which proves little", podSecurity[i].checks, n, len(pods))
		}
	}
}

// TestUpdates says which changes of objects that violate a policy are judged.
func TestUpdates(t *testing.T) {
	const bad = "securityContext: {privileged: true}"
	deployment := func(meta, spec, template, container string) string {
		return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, %s}
spec:
  %s
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, %s}
    spec: {containers: [{name: web, image: "web:1", %s}]}`, meta, spec, template, container)
	}
	pod := func(meta, container, more string) string {
		return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, %s}
spec: {containers: [{name: web, %s}], %s}`, meta, container, more)
	}
	tests := []struct {
		name        string
		operation   admissionv1.Operation
		subresource string
		old, new    string
		denied      bool
	}{
		{"create", admissionv1.Create, "", "", deployment("", "", "", bad), true},
		{"becomes bad", admissionv1.Update, "", deployment("", "", "", ""), deployment("", "", "", bad), true},
		{"stays bad with another image", admissionv1.Update, "", deployment("", "", "", bad), strings.ReplaceAll(deployment("", "", "", bad), "web:1", "web:2"), true},
		{"becomes good", admissionv1.Update, "", deployment("", "", "", bad), deployment("", "", "", ""), false},
		{"scaled", admissionv1.Update, "", deployment("", "replicas: 1", "", bad), deployment("", "replicas: 0", "", bad), false},
		{"labelled", admissionv1.Update, "", deployment("", "", "", bad), deployment("labels: {a: b}", "", "", bad), false},
		{"finalizer removed", admissionv1.Update, "", deployment("finalizers: [example.org/a]", "", "", bad), deployment("", "", "", bad), false},
		{"restarted", admissionv1.Update, "", deployment("", "", "", bad), deployment("", "", "annotations: {at: now}", bad), false},
		{"status", admissionv1.Update, "status", deployment("", "", "", bad), deployment("", "", "", bad) + "\nstatus: {replicas: 1}", false},
		{"deleted", admissionv1.Delete, "", deployment("", "", "", bad), "", false},
		{"pod labelled", admissionv1.Update, "", pod("", bad, ""), pod("labels: {a: b}", bad, ""), false},
		{"pod gets another image", admissionv1.Update, "", pod("", "image: 'web:1', "+bad, ""), pod("", "image: 'web:2', "+bad, ""), false},
		{"pod deleted", admissionv1.Delete, "", pod("", bad, ""), "", false},
		{"harmless debugging of a bad pod", admissionv1.Update, "ephemeralcontainers", pod("", bad, ""), pod("", bad, "ephemeralContainers: [{name: debug}]"), false},
		{"privileged debugging", admissionv1.Update, "ephemeralcontainers", pod("", "", ""), pod("", "", "ephemeralContainers: [{name: debug, "+bad+"}]"), true},
		{"second debugging session", admissionv1.Update, "ephemeralcontainers",
			pod("", "", "ephemeralContainers: [{name: old, "+bad+"}]"), pod("", "", "ephemeralContainers: [{name: old, "+bad+"}, {name: new}]"), false},
	}
	set := loadPolicies(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var req policy.Request
			for _, text := range []string{test.old, test.new} {
				if text != "" {
					old := req.Object
					req = create(t, parse(t, []byte(text)))
					req.OldObject = old
				}
			}
			if test.new == "" {
				req.Object, req.OldObject = nil, req.Object
			}
			req.Operation, req.Subresource = test.operation, test.subresource
			violations, err := set.Evaluate(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			denied := slices.ContainsFunc(violations, func(v finding.Violation) bool { return v.Enforcement == "deny" })
			if denied != test.denied {
				t.Errorf("denied = %v, want %v: %v", denied, test.denied, violations)
			}
		})
	}
}

// TestSystemNamespaces expects that the bindings leave the components of
// Kubernetes itself alone, and that nobody else is left alone in its namespaces.
func TestSystemNamespaces(t *testing.T) {
	pod := parse(t, []byte("{apiVersion: v1, kind: Pod, metadata: {name: proxy}, spec: {hostNetwork: true, containers: [{name: proxy}]}}"))
	set := loadPolicies(t)
	for namespace, want := range map[string]bool{"shop": true, "kube-system": false, "kube-public": false, "kube-node-lease": false} {
		pod.SetNamespace(namespace)
		violations, err := set.Evaluate(t.Context(), create(t, pod))
		if err != nil {
			t.Fatal(err)
		}
		all := len(violations)
		violations = slices.DeleteFunc(violations, func(v finding.Violation) bool { return v.Policy == "system-namespaces" })
		if got := len(violations) > 0; got != want || (all == len(violations)) != want {
			t.Errorf("%s: %d violations, of other policies %v, want any: %v", namespace, all, violations, want)
		}
	}
}
