package limits

import (
	"strings"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Namespaces says for each namespace whether it bounds what all of its pods
// take together, and each of them. Files speak for a namespace they hold.
func Namespaces(inv *inventory.Inventory) []finding.Verdict {
	held := map[string]map[string]bool{}
	for _, kind := range []string{"ResourceQuota", "LimitRange"} {
		held[kind] = map[string]bool{}
		for _, o := range inv.Kind("", kind) {
			held[kind][inv.NamespaceOf(o)] = true
		}
	}
	var out []finding.Verdict
	for _, o := range inv.Kind("", "Namespace") {
		f := bounded(inv, o.GetName(), held)
		f.Subject = o.Subject()
		out = append(out, f)
	}
	return out
}

func bounded(inv *inventory.Inventory, namespace string, held map[string]map[string]bool) finding.Verdict {
	if strings.HasPrefix(namespace, "kube-") {
		return finding.Verdict{Status: finding.NotApplicable, Reason: "a namespace of Kubernetes itself"}
	}
	var missing []string
	for _, kind := range []string{"ResourceQuota", "LimitRange"} {
		if held[kind][namespace] {
			continue
		}
		if gap := inv.Gap("", kind); gap != "" {
			return finding.Verdict{Status: finding.Unknown, Reason: kind + " objects could not be read: " + gap}
		}
		missing = append(missing, kind)
	}
	if len(missing) == 0 {
		return finding.Verdict{Status: finding.Pass}
	}
	return finding.Verdict{Status: finding.Fail, Message: "has no " + strings.Join(missing, " and no "), Evidence: "no " + strings.Join(missing, ", no ")}
}
