// Package sandbox says which workloads that nobody trusts run in a sandbox.
package sandbox

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Label is how a workload, its pods or its namespace say that they run code of
// somebody who is not trusted: with the value "untrusted". The pods decide
// before the workload, and that before the namespace.
const Label = "kubeguardian.dev/trust"

const untrusted = "untrusted"

// handlers are how the names of handlers begin that are sandboxes: gVisor, Kata
// Containers, Firecracker and the Hyper-V isolation of Windows.
var handlers = []string{"runsc", "gvisor", "kata", "firecracker", "runhcs-wcow-hypervisor"}

// Untrusted says for each workload that is labelled untrusted whether it runs
// in a sandbox. The handler of its RuntimeClass decides: its name may be
// anything.
func Untrusted(inv *inventory.Inventory) []finding.Verdict {
	var out []finding.Verdict
	for _, w := range inv.Workloads() {
		f := judge(inv, w)
		f.Subject = w.Subject()
		out = append(out, f)
	}
	return out
}

func judge(inv *inventory.Inventory, w *inventory.Workload) finding.Verdict {
	if trust(inv, w) != untrusted {
		return finding.Verdict{Status: finding.NotApplicable, Reason: "neither it nor its namespace is labelled " + Label + ": " + untrusted}
	}
	name := w.Template.Spec.RuntimeClassName
	if name == nil || *name == "" {
		return finding.Verdict{Status: finding.Fail, Message: "is untrusted and shares the kernel of its node", Evidence: "no runtimeClassName"}
	}
	class := inv.Get("node.k8s.io", "RuntimeClass", "", *name)
	if class == nil {
		return finding.Verdict{Status: finding.Unknown, Reason: missing(inv, *name)}
	}
	handler, _, _ := unstructured.NestedString(class.Object, "handler")
	evidence := fmt.Sprintf("RuntimeClass %s has handler %s", *name, handler)
	if !isolates(handler) {
		return finding.Verdict{Status: finding.Fail, Message: "is untrusted and runs in a runtime class that is no sandbox known here", Evidence: evidence}
	}
	return finding.Verdict{Status: finding.Pass, Evidence: evidence}
}

func missing(inv *inventory.Inventory, name string) string {
	if gap := inv.Gap("node.k8s.io", "RuntimeClass"); gap != "" {
		return "RuntimeClass objects could not be read: " + gap
	}
	if inv.Origin == inventory.Files {
		return fmt.Sprintf("RuntimeClass %s, whose handler decides, is not among the files", name)
	}
	return fmt.Sprintf("RuntimeClass %s does not exist", name)
}

// trust returns the label that counts for a workload.
func trust(inv *inventory.Inventory, w *inventory.Workload) string {
	if value, ok := w.Template.Labels[Label]; ok {
		return value
	}
	if value, ok := w.GetLabels()[Label]; ok {
		return value
	}
	if ns := inv.Get("", "Namespace", "", inv.NamespaceOf(w.Object)); ns != nil {
		return ns.GetLabels()[Label]
	}
	return ""
}

func isolates(handler string) bool {
	return slices.ContainsFunc(handlers, func(known string) bool { return strings.HasPrefix(handler, known) })
}
