package admission

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
)

// stall opens connections, each with the beginning of a review that claims size
// bytes and does not come whole.
func stall(t *testing.T, server *httptest.Server, connections, size, sent int) {
	t.Helper()
	head := fmt.Sprintf("POST %s?timeout=30s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", ValidatePath, size)
	part := head + strings.Repeat("x", sent)
	for range connections {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if err := conn.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
}

// from returns a client with an address of its own.
func from(t *testing.T, address string) *http.Client {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// inUse returns what the heap and the stacks take.
func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// TestHalfBodies: anybody can send thousands of reviews that end in the middle. What
// they take is bounded, and the API server's reviews are judged, small and large.
func TestHalfBodies(t *testing.T) {
	var r recorder
	server := httptest.NewServer(newHandler(failing(t, "Deny", "no"), &r))
	t.Cleanup(server.Close) // after the connections
	before := inUse()
	const connections = 1500
	stall(t, server, connections, 250<<10, 125<<10)
	stall(t, server, 100, maxBodyBytes, 1<<10)
	apiServer, url := from(t, "127.0.0.2"), server.URL+ValidatePath+"?timeout=30s"
	large := podReview("shop", `{"containers":[{"name":"web","image":"`+strings.Repeat("x", 3<<20)+`"}]}`)
	for range 10 {
		for _, review := range []*admissionv1.AdmissionReview{podReview("shop", goodSpec), large} {
			if got := postWith(t, apiServer, url, review); got.Allowed || got.Result.Message != "[p0] no" {
				t.Fatalf("response = %+v", got)
			}
		}
	}
	if took := inUse() - before; took > connections*40<<10 {
		t.Errorf("%d connections take %d MiB, or %d KiB each", connections, took>>20, took>>10/connections)
	}
}

// enter takes a place, and fails the test if there is none.
func enter(t *testing.T, r *room, from string, bytes int64, giveWay func()) *place {
	t.Helper()
	p, err := r.take(t.Context(), from, bytes, giveWay)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestRoomIsShared: who waits gets the room of bodies that do not come, whoever sent
// them, and never that of a body that has.
func TestRoomIsShared(t *testing.T) {
	for _, next := range []string{"somebody", "somebody else"} {
		r := newRoom(100)
		judged := enter(t, r, "somebody", 40, func() { t.Error("a review that is being judged gave way") })
		judged.came()
		var stalled *place
		gone := make(chan struct{})
		stalled = enter(t, r, "somebody", 60, func() { close(gone) })
		go func() {
			<-gone
			if !stalled.gaveWay() {
				t.Error("it does not know that it gave way")
			}
			stalled.leave()
		}()
		p := enter(t, r, next, 50, func() {})
		p.leave()
		judged.leave()
		if r.taken != 0 || r.leaving != 0 || len(r.senders) != 0 {
			t.Errorf("left behind: %+v", r)
		}
	}
}

// TestLeastFirst: many reviews of one sender that wait keep nobody else waiting.
func TestLeastFirst(t *testing.T) {
	r := newRoom(100)
	stays, leaves := enter(t, r, "many", 30, func() {}), enter(t, r, "many", 70, func() {})
	stays.came()
	leaves.came()
	order := make(chan string, 10)
	var group sync.WaitGroup
	wait := func(from string, line int) {
		group.Go(func() {
			p, err := r.take(t.Context(), from, 60, func() {})
			if err != nil {
				t.Error(err)
				return
			}
			p.came()
			order <- from
			p.leave()
		})
		waiting := func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.senders[from] != nil && len(r.senders[from].line) == line
		}
		for !waiting() {
			time.Sleep(time.Millisecond)
		}
	}
	for n := range 5 {
		wait("many", n+1)
	}
	wait("few", 1)
	leaves.leave()
	group.Wait()
	if first := <-order; first != "few" {
		t.Errorf("first came %s", first)
	}
	stays.leave()
}

// TestNobodyWaitsAnyMore: who ends waiting leaves nothing behind, and a body that
// came although it was given up counts on.
func TestNobodyWaitsAnyMore(t *testing.T) {
	r := newRoom(100)
	gone := make(chan struct{})
	late := enter(t, r, "somebody", 100, func() { close(gone) })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := r.take(ctx, "somebody else", 10, func() {})
		ended <- err
	}()
	<-gone
	late.came()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("waiting ended with %v", err)
	}
	if r.taken != 100 || r.leaving != 0 || len(r.senders) != 1 || late.of.held != 100 {
		t.Errorf("room = %+v", r)
	}
	late.leave()
	if r.taken != 0 || len(r.senders) != 0 {
		t.Errorf("left behind: %+v", r)
	}
}
