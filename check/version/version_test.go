package version

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func read(t *testing.T, origin inventory.Origin, manifests string) *inventory.Inventory {
	t.Helper()
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(manifests))
	if err != nil {
		t.Fatal(err)
	}
	if inv, err = inventory.New(origin, inv.Objects(), nil); err != nil {
		t.Fatal(err)
	}
	return inv
}

func TestTable(t *testing.T) {
	table, err := parse(embedded)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range table.Kubernetes[1:] {
		before := table.Kubernetes[i]
		if minor(version.MustParseGeneric(r.Minor)) != fmt.Sprintf("1.%d", version.MustParseGeneric(before.Minor).Minor()+1) || !r.End.After(before.End) {
			t.Errorf("%+v follows %+v", r, before)
		}
	}
	for name, text := range map[string]string{
		"want cve":       "runtimes: [{name: x, cve: CVE-1, fixed: [1.0.0]}]",
		"could not":      "kubernetes: [{minor: x, end: 2026-01-01}]",
		"want images":    "addons: [{name: x}]",
		"not found":      "addon: []",
		"cannot unmarsh": "addons: 5",
	} {
		if _, err := parse([]byte(text)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestFlaws(t *testing.T) {
	f := flaw{From: "1.5", Fixed: []string{"1.6.3", "1.7.1", "2.0.4"}}
	for text, want := range map[string]bool{
		"1.4.9": false, "1.5.0": true, "1.6.2": true, "1.6.3": false, "1.6.10": false, "1.7.0": true, "1.7.1": false,
		"1.8.0": true, // a minor without a fix of its own
		"2.0.3": true, "2.0.4": false, "2.1.0": false, "3.0.0": false,
	} {
		if got := f.in(version.MustParseGeneric(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func node(name, kubelet, runtime string) string {
	return fmt.Sprintf("---\n{apiVersion: v1, kind: Node, metadata: {name: %s}, status: {nodeInfo: {kubeletVersion: %q, containerRuntimeVersion: %q}}}\n", name, kubelet, runtime)
}

func server(version string) string {
	return fmt.Sprintf("---\n{apiVersion: v1, kind: Pod, metadata: {name: kube-apiserver-a, namespace: kube-system}, spec: {containers: [{name: c, image: 'registry.k8s.io/kube-apiserver:%s'}]}}\n", version)
}

func TestNodes(t *testing.T) {
	for name, tt := range map[string]struct {
		manifests string
		want      finding.Status
		says      string
	}{
		"current":                 {node("a", "v1.37.1", "") + server("v1.37.1"), finding.Pass, "kubelet v1.37.1"},
		"two behind":              {node("a", "v1.35.0", "") + server("v1.37.1"), finding.Pass, ""},
		"four behind":             {node("a", "v1.33.0", "") + server("v1.37.1"), finding.Fail, "4 minors behind"},
		"newer":                   {node("a", "v1.37.0", "") + server("v1.36.1"), finding.Fail, "newer than the API server"},
		"ended":                   {node("a", "v1.34.9", "") + server("v1.34.9"), finding.Fail, "no longer mended since 2026-10-27"},
		"long ended":              {node("a", "v1.18.0", "") + server("v1.18.0"), finding.Fail, "no longer mended"},
		"ended, of a provider":    {node("a", "v1.33.5-eks-113cf36", "") + server("v1.33.5"), finding.Unknown, "attest"},
		"not heard of":            {node("a", "v1.38.0", "") + server("v1.38.0"), finding.Pass, "newer than all"},
		"no API server":           {node("a", "v1.37.1", ""), finding.Unknown, "not known"},
		"ended, no API server":    {node("a", "v1.32.1", ""), finding.Fail, "no longer mended"},
		"no version":              {node("a", "", "") + server("v1.37.1"), finding.Unknown, "reports no version"},
		"far behind another node": {node("a", "v1.33.0", "") + node("b", "v1.37.0", ""), finding.Fail, "4 minors behind"},
	} {
		got := Nodes(read(t, inventory.Cluster, tt.manifests), now)
		if got[0].Status != tt.want || !strings.Contains(got[0].Message+got[0].Reason+got[0].Evidence, tt.says) {
			t.Errorf("%s: %+v, want %s %q", name, got[0], tt.want, tt.says)
		}
	}
}

func TestRuntimes(t *testing.T) {
	for runtime, want := range map[string]finding.Status{
		"containerd://2.2.5": finding.Pass, "containerd://2.2.4": finding.Fail, "containerd://1.7.33": finding.Pass, "containerd://1.6.38": finding.Fail,
		"containerd://2.4.0": finding.Pass, "containerd://1.7.33-0ubuntu1": finding.Pass,
		"cri-o://1.37.0": finding.Pass, "cri-o://1.30.0": finding.Fail, "cri-o://1.22.2": finding.Fail,
		"docker://29.0.1": finding.Unknown, "": finding.Unknown, "containerd://": finding.Unknown,
	} {
		got := Runtimes(read(t, inventory.Cluster, node("a", "v1.37.0", runtime)))
		if got[0].Status != want || want == finding.Fail && !strings.Contains(got[0].Message, "CVE-") {
			t.Errorf("%s: %+v, want %s", runtime, got[0], want)
		}
	}
}

func TestAddons(t *testing.T) {
	for image, want := range map[string]finding.Status{
		"registry.k8s.io/ingress-nginx/controller:v1.15.0@sha256:00": finding.Fail,
		"ghcr.io/helm/tiller:v2.17.0":                                finding.Fail,
		"kubernetesui/dashboard:v2.7.0":                              finding.Fail,
		"quay.io/argoproj/argocd:v3.3.9":                             finding.Pass,
		"quay.io/argoproj/argocd:v3.3.8":                             finding.Fail,
		"quay.io/argoproj/argocd:v3.1.2":                             finding.Pass,
		"quay.io/argoproj/argocd:v2.14.15":                           finding.Fail,
		"quay.io/argoproj/argocd@sha256:00":                          finding.Unknown,
		"quay.io/argoproj/argocd:latest":                             finding.Unknown,
		"mirror:5000/x/kyverno/kyverno:v1.16.3":                      finding.Pass,
		"ghcr.io/kyverno/kyverno:v1.14.0":                            finding.Fail,
		"nvcr.io/nvidia/k8s/container-toolkit:v1.17.8-ubuntu20.04":   finding.Pass,
		"nginx:1.29":                    finding.NotApplicable,
		"example.com/shop/dashboard:v1": finding.NotApplicable,
		"nginx/nginx-ingress:5.0.0":     finding.NotApplicable,
	} {
		manifest := fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: a, image: busybox}, {name: b, image: %q}]}}", image)
		if got := Addons(read(t, inventory.Files, manifest), now); len(got) != 1 || got[0].Status != want {
			t.Errorf("%s: %+v, want %s", image, got, want)
		}
	}
}

func TestRemoved(t *testing.T) {
	object := func(apiVersion, kind, annotation string) string {
		return fmt.Sprintf("---\n{apiVersion: %s, kind: %s, metadata: {name: o, annotations: {%s}}}\n", apiVersion, kind, annotation)
	}
	wrote := func(apiVersion string) string {
		return fmt.Sprintf(`kubectl.kubernetes.io/last-applied-configuration: '{"apiVersion":%q,"kind":"PodDisruptionBudget"}'`, apiVersion)
	}
	for name, tt := range map[string]struct {
		manifests string
		origin    inventory.Origin
		want      finding.Status
	}{
		"current":                       {object("policy/v1", "PodDisruptionBudget", ""), inventory.Files, finding.Pass},
		"removed in the next minor":     {object("resource.k8s.io/v1beta1", "DeviceClass", ""), inventory.Files, finding.Fail},
		"removed later":                 {object("resource.k8s.io/v1beta2", "DeviceClass", ""), inventory.Files, finding.Pass},
		"removed after an older server": {object("policy/v1", "PodDisruptionBudget", wrote("policy/v1beta1")) + server("v1.20.0"), inventory.Cluster, finding.Pass},
		"of another product":            {object("example.com/v1beta1", "Shop", ""), inventory.Files, ""},
		"applied":                       {object("policy/v1", "PodDisruptionBudget", wrote("policy/v1")), inventory.Cluster, finding.Pass},
		"applied in an old version":     {object("policy/v1", "PodDisruptionBudget", wrote("policy/v1beta1")), inventory.Cluster, finding.Fail},
		"live without what was applied": {object("policy/v1", "PodDisruptionBudget", ""), inventory.Cluster, finding.Unknown},
		"what was applied is broken":    {object("policy/v1", "PodDisruptionBudget", "kubectl.kubernetes.io/last-applied-configuration: '{'"), inventory.Cluster, finding.Unknown},
	} {
		got := Removed(read(t, tt.origin, tt.manifests))
		if tt.want == "" && len(got) != 0 || tt.want != "" && (len(got) != 1 || got[0].Status != tt.want) {
			t.Errorf("%s: %+v, want %q", name, got, tt.want)
		}
	}
}
