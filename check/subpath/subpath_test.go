package subpath_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/check/subpath"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// judge returns the state of a pod with one volume and one mount in a live
// cluster.
func judge(t *testing.T, pod, nodes string, gaps ...inventory.Gap) finding.Verdict {
	t.Helper()
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(pod+nodes))
	if err != nil {
		t.Fatal(err)
	}
	if inv, err = inventory.New(inventory.Cluster, inv.Objects(), gaps); err != nil {
		t.Fatal(err)
	}
	got := subpath.Mounts(inv)
	if len(got) != 1 {
		t.Fatalf("%d findings", len(got))
	}
	return got[0]
}

func pod(volume, mount, more string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {%s volumes: [{name: v, %s}], containers: [{name: web, image: web, volumeMounts: [{name: v, mountPath: /v, %s}]}]}}\n", more, volume, mount)
}

func node(name, kubelet string) string {
	return fmt.Sprintf("---\n{apiVersion: v1, kind: Node, metadata: {name: %s, labels: {host: %[1]s}}, status: {nodeInfo: {kubeletVersion: %q}}}\n", name, kubelet)
}

func TestVersions(t *testing.T) {
	for version, want := range map[string]finding.Status{
		"v1.10.3": finding.Fail, "v1.19.14": finding.Fail, "v1.19.15": finding.NotApplicable,
		"v1.20.10": finding.Fail, "v1.20.11": finding.NotApplicable, "v1.21.4-gke.2300": finding.Fail,
		"v1.21.5+k3s1": finding.NotApplicable, "v1.22.1": finding.Fail, "v1.22.2": finding.NotApplicable,
		"v1.23.0": finding.NotApplicable, "v1.36.1": finding.NotApplicable, "v0.9.0": finding.Fail, "v2.0.0": finding.NotApplicable,
		"": finding.Unknown, "newest": finding.Unknown,
	} {
		f := judge(t, pod("emptyDir: {}", "subPath: a", ""), node("a", version))
		if f.Status != want {
			t.Errorf("%s: %s %s, want %s", version, f.Status, f.Message+f.Reason, want)
		}
		if want == finding.Fail && (!strings.Contains(f.Message, "web: v") || !strings.Contains(f.Evidence, version)) {
			t.Errorf("%s: %+v", version, f)
		}
	}
}

func TestVolumesAndNodes(t *testing.T) {
	both := node("old", "v1.20.0") + node("new", "v1.36.1")
	for name, tt := range map[string]struct {
		pod  string
		want finding.Status
	}{
		"whole volume":            {pod("emptyDir: {}", "readOnly: true", ""), finding.Pass},
		"config":                  {pod("configMap: {name: a}", "subPath: a", ""), finding.Pass},
		"image":                   {pod("image: {reference: a}", "subPath: a", ""), finding.Pass},
		"claim, read-only":        {pod("persistentVolumeClaim: {claimName: a, readOnly: true}", "subPath: a", ""), finding.Pass},
		"driver, read-only":       {pod("csi: {driver: a, readOnly: true}", "subPath: a", ""), finding.Pass},
		"driver":                  {pod("csi: {driver: a}", "subPath: a", ""), finding.Fail},
		"claim":                   {pod("persistentVolumeClaim: {claimName: a}", "subPathExpr: $(A)", ""), finding.Fail},
		"mount that is read-only": {pod("emptyDir: {}", "subPath: a, readOnly: true", ""), finding.Fail},
		"runs on the new one":     {pod("emptyDir: {}", "subPath: a", "nodeName: new,"), finding.NotApplicable},
		"selects the new one":     {pod("emptyDir: {}", "subPath: a", "nodeSelector: {host: new},"), finding.NotApplicable},
		"selects none":            {pod("emptyDir: {}", "subPath: a", "nodeSelector: {host: other},"), finding.Unknown},
	} {
		if f := judge(t, tt.pod, both); f.Status != tt.want {
			t.Errorf("%s: %s %s, want %s", name, f.Status, f.Message+f.Reason, tt.want)
		}
	}
}

func TestNodesThatCannotBeRead(t *testing.T) {
	gap := inventory.Gap{Kind: schema.GroupKind{Kind: "Node"}, Reason: "forbidden"}
	f := judge(t, pod("emptyDir: {}", "subPath: a", ""), "", gap)
	if f.Status != finding.Unknown || !strings.Contains(f.Reason, "forbidden") {
		t.Errorf("%+v", f)
	}
}
