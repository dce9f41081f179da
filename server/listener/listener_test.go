package listener

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// open starts a server and returns its address.
func open(t *testing.T, handler http.Handler, limits Limits) string {
	t.Helper()
	return gather(t, NewCrowd("test", 1000, slog.New(slog.DiscardHandler)), NewServer(handler, limits), nil)
}

// gather serves to a crowd and returns the address.
func gather(t *testing.T, crowd *Crowd, srv *http.Server, config *tls.Config) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- crowd.Serve(ctx, srv, ln, config, 0) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// send opens a connection and writes to it.
func send(t *testing.T, address, text string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestSlowBodies: a body that does not come holds no connection, whether the
// handler reads it or not; a stream, which is slow by its nature, goes on.
func TestSlowBodies(t *testing.T) {
	release := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	mux.HandleFunc("/ignore", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "begun")
		http.NewResponseController(w).Flush() //nolint:errcheck // the test would see it
		select {
		case <-release:
			fmt.Fprintln(w, "released")
		case <-r.Context().Done():
			fmt.Fprintln(w, "cut off")
		}
	})
	address := open(t, mux, Limits{Body: 100 * time.Millisecond, Answer: time.Minute})
	stream := send(t, address, "GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	for _, path := range []string{"/read", "/ignore"} {
		for _, size := range []string{"Content-Length: 1000\r\n\r\nstate=", "Transfer-Encoding: chunked\r\n\r\n3e8\r\nstate="} {
			conn := send(t, address, "POST "+path+" HTTP/1.1\r\nHost: x\r\n"+size)
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
				t.Errorf("%s with %.20q is held: %v", path, size, err)
			}
		}
	}
	close(release)
	rest, err := io.ReadAll(stream)
	if err != nil || !strings.Contains(string(rest), "released") {
		t.Errorf("the stream ended with %q, %v", rest, err)
	}
}

func isTimeout(err error) bool {
	late, ok := err.(net.Error)
	return ok && late.Timeout()
}

// TestSlowReaders: who asks for much and takes nothing holds no connection.
func TestSlowReaders(t *testing.T) {
	ended := make(chan struct{})
	address := open(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		defer close(ended)
		for block := make([]byte, 1<<20); ; { // more than all buffers on the way
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}), Limits{Body: time.Minute, Answer: 100 * time.Millisecond})
	send(t, address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the answer is still being written")
	}
}

// TestHugeHeaders: what somebody without a login can make the server keep is little.
func TestHugeHeaders(t *testing.T) {
	address := open(t, http.NotFoundHandler(), Limits{Body: time.Minute, Answer: time.Minute})
	conn := send(t, address, "GET / HTTP/1.1\r\nHost: x\r\nCookie: "+strings.Repeat("x", 128<<10)+"\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 128 KiB: %s", resp.Status)
	}
}
