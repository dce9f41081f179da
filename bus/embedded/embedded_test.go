package embedded

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A record takes what is logged at level info and above.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

// lines returns the lines of a level.
func (r *record) lines(level string) (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range strings.Lines(r.text.String()) {
		if strings.Contains(line, "level="+level) {
			out = append(out, line)
		}
	}
	return out
}

func start(t *testing.T, dir string) (*Server, *record) {
	t.Helper()
	r := &record{}
	s, err := Start(&natsd.Options{
		Host: "127.0.0.1", Port: natsd.RANDOM_PORT, JetStream: true, StoreDir: dir, Username: "ada", Password: "pass", MaxControlLine: 512,
		LeafNode: natsd.LeafNodeOpts{Host: "127.0.0.1", Port: natsd.RANDOM_PORT},
	}, slog.New(slog.NewTextHandler(r, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s, r
}

// TestStrangers: whoever connects and does it wrong does not fill the log, is counted,
// and hides no fault of the server.
func TestStrangers(t *testing.T) {
	dir := t.TempDir()
	s, r := start(t, dir)
	quiet := len(append(r.lines("WARN"), r.lines("ERROR")...)) // plaintext passwords are detected
	v, err := s.Varz(nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf := fmt.Sprintf("127.0.0.1:%d", v.LeafNode.Port)
	said := []string{"GET / HTTP/1.1\r\n\r\n", "CONNECT {\"user\":\"eve\",\"pass\":\"guess\"}\r\nPING\r\n", "PUB " + strings.Repeat("x", 2000), "\x00\x01\r\n"}
	const rounds = 10
	for range rounds {
		for _, address := range []string{s.Addr().String(), leaf} {
			for _, text := range said {
				wrong(t, address, func(c net.Conn) { fmt.Fprint(c, text) })
			}
			wrong(t, address, func(c net.Conn) { tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake() }) //nolint:errcheck // it fails
		}
	}
	moved, last := time.Now(), uint64(0)
	for want := uint64(rounds * len(said)); s.ConnectionErrors() < want; time.Sleep(20 * time.Millisecond) {
		if n := s.ConnectionErrors(); n != last {
			moved, last = time.Now(), n
		}
		if time.Since(moved) > time.Minute {
			t.Fatalf("%d errors of connections are counted, want %d", last, want)
		}
	}
	if loud := append(r.lines("WARN"), r.lines("ERROR")...); len(loud) > quiet {
		t.Errorf("strangers cause %q", loud)
	}
	if have := len(r.lines("INFO")); have == 0 || have > 1+int(time.Since(moved)/connectionsEvery)+5 {
		t.Errorf("%d lines are about strangers: %q", have, r.lines("INFO"))
	}

	nc, err := nats.Connect("", nats.InProcessServer(s.Server), nats.UserInfo("ada", "pass"))
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err == nil {
		_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ALERTS", Subjects: []string{"alerts"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	s.Stop()
	sums, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "ALERTS", "meta.sum"))
	if err != nil || len(sums) != 1 || os.WriteFile(sums[0], []byte("damaged"), 0o600) != nil {
		t.Fatalf("the sum of a stream is at %q: %v", sums, err)
	}
	_, r = start(t, dir)
	if loud := strings.Join(r.lines("WARN"), ""); !strings.Contains(loud, "checksums do not match") {
		t.Errorf("a damaged stream is not told of: %q", loud)
	}
}

// wrong connects, does something and waits until it is cut off.
func wrong(t *testing.T, address string, do func(net.Conn)) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	do(c)
	io.Copy(io.Discard, c) //nolint:errcheck // it is cut off, or nothing more comes
}

// TestFaultsAreBounded: a fault that comes again and again is told of a few times,
// and how often it was not.
func TestFaultsAreBounded(t *testing.T) {
	r := &record{}
	l := newLogger(slog.New(slog.NewTextHandler(r, nil)))
	l.faults.limit.SetLimit(0)
	for range 10 * faultsAtOnce {
		l.Errorf("JetStream: no space left on %s", "the disk")
	}
	if have := r.lines("ERROR"); len(have) != faultsAtOnce {
		t.Errorf("%d of a fault are logged, want %d", len(have), faultsAtOnce)
	}
	l.faults.limit.SetBurst(10 * faultsAtOnce)
	l.faults.limit.SetLimit(1000)
	for len(r.lines("WARN")) == 0 {
		l.Warnf("raft: no leader")
	}
	if have := r.lines("WARN")[0]; !strings.Contains(have, "left out before it") {
		t.Errorf("the next one is %q", have)
	}
}
