package web

import (
	"net/http"
	"net/netip"
)

var errLimited = &statusError{http.StatusTooManyRequests, "too many failed logins from this address: wait a minute"}

// sender is the network that counts as one client: an IPv4 address or an IPv6
// /64, which one machine can use as a whole.
func sender(r *http.Request) netip.Prefix {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	ip, bits := addr.Addr().Unmap(), 32
	if ip.Is6() {
		bits = 64
	}
	prefix, err := ip.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}
