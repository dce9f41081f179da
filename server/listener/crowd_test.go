package listener

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// certificate returns one that signs itself, with so many bytes of an extra kind.
func certificate(t *testing.T, size int) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, OCSPServer: []string{"http://" + strings.Repeat("x", size)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// secure returns the configuration of a server that asks for certificates.
func secure(t *testing.T) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certificate(t, 0)}, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"}}
}

// A visitor is a client with an address of its own.
func visitor(t *testing.T, from string, config *tls.Config) *http.Client {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: config, ForceAttemptHTTP2: true}}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// get asks for a page, and fails the test if there is none.
func get(t *testing.T, client *http.Client, url string) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "hello" {
		t.Fatalf("%s: %q, %v", resp.Status, text, err)
	}
}

// hello answers, and reads the body before.
var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if _, err := io.ReadAll(r.Body); err == nil {
		io.WriteString(w, "hello") //nolint:errcheck // the test would see it
	}
})

// TestStrangersShutNobodyOut: thousands of connections of one address, with half a
// request each, take what the limit says, and neither close the connection of another
// address nor keep it from making a new one.
func TestStrangersShutNobodyOut(t *testing.T) {
	const limit, strangers = 200, 3000
	crowd := NewCrowd("test", limit, slog.New(slog.DiscardHandler))
	address := gather(t, crowd, NewServer(hello, Limits{Body: time.Minute, Answer: time.Minute}), nil)
	url := "http://" + address
	before := runtime.NumGoroutine()
	made := 0
	keeps, comes := visitor(t, "127.0.0.2", nil), visitor(t, "127.0.0.2", nil)
	keeps.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		made++
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		return dialer.DialContext(ctx, network, address)
	}
	get(t, keeps, url)
	for n := range strangers {
		send(t, address, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n"+strings.Repeat("x", 10_000))
		if n%500 == 499 {
			get(t, keeps, url)
			get(t, comes, url)
			comes.CloseIdleConnections()
		}
	}
	if made != 1 {
		t.Errorf("the connection was made %d times", made)
	}
	crowd.mu.Lock()
	held := crowd.held
	crowd.mu.Unlock()
	if held > limit || crowd.closed.Load() < strangers-limit {
		t.Errorf("%d are held, %d were closed", held, crowd.closed.Load())
	}
	for runtime.NumGoroutine() > before+2*limit { // those of what was closed end
		time.Sleep(10 * time.Millisecond)
	}
}

// TestHandlersEndWithTheirConnection: what waits for something else than the body,
// as for its turn, does not go on when its connection is closed for others.
func TestHandlersEndWithTheirConnection(t *testing.T) {
	const limit = 60
	begun, ended := make(chan struct{}), make(chan struct{}, 2*limit)
	address := gather(t, NewCrowd("test", limit, slog.New(slog.DiscardHandler)), NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-r.Context().Done()
		ended <- struct{}{}
	}), Limits{Body: time.Hour, Answer: time.Hour}), nil)
	for range 2 * limit {
		send(t, address, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
		<-begun
	}
	for range 2*limit - limit/2 {
		<-ended
	}
}

// TestWorkGoesOn: a client that opens many connections at once, as those of HTTP/2 do
// before they know that one is enough, does not lose the requests that we work at; nor
// do many addresses with few connections each close the one that has them.
func TestWorkGoesOn(t *testing.T) {
	for name, from := range map[string]func(n int) net.IP{
		"burst":     func(int) net.IP { return net.IPv4(127, 0, 0, 1) },
		"addresses": func(n int) net.IP { return net.IPv4(127, 0, 1, byte(n/15)) },
	} {
		t.Run(name, func(t *testing.T) { workGoesOn(t, from) })
	}
}

// workGoesOn has requests worked at while connections of other addresses come.
func workGoesOn(t *testing.T, from func(n int) net.IP) {
	const requests = 20
	arrived, answer := make(chan struct{}, requests), make(chan struct{})
	crowd := NewCrowd("test", 60, slog.New(slog.DiscardHandler))
	srv := NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			if _, err := io.ReadAll(r.Body); err != nil {
				t.Error(err)
			}
			arrived <- struct{}{}
			<-answer
		}
		hello(w, r)
	}), Limits{Body: time.Minute, Answer: time.Minute})
	address := gather(t, crowd, srv, secure(t))
	client := visitor(t, "127.0.0.1", &tls.Config{InsecureSkipVerify: true})
	get(t, client, "https://"+address) // and there is a connection
	var group sync.WaitGroup
	for range requests {
		group.Go(func() {
			resp, err := client.Post("https://"+address, "text/plain", strings.NewReader("good morning"))
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
		})
	}
	for range requests {
		<-arrived
	}
	for n := range 150 {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from(n)}}
		conn, err := dialer.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	get(t, visitor(t, "127.0.0.2", &tls.Config{InsecureSkipVerify: true}), "https://"+address) // it waits for those before
	close(answer)
	group.Wait()
	if crowd.closed.Load() < 100 {
		t.Errorf("%d connections were closed", crowd.closed.Load())
	}
}

// frame returns a frame of HTTP/2.
func frame(kind, flags, stream byte, payload ...byte) []byte {
	return append([]byte{0, 0, byte(len(payload)), kind, flags, 0, 0, 0, stream}, payload...)
}

// TestAnswersNotTaken: a client of HTTP/2 that opens streams and takes no answer, as
// it may say, holds what its streams hold.
func TestAnswersNotTaken(t *testing.T) {
	crowd := NewCrowd("test", 60, slog.New(slog.DiscardHandler))
	srv := NewServer(hello, Limits{Body: time.Minute, Answer: time.Minute})
	address := gather(t, crowd, srv, secure(t))
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	text := []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	text = append(text, frame(4, 0, 0, 0, 4, 0, 0, 0, 0)...) // SETTINGS: streams may send nothing
	for n := range byte(100) {
		text = append(text, frame(1, 5, 2*n+1, 0x82, 0x87, 0x84, 0x41, 1, 'x')...) // HEADERS, the end: GET https://x/
	}
	if _, err := conn.Write(text); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
		t.Error("the connection goes on")
	}
	get(t, visitor(t, "127.0.0.2", &tls.Config{InsecureSkipVerify: true}), "https://"+address)
}

// TestLargeHandshake: what a handshake may bring is bounded, and what comes after it
// is not.
func TestLargeHandshake(t *testing.T) {
	address := gather(t, NewCrowd("test", 60, slog.New(slog.DiscardHandler)), NewServer(hello, Limits{Body: time.Minute, Answer: time.Minute}), secure(t))
	for size, want := range map[int]bool{10 << 10: true, 60 << 10: false} {
		own := certificate(t, size)
		client := visitor(t, "127.0.0.1", &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{own}})
		resp, err := client.Post("https://"+address, "text/plain", bytes.NewReader(slices.Repeat([]byte("x"), 1<<20)))
		if got := err == nil && resp.StatusCode == http.StatusOK; got != want {
			t.Errorf("with a certificate of %d bytes: %v", size, err)
		}
		if err == nil {
			resp.Body.Close()
		}
	}
}
