package syslog_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/post"
	"github.com/kubeguardian/kubeguardian/notify/syslog"
)

// header is that of RFC 5424, with structured data of one element.
var header = regexp.MustCompile(`^<(\d{1,3})>1 (\S+) (\S{1,255}) kubeguardian - (alert|incident) (\[kubeguardian@0( [a-z]+="([^"\\\]]|\\["\\\]])*")+\]) `)

// A server keeps the messages that it gets over TCP or TLS.
type server struct {
	net.Listener
	messages chan string
	conns    chan net.Conn
}

func listen(t *testing.T, wrap func(net.Listener) net.Listener) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if wrap != nil {
		ln = wrap(ln)
	}
	s := &server{ln, make(chan string, 1000), make(chan net.Conn, 10)}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			s.conns <- conn
			go s.read(conn)
		}
	}()
	return s
}

// read reads messages with octet counting.
func (s *server) read(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		count, err := in.ReadString(' ')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSuffix(count, " "))
		if err != nil {
			s.messages <- "broken count " + count
			return
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		s.messages <- string(body)
	}
}

func receive(t *testing.T, messages chan string) string {
	t.Helper()
	select {
	case m := <-messages:
		return m
	case <-time.After(time.Minute):
		t.Fatal("no message came")
		return ""
	}
}

