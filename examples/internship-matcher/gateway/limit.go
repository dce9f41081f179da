package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

const (
	maxBody    = 64 << 10 // bytes of a request
	maxClients = 100_000  // whose rates are known; the longest silent are forgotten first
)

// limitBody reads a request's body before anything looks into it.
func limitBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			writeJSON(w, http.StatusRequestEntityTooLarge, problem{Title: "Content Too Large", Status: http.StatusRequestEntityTooLarge, Detail: "at most 64 KiB"})
			return
		}
		if err != nil { // the client went away, or is too slow
			writeJSON(w, http.StatusBadRequest, problem{Title: "Bad Request", Status: http.StatusBadRequest})
			return
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(data)), int64(len(data)), nil
		next.ServeHTTP(w, r)
	})
}

type clientKey struct{}

// findClient finds out the address of the client: of the connection, or, behind
// trusted proxies, the last address in X-Forwarded-For that is none of them.
// What stands before it the client may have invented.
func findClient(proxies []netip.Prefix, next http.Handler) http.Handler {
	trusted := func(a netip.Addr) bool {
		return slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connection, _ := netip.ParseAddrPort(r.RemoteAddr)
		client := connection.Addr().Unmap()
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for _, hop := range slices.Backward(hops) {
			if !trusted(client) {
				break
			}
			address, err := netip.ParseAddr(strings.TrimSpace(hop))
			if err != nil {
				break
			}
			client = address.Unmap()
		}
		r.RemoteAddr = netip.AddrPortFrom(client, connection.Port()).String() // the firewall reads it there
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), clientKey{}, client)))
	})
}

// limitRate lets each client ask so many times a second, and twice that at
// once. All of an IPv6 /64 is one client.
func limitRate(perSecond int, m *metrics, next http.Handler) http.Handler {
	clients, _ := lru.New[netip.Prefix, *rate.Limiter](maxClients) // fails for no positive size only
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client, _ := r.Context().Value(clientKey{}).(netip.Addr)
		limiter := rate.NewLimiter(rate.Limit(perSecond), 2*perSecond)
		if known, ok, _ := clients.PeekOrAdd(network(client), limiter); ok {
			limiter, _ = clients.Get(network(client))
			if limiter == nil { // forgotten in between
				limiter = known
			}
		}
		if !limiter.Allow() {
			m.limited.Inc()
			w.Header().Set("Retry-After", "1")
			writeJSON(w, http.StatusTooManyRequests, problem{Title: "Too Many Requests", Status: http.StatusTooManyRequests})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func network(client netip.Addr) netip.Prefix {
	bits := 32
	if client.Is6() {
		bits = 64
	}
	p, _ := client.Prefix(bits) // fits every address; the zero one is a client too
	return p
}
