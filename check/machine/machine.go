// Package machine judges what the API says of the machines that nodes are.
package machine

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Addresses says for each worker node whether it has an address that the
// internet can route. Only a cloud's controller knows the addresses that the
// cloud translates.
func Addresses(inv *inventory.Inventory) []finding.Verdict {
	var out []finding.Verdict
	for _, o := range inv.Kind("", "Node") {
		f := addresses(o)
		f.Subject = o.Subject()
		out = append(out, f)
	}
	return out
}

func addresses(o *inventory.Object) finding.Verdict {
	var node corev1.Node
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &node); err != nil {
		return finding.Verdict{Status: finding.Unknown, Reason: "the node is not of the shape of its kind: " + err.Error()}
	}
	if _, ok := node.Labels["node-role.kubernetes.io/control-plane"]; ok {
		return finding.Verdict{Status: finding.NotApplicable, Reason: "a node of the control plane"}
	}
	for _, a := range node.Status.Addresses {
		if a.Type == corev1.NodeExternalDNS && a.Address != "" || isPublic(a) {
			return finding.Verdict{Status: finding.Fail, Message: "the node has a public address", Evidence: string(a.Type) + " " + a.Address}
		}
	}
	switch {
	case len(node.Status.Addresses) == 0:
		return finding.Verdict{Status: finding.Unknown, Reason: "the node reports no address"}
	case node.Spec.ProviderID == "":
		return finding.Verdict{Status: finding.Unknown, Reason: "no cloud reports the addresses of the node; attest that none is translated to it"}
	}
	cloud, _, _ := strings.Cut(node.Spec.ProviderID, ":")
	return finding.Verdict{Status: finding.Pass, Evidence: "addresses as " + cloud + " reports them"}
}

// shared is the range that providers use between themselves and their
// customers, RFC 6598.
var shared = netip.MustParsePrefix("100.64.0.0/10")

func isPublic(a corev1.NodeAddress) bool {
	ip, err := netip.ParseAddr(a.Address)
	return err == nil && ip.IsGlobalUnicast() && !ip.IsPrivate() && !shared.Contains(ip.Unmap())
}
