package inventory

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestServerVersion(t *testing.T) {
	pod := func(namespace, image string) *Object {
		return &Object{Unstructured: &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": strings.NewReplacer("/", "-", ":", "-", "@", "-").Replace(image), "namespace": namespace},
			"spec": map[string]any{"containers": []any{map[string]any{"name": "c", "image": image}}},
		}}}
	}
	node := func(kubelet string) *Object {
		return &Object{Unstructured: &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": "node-" + kubelet},
			"status": map[string]any{"nodeInfo": map[string]any{"kubeletVersion": kubelet}},
		}}}
	}
	tests := []struct {
		name            string
		origin          Origin
		says            string
		objects         []*Object
		server, atLeast string
	}{
		{"the server says", Cluster, "v1.37.1", []*Object{pod("kube-system", "registry.k8s.io/kube-apiserver:v1.36.0")}, "1.37.1", "1.37.1"},
		{"of a provider", Cluster, "v1.35.2-eks-1a2b3c", nil, "1.35.2", "1.35.2"},
		{"its pods, the oldest counts", Cluster, "", []*Object{pod("kube-system", "registry.k8s.io/kube-apiserver:v1.37.0"), pod("kube-system", "localhost:5000/kube-apiserver:v1.36.4@sha256:00")}, "1.36.4", "1.36.4"},
		{"a pod elsewhere is none", Cluster, "", []*Object{pod("shop", "kube-apiserver:v1.37.0")}, "", ""},
		{"nor another component", Cluster, "", []*Object{pod("kube-system", "registry.k8s.io/kube-proxy:v1.37.0")}, "", ""},
		{"nor an image without version", Cluster, "", []*Object{pod("kube-system", "kube-apiserver")}, "", ""},
		{"nor a file", Files, "", []*Object{pod("kube-system", "kube-apiserver:v1.37.0")}, "", ""},
		{"kubelets give a bound", Cluster, "", []*Object{node("v1.34.9"), node("v1.35.0"), node("broken")}, "", "1.35.0"},
		{"nothing", Cluster, "", nil, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inv, err := New(tt.origin, tt.objects, nil)
			if err != nil {
				t.Fatal(err)
			}
			inv.server = tt.says
			for want, v := range map[string]interface{ String() string }{"server " + tt.server: inv.ServerVersion(), "atLeast " + tt.atLeast: inv.ServerAtLeast()} {
				what, want, _ := strings.Cut(want, " ")
				got := ""
				if s := v.String(); s != "<nil>" {
					got, _, _ = strings.Cut(s, "-")
				}
				if got != want {
					t.Errorf("%s %q, want %q", what, got, want)
				}
			}
		})
	}
}
