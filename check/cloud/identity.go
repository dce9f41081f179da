package cloud

import (
	"strings"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/fact"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Identities says for each cluster whether pods have identities of their own,
// and for what nodes are to the cloud whether it has broad rights, which any pod
// that reaches the metadata service would share.
func Identities(inv *inventory.Inventory, set *evidence.Set) []finding.Verdict {
	var out []finding.Verdict
	all := of(set)
	annotated := annotatedAccount(inv)
	for i := range all {
		for _, c := range all[i].Clusters {
			f := pass(c.Address + " has workload identity")
			switch {
			case c.WorkloadIdentity == fact.Yes:
			case annotated != "":
				f = pass(annotated + " has an identity of its own")
			case c.WorkloadIdentity == fact.No:
				f = fail("pods have no identity of their own towards the cloud", c.Address+" has no workload identity")
			default:
				f = unknown("workload identity is set up neither by %s nor by what stands beside it; it may be in another plan", c.Address)
			}
			f.Exposure = finding.InCluster
			out = append(out, all.judged("CloudIdentity", &all[i], c.Address, f))
		}
	}
	out = append(out, nodeRights(set)...)
	if len(out) > 0 {
		return out
	}
	if cloud, known := provider(inv); known && cloud == "" {
		return []finding.Verdict{{Status: finding.NotApplicable, Reason: "no node is a machine of a cloud", Subject: finding.Subject{Kind: "CloudIdentity"}}}
	}
	return nil
}

// nodeRights judges the identities of nodes. A cluster of Azure is also the
// address of what its nodes are.
func nodeRights(set *evidence.Set) []finding.Verdict {
	var out []finding.Verdict
	all := of(set)
	for i := range all {
		for _, id := range all[i].Identities {
			f := pass(id.Address + ": no broad right was found")
			switch {
			case len(id.Broad) > 0:
				f = fail("nodes have far more rights in the cloud than they need", strings.Join(shorten(id.Broad), "; "))
			case len(id.Unknown) > 0:
				f = pending(id.Unknown)
			}
			f.Exposure = finding.InCluster
			out = append(out, all.judged("CloudIdentity", &all[i], "nodes of "+id.Address, f))
		}
	}
	return out
}

// accountAnnotations tie a service account to an identity of a cloud.
var accountAnnotations = []string{"eks.amazonaws.com/role-arn", "azure.workload.identity/client-id", "iam.gke.io/gcp-service-account"}

// annotatedAccount returns a service account with an identity of a cloud.
func annotatedAccount(inv *inventory.Inventory) string {
	for _, o := range inv.Kind("", "ServiceAccount") {
		for _, key := range accountAnnotations {
			if o.GetAnnotations()[key] != "" {
				return o.Subject().String()
			}
		}
	}
	return ""
}
