package test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	psapi "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

const matcher = "../examples/internship-matcher/deploy"

// A manifest is one document of the reference application.
type manifest struct {
	metav1.Object
	file, kind string
	body       any // a k8s.io/api type, or *unstructured.Unstructured for a custom resource
}

func (m manifest) String() string { return m.kind + "/" + m.GetName() }

// manifests reads a variant of the reference application by "Kind/name" and
// fails the test on a document that does not decode strictly, on a name that
// comes twice and on an object outside the application's namespace.
func manifests(t *testing.T, variant string) map[string]manifest {
	t.Helper()
	out := map[string]manifest{}
	custom := customKinds(t)
	err := filepath.WalkDir(filepath.Join(matcher, variant), func(file string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(file) != ".yaml" {
			return err
		}
		for _, doc := range documents(t, file) {
			m, err := decode(doc, custom)
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			m.file = file
			if prev, ok := out[m.String()]; ok {
				t.Errorf("%s: %s is also in %s", file, m, prev.file)
			}
			if got := m.GetNamespace(); got != "internship-matcher" && m.kind != "Namespace" {
				t.Errorf("%s: %s is in namespace %q", file, m, got)
			}
			out[m.String()] = m
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 10 {
		t.Fatalf("%s has %d objects only", variant, len(out))
	}
	return out
}

func documents(t *testing.T, file string) [][]byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var docs [][]byte
	r := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		doc, err := r.Read()
		if errors.Is(err, io.EOF) {
			return docs
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		docs = append(docs, doc)
	}
}

var strict = json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme,
	json.SerializerOptions{Yaml: true, Strict: true})

// decode reads a document into the type of its kind. Of a custom resource only
// the kind is checked: it must be one of custom.
func decode(doc []byte, custom []string) (manifest, error) {
	obj, gvk, err := strict.Decode(doc, nil, nil)
	if runtime.IsNotRegisteredError(err) && slices.Contains(custom, gvk.String()) {
		u := &unstructured.Unstructured{}
		return manifest{Object: u, kind: gvk.Kind, body: u}, yaml.UnmarshalStrict(doc, &u.Object)
	}
	if err != nil {
		return manifest{}, err
	}
	return manifest{Object: obj.(metav1.Object), kind: gvk.Kind, body: obj}, nil
}

// customKinds lists the kinds that the stand-in CRDs define, as
// "group/version, Kind=Kind".
func customKinds(t *testing.T) (kinds []string) {
	t.Helper()
	for _, file := range []string{"externalsecrets.yaml", "sealedsecrets.yaml"} {
		var crd struct {
			Spec struct {
				Group    string
				Names    struct{ Kind string }
				Versions []struct{ Name string }
			}
		}
		if err := yaml.Unmarshal(documents(t, filepath.Join(matcher, "crds", file))[0], &crd); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		kinds = append(kinds, fmt.Sprintf("%s/%s, Kind=%s", crd.Spec.Group, crd.Spec.Versions[0].Name, crd.Spec.Names.Kind))
	}
	return kinds
}

// of returns the bodies of type T, by name.
func of[T any](objects map[string]manifest) map[string]T {
	out := map[string]T{}
	for _, m := range objects {
		if body, ok := m.body.(T); ok {
			out[m.GetName()] = body
		}
	}
	return out
}

// templates returns the pod templates of a variant by "Kind/name".
func templates(objects map[string]manifest) map[string]corev1.PodTemplateSpec {
	out := map[string]corev1.PodTemplateSpec{}
	for name, d := range of[*appsv1.Deployment](objects) {
		out["Deployment/"+name] = d.Spec.Template
	}
	for name, s := range of[*appsv1.StatefulSet](objects) {
		out["StatefulSet/"+name] = s.Spec.Template
	}
	for name, j := range of[*batchv1.CronJob](objects) {
		out["CronJob/"+name] = j.Spec.JobTemplate.Spec.Template
	}
	return out
}

// The secured variant is applied over the insecure one with kubectl, which
// deletes nothing and cannot change some fields.
func TestExampleUpgradesInPlace(t *testing.T) {
	before, after := manifests(t, "insecure"), manifests(t, "secured")
	for name, m := range before {
		if _, ok := after[name]; !ok {
			t.Errorf("%s: %s would stay behind in the secured variant", m.file, name)
		}
	}
	for name, a := range after {
		if _, ok := before[name]; !ok && slices.Contains([]string{"Deployment", "StatefulSet", "Service"}, a.kind) {
			t.Errorf("%s: %s is not in the insecure variant", a.file, name)
		}
		if b, ok := before[name]; ok && !reflect.DeepEqual(immutable(a.body), immutable(b.body)) {
			t.Errorf("%s: %s changes a field that cannot be changed:\n%+v\n%+v", a.file, name, immutable(b.body), immutable(a.body))
		}
	}
}

// immutable returns the fields that the API server refuses to change.
func immutable(body any) any {
	switch o := body.(type) {
	case *appsv1.Deployment:
		return o.Spec.Selector
	case *appsv1.StatefulSet:
		return []any{o.Spec.Selector, o.Spec.ServiceName, o.Spec.VolumeClaimTemplates, o.Spec.PodManagementPolicy}
	case *corev1.Service:
		return o.Spec.ClusterIP
	case *rbacv1.RoleBinding:
		return o.RoleRef
	}
	return nil
}

func TestExamplePodSecurity(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(level psapi.Level, pod corev1.PodTemplateSpec) string {
		results := evaluator.EvaluatePod(psapi.LevelVersion{Level: level, Version: psapi.LatestVersion()}, &pod.ObjectMeta, &pod.Spec)
		if r := policy.AggregateCheckResults(results); !r.Allowed {
			return r.ForbiddenDetail()
		}
		return ""
	}
	for name, pod := range templates(manifests(t, "insecure")) {
		if why := refused(psapi.LevelBaseline, pod); why != "" {
			t.Errorf("insecure %s is refused at baseline: %s", name, why)
		}
		if refused(psapi.LevelRestricted, pod) == "" {
			t.Errorf("insecure %s is accepted at restricted", name)
		}
	}
	for name, pod := range templates(manifests(t, "secured")) {
		if why := refused(psapi.LevelRestricted, pod); why != "" {
			t.Errorf("secured %s is refused at restricted: %s", name, why)
		}
	}
}

// What Pod Security does not ask for.
func TestExampleSecuredContainers(t *testing.T) {
	digests := map[string]string{} // the image of each digest
	for name, pod := range templates(manifests(t, "secured")) {
		if !is(pod.Spec.AutomountServiceAccountToken, false) {
			t.Errorf("%s mounts a service account token", name)
		}
		if sc := pod.Spec.SecurityContext; sc == nil || sc.RunAsUser == nil || *sc.RunAsUser < 10000 {
			t.Errorf("%s has no high user id", name)
		}
		for _, v := range pod.Spec.Volumes {
			if v.EmptyDir != nil && v.EmptyDir.SizeLimit == nil {
				t.Errorf("%s: volume %s can fill the node", name, v.Name)
			}
		}
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			image, digest, _ := strings.Cut(c.Image, "@sha256:")
			if len(digest) != 64 {
				t.Errorf("%s: image %s is not pinned by a digest", name, c.Image)
			}
			if other, ok := digests[digest]; ok && other != image {
				t.Errorf("%s and %s share a digest", image, other)
			}
			digests[digest] = image
			if sc := c.SecurityContext; sc == nil || !is(sc.ReadOnlyRootFilesystem, true) {
				t.Errorf("%s: container %s can write to its root file system", name, c.Name)
			}
			if serves := !strings.HasPrefix(name, "CronJob/"); serves && (c.StartupProbe == nil || c.ReadinessProbe == nil || c.LivenessProbe == nil) {
				t.Errorf("%s: container %s lacks a probe", name, c.Name)
			}
			for _, e := range c.Env {
				if e.ValueFrom != nil {
					t.Errorf("%s: container %s takes %s from elsewhere than a file", name, c.Name, e.Name)
				}
			}
		}
	}
}

