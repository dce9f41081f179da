// Package attempt limits how often an address may fail to log in.
package attempt

import (
	"net/netip"
	"sync"
	"time"
)

// An address may fail this often in a window; then it has to wait for the next
// one. Sessions that exist are not touched by that.
const (
	MaxFailures  = 10
	MaxPending   = 50 // attempts of an address at once
	Window       = time.Minute
	MaxAddresses = 10_000
)

// A Limiter counts failed logins by address.
type Limiter struct {
	mu       sync.Mutex
	failures map[netip.Prefix]failures
}

type failures struct {
	count, pending int
	until          time.Time
}

// NewLimiter returns one that knows of no failure.
func NewLimiter() *Limiter { return &Limiter{failures: map[netip.Prefix]failures{}} }

// Begin reports whether an address may try. If so, it has to [Limiter.End].
func (l *Limiter) Begin(from netip.Prefix, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, known := l.failures[from]
	if now.After(f.until) {
		f.count, f.until = 0, now.Add(Window)
	}
	if f.count >= MaxFailures || f.pending >= MaxPending {
		return false
	}
	if !known && len(l.failures) >= MaxAddresses {
		l.forget(now)
	}
	f.pending++
	l.failures[from] = f
	return true
}

// End says how an attempt ended.
func (l *Limiter) End(from netip.Prefix, failed bool) {
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
func (l *Limiter) forget(now time.Time) {
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

// Len returns how many addresses have failed, or try now.
func (l *Limiter) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.failures)
}
