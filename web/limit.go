package web

import (
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// An address may fail this often in a window; then it has to wait for the next
// one. Sessions that exist are not touched by that.
const (
	maxFailures   = 10
	maxPending    = 50 // attempts of an address at once
	failureWindow = time.Minute
	maxAddresses  = 10_000
)

var errLimited = &statusError{http.StatusTooManyRequests, "too many failed logins from this address: wait a minute"}

// A limiter counts failed logins by address.
type limiter struct {
	mu       sync.Mutex
	failures map[netip.Prefix]failures
}

type failures struct {
	count, pending int
	until          time.Time
}

func newLimiter() *limiter { return &limiter{failures: map[netip.Prefix]failures{}} }

// begin reports whether an address may try. If so, it has to end.
func (l *limiter) begin(from netip.Prefix, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, known := l.failures[from]
	if now.After(f.until) {
		f.count, f.until = 0, now.Add(failureWindow)
	}
	if f.count >= maxFailures || f.pending >= maxPending {
		return false
	}
	if !known && len(l.failures) >= maxAddresses {
		l.forget(now)
	}
	f.pending++
	l.failures[from] = f
	return true
}

// end says how an attempt ended.
func (l *limiter) end(from netip.Prefix, failed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, known := l.failures[from]
	if !known { // made room
		return
	}
	f.pending--
	if failed {
		f.count++
	}
	if l.failures[from] = f; f.count == 0 && f.pending == 0 {
		delete(l.failures, from)
	}
}

// forget makes room: for addresses whose window is over, or else for one.
func (l *limiter) forget(now time.Time) {
	before := len(l.failures)
	for from, f := range l.failures {
		if now.After(f.until) {
			delete(l.failures, from)
		}
	}
	for from := range l.failures {
		if len(l.failures) < before {
			return
		}
		delete(l.failures, from)
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
