package cloud

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/fact"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// EntryPoints says for each entry point for HTTP from the internet whether a web
// application firewall refuses attacks in front of it.
func EntryPoints(inv *inventory.Inventory, set *evidence.Set) []finding.Verdict {
	var out []finding.Verdict
	all := of(set)
	for i := range all {
		for _, e := range all[i].EntryPoints {
			out = append(out, all.judged("CloudWAF", &all[i], e.Address, waf(e.Address, e.Firewall, e.Public, e.WAF, e.Blocking)))
		}
	}
	if len(out) == 0 && inv.Origin == inventory.Cluster && !entered(inv) {
		out = append(out, finding.Verdict{
			Status: finding.NotApplicable, Reason: "nothing in the cluster takes requests from outside",
			Subject: finding.Subject{Kind: "CloudWAF"},
		})
	}
	return out
}

func waf(address, by string, public, attached, blocking fact.Fact) finding.Verdict {
	switch {
	case public == fact.No:
		return finding.Verdict{Status: finding.NotApplicable, Reason: "takes no requests from the internet"}
	case attached == fact.No:
		if public == fact.Unknown {
			return unknown("whether it is public is known only after apply")
		}
		return fail("no web application firewall stands in front of it", address)
	case blocking == fact.No:
		return fail("its web application firewall only counts attacks", by)
	case blocking == fact.Yes:
		return pass(address + " is behind " + by)
	case attached == fact.Yes:
		return unknown("a web application firewall is attached, but its rules are not in the plan")
	}
	return unknown("what is attached to it is known only after apply")
}

// entered reports whether something in a cluster may take requests from
// outside, or could not be read.
func entered(inv *inventory.Inventory) bool {
	for _, kind := range []struct{ group, kind string }{
		{"", "Service"}, {"networking.k8s.io", "Ingress"}, {"gateway.networking.k8s.io", "Gateway"}, {"networking.istio.io", "Gateway"}, {"route.openshift.io", "Route"},
	} {
		if inv.Gap(kind.group, kind.kind) != "" {
			return true
		}
		for _, o := range inv.Kind(kind.group, kind.kind) {
			if kind.kind != "Service" {
				return true
			}
			spec, _ := o.Object["spec"].(map[string]any)
			if t, _ := spec["type"].(string); t == string(corev1.ServiceTypeLoadBalancer) || t == string(corev1.ServiceTypeNodePort) {
				return true
			}
		}
	}
	return false
}
