package cloud

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/evidence/terraform"
	"github.com/kubeguardian/kubeguardian/fact"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Metadata says for each kind of node whether its pods reach the instance
// metadata, and with it the rights of the node. Where the cloud lets them, what
// is inside the cluster may hold them back; that alone counts where no plan
// speaks of nodes.
func Metadata(set *evidence.Set, inside []finding.Verdict) []finding.Verdict {
	var out []finding.Verdict
	all := of(set)
	for i := range all {
		for _, m := range all[i].Machines {
			f := metadata(m, inside)
			f.Exposure = finding.InCluster
			out = append(out, all.judged("Node", &all[i], m.Address, f))
		}
	}
	if len(out) == 0 {
		return inside
	}
	return out
}

func metadata(m terraform.Machine, inside []finding.Verdict) finding.Verdict {
	for _, f := range inside {
		if f.Status == finding.Pass && m.Metadata != fact.No {
			return pass(m.Address + ": " + f.Evidence)
		}
	}
	switch m.Metadata {
	case fact.No:
		return pass(m.Address + ": " + m.Why)
	case fact.Yes:
		return fail("pods reach the metadata service of their node", m.Address+": "+m.Why)
	}
	return unknown("%s: %s", m.Address, m.Why)
}

// provider returns the cloud that the nodes of a cluster are machines of, by
// their provider ids; "" for none. It is not known without any node.
func provider(inv *inventory.Inventory) (cloud string, known bool) {
	if inv.Origin != inventory.Cluster || inv.Gap("", "Node") != "" {
		return "", false
	}
	nodes := inv.Kind("", "Node")
	for _, o := range nodes {
		var n corev1.Node
		if runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &n) != nil {
			return "", false
		}
		scheme, _, _ := strings.Cut(n.Spec.ProviderID, "://")
		switch scheme {
		case "", "kind", "k3s", "minikube", "metal3", "vsphere", "kubemark", "kwok":
		default:
			return scheme, true
		}
	}
	return "", len(nodes) > 0
}