func build(t *testing.T, c syslog.Config) notify.Destination {
	t.Helper()
	c.TLS.AllowAddresses = []string{"127.0.0.1"}
	d, err := syslog.New(c, notify.Options{Name: "under-test", Cluster: "prod"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func checkMessage(t *testing.T, m string, n notify.Notification, most int) {
	t.Helper()
	parts := header.FindStringSubmatch(m)
	if parts == nil {
		t.Fatalf("not a message of RFC 5424: %q", m)
	}
	if want := strconv.Itoa(16*8 + int(n.Alert.Priority)); parts[1] != want || parts[2] != n.Alert.Time.UTC().Format("2006-01-02T15:04:05.000000Z") || parts[3] != "node-1" {
		t.Errorf("header %q", parts)
	}
	if (parts[4] == "incident") != (n.Incident != nil) || !strings.Contains(parts[5], fmt.Sprintf(` key="%s"`, n.Key)) {
		t.Errorf("header %q", parts)
	}
	if len(m) > most || !utf8.ValidString(m) || strings.ContainsFunc(m, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		t.Errorf("%d bytes, or control characters: %q", len(m), m)
	}
}

func TestOverTCP(t *testing.T) {
	s := listen(t, nil)
	d := build(t, syslog.Config{Address: s.Addr().String(), Network: "tcp"})
	batch := notifytest.Notifications(12)
	for _, b := range [][]notify.Notification{batch[:7], batch[7:]} {
		if err := d.Send(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range batch {
		checkMessage(t, receive(t, s.messages), n, 8192)
	}
	if len(s.conns) != 1 {
		t.Errorf("%d connections for two batches", len(s.conns))
	}
}

func TestTextAndDocuments(t *testing.T) {
	s := listen(t, nil)
	n := notifytest.Notifications(1)
	n[0].Alert.Hostname = ""
	n[0].Alert.Cluster = `a "quoted] \ name`
	for format, want := range map[string]string{"": n[0].Alert.Output, "falco": `"rule":"Secret read by exec"`, "ocsf-1.8.0": `"class_uid":2004`} {
		if err := build(t, syslog.Config{Address: s.Addr().String(), Network: "tcp", Format: format, Facility: "auth"}).Send(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		m := receive(t, s.messages)
		head := header.FindString(m)
		if !strings.HasPrefix(head, "<34>1 ") || !strings.Contains(head, ` cluster="a \"quoted\] \\ name"`) || !strings.Contains(m[len(head):], want) {
			t.Errorf("%q: %q", format, m)
		}
		if format != "" && !json.Valid([]byte(m[len(head):])) {
			t.Errorf("not JSON: %q", m[len(head):])
		}
	}
}

func TestOverUDP(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	d := build(t, syslog.Config{Address: conn.LocalAddr().String(), Network: "udp", MaxBytes: 2048})
	batch := notifytest.Notifications(8)
	if err := d.Send(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 65536)
	for _, n := range batch {
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		size, _, err := conn.ReadFrom(buffer)
		if err != nil {
			t.Fatal(err)
		}
		checkMessage(t, string(buffer[:size]), n, 2048)
	}
}

// authority returns a TLS listener's configuration and the file that vouches for
// it.
func authority(t *testing.T) (*tls.Config, string) {
	t.Helper()
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: srv.TLS.Certificates}, file
}

func TestOverTLS(t *testing.T) {
	cfg, ca := authority(t)
	s := listen(t, func(ln net.Listener) net.Listener { return tls.NewListener(ln, cfg) })
	batch := notifytest.Notifications(2)
	if err := build(t, syslog.Config{Address: s.Addr().String(), TLS: post.Config{CAFile: ca}}).Send(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	for _, n := range batch {
		checkMessage(t, receive(t, s.messages), n, 8192)
	}
	err := build(t, syslog.Config{Address: s.Addr().String()}).Send(t.Context(), batch)
	if err == nil || notify.IsPermanent(err) || !strings.Contains(err.Error(), "under-test: connect to "+s.Addr().String()+": handshake: ") {
		t.Errorf("an authority that nobody knows: %v", err)
	}
}

// TestCertificateIsRefused: the server says so after the handshake, when a first
// message seems to be sent already.
func TestCertificateIsRefused(t *testing.T) {
	cfg, ca := authority(t)
	cfg.ClientAuth = tls.RequireAnyClientCert
	s := listen(t, func(ln net.Listener) net.Listener { return tls.NewListener(ln, cfg) })
	err := build(t, syslog.Config{Address: s.Addr().String(), TLS: post.Config{CAFile: ca}}).Send(t.Context(), notifytest.Notifications(1))
	if err == nil || notify.IsPermanent(err) {
		t.Errorf("%v, want an error that is worth another attempt", err)
	}
	if len(s.messages) != 0 {
		t.Error("a message came without a certificate")
	}
}

// TestServerGoesAndComes: what is sent while nobody listens is an error, and a
// connection that the server has closed is not written to.
func TestServerGoesAndComes(t *testing.T) {
	s := listen(t, nil)
	address := s.Addr().String()
	d := build(t, syslog.Config{Address: address, Network: "tcp"})
	batch := notifytest.Notifications(1)
	send := func() error { return d.Send(t.Context(), batch) }
	if err := send(); err != nil {
		t.Fatal(err)
	}
	receive(t, s.messages)
	(<-s.conns).Close()
	if err := send(); err != nil { // connects again
		t.Fatal(err)
	}
	receive(t, s.messages)
	s.Close()
	(<-s.conns).Close()
	if err := send(); err == nil || notify.IsPermanent(err) || !strings.Contains(err.Error(), "under-test: connect to") {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestServerThatDoesNotRead(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	d := build(t, syslog.Config{Address: ln.Addr().String(), Network: "tcp", MaxBytes: 65535, Format: "falco"})
	batch := notifytest.Notifications(100)
	for i := range batch {
		batch[i].Alert.OutputFields["large"] = strings.Repeat("x", 60000)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	for err == nil { // until buffers are full
		err = d.Send(ctx, batch)
	}
	if notify.IsPermanent(err) || ctx.Err() == nil {
		t.Errorf("%v", err)
	}
}

func TestForbiddenAddress(t *testing.T) {
	d, err := syslog.New(syslog.Config{Address: "169.254.169.254:514", Network: "tcp"}, notify.Options{Name: "under-test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Send(t.Context(), notifytest.Notifications(1)); !notify.IsPermanent(err) {
		t.Errorf("%v", err)
	}
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]syslog.Config{
		"address: want host:port":     {Address: "syslog"},
		"facility: unknown one":       {Address: "a:1", Facility: "x"},
		"network: want tls":           {Address: "a:1", Network: "unix"},
		"maxBytes: want 2048 to 6550": {Address: "a:1", Network: "udp", MaxBytes: 65535},
		`unknown format "xml"`:        {Address: "a:1", Format: "xml"},
		"read authorities":            {Address: "a:1", TLS: post.Config{CAFile: "none"}},
		"tls.timeout: want 0s to 5m":  {Address: "a:1", TLS: post.Config{Timeout: time.Hour}},
		"read allowed address":        {Address: "a:1", TLS: post.Config{AllowAddresses: []string{"b"}}},
	} {
		if _, err := syslog.New(c, notify.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}