func is(b *bool, want bool) bool { return b != nil && *b == want }

func TestExamplePodsAreIsolated(t *testing.T) {
	objects := manifests(t, "secured")
	policies := of[*networkingv1.NetworkPolicy](objects)
	for name, pod := range templates(objects) {
		for _, direction := range []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress} {
			if !slices.ContainsFunc(slices.Collect(maps.Values(policies)), func(p *networkingv1.NetworkPolicy) bool {
				return slices.Contains(p.Spec.PolicyTypes, direction) && selects(t, &p.Spec.PodSelector, pod)
			}) {
				t.Errorf("%s is selected by no %s policy", name, direction)
			}
		}
	}
	for _, p := range policies {
		for _, selector := range podSelectors(p) {
			if !slices.ContainsFunc(slices.Collect(maps.Values(templates(objects))), func(pod corev1.PodTemplateSpec) bool {
				return selects(t, selector, pod)
			}) {
				t.Errorf("NetworkPolicy/%s: %s selects no pod of the application", p.Name, metav1.FormatLabelSelector(selector))
			}
		}
	}
}

// podSelectors returns the selectors of a policy that speak of pods of its own
// namespace.
func podSelectors(p *networkingv1.NetworkPolicy) []*metav1.LabelSelector {
	var peers []networkingv1.NetworkPolicyPeer
	for _, rule := range p.Spec.Ingress {
		peers = append(peers, rule.From...)
	}
	for _, rule := range p.Spec.Egress {
		peers = append(peers, rule.To...)
	}
	out := []*metav1.LabelSelector{&p.Spec.PodSelector}
	for _, peer := range peers {
		if peer.NamespaceSelector == nil {
			out = append(out, peer.PodSelector)
		}
	}
	return out
}

