package cloud

import (
	"fmt"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/evidence/terraform"
	"github.com/kubeguardian/kubeguardian/fact"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/tool"
)

// minLogDays is the agreed time for which logs are kept.
const minLogDays = int(evidence.LogAge / (24 * time.Hour))

// Logs says whether audit, node and container logs leave the cluster and are
// kept. Of a cluster alone only a program that ships logs can be seen.
func Logs(inv *inventory.Inventory, set *evidence.Set) []finding.Verdict {
	var out []finding.Verdict
	all := of(set)
	shipper := Shipper(inv)
	for i := range all {
		for _, c := range all[i].Clusters {
			f := logs(c, shipper)
			f.Exposure = finding.System
			out = append(out, all.judged("Cluster", &all[i], c.Address, f))
		}
	}
	if len(out) == 0 && len(inv.Objects()) > 0 && shipper != "" {
		f := unknown("%s ships logs; where the audit log goes and how long logs are kept is not seen: attest it, or give the plan of your infrastructure by --evidence", shipper)
		f.Subject = finding.Subject{Kind: "Cluster"}
		out = append(out, f)
	}
	return out
}

func logs(c terraform.Cluster, shipper string) finding.Verdict {
	container := c.ContainerLog
	if shipper != "" {
		container = fact.Yes
	}
	switch {
	case c.AuditLog == fact.No:
		return fail("the audit log does not leave the control plane", c.Address)
	case container == fact.No:
		return fail("the logs of nodes and containers stay on the nodes", c.Address)
	case c.LogDays > 0 && c.LogDays < minLogDays:
		return fail(fmt.Sprintf("logs are kept for %d days only, want %d", c.LogDays, minLogDays), c.Address)
	}
	var missing []string
	if c.AuditLog == fact.Unknown {
		missing = append(missing, "whether the audit log leaves the control plane")
	}
	if container == fact.Unknown {
		missing = append(missing, "what ships the logs of nodes and containers")
	}
	if c.LogDays == 0 {
		missing = append(missing, "how long logs are kept")
	}
	if len(missing) > 0 {
		return unknown("not seen: %s; scan the cluster as well, or attest it", strings.Join(missing, ", "))
	}
	kept := fmt.Sprintf("%d days", c.LogDays)
	if c.LogDays == terraform.Forever {
		kept = "ever"
	}
	return pass(fmt.Sprintf("%s: audit log on, logs shipped, kept for %s", c.Address, kept))
}

// Shipper returns the workload that ships logs out of the nodes: a DaemonSet
// with the image of a known tool; "" if there is none.
func Shipper(inv *inventory.Inventory) string {
	images := map[string]string{}
	for _, n := range tool.BuiltIn().Needs {
		for _, t := range n.Tools {
			for _, image := range t.Images {
				if n.ID == "logs" {
					images[image] = t.Name
				}
			}
		}
	}
	for _, w := range inv.Workloads() {
		if w.GetKind() != "DaemonSet" {
			continue
		}
		for _, c := range w.Template.Spec.Containers {
			if name := images[tool.ImageName(c.Image)]; name != "" {
				return fmt.Sprintf("%s (%s)", w.Subject(), name)
			}
		}
	}
	return ""
}
