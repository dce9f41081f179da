package server

import (
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"regexp"
	"strings"
	"testing"
)

// TestStrangers: connections to the ports of pages and Falco count together, those to
// the port of webhooks apart, and none of the ports is shut to who comes then. The
// connection of the API server lasts, whoever else sends what.
func TestStrangers(t *testing.T) {
	const limit = 60
	opts := options(t, t.TempDir(), "falco: {listen: '127.0.0.1:0'}\n")
	opts.strangers = limit
	r := start(t, opts)
	pages, falco, webhooks := r.webListener.Addr(), r.falcoListener.Addr(), r.webhookListener.Addr()
	reviewed(r)
	for n := range 2 * limit { // of several addresses, as the Falco of each node
		from := net.IPv4(127, 0, 1, byte(n%10))
		connect(t, from, pages)
		connect(t, from, falco)
	}
	if !reviewed(r) {
		t.Error("the API server's connection was closed for others at other ports")
	}
	for range 2 * limit {
		connect(t, net.IPv4(127, 0, 0, 2), webhooks)
	}
	if !reviewed(r) {
		t.Error("the API server's connection was closed for others at its port")
	}
	eventually(t, "connections are closed at both", func() (bool, string) {
		_, text := r.page("/metrics")
		closed := regexp.MustCompile(`(?m)^kubeguardian_connections_closed_total\{port="web(hook)?"\} [1-9].*`).FindAllString(text, -1)
		return len(closed) == 2, strings.Join(closed, "\n")
	})
	if code, body := r.do(http.DefaultClient, http.MethodGet, "http://"+falco.String()+"/ping", ""); code != http.StatusOK {
		t.Errorf("Falco's port: %d %s", code, body)
	}
}

// reviewed has a pod reviewed, and reports whether the connection was there before.
func reviewed(r *running) (reused bool) {
	r.t.Helper()
	trace := httptrace.WithClientTrace(r.t.Context(), &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) { reused = got.Reused }})
	req, err := http.NewRequestWithContext(trace, http.MethodPost, "https://"+r.webhookListener.Addr().String()+"/admit", strings.NewReader(podReview("alice", `"labels":{}`, "web:1")))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := r.apiServer.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		r.t.Fatalf("%s, %v", resp.Status, err)
	}
	return reused
}

func connect(t *testing.T, from net.IP, to net.Addr) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
	conn, err := dialer.DialContext(t.Context(), "tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
}
