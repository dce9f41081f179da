package cloud

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/evidence/terraform"
	"github.com/kubeguardian/kubeguardian/finding"
)

// guarded are the ports that nobody on the internet has any business with.
var guarded = []struct {
	terraform.Range
	of  string
	udp bool // over UDP as well
}{
	{terraform.Range{First: 22, Last: 22}, "SSH", false},
	{terraform.Range{First: 2379, Last: 2380}, "etcd", false},
	{terraform.Range{First: 6443, Last: 6443}, "the API server", false},
	{terraform.Range{First: 10250, Last: 10259}, "the kubelet and the control plane", false},
	{terraform.Range{First: 30000, Last: 32767}, "node ports", true},
}

// everybody reports whether a CIDR block is the internet, or so large a part of
// it that it comes to the same.
func everybody(cidr string) bool {
	p, err := netip.ParsePrefix(strings.TrimSpace(cidr))
	return err == nil && p.Bits() <= 4
}

// Firewalls says for each firewall whether it lets everybody reach ports of the
// nodes and the control plane.
func Firewalls(set *evidence.Set) []finding.Verdict {
	var out []finding.Verdict
	all := of(set)
	for i := range all {
		for _, fw := range all[i].Firewalls {
			f := pass(fmt.Sprintf("%s: %d rules let nobody from everywhere reach nodes or the control plane", fw.Address, len(fw.Rules)))
			if opened := openings(fw); len(opened) > 0 {
				f = fail("lets everybody on the internet reach nodes or the control plane", strings.Join(shorten(opened), "; "))
			} else if len(fw.Unknown) > 0 {
				f = pending(slices.Clone(fw.Unknown))
			}
			out = append(out, all.judged("CloudFirewall", &all[i], fw.Address, f))
		}
	}
	return out
}

// openings returns the guarded ports that a firewall opens to everybody, and
// the rules that do so.
func openings(fw terraform.Firewall) []string {
	rules := slices.Clone(fw.Rules)
	slices.SortStableFunc(rules, func(a, b terraform.Rule) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(order(a), order(b)), strings.Compare(a.Address, b.Address))
	})
	var out []string
	for _, g := range guarded {
		protocols := []string{"tcp"}
		if g.udp {
			protocols = append(protocols, "udp")
		}
		for _, protocol := range protocols {
			if by, ports := opens(rules, protocol, g.Range, fw.Stateless); by != "" {
				out = append(out, fmt.Sprintf("%s opens %s (%s) to everybody", by, ports, g.of))
				break
			}
		}
	}
	return out
}

// order puts the rule that refuses before one that allows.
func order(r terraform.Rule) int {
	if r.Allow {
		return 1
	}
	return 0
}

// opens returns the first rule that opens some of the ports to everybody, of
// rules in the order in which they are tried, and what it opens.
func opens(rules []terraform.Rule, protocol string, ports terraform.Range, stateless bool) (by, opened string) {
	left := []terraform.Range{ports}
	for _, r := range rules {
		if r.Protocol != "" && r.Protocol != protocol || !slices.ContainsFunc(r.From, everybody) {
			continue
		}
		for _, of := range rangesOf(r) {
			if r.Allow && !(stateless && wide(of)) {
				for _, l := range left {
					if first, last := max(of.First, l.First), min(of.Last, l.Last); first <= last {
						return r.Address, portText(terraform.Range{First: first, Last: last})
					}
				}
			}
			if !r.Allow && !r.Partial {
				left = without(left, of)
			}
		}
	}
	return "", ""
}

// wide reports whether a stateless list needs a range of ports for answers, or
// leaves the decision to the firewalls behind it.
func wide(r terraform.Range) bool { return r.Last-r.First >= 10_000 }

func rangesOf(r terraform.Rule) []terraform.Range {
	if len(r.Ports) == 0 {
		return []terraform.Range{{First: 0, Last: 65535}}
	}
	return r.Ports
}

// without returns what of ranges is outside of another.
func without(ranges []terraform.Range, cut terraform.Range) []terraform.Range {
	var out []terraform.Range
	for _, r := range ranges {
		if r.Last < cut.First || r.First > cut.Last {
			out = append(out, r)
			continue
		}
		if r.First < cut.First {
			out = append(out, terraform.Range{First: r.First, Last: cut.First - 1})
		}
		if r.Last > cut.Last {
			out = append(out, terraform.Range{First: cut.Last + 1, Last: r.Last})
		}
	}
	return out
}

func portText(r terraform.Range) string {
	if r.First == r.Last {
		return "port " + strconv.Itoa(r.First)
	}
	return fmt.Sprintf("ports %d-%d", r.First, r.Last)
}
