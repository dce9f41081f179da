package network

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// An answer is yes, no or not known.
type answer uint8

const (
	unsure answer = iota
	yes
	no
)

// A plugin is the network plugin of a live cluster.
type plugin struct {
	enforces answer
	seen     string // what shows it
}

// plugins are known by the last part of the names of their images. A plugin
// that routes only may run beside one that enforces, as flannel beside Calico.
var plugins = []struct {
	image    string
	enforces bool
	// off is the setting by which a plugin that could enforce does not, and on
	// the one that it needs.
	off, on string
}{
	{"antrea-agent", true, "", ""}, {"antrea-agent-ubuntu", true, "", ""}, {"antrea-agent-ubi", true, "", ""}, {"antrea-ubuntu", true, "", ""},
	{"aws-network-policy-agent", true, "", "--enable-network-policy=true"},
	{"azure-npm", true, "", ""},
	{"calico/node", true, "", ""}, {"calico-node", true, "", ""},
	{"cilium/cilium", true, "", ""}, {"cilium/cilium-ci", true, "", ""},
	{"kube-network-policies", true, "", ""},
	{"kube-ovn", true, "", ""},
	{"kube-router", true, "--run-firewall=false", ""},
	{"nsx-ncp", true, "", ""},
	{"ovn-kube-u", true, "", ""}, {"ovn-kube-f", true, "", ""}, {"ovn-kubernetes", true, "", ""},
	{"weave-npc", true, "", ""},

	{"amazon-k8s-cni", false, "", ""},
	{"bridge-cni", false, "", ""},
	{"flannel", false, "", ""},
}

// findPlugin looks for what DaemonSets run: every plugin that enforces needs a
// pod on each node.
func findPlugin(inv *inventory.Inventory) plugin {
	if inv.Origin == inventory.Files {
		return plugin{}
	}
	found := plugin{}
	for _, w := range inv.Workloads() {
		if w.GetKind() != "DaemonSet" {
			continue
		}
		for _, c := range slices.Concat(w.Template.Spec.Containers, w.Template.Spec.InitContainers) {
			if p := judgePlugin(c); p.enforces == yes {
				p.seen = fmt.Sprintf("%s of %s", p.seen, w.Subject())
				return withConfiguration(inv, p)
			} else if p.enforces == no {
				found = plugin{no, fmt.Sprintf("%s of %s", p.seen, w.Subject())}
			}
		}
	}
	return found
}

func judgePlugin(c corev1.Container) plugin {
	name := repository(c.Image)
	args := slices.Concat(c.Command, c.Args)
	for _, k := range plugins {
		if name != k.image && baseName(c.Image) != k.image && !strings.HasSuffix(name, "/"+k.image) {
			continue
		}
		enforces := k.enforces && (k.on == "" || slices.Contains(args, k.on)) && (k.off == "" || !slices.Contains(args, k.off))
		if enforces {
			return plugin{yes, "image " + k.image}
		}
		return plugin{no, "image " + k.image}
	}
	return plugin{}
}

// withConfiguration takes into account that Cilium can be told to enforce
// nothing.
func withConfiguration(inv *inventory.Inventory, p plugin) plugin {
	for _, o := range inv.Kind("", "ConfigMap") {
		data, _ := o.Object["data"].(map[string]any)
		if o.GetName() == "cilium-config" && data["enable-policy"] == "never" && strings.Contains(p.seen, "cilium") {
			return plugin{no, "enable-policy is never in " + o.Subject().String()}
		}
	}
	return p
}

// Enforcement says whether the network plugin of a live cluster enforces
// NetworkPolicies. Manifests do not show it.
func (n *Network) Enforcement() []finding.Verdict {
	if n.inv.Origin == inventory.Files {
		return nil
	}
	f := finding.Verdict{Evidence: n.plugin.seen, Subject: finding.Subject{Kind: "Cluster"}}
	switch n.plugin.enforces {
	case yes:
		f.Status = finding.Pass
	case no:
		f.Status, f.Message = finding.Fail, "the network plugin does not enforce NetworkPolicies: every policy is as good as absent"
	default:
		f.Status = finding.Unknown
		f.Reason = "no known network plugin among the DaemonSets; find out what enforces NetworkPolicies here, and attest it"
		if gap := n.inv.Gap("apps", "DaemonSet"); gap != "" {
			f.Reason = "DaemonSets could not be read: " + gap
		}
	}
	return []finding.Verdict{f}
}
