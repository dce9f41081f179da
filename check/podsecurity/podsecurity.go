// Package podsecurity says which namespaces enforce a Pod Security level, and
// what security context each container of a pod runs with.
package podsecurity

import (
	"fmt"
	"maps"
	"slices"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// enforce is the label by which a namespace refuses pods; those that warn or
// audit let pods in.
const enforce = "pod-security.kubernetes.io/enforce"

// Enforced says for each namespace whether it enforces at least the baseline
// level. A namespace that has workloads but no object in the inventory is
// unknown. A default that the API server's own configuration may set cannot be
// seen through the API and does not count.
func Enforced(inv *inventory.Inventory) []finding.Verdict {
	findings := map[string]finding.Verdict{}
	missing := "the Namespace is not among the files"
	if gap := inv.Gap("", "Namespace"); gap != "" {
		missing = "Namespace objects could not be read: " + gap
	}
	for _, w := range inv.Workloads() {
		ns := inv.NamespaceOf(w.Object)
		if _, have := findings[ns]; !have {
			findings[ns] = finding.Verdict{Status: finding.Unknown, Reason: missing, Subject: finding.Subject{
				APIVersion: "v1", Kind: "Namespace", Name: ns, Source: w.Source,
			}}
		}
	}
	for _, o := range inv.Kind("", "Namespace") {
		f := judge(o)
		f.Subject = o.Subject()
		findings[o.GetName()] = f
	}
	var out []finding.Verdict
	for _, ns := range slices.Sorted(maps.Keys(findings)) {
		out = append(out, findings[ns])
	}
	return out
}

func judge(o *inventory.Object) finding.Verdict {
	switch o.GetName() {
	case "kube-system", "kube-public", "kube-node-lease":
		return finding.Verdict{Status: finding.NotApplicable, Reason: "components of Kubernetes need what the baseline level forbids"}
	}
	level, set := o.GetLabels()[enforce]
	switch {
	case level == "baseline" || level == "restricted":
		return finding.Verdict{Status: finding.Pass, Evidence: enforce + ": " + level}
	case !set:
		return finding.Verdict{Status: finding.Fail, Message: "enforces no Pod Security level", Evidence: "no label " + enforce}
	case level == "privileged":
		return finding.Verdict{Status: finding.Fail, Message: "enforces the privileged level, which allows everything", Evidence: enforce + ": privileged"}
	}
	return finding.Verdict{
		Status:   finding.Fail,
		Message:  "enforces no Pod Security level: its label names none",
		Evidence: fmt.Sprintf("%s: %q", enforce, level),
	}
}