func selects(t *testing.T, selector *metav1.LabelSelector, pod corev1.PodTemplateSpec) bool {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return s.Matches(labels.Set(pod.Labels))
}

// Every name that an object of a variant uses is defined by another.
func TestExampleReferences(t *testing.T) {
	for _, variant := range []string{"insecure", "secured"} {
		t.Run(variant, func(t *testing.T) {
			objects := manifests(t, variant)
			accounts := map[string]string{}
			for name, pod := range templates(objects) {
				for _, ref := range references(pod) {
					if !defined(objects, ref) && !(variant == "insecure" && made(ref)) {
						t.Errorf("%s uses %s, which nothing defines", name, ref)
					}
				}
				account := pod.Spec.ServiceAccountName
				if other, ok := accounts[account]; ok && account != "" {
					t.Errorf("%s and %s share the service account %s", name, other, account)
				}
				accounts[account] = name
			}
			for name, s := range of[*corev1.Service](objects) {
				if !serves(t, s, templates(objects)) {
					t.Errorf("Service/%s points at no container port", name)
				}
			}
		})
	}
}

// references returns what a pod needs, as "Kind/name".
func references(pod corev1.PodTemplateSpec) (refs []string) {
	if pod.Spec.ServiceAccountName != "" {
		refs = append(refs, "ServiceAccount/"+pod.Spec.ServiceAccountName)
	}
	for _, v := range pod.Spec.Volumes {
		if v.Secret != nil {
			refs = append(refs, "Secret/"+v.Secret.SecretName)
		}
		if v.Projected != nil {
			for _, source := range v.Projected.Sources {
				refs = append(refs, "Secret/"+source.Secret.Name)
			}
		}
	}
	for _, c := range pod.Spec.Containers {
		for _, from := range c.EnvFrom {
			refs = append(refs, "ConfigMap/"+from.ConfigMapRef.Name)
		}
	}
	return refs
}

