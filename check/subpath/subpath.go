// Package subpath says which workloads a kubelet with CVE-2021-25741 lets out:
// a container that can write to a volume, and mounts a part of it by subPath,
// gets any file of the node through a symbolic link.
package subpath

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// fixed is the first patch release of each minor version with the fix; older
// minor versions have none, newer ones all have it.
var fixed = map[uint]uint{19: 15, 20: 11, 21: 5, 22: 2}

// Mounts says for each workload that mounts a subPath of a writable volume
// whether a node that it may run on has an open kubelet.
func Mounts(inv *inventory.Inventory) []finding.Verdict {
	nodes := inv.Kind("", "Node")
	var out []finding.Verdict
	for _, w := range inv.Workloads() {
		f := finding.Verdict{Status: finding.Pass}
		if mounts := writable(&w.Template.Spec); len(mounts) > 0 {
			f = judge(inv, w, nodes)
			if f.Status == finding.Fail {
				f.Message = fmt.Sprintf("mounts a subPath of a writable volume (%s) where the kubelet is open to CVE-2021-25741", strings.Join(mounts, ", "))
			}
		}
		f.Subject = w.Subject()
		out = append(out, f)
	}
	return out
}

// judge looks at the nodes that a workload may run on.
func judge(inv *inventory.Inventory, w *inventory.Workload, nodes []*inventory.Object) finding.Verdict {
	var open, unclear []string
	seen := 0
	for _, n := range nodes {
		if !mayRunOn(&w.Template.Spec, n) {
			continue
		}
		seen++
		text, _, _ := unstructured.NestedString(n.Object, "status", "nodeInfo", "kubeletVersion")
		switch v, err := version.ParseGeneric(text); {
		case err != nil:
			unclear = append(unclear, n.GetName())
		case vulnerable(v):
			open = append(open, n.GetName()+" "+text)
		}
	}
	gap := inv.Gap("", "Node")
	switch {
	case len(open) > 0:
		return finding.Verdict{Status: finding.Fail, Evidence: "kubelet of " + strings.Join(open[:min(len(open), 5)], ", ")}
	case gap != "":
		return finding.Verdict{Status: finding.Unknown, Reason: "Node objects could not be read: " + gap}
	case len(unclear) > 0:
		return finding.Verdict{Status: finding.Unknown, Reason: "the kubelet's version is not known of node " + strings.Join(unclear[:min(len(unclear), 5)], ", ")}
	case inv.Origin == inventory.Files:
		return finding.Verdict{Status: finding.Unknown, Reason: "mounts a subPath of a writable volume, and files do not show the version of every kubelet; scan the cluster: kubeguardian scan --cluster"}
	case seen == 0:
		return finding.Verdict{Status: finding.Unknown, Reason: "mounts a subPath of a writable volume, and no node that it may run on is there"}
	}
	return finding.Verdict{Status: finding.NotApplicable, Reason: "every kubelet that it may run on has the fix of CVE-2021-25741"}
}

func vulnerable(v *version.Version) bool {
	if v.Major() != 1 {
		return v.Major() < 1
	}
	patch, listed := fixed[v.Minor()]
	return v.Minor() < 19 || listed && v.Patch() < patch
}

// mayRunOn leaves out the nodes that a plain nodeName or nodeSelector does;
// affinity and taints are not looked at.
func mayRunOn(spec *corev1.PodSpec, node *inventory.Object) bool {
	if spec.NodeName != "" && spec.NodeName != node.GetName() {
		return false
	}
	return labels.SelectorFromSet(spec.NodeSelector).Matches(labels.Set(node.GetLabels()))
}

// writable returns "container: volume" for each mount of a subPath of a volume
// that somebody can write to.
func writable(spec *corev1.PodSpec) []string {
	volumes := map[string]bool{}
	for i := range spec.Volumes {
		volumes[spec.Volumes[i].Name] = !readOnly(&spec.Volumes[i].VolumeSource)
	}
	var out []string
	add := func(container string, mounts []corev1.VolumeMount) {
		for _, m := range mounts {
			known, listed := volumes[m.Name]
			if (m.SubPath != "" || m.SubPathExpr != "") && (known || !listed) { // a claim template's is not listed
				out = append(out, container+": "+m.Name)
			}
		}
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		add(c.Name, c.VolumeMounts)
	}
	for _, c := range spec.EphemeralContainers {
		add(c.Name, c.VolumeMounts)
	}
	return out
}

// readOnly reports whether the kubelet mounts a volume of this source read-only
// for all. A mount that is read-only in one container says nothing: another
// one, or another pod, may write.
func readOnly(s *corev1.VolumeSource) bool {
	return s.ConfigMap != nil || s.Secret != nil || s.DownwardAPI != nil || s.Projected != nil || s.Image != nil ||
		s.PersistentVolumeClaim != nil && s.PersistentVolumeClaim.ReadOnly || s.CSI != nil && s.CSI.ReadOnly != nil && *s.CSI.ReadOnly
}
