package web

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
)

// A reader reads server-sent events.
type reader struct {
	t      *testing.T
	lines  *bufio.Scanner
	cancel context.CancelFunc
	id     string // of the last event
}

// follow opens a stream; header is a name and a value, or nothing.
func (s *site) follow(t *testing.T, query string, header ...string) *reader {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", s.url+"/api/v1/alerts/stream"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testToken)
	if len(header) == 2 {
		req.Header.Set(header[0], header[1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s: %s, %s", query, resp.Status, resp.Header.Get("Content-Type"))
	}
	r := &reader{t: t, lines: bufio.NewScanner(resp.Body), cancel: cancel}
	r.lines.Buffer(nil, 1<<20)
	r.block() // the first one says that the stream is there
	return r
}

// block returns the lines of the next block; nil at the end of the stream.
func (r *reader) block() (block []string) {
	for r.lines.Scan() {
		line := r.lines.Text()
		if line == "" {
			return block
		}
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			r.id = id
		}
		block = append(block, line)
	}
	return nil
}

// next returns the id of the next alert.
func (r *reader) next() string {
	r.t.Helper()
	for {
		block := r.block()
		if block == nil {
			r.t.Fatal("the stream has ended")
		}
		for _, line := range block {
			if data, ok := strings.CutPrefix(line, "data: "); ok {
				var a alert.Record
				if err := json.Unmarshal([]byte(data), &a); err != nil || fmt.Sprint(a.Seq) != r.id {
					r.t.Fatalf("%v: %q has %v", err, block, a.Seq)
				}
				return a.ID
			}
		}
	}
}

func (r *reader) expect(alerts ...alert.Alert) {
	r.t.Helper()
	for _, a := range alerts {
		if id := r.next(); id != a.ID {
			r.t.Fatalf("have alert %s, want %s", id, a.ID)
		}
	}
}

func TestStreamStarts(t *testing.T) {
	tests := []struct {
		name, query string
		header      []string
		first       int
	}{
		{"now", "", nil, 10},
		{"after a place", "?after=7", nil, 7},
		{"after nothing", "?after=0", nil, 0},
		{"resumed", "", []string{"Last-Event-ID", "4"}, 4},
		{"resumed by a page that had a place", "?after=7", []string{"Last-Event-ID", "9"}, 9},
		{"from the place of another database", "?after=99999", nil, 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t)
			s.add(t, testAlerts(0, 10)...)
			r := s.follow(t, tt.query, tt.header...)
			s.add(t, testAlerts(10, 12)...)
			r.expect(testAlerts(tt.first, 12)...)
		})
	}
}

// Readers that are cut off again and again, while alerts are added by several
// writers, miss nothing and get nothing twice.
func TestStreamLosesNothing(t *testing.T) {
	s := newSite(t)
	const writers, batches, size = 3, 20, 40
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for b := range batches {
				from := (w*batches + b) * size
				s.add(t, testAlerts(from, from+size)...)
			}
		})
	}
	for n := range 3 {
		group.Go(func() {
			seen := map[string]bool{}
			id := "0"
			for len(seen) < writers*batches*size {
				r := s.follow(t, "", "Last-Event-ID", id)
				for range 100 * (n + 1) {
					if len(seen) == writers*batches*size {
						break
					}
					next := r.next()
					if seen[next] {
						t.Errorf("alert %s comes twice", next)
						return
					}
					seen[next] = true
				}
				id = r.id
				r.cancel()
			}
		})
	}
	group.Wait()
}

// A filtered stream moves its place over what it does not send.
func TestStreamFilter(t *testing.T) {
	s := newSite(t)
	r := s.follow(t, "?rule=Secrets+listed&namespace=shop&priority=notice&text=gateway")
	s.add(t, testAlerts(0, 8)...)
	r.expect(testAlert(1), testAlert(5))
	for r.id != "8" {
		if r.block() == nil {
			t.Fatal("the stream has ended")
		}
	}
}

// A stream shows that it lives, and ends with the server and with the session.
func TestStreamLifetime(t *testing.T) {
	s := newSite(t, func(s *site) { s.live.Heartbeat = 10 * time.Millisecond })
	first, second := s.follow(t, ""), s.follow(t, "")
	for range 3 {
		if block := first.block(); len(block) != 1 || !strings.HasPrefix(block[0], ":") {
			t.Errorf("a heartbeat is %q", block)
		}
	}
	v := s.member(t)
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/api/v1/alerts/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := v.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	v.read(v.PostForm(s.url+"/logout", nil))
	third := &reader{t: t, lines: bufio.NewScanner(resp.Body)}
	for third.block() != nil {
	}
	s.Server.Close()
	s.Server.Close() // a second time is no harm
	for first.block() != nil || second.block() != nil {
	}
}

// A client that does not read is cut off, does not hold up anyone, and gets
// everything when it comes back.
func TestSlowClient(t *testing.T) {
	s := newSite(t, func(s *site) { s.live.Patience = 2 * time.Second })
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.(*net.TCPConn).SetReadBuffer(4096)
	fmt.Fprintf(conn, "GET /api/v1/alerts/stream?after=0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", testToken)
	var all []alert.Alert
	for i := range 120 {
		a := testAlert(i)
		a.OutputFields["padding"] = strings.Repeat("x", 100_000)
		all = append(all, a)
	}
	for i := 0; i < len(all); i += 20 {
		s.add(t, all[i:i+20]...)
	}
	for range 12_000 {
		if strings.Contains(s.log.String(), "live alerts cut off") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !strings.Contains(s.log.String(), "live alerts cut off") {
		t.Error("a client that does not read is not cut off")
	}
	again := s.follow(t, "", "Last-Event-ID", "0")
	again.expect(all...)
}
