// Package charts judges the Helm charts of the repository as they are rendered,
// and lets a real API server judge them.
package charts

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	psapi "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/kubeguardian/kubeguardian/helm"
)

const (
	database  = "../../examples/internship-matcher/deploy/postgres"
	namespace = "internship-matcher-db"
)

// render renders the chart of the database.
func render(values map[string]any) ([]helm.Rendered, error) {
	files, err := helm.Read(database)
	if err != nil {
		return nil, err
	}
	ours := func(string, []byte) error { return nil }
	return helm.Render(context.Background(), database, files, helm.Release{Name: "postgres", Namespace: "elsewhere", Values: values, KubeVersion: "v1.37.0", Check: ours})
}

// documents returns the objects of rendered files, as text.
func documents(t *testing.T, files []helm.Rendered) (docs [][]byte) {
	t.Helper()
	for _, f := range files {
		r := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(f.Text)))
		for {
			doc, err := r.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", f.File, err)
			}
			if len(bytes.TrimSpace(doc)) > 0 {
				docs = append(docs, doc)
			}
		}
	}
	return docs
}

// objects renders the chart and decodes each object strictly, by "Kind/name".
func objects(t *testing.T, values map[string]any) map[string]runtime.Object {
	t.Helper()
	files, err := render(values)
	if err != nil {
		t.Fatal(err)
	}
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{Yaml: true, Strict: true})
	out := map[string]runtime.Object{}
	for _, doc := range documents(t, files) {
		obj, kind, err := strict.Decode(doc, nil, nil)
		if runtime.IsNotRegisteredError(err) && kind.Group == "cert-manager.io" {
			u := &unstructured.Unstructured{}
			err = utilyaml.Unmarshal(doc, &u.Object)
			obj = u
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		m := obj.(metav1.Object)
		if m.GetNamespace() != namespace {
			t.Errorf("%s/%s is in namespace %q", kind.Kind, m.GetName(), m.GetNamespace())
		}
		out[kind.Kind+"/"+m.GetName()] = obj
	}
	return out
}

// get returns an object of a type.
func get[T runtime.Object](t *testing.T, all map[string]runtime.Object, name string) T {
	t.Helper()
	obj, ok := all[name].(T)
	if !ok {
		t.Fatalf("no %s among %v", name, slices.Sorted(maps.Keys(all)))
	}
	return obj
}

// nodes and pool are the pods of the chart.
func nodes(t *testing.T, all map[string]runtime.Object) corev1.PodTemplateSpec {
	return get[*appsv1.StatefulSet](t, all, "StatefulSet/postgres").Spec.Template
}

func pool(t *testing.T, all map[string]runtime.Object) corev1.PodTemplateSpec {
	return get[*appsv1.Deployment](t, all, "Deployment/postgres-pool").Spec.Template
}

func selects(t *testing.T, selector *metav1.LabelSelector, pod corev1.PodTemplateSpec) bool {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return s.Matches(labels.Set(pod.Labels))
}

func TestNodesSurviveAMachine(t *testing.T) {
	all := objects(t, nil)
	set := get[*appsv1.StatefulSet](t, all, "StatefulSet/postgres")
	if *set.Spec.Replicas != 3 || set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement {
		t.Errorf("%d nodes, %s; want 3, which start together", *set.Spec.Replicas, set.Spec.PodManagementPolicy)
	}
	apart := set.Spec.Template.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	if len(apart) != 1 || apart[0].TopologyKey != corev1.LabelHostname || !selects(t, apart[0].LabelSelector, set.Spec.Template) {
		t.Errorf("anti-affinity %+v does not keep the nodes on machines of their own", apart)
	}
	budget := get[*policyv1.PodDisruptionBudget](t, all, "PodDisruptionBudget/postgres-nodes")
	if budget.Spec.MaxUnavailable.IntValue() != 1 || !selects(t, budget.Spec.Selector, set.Spec.Template) {
		t.Errorf("disruption budget %+v, want one node at a time", budget.Spec)
	}
	front := get[*appsv1.Deployment](t, all, "Deployment/postgres-pool")
	budget = get[*policyv1.PodDisruptionBudget](t, all, "PodDisruptionBudget/postgres-pool")
	if *front.Spec.Replicas < 2 || budget.Spec.MinAvailable.IntValue() != 1 || !selects(t, budget.Spec.Selector, front.Spec.Template) {
		t.Errorf("%d of Pgpool-II with the budget %+v, want two, one of which stays", *front.Spec.Replicas, budget.Spec)
	}

	all = objects(t, map[string]any{"nodes": map[string]any{"antiAffinity": "preferred"}})
	if a := nodes(t, all).Spec.Affinity.PodAntiAffinity; len(a.RequiredDuringSchedulingIgnoredDuringExecution) != 0 || len(a.PreferredDuringSchedulingIgnoredDuringExecution) != 1 {
		t.Errorf("preferred: %+v", a)
	}
}

