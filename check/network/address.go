package network

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubeguardian/kubeguardian/inventory"
)

// metadataAddress is where the clouds serve instance metadata.
var metadataAddress = netip.MustParseAddr("169.254.169.254")

// private is where pods and nodes have their addresses unless they are known.
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("fc00::/7"),
}

// A block is a range of addresses with holes.
type block struct {
	prefix netip.Prefix
	except []netip.Prefix
}

// parseBlock reads a range; holes that are none are left out. ok is false if
// the range is none: such a rule matches nothing.
func parseBlock(cidr string, except []string) (b block, ok bool) {
	prefix, err := netip.ParsePrefix(cidr)
	if err != nil {
		return block{}, false
	}
	b.prefix = prefix
	for _, e := range except {
		if hole, err := netip.ParsePrefix(e); err == nil {
			b.except = append(b.except, hole)
		}
	}
	return b, true
}

func (b block) contains(a netip.Addr) bool {
	return b.prefix.Contains(a) && !slices.ContainsFunc(b.except, func(e netip.Prefix) bool { return e.Contains(a) })
}

// everything reports whether the block is every IPv4 address, but for holes
// outside the private ranges.
func (b block) everything() bool {
	return b.prefix.Bits() == 0 && b.prefix.Addr().Is4() && !slices.ContainsFunc(b.except, func(e netip.Prefix) bool {
		return slices.ContainsFunc(private, e.Overlaps)
	})
}

// mayHold reports whether some private address can be in the block.
func (b block) mayHold() bool {
	return slices.ContainsFunc(private, func(p netip.Prefix) bool {
		return b.prefix.Overlaps(p) && !slices.ContainsFunc(b.except, func(e netip.Prefix) bool {
			return within(p, e) || within(b.prefix, e)
		})
	})
}

// within reports whether a range lies in another as a whole.
func within(inner, outer netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// nodeAddresses returns the addresses of the nodes of a live cluster.
func nodeAddresses(inv *inventory.Inventory) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, o := range inv.Kind("", "Node") {
		var node corev1.Node
		if err := convert(o, &node); err != nil {
			return nil, err
		}
		for _, a := range node.Status.Addresses {
			if addr, err := netip.ParseAddr(a.Address); err == nil {
				out = append(out, addr)
			}
		}
	}
	return out, nil
}

// A cover says how much of the nodes a peer of a rule stands for.
type cover struct {
	some     bool // certainly one
	all      bool // certainly all
	possible bool // possibly one
}

// nodes says how much of the nodes a block holds: exactly where their addresses
// are known.
func (b block) nodes(known []netip.Addr) cover {
	if len(known) == 0 {
		return cover{b.everything(), b.everything(), b.mayHold() || !b.prefix.IsSingleIP()}
	}
	some := slices.ContainsFunc(known, b.contains)
	missing := slices.ContainsFunc(known, func(a netip.Addr) bool { return !b.contains(a) })
	return cover{some, !missing, some}
}
