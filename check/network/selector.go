package network

import (
	"cmp"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Selectors says for each NetworkPolicy whether each of its selectors matches
// some pod: one that does not is a typing error, and the traffic is not what
// its author believes.
func (n *Network) Selectors() []finding.Verdict {
	var out []finding.Verdict
	for _, o := range n.inv.Kind("networking.k8s.io", "NetworkPolicy") {
		for _, p := range n.policies[n.inv.NamespaceOf(o)] {
			if p.Object == o {
				f := n.selectors(p)
				f.Subject = o.Subject()
				out = append(out, f)
			}
		}
	}
	return out
}

func (n *Network) selectors(p *policy) finding.Verdict {
	ns := n.inv.NamespaceOf(p.Object)
	selections := []selection{{namespace: ns, pods: &p.spec.PodSelector}}
	for _, d := range []direction{ingress, egress} {
		for _, r := range p.rules(d) {
			for _, peer := range r.peers {
				if peer.IPBlock == nil {
					selections = append(selections, selection{peer.NamespaceSelector, ns, peer.PodSelector})
				}
			}
		}
	}
	doubt := ""
	for _, s := range selections {
		if s.all() || n.matches(s) || n.inv.Origin == inventory.Files && s.dns() {
			continue
		}
		if doubt = n.unseen(s); doubt == "" {
			return finding.Verdict{
				Status: finding.Fail, Message: fmt.Sprintf("%s matches no pod", s), Evidence: fmt.Sprintf("%d workloads in the namespace", len(n.workloads[ns])),
			}
		}
	}
	if doubt != "" {
		return finding.Verdict{Status: finding.Unknown, Reason: doubt}
	}
	return finding.Verdict{Status: finding.Pass}
}

// all reports whether a selection cannot miss: it is every pod of the own
// namespace, or of every one.
func (s selection) all() bool {
	return (s.namespaces == nil || empty(s.namespaces)) && (s.pods == nil || empty(s.pods))
}

// dns reports whether a selection is the DNS of the cluster as Kubernetes itself
// labels it, which no files need to hold.
func (s selection) dns() bool {
	return s.namespaces != nil && s.pods != nil && s.namespaces.MatchLabels[corev1.LabelMetadataName] == metav1.NamespaceSystem &&
		len(s.pods.MatchLabels) == 1 && s.pods.MatchLabels["k8s-app"] == "kube-dns" && len(s.pods.MatchExpressions) == 0
}

func (s selection) String() string {
	text := ""
	if s.namespaces != nil {
		text = "namespaceSelector " + metav1.FormatLabelSelector(s.namespaces)
	}
	if s.pods != nil && (text == "" || !empty(s.pods)) {
		if text != "" {
			text += " with "
		}
		text += "podSelector " + metav1.FormatLabelSelector(s.pods)
	}
	return text
}

// matches reports whether a selection has a workload. Pods on the host's
// network count: that they cannot be selected is no typing error.
func (n *Network) matches(s selection) bool {
	pods, err := metav1.LabelSelectorAsSelector(cmp.Or(s.pods, &metav1.LabelSelector{}))
	if err != nil {
		return false
	}
	for _, ns := range n.spaces(s) {
		for _, w := range n.workloads[ns] {
			if pods.Matches(labels.Set(w.Template.Labels)) {
				return true
			}
		}
	}
	return false
}

// spaces returns the namespaces of a selection that have pods.
func (n *Network) spaces(s selection) []string {
	if s.namespaces == nil {
		return []string{s.namespace}
	}
	selector, err := metav1.LabelSelectorAsSelector(s.namespaces)
	if err != nil {
		return nil
	}
	return n.reach.matching(s.namespaces, selector)
}

// unseen says why pods that match may exist although none is seen, or "".
func (n *Network) unseen(s selection) string {
	for _, gap := range n.inv.Gaps {
		if inventory.IsWorkload(gap.Kind) || gap.Kind.Kind == "Namespace" {
			return gap.Kind.Kind + " objects could not be read: " + gap.Reason
		}
	}
	if n.inv.Origin == inventory.Cluster {
		return ""
	}
	if s.namespaces != nil || len(n.workloads[s.namespace]) == 0 || n.inv.Get("", "Namespace", "", s.namespace) == nil {
		return fmt.Sprintf("no pod in these files matches %s; pods of other namespaces may be elsewhere: scan the cluster", s)
	}
	return ""
}