// defined reports whether objects has ref; a secret comes from the custom
// resource of the same name.
func defined(objects map[string]manifest, ref string) bool {
	candidates := []string{ref}
	if name, ok := strings.CutPrefix(ref, "Secret/"); ok {
		candidates = []string{"SealedSecret/" + name, "ExternalSecret/" + name}
	}
	return slices.ContainsFunc(candidates, func(c string) bool { _, ok := objects[c]; return ok })
}

// made reports whether ref is a secret that the insecure variant takes from
// cmd/secrets: keys, of which none may stand in a repository. A test of the
// application compares both.
func made(ref string) bool {
	return ref == "Secret/token" || strings.HasPrefix(ref, "Secret/identity-")
}

// serves reports whether every port of s is a named port of a pod it selects.
func serves(t *testing.T, s *corev1.Service, pods map[string]corev1.PodTemplateSpec) bool {
	t.Helper()
	for _, pod := range pods {
		if !selects(t, &metav1.LabelSelector{MatchLabels: s.Spec.Selector}, pod) {
			continue
		}
		for _, port := range s.Spec.Ports {
			if !slices.ContainsFunc(pod.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == port.TargetPort.StrVal }) {
				return false
			}
		}
		return true
	}
	return false
}

// The quota lets all pods run, with one more of each Deployment during an
// update, and the limit range refuses none of them.
func TestExampleFitsQuota(t *testing.T) {
	objects := manifests(t, "secured")
	need := corev1.ResourceList{}
	for name, d := range of[*appsv1.Deployment](objects) {
		update := d.Spec.Strategy.RollingUpdate
		if d.Spec.Replicas == nil || update == nil || update.MaxSurge == nil {
			t.Fatalf("Deployment/%s leaves replicas or maxSurge to a default", name)
		}
		addPods(need, d.Spec.Template, int64(*d.Spec.Replicas)+int64(update.MaxSurge.IntValue()))
	}
	for name, s := range of[*appsv1.StatefulSet](objects) {
		if s.Spec.Replicas == nil {
			t.Fatalf("StatefulSet/%s leaves replicas to a default", name)
		}
		addPods(need, s.Spec.Template, int64(*s.Spec.Replicas))
	}
	for name, j := range of[*batchv1.CronJob](objects) {
		if j.Spec.ConcurrencyPolicy != batchv1.ForbidConcurrent {
			t.Fatalf("CronJob/%s may run more than once at a time", name)
		}
		addPods(need, j.Spec.JobTemplate.Spec.Template, 1)
	}
	quota, limits := of[*corev1.ResourceQuota](objects)["internship-matcher"], of[*corev1.LimitRange](objects)["internship-matcher"]
	if quota == nil || limits == nil {
		t.Fatal("no quota or no limit range")
	}
	for name, want := range need {
		if got, ok := quota.Spec.Hard[name]; !ok || got.Cmp(want) < 0 {
			t.Errorf("quota %s is %s, need %s", name, got.String(), want.String())
		}
	}
	for name, pod := range templates(objects) {
		for kind, value := range pod.Spec.Containers[0].Resources.Limits {
			if most := limits.Spec.Limits[0].Max[kind]; value.Cmp(most) > 0 {
				t.Errorf("%s: limit %s of %s is over the namespace's %s", name, value.String(), kind, most.String())
			}
		}
	}
}

// addPods adds what n pods need to the sums, under the quota's names.
func addPods(sums corev1.ResourceList, pod corev1.PodTemplateSpec, n int64) {
	add := func(name corev1.ResourceName, q resource.Quantity) {
		q.Mul(n)
		sum := sums[name]
		sum.Add(q)
		sums[name] = sum
	}
	add("pods", resource.MustParse("1"))
	for _, c := range pod.Spec.Containers {
		for name, q := range c.Resources.Requests {
			add("requests."+name, q)
		}
		for name, q := range c.Resources.Limits {
			add("limits."+name, q)
		}
	}
}
