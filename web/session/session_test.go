package session

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/access"
	"github.com/kubeguardian/kubeguardian/access/attempt"
	"github.com/kubeguardian/kubeguardian/action"
	"github.com/kubeguardian/kubeguardian/store"
)

// newGuard returns a guard that knows one viewer, with a real log of actions.
func newGuard(t *testing.T) (*Guard, *store.Store) {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "kubeguardian.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	gate, err := access.New(access.Options{Tokens: []access.Token{{User: "ada", Role: access.Viewer, Value: viewerToken}}})
	if err != nil {
		t.Fatal(err)
	}
	return New(Options{Access: gate, Sessions: db.Sessions(), Actions: db, Log: slog.New(slog.DiscardHandler)}), db
}

const viewerToken = "test-token-0123456789"

// TestRefusalsAreBounded: who is refused often fills no disk, and is counted.
func TestRefusalsAreBounded(t *testing.T) {
	g, db := newGuard(t)
	handle := g.Require("list actions", func(http.ResponseWriter, *http.Request) error {
		t.Error("a viewer reads the log of actions")
		return nil
	})
	ask := func() {
		r := httptest.NewRequest("GET", "/api/v1/actions", nil)
		r.Header.Set("Authorization", "Bearer "+viewerToken)
		if err := handle(httptest.NewRecorder(), r); err == nil || !strings.Contains(err.Error(), "ada may not list actions") {
			t.Fatalf("the request: %v", err)
		}
	}
	kept := func() []action.Entry {
		log, _, err := db.Actions(t.Context(), 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		return log
	}
	for range refusalsKept + 30 {
		ask()
	}
	if have := len(kept()); have < refusalsKept || have > refusalsKept+5 {
		t.Errorf("%d refusals are kept", have)
	}
	g.refusals.SetBurst(1000)
	g.refusals.SetLimit(1000)
	for g.unkept.Load() > 0 {
		ask()
	}
	if last := kept()[0]; !strings.Contains(last.Result, "denied (and ") || !strings.Contains(last.Result, "refusals before it that are not kept)") {
		t.Errorf("the next one says %q", last.Result)
	}
}

func TestLimitByAddress(t *testing.T) {
	l := attempt.NewLimiter()
	now := time.Now()
	network := func(addr string) netip.Prefix {
		return sender(&http.Request{RemoteAddr: netip.AddrPortFrom(netip.MustParseAddr(addr), 1).String()})
	}
	try := func(from netip.Prefix, now time.Time, failed bool) bool {
		ok := l.Begin(from, now)
		if ok {
			l.End(from, failed)
		}
		return ok
	}
	for range attempt.MaxFailures {
		try(network("2001:db8::1"), now, true)
	}
	if try(network("2001:db8::2"), now, false) {
		t.Error("the same /64 may try")
	}
	for _, other := range []string{"2001:db8:0:1::1", "10.0.0.1", "::ffff:10.0.0.2"} {
		if !try(network(other), now, false) {
			t.Errorf("%s may not try", other)
		}
	}
	if network("::ffff:10.0.0.2") != network("10.0.0.2") {
		t.Error("one IPv4 address has two forms")
	}
	if !try(network("2001:db8::1"), now.Add(attempt.Window+time.Second), false) {
		t.Error("a window later it may not try")
	}
	for range attempt.MaxPending {
		l.Begin(network("10.1.0.1"), now)
	}
	if l.Begin(network("10.1.0.1"), now) {
		t.Error("any number may try at once")
	}
	for i := range attempt.MaxAddresses + 100 {
		try(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32), now, true)
	}
	if l.Len() > attempt.MaxAddresses {
		t.Errorf("%d addresses are kept", l.Len())
	}
}

func TestSessionsEnd(t *testing.T) {
	g, db := newGuard(t)
	ctx := t.Context()
	ada, err := g.Access.Token(ctx, viewerToken)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	start := func(at time.Time) string {
		cookie, err := g.start(ctx, ada, at)
		if err != nil {
			t.Fatal(err)
		}
		return cookie
	}
	valid := func(cookie string, at time.Time, using bool) bool {
		id, err := g.session(ctx, cookie, at, using)
		if err != nil && !errors.Is(err, ErrLoggedOut) || err == nil && id.User != "ada" {
			t.Fatalf("%+v, %v", id, err)
		}
		return err == nil
	}
	first := start(now)
	if !valid(first, now.Add(MaxIdle-time.Second), false) || valid("", now, false) || valid(strings.ToLower(first), now, false) {
		t.Error("a session is over too soon, or one is found that there is not")
	}
	if valid(first, now.Add(MaxIdle), false) {
		t.Error("an idle session goes on")
	}
	for at := now; at.Before(now.Add(MaxAge)); at = at.Add(MaxIdle / 2) {
		if !valid(first, at, true) {
			t.Fatalf("a session that is used is over after %s", at.Sub(now))
		}
	}
	if valid(first, now.Add(MaxAge), true) {
		t.Error("a session that is used goes on for ever")
	}
	if n, err := db.Sessions().Prune(ctx, now.Add(time.Second), now); n != 1 || err != nil {
		t.Errorf("%d old sessions are forgotten, %v", n, err)
	}
}

func TestRedirectsStayHere(t *testing.T) {
	tests := map[string]string{
		"/alerts?rule=a": "/alerts?rule=a", "": "/", "/": "/", "alerts": "/",
		"//evil.example": "/", "https://evil.example/": "/", `/\evil.example`: "/", "javascript:alert(1)": "/",
		"/\t/evil.example": "/", "///evil.example": "/", "/%2f/evil.example": "/", "/%5cevil.example": "/",
	}
	for next, want := range tests {
		if have := LocalPath(next); have != want {
			t.Errorf("LocalPath(%q) = %q, want %q", next, have, want)
		}
	}
}

// TestSharedFailuresAreBounded: who fails from many addresses makes no more rows in
// the database than its rate allows.
func TestSharedFailuresAreBounded(t *testing.T) {
	g, _ := newGuard(t)
	g.failures.SetLimit(0)
	for i := range 3 * failuresShared {
		r := httptest.NewRequest("GET", "/api/v1/alerts", nil)
		r.RemoteAddr = fmt.Sprintf("192.0.2.%d:1", i+1)
		r.Header.Set("Authorization", "Bearer wrong")
		if _, _, err := g.check(r, "wrong"); !errors.Is(err, errInvalidToken) {
			t.Fatal(err)
		}
	}
	shared := 0
	for i := range 3 * failuresShared {
		n, err := g.Sessions.Failures(t.Context(), fmt.Sprintf("192.0.2.%d/32", i+1), time.Now().Add(-time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		shared += n
	}
	if shared != failuresShared {
		t.Errorf("%d failures are in the database, want %d", shared, failuresShared)
	}
}
