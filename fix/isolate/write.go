package isolate

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubeguardian/kubeguardian/fix/edit"
)

// A draft is a NetworkPolicy with the reasons for its rules.
type draft struct {
	name, namespace, why string
	selector             map[string]string // nil for every pod
	types                Direction
	ingress, egress      []rule
}

// A rule admits traffic; without peers, with anyone.
type rule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
	why   []string
}

func port[T int | int32 | string](protocol string, value T) networkingv1.NetworkPolicyPort {
	p := corev1.Protocol(protocol)
	var at intstr.IntOrString
	switch v := any(value).(type) {
	case int:
		at = intstr.FromInt32(int32(v))
	case int32:
		at = intstr.FromInt32(v)
	case string:
		at = intstr.FromString(v)
	}
	return networkingv1.NetworkPolicyPort{Protocol: &p, Port: &at}
}

// write returns drafts as YAML documents.
func write(drafts []draft) []byte {
	var documents []string
	for _, d := range drafts {
		documents = append(documents, d.text())
	}
	return []byte(strings.Join(documents, "---\n"))
}

func (d draft) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: %s\n  namespace: %s\nspec:\n",
		comment(d.why), edit.Scalar(d.name), edit.Scalar(d.namespace))
	if d.selector == nil {
		b.WriteString("  podSelector: {}\n")
	} else {
		b.WriteString("  podSelector:\n" + labelsText("    ", d.selector))
	}
	var types []string
	if d.types&Ingress != 0 {
		types = append(types, "Ingress")
	}
	if d.types&Egress != 0 {
		types = append(types, "Egress")
	}
	fmt.Fprintf(&b, "  policyTypes: [%s]\n", strings.Join(types, ", "))
	rulesText(&b, "ingress", "from", d.ingress)
	rulesText(&b, "egress", "to", d.egress)
	return b.String()
}

func rulesText(b *strings.Builder, key, peers string, rules []rule) {
	if len(rules) == 0 {
		return
	}
	fmt.Fprintf(b, "  %s:\n", key)
	for _, r := range rules {
		for _, why := range r.why {
			fmt.Fprintf(b, "  # %s\n", comment(why))
		}
		lead := "  - "
		if len(r.peers) > 0 {
			fmt.Fprintf(b, "%s%s:\n", lead, peers)
			for _, p := range r.peers {
				b.WriteString(peerText(p))
			}
			lead = "    "
		}
		if len(r.ports) > 0 {
			fmt.Fprintf(b, "%sports:\n", lead)
			for _, p := range r.ports {
				fmt.Fprintf(b, "    - %s\n", portText(p))
			}
			lead = "    "
		}
		if lead == "  - " {
			b.WriteString("  - {}\n")
		}
	}
}

func peerText(p networkingv1.NetworkPolicyPeer) string {
	if p.IPBlock != nil {
		out := "    - ipBlock:\n        cidr: " + p.IPBlock.CIDR + "\n"
		if len(p.IPBlock.Except) > 0 {
			out += "        except: [" + strings.Join(p.IPBlock.Except, ", ") + "]\n"
		}
		return out
	}
	out, lead := "", "    - "
	if p.NamespaceSelector != nil {
		out, lead = lead+"namespaceSelector:\n"+labelsText("        ", p.NamespaceSelector.MatchLabels), "      "
	}
	if p.PodSelector != nil {
		if len(p.PodSelector.MatchLabels) == 0 {
			return out + lead + "podSelector: {}\n"
		}
		out += lead + "podSelector:\n" + labelsText("        ", p.PodSelector.MatchLabels)
	}
	return out
}

func labelsText(lead string, labels map[string]string) string {
	out := lead + "matchLabels:\n"
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		out += lead + "  " + edit.Scalar(key) + ": " + edit.Scalar(labels[key]) + "\n"
	}
	return out
}

func portText(p networkingv1.NetworkPolicyPort) string {
	value := any(int(p.Port.IntVal))
	if p.Port.Type == intstr.String {
		value = p.Port.StrVal
	}
	return fmt.Sprintf("{protocol: %s, port: %s}", *p.Protocol, edit.Scalar(value))
}

// comment keeps text on its line, and to what YAML allows.
func comment(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}
