package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/kubeguardian/kubeguardian/evidence"
)

const maxChains = 200

// firewall notes the chains of nftables at which packets come in, with how many
// rules each has: what the rules say is another matter. Tables of the older
// iptables are named as a gap.
func (c *collector) firewall(ctx context.Context) {
	if !c.live {
		c.gap(evidence.PartFirewall, "", errors.New("only seen on the running system"))
		return
	}
	for _, name := range []string{"/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"} {
		if data, err := c.read(name); err == nil && len(strings.Fields(string(data))) > 0 {
			c.gap(evidence.PartFirewall, name, fmt.Errorf("rules of iptables-legacy are not read: tables %s", strings.Join(strings.Fields(string(data)), ", ")))
		}
	}
	conn, err := nftables.New()
	if err != nil {
		c.gap(evidence.PartFirewall, "", err)
		return
	}
	chains, err := conn.ListChains()
	if err != nil {
		c.gap(evidence.PartFirewall, "", fmt.Errorf("ask the kernel for nftables: %w", err))
		return
	}
	for _, chain := range chains {
		if chain.Hooknum == nil || ctx.Err() != nil {
			continue // only called by others
		}
		if len(c.record.Chains) == maxChains {
			c.gap(evidence.PartFirewall, "", fmt.Errorf("more than %d chains", maxChains))
			return
		}
		rules, err := conn.GetRules(chain.Table, chain)
		if err != nil {
			c.gap(evidence.PartFirewall, chain.Table.Name+" "+chain.Name, err)
			continue
		}
		c.record.Chains = append(c.record.Chains, filterChain(chain, len(rules)))
	}
	slices.SortFunc(c.record.Chains, func(a, b evidence.FilterChain) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Name, b.Name))
	})
}

var families = map[nftables.TableFamily]string{
	nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6",
	nftables.TableFamilyARP: "arp", nftables.TableFamilyNetdev: "netdev", nftables.TableFamilyBridge: "bridge",
}

// hooks are named by their number, which is that of the kernel.
var hooks = []string{"prerouting", "input", "forward", "output", "postrouting"}

func filterChain(chain *nftables.Chain, rules int) evidence.FilterChain {
	out := evidence.FilterChain{
		Family: families[chain.Table.Family], Table: chain.Table.Name, Name: chain.Name,
		Hook: fmt.Sprint(*chain.Hooknum), Policy: "accept", Rules: rules,
	}
	if n := int(*chain.Hooknum); n < len(hooks) && out.Family != "netdev" && out.Family != "arp" {
		out.Hook = hooks[n]
	}
	if chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop {
		out.Policy = "drop"
	}
	return out
}