func TestNodesKeepTheirData(t *testing.T) {
	for class, want := range map[string]*string{"": nil, "nfs-csi": new("nfs-csi")} {
		set := get[*appsv1.StatefulSet](t, objects(t, map[string]any{"storage": map[string]any{"class": class, "size": "7Gi"}}), "StatefulSet/postgres")
		claim := set.Spec.VolumeClaimTemplates[0]
		if got := claim.Spec.StorageClassName; (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("storage class %q: got %v", class, got)
		}
		if size := claim.Spec.Resources.Requests[corev1.ResourceStorage]; size.String() != "7Gi" {
			t.Errorf("size %s, want 7Gi", size.String())
		}
		if !slices.Equal(claim.Spec.AccessModes, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}) {
			t.Errorf("access modes %v: two servers on the same data destroy it", claim.Spec.AccessModes)
		}
		if r := set.Spec.PersistentVolumeClaimRetentionPolicy; r == nil || r.WhenDeleted != appsv1.RetainPersistentVolumeClaimRetentionPolicyType || r.WhenScaled != appsv1.RetainPersistentVolumeClaimRetentionPolicyType {
			t.Errorf("retention %+v, want data that outlives the release", r)
		}
	}
}

// The names by which nodes are known to each other, to Pgpool-II and to their
// certificates are those that the headless Service gives them.
func TestNodesFindEachOther(t *testing.T) {
	all := objects(t, map[string]any{"identities": map[string]any{"issuer": "database"}})
	service := get[*corev1.Service](t, all, "Service/postgres-nodes")
	set := get[*appsv1.StatefulSet](t, all, "StatefulSet/postgres")
	if service.Spec.ClusterIP != corev1.ClusterIPNone || !service.Spec.PublishNotReadyAddresses || set.Spec.ServiceName != service.Name ||
		!selects(t, &metav1.LabelSelector{MatchLabels: service.Spec.Selector}, set.Spec.Template) {
		t.Errorf("service %+v does not name the nodes before they are ready", service.Spec)
	}
	domain := "." + service.Name + "." + namespace + ".svc"
	want := "-nodes=1:postgres-0:postgres-0" + domain + ",2:postgres-1:postgres-1" + domain + ",3:postgres-2:postgres-2" + domain
	for _, pod := range []corev1.PodTemplateSpec{nodes(t, all), pool(t, all)} {
		if !slices.Contains(pod.Spec.Containers[0].Args, want) {
			t.Errorf("arguments %q, want %s", pod.Spec.Containers[0].Args, want)
		}
	}
	for name, host := range map[string]string{"postgres-nodes": "*" + domain, "postgres-pool": "postgres." + namespace + ".svc"} {
		hosts, _, err := unstructured.NestedStringSlice(get[*unstructured.Unstructured](t, all, "Certificate/"+name).Object, "spec", "dnsNames")
		if err != nil || !slices.Contains(hosts, host) {
			t.Errorf("certificate %s is for %v, want %s (%v)", name, hosts, host, err)
		}
	}
}

// What runs in the pods takes the arguments that the chart gives it.
func TestArguments(t *testing.T) {
	all := objects(t, nil)
	for _, pod := range []corev1.PodTemplateSpec{nodes(t, all), pool(t, all)} {
		c := pod.Spec.Containers[0]
		program := c.Command[0][strings.LastIndex(c.Command[0], "/")+1:]
		help := exec.CommandContext(t.Context(), "go", "run", "./cmd/"+program, "-help")
		help.Dir = "../../examples/internship-matcher"
		usage, err := help.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", program, err, usage)
		}
		for _, arg := range c.Args {
			flag, value, _ := strings.Cut(arg, "=")
			if !strings.Contains(string(usage), "  "+flag+" ") || value == "" {
				t.Errorf("%s does not know %q", program, arg)
			}
		}
		for _, m := range c.VolumeMounts {
			if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) && m.Name != "data" {
				t.Errorf("%s mounts %s, which is no volume", program, m.Name)
			}
		}
	}
}

