package ha

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/identity"
)

// A wire is a node as a forwarder meets it: it answers the request for TLS and
// returns what it is sent.
func wire(t *testing.T, answer byte, config *tls.Config) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				var request [8]byte
				if _, err := io.ReadFull(conn, request[:]); err != nil || binary.BigEndian.Uint32(request[4:]) != sslRequest {
					return
				}
				if _, err := conn.Write([]byte{answer}); err != nil {
					return
				}
				secure := tls.Server(conn, config)
				_, _ = io.Copy(secure, secure) // until the test ends it
			}()
		}
	}()
	return listener.Addr().String()
}

func issue(t *testing.T, a *identity.Authority, service string, hosts ...string) *identity.Identity {
	t.Helper()
	dir := t.TempDir()
	if err := a.Issue(dir, service, time.Hour, hosts...); err != nil {
		t.Fatal(err)
	}
	own, err := identity.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return own
}

// TestForwarderTrustsNobody connects through a forwarder to servers that are, or
// are not, the node that they should be.
func TestForwarderTrustsNobody(t *testing.T) {
	ours, err := identity.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	other, err := identity.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		answer byte
		node   *identity.Identity
		want   bool
	}{
		"the node":           {'S', issue(t, ours, admin, "127.0.0.1"), true},
		"no TLS":             {'N', issue(t, ours, admin, "127.0.0.1"), false},
		"another host":       {'S', issue(t, ours, admin, "127.0.0.2"), false},
		"another service":    {'S', issue(t, ours, watcher, "127.0.0.1"), false},
		"another authority":  {'S', issue(t, other, admin, "127.0.0.1"), false},
		"something else yet": {'X', issue(t, ours, admin, "127.0.0.1"), false},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			f := &forwarder{issue(t, ours, watcher), "127.0.0.1", wire(t, test.answer, test.node.ServerTLS(watcher)), slog.New(slog.DiscardHandler)}
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			go f.serve(ctx, listener)
			if got := passes(t, listener.Addr().String()); got != test.want {
				t.Errorf("led on: %v, want %v", got, test.want)
			}
		})
	}
}

// passes reports whether a startup message comes back through a forwarder, as it
// was sent, once TLS was asked for and declined.
func passes(t *testing.T, address string) bool {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var declined [1]byte
	if _, err := conn.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, sslRequest)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, declined[:]); err != nil || declined[0] != 'N' {
		t.Fatalf("TLS: answer %q, %v", declined, err)
	}
	sent := "\x00\x00\x00\x0c\x00\x03\x00\x00user"
	if _, err := io.WriteString(conn, sent); err != nil {
		return false
	}
	got := make([]byte, len(sent))
	_, err = io.ReadFull(conn, got)
	return err == nil && string(got) == sent
}
