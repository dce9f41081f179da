package post

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// A Guard says to which addresses connections may be made. It looks at the
// address that is connected to, whatever name led there and whenever it was
// looked up, so that no name service can get around it.
//
// Public addresses are allowed. Those of this machine and of private networks
// are only where they are allowed by name. Those that are link-local or multicast
// or none, and the metadata services of clouds, which hand out credentials, are
// never.
type Guard struct{ allowed []netip.Prefix }

// NewGuard returns a guard that also allows these networks ("10.96.0.0/12") and
// addresses ("127.0.0.1").
func NewGuard(allow []string) (Guard, error) {
	var g Guard
	for _, text := range allow {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			ip, ipErr := netip.ParseAddr(text)
			if ipErr != nil {
				return Guard{}, fmt.Errorf("read allowed address %q: want an address such as 127.0.0.1 or a network such as 10.96.0.0/12", text)
			}
			p = netip.PrefixFrom(ip.Unmap().WithZone(""), ip.Unmap().BitLen())
		}
		g.allowed = append(g.allowed, p.Masked())
	}
	return g, nil
}

// A ForbiddenError is an address that connections may not be made to.
type ForbiddenError struct {
	IP    netip.Addr
	never bool
}

// Error says which address it is, and how to allow it.
func (e *ForbiddenError) Error() string {
	if e.never {
		return fmt.Sprintf("address %s is link-local, of a cloud's metadata service or no single host: nothing is sent there", e.IP)
	}
	return fmt.Sprintf("address %s is private: nothing is sent there unless allowAddresses has it", e.IP)
}

// Check returns a [*ForbiddenError] for an address that is not allowed.
func (g Guard) Check(ip netip.Addr) error {
	ip = ip.Unmap().WithZone("")
	for _, inner := range append([]netip.Addr{ip}, embedded(ip)...) {
		if never(inner) {
			return &ForbiddenError{IP: ip, never: true}
		}
		if special(inner) && !slices.ContainsFunc(g.allowed, func(p netip.Prefix) bool { return p.Contains(inner) }) {
			return &ForbiddenError{IP: ip}
		}
	}
	return nil
}

// DialContext connects as [net.Dialer] does, to allowed addresses only.
func (g Guard) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, Control: g.control}
	return d.DialContext(ctx, network, address)
}

func (g Guard) control(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("read address %s: %w", address, err)
	}
	return g.Check(to.Addr())
}

// metadata are addresses of metadata services that are not link-local.
var metadata = []netip.Prefix{
	netip.MustParsePrefix("fd00:ec2::/32"),      // AWS
	netip.MustParsePrefix("fd20:ce::254/128"),   // Google Cloud
	netip.MustParsePrefix("fd00:42::42/128"),    // Scaleway
	netip.MustParsePrefix("168.63.129.16/32"),   // Azure
	netip.MustParsePrefix("100.100.100.200/32"), // Alibaba Cloud
	netip.MustParsePrefix("192.0.0.192/32"),     // Oracle Cloud
	netip.MustParsePrefix("169.254.0.0/16"),     // all others
}

func never(ip netip.Addr) bool {
	return ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() ||
		slices.ContainsFunc(metadata, func(p netip.Prefix) bool { return p.Contains(ip) }) ||
		ip.Is4() && (ip.As4()[0] == 0 || ip.As4()[0] >= 240)
}

// private are networks that are private, though the standard library does not say so.
var private = []netip.Prefix{
	netip.MustParsePrefix("100.64.0.0/10"),  // of providers and of pods
	netip.MustParsePrefix("64:ff9b:1::/48"), // translated by gateways of one's own
	netip.MustParsePrefix("fec0::/10"),      // once called site-local
}

func special(ip netip.Addr) bool {
	return ip.IsLoopback() || ip.IsPrivate() || !ip.IsGlobalUnicast() ||
		slices.ContainsFunc(private, func(p netip.Prefix) bool { return p.Contains(ip) })
}

var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96")
	ownNAT64  = netip.MustParsePrefix("64:ff9b:1::/48") // with the address at its end, as most have it
	siit      = netip.MustParsePrefix("::ffff:0:0:0/96")
	sixToFour = netip.MustParsePrefix("2002::/16")
	compat    = netip.MustParsePrefix("::/96")
)

// embedded returns the IPv4 address that a gateway would make of an IPv6 one.
func embedded(ip netip.Addr) []netip.Addr {
	b := ip.As16()
	switch {
	case ip.Is4() || ip == netip.IPv6Loopback() || ip.IsUnspecified():
		return nil
	case nat64.Contains(ip), ownNAT64.Contains(ip), siit.Contains(ip), compat.Contains(ip):
		return []netip.Addr{netip.AddrFrom4([4]byte(b[12:]))}
	case sixToFour.Contains(ip):
		return []netip.Addr{netip.AddrFrom4([4]byte(b[2:6]))}
	}
	return nil
}