func TestPodsAreRestricted(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	all := objects(t, nil)
	for _, pod := range []corev1.PodTemplateSpec{nodes(t, all), pool(t, all)} {
		results := evaluator.EvaluatePod(psapi.LevelVersion{Level: psapi.LevelRestricted, Version: psapi.LatestVersion()}, &pod.ObjectMeta, &pod.Spec)
		if r := policy.AggregateCheckResults(results); !r.Allowed {
			t.Errorf("%s is refused at restricted: %s", pod.Labels["app"], r.ForbiddenDetail())
		}
		c := pod.Spec.Containers[0]
		if c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
			t.Errorf("%s can write to its root file system", c.Name)
		}
		if c.StartupProbe == nil || c.ReadinessProbe == nil || c.LivenessProbe == nil {
			t.Errorf("%s lacks a probe", c.Name)
		}
		if pod.Spec.AutomountServiceAccountToken == nil || *pod.Spec.AutomountServiceAccountToken {
			t.Errorf("%s mounts a token", c.Name)
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				t.Errorf("%s takes %s from a secret, want a file", c.Name, e.Name)
			}
		}
	}
}

// reach says which pods of the chart may be reached, by whom and on which port.
func reach(t *testing.T, all map[string]runtime.Object, to corev1.PodTemplateSpec) (from []string) {
	t.Helper()
	closed := false
	for name, obj := range all {
		p, ok := obj.(*networkingv1.NetworkPolicy)
		if !ok || !slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeIngress) || !selects(t, &p.Spec.PodSelector, to) {
			continue
		}
		closed = true
		for _, rule := range p.Spec.Ingress {
			for _, peer := range rule.From {
				if len(rule.Ports) == 0 || peer.PodSelector == nil || peer.IPBlock != nil {
					t.Errorf("%s is open: %+v", name, rule)
				}
				where := namespace
				if peer.NamespaceSelector != nil {
					where = peer.NamespaceSelector.MatchLabels[corev1.LabelMetadataName]
				}
				for _, app := range peer.PodSelector.MatchExpressions[0].Values {
					for _, port := range rule.Ports {
						from = append(from, fmt.Sprintf("%s/%s:%d", where, app, port.Port.IntValue()))
					}
				}
			}
		}
	}
	if !closed {
		t.Errorf("no policy closes %s", to.Labels["app"])
	}
	slices.Sort(from)
	return from
}

func TestWhoReachesWhom(t *testing.T) {
	all := objects(t, nil)
	deny := get[*networkingv1.NetworkPolicy](t, all, "NetworkPolicy/default-deny").Spec
	if len(deny.PodSelector.MatchLabels)+len(deny.PodSelector.MatchExpressions)+len(deny.Ingress)+len(deny.Egress) != 0 || len(deny.PolicyTypes) != 2 {
		t.Errorf("default-deny is %+v", deny)
	}
	want := []string{
		namespace + "/postgres-nodes:5432", namespace + "/postgres-nodes:8009",
		namespace + "/postgres-pool:5432", namespace + "/postgres-pool:8009",
	}
	if got := reach(t, all, nodes(t, all)); !slices.Equal(got, want) {
		t.Errorf("the nodes are reached by %v, want %v", got, want)
	}
	want = nil
	for _, app := range []string{"application", "auth", "backup", "offer"} {
		want = append(want, "internship-matcher/"+app+":5432")
	}
	if got := reach(t, all, pool(t, all)); !slices.Equal(got, want) {
		t.Errorf("Pgpool-II is reached by %v, want %v", got, want)
	}
}

func TestValuesAreChecked(t *testing.T) {
	for name, values := range map[string]map[string]any{
		"image without digest": {"image": "registry.example.com/postgres:15"},
		"unknown value":        {"replicas": 5},
		"anti-affinity":        {"nodes": map[string]any{"antiAffinity": "never"}},
		"database of repmgr":   {"databases": map[string]any{"repmgr": "secret"}},
		"size":                 {"storage": map[string]any{"size": "much"}},
		"no Pgpool-II":         {"pool": map[string]any{"replicas": 0}},
	} {
		if _, err := render(values); err == nil {
			t.Errorf("%s: %v is taken", name, values)
		}
	}
}
