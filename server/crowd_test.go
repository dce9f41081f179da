package server

import (
	"io"
	"net"
	"net/http"
	"regexp"
	"testing"
)

// TestStrangersAtAllPorts: connections to the ports of webhooks, pages and Falco
// count together, and none of them is shut to who comes then.
func TestStrangersAtAllPorts(t *testing.T) {
	r := start(t, options(t, t.TempDir(), "falco: {listen: '127.0.0.1:0'}\n"))
	ports := []net.Addr{r.webhookListener.Addr(), r.webListener.Addr(), r.falcoListener.Addr()}
	for range maxStrangers/len(ports) + 10 { // more than there may be only if all count
		for _, port := range ports {
			conn, err := net.Dial("tcp", port.String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
		}
	}
	resp, err := http.Get(r.WebURL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || !regexp.MustCompile(`(?m)^kubeguardian_connections_closed_total [1-9]`).Match(text) {
		t.Errorf("no connection was closed: %v", err)
	}
	if code, body := r.do(http.DefaultClient, http.MethodGet, "http://"+ports[2].String()+"/ping", ""); code != http.StatusOK {
		t.Errorf("Falco's port: %d %s", code, body)
	}
	if code, body := r.do(r.apiServer, http.MethodPost, "https://"+ports[0].String()+"/admit", ""); code != http.StatusBadRequest {
		t.Errorf("the webhook port: %d %s", code, body)
	}
}
