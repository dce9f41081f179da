package session

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"github.com/kubeguardian/kubeguardian/access/attempt"
)

// Failures counts failed logins at all replicas of the server.
type Failures interface {
	// Fail counts one of a network. The first begins a window, which ends at until.
	Fail(ctx context.Context, network string, now, until time.Time) error
	// Failures returns how many there were of a network, in a window that goes on.
	Failures(ctx context.Context, network string, now time.Time) (int, error)
}

// failuresShared is how many failed logins a second a replica tells the others of:
// anybody can cause one, and each is a write. It counts those beyond by itself.
const failuresShared = 20

// mayTry reports whether a network may try to log in. If so, it has to be said how
// it went. Before others are asked it counts what this replica knows, and while they
// cannot be asked nothing else does.
func (g *Guard) mayTry(r *http.Request, from netip.Prefix) bool {
	now := time.Now()
	if !g.limiter.Begin(from, now) {
		return false
	}
	failed, err := g.Sessions.Failures(r.Context(), from.String(), now)
	if err != nil && r.Context().Err() == nil {
		g.Log.Warn("failed logins at other replicas do not count", "from", r.RemoteAddr, "error", err)
	}
	if failed >= attempt.MaxFailures {
		g.limiter.End(from, false)
		return false
	}
	return true
}

// tried says how an attempt of a network has ended. A client that does not wait for
// the answer has failed all the same.
func (g *Guard) tried(r *http.Request, from netip.Prefix, failed bool) {
	g.limiter.End(from, failed)
	if !failed || !g.failures.Allow() {
		return
	}
	now := time.Now()
	if err := g.Sessions.Fail(context.WithoutCancel(r.Context()), from.String(), now, now.Add(attempt.Window)); err != nil {
		g.Log.Warn("a failed login counts at this replica alone", "from", r.RemoteAddr, "error", err)
	}
}

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
