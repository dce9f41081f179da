package web

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

var privatePaths = []string{"/", "/alerts", "/alerts/x", "/decisions", "/findings", "/nothing"}

func TestNothingWithoutLogin(t *testing.T) {
	s := newSite(t, full(t))
	v := s.visitor(t)
	for _, path := range privatePaths {
		code, body, end := v.read(v.Get(s.url + path))
		if code != http.StatusOK || end != "/login?next="+url.QueryEscape(path) || strings.Contains(body, "offer-service") {
			t.Errorf("%s leads to %s: %d", path, end, code)
		}
	}
	for _, r := range s.routes() {
		if !strings.HasPrefix(r.path, "/api/") {
			continue
		}
		resp, err := http.Get(s.url + strings.ReplaceAll(r.path, "{id}", "x"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s: %d", r.path, resp.StatusCode)
		}
	}
	for _, token := range []string{"", "wrong", testToken + "x", testToken[1:], strings.Repeat("x", 5000)} {
		if code, answer := s.bearer(t, "/api/v1/alerts", token); code != http.StatusUnauthorized {
			t.Errorf("token %.20q: %d %v", token, code, answer)
		}
	}
	if code, _ := s.bearer(t, "/api/v1/alerts", testToken); code != http.StatusOK {
		t.Errorf("the right token: %d", code)
	}
}

func TestLoginAndLogout(t *testing.T) {
	s := newSite(t)
	v := s.visitor(t)
	code, body, _ := v.login("wrong", "/alerts")
	if code != http.StatusUnauthorized || !strings.Contains(body, "this is not the login token") || !strings.Contains(body, `value="/alerts"`) {
		t.Errorf("a wrong token: %d %s", code, body)
	}
	if strings.Contains(body, `value="wrong"`) {
		t.Error("the page repeats the token")
	}
	if code, _, path := v.login(" "+testToken+"\n", "/alerts?rule=a"); code != http.StatusOK || path != "/alerts?rule=a" {
		t.Errorf("the right token leads to %s: %d", path, code)
	}
	if _, _, path := v.read(v.Get(s.url + "/login?next=/findings")); path != "/findings" {
		t.Errorf("a second login leads to %s", path)
	}
	cookies := v.Jar.Cookies(mustParse(t, s.url))
	if _, _, path := v.read(v.PostForm(s.url+"/logout", nil)); path != "/login" {
		t.Errorf("the logout leads to %s", path)
	}
	v.Jar.SetCookies(mustParse(t, s.url), cookies) // a stolen cookie is of no use any more
	if _, _, path := v.read(v.Get(s.url + "/")); !strings.HasPrefix(path, "/login") {
		t.Errorf("after the logout we are at %s", path)
	}
	if !strings.Contains(s.log.String(), "login refused") || strings.Contains(s.log.String(), testToken) {
		t.Errorf("the log is %s", s.log)
	}
}

func mustParse(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestCookie(t *testing.T) {
	s := newSite(t)
	for _, tt := range []struct {
		name, want string
		tls        *tls.ConnectionState
	}{
		{"plain", "kubeguardian=", nil},
		{"TLS", "__Host-kubeguardian=", &tls.ConnectionState{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/login", strings.NewReader("token="+testToken))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.TLS = tt.tls
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			cookie := w.Header().Get("Set-Cookie")
			for _, part := range []string{"Path=/", "HttpOnly", "SameSite=Strict", "Max-Age=43200"} {
				if !strings.Contains(cookie, part) {
					t.Errorf("%s is missing in %s", part, cookie)
				}
			}
			if !strings.HasPrefix(cookie, tt.want) || strings.Contains(cookie, "Secure") != (tt.tls != nil) {
				t.Errorf("the cookie is %s", cookie)
			}
		})
	}
}

func TestFailedLoginsAreLimited(t *testing.T) {
	s := newSite(t)
	member := s.member(t)
	v := s.visitor(t)
	for range maxFailures {
		if code, _, _ := v.login("wrong", "/"); code != http.StatusUnauthorized {
			t.Fatalf("too early: %d", code)
		}
	}
	code, body, _ := v.login(testToken, "/")
	if code != http.StatusTooManyRequests || !strings.Contains(body, "wait a minute") {
		t.Errorf("the right token after too many wrong ones: %d %s", code, body)
	}
	if code, _ := s.bearer(t, "/api/v1/alerts", testToken); code != http.StatusTooManyRequests {
		t.Errorf("the API: %d", code)
	}
	if code, _ := member.get("/"); code != http.StatusOK {
		t.Errorf("a session that existed: %d", code)
	}
}

func TestLimitByAddress(t *testing.T) {
	s := newSessions(testToken)
	now := time.Now()
	network := func(addr string) netip.Prefix {
		return sender(&http.Request{RemoteAddr: netip.AddrPortFrom(netip.MustParseAddr(addr), 1).String()})
	}
	for range maxFailures {
		s.check("wrong", network("2001:db8::1"), now)
	}
	if err := s.check(testToken, network("2001:db8::2"), now); err != errLimited {
		t.Errorf("the same /64: %v", err)
	}
	for _, other := range []string{"2001:db8:0:1::1", "10.0.0.1", "::ffff:10.0.0.2"} {
		if err := s.check(testToken, network(other), now); err != nil {
			t.Errorf("%s: %v", other, err)
		}
	}
	if network("::ffff:10.0.0.2") != network("10.0.0.2") {
		t.Error("one IPv4 address has two forms")
	}
	if err := s.check(testToken, network("2001:db8::1"), now.Add(failureWindow+time.Second)); err != nil {
		t.Errorf("a window later: %v", err)
	}
	for i := range maxAddresses + 100 {
		s.check("wrong", netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32), now)
	}
	if len(s.failures) > maxAddresses {
		t.Errorf("%d addresses are kept", len(s.failures))
	}
}

func TestSessionsAreBounded(t *testing.T) {
	s := newSessions(testToken)
	now := time.Now()
	first := s.start(now)
	if !s.valid(first, now.Add(sessionAge-time.Second)) || s.valid(first, now.Add(sessionAge)) || s.valid("", now) {
		t.Error("a session lives for its time, no longer")
	}
	var last string
	for i := range maxSessions {
		last = s.start(now.Add(time.Duration(i+1) * time.Millisecond))
	}
	if len(s.expiry) > maxSessions || s.valid(first, now) || !s.valid(last, now) {
		t.Errorf("%d sessions are kept; the oldest makes room", len(s.expiry))
	}
}

func TestRedirectsStayHere(t *testing.T) {
	tests := map[string]string{
		"/alerts?rule=a": "/alerts?rule=a", "": "/", "/": "/", "alerts": "/",
		"//evil.example": "/", "https://evil.example/": "/", `/\evil.example`: "/", "javascript:alert(1)": "/",
		"/\t/evil.example": "/", "///evil.example": "/", "/%2f/evil.example": "/", "/%5cevil.example": "/",
	}
	for next, want := range tests {
		if have := localPath(next); have != want {
			t.Errorf("localPath(%q) = %q, want %q", next, have, want)
		}
	}
}

func TestCrossOriginRequests(t *testing.T) {
	s := newSite(t)
	for _, path := range []string{"/login", "/logout"} {
		for name, header := range map[string][2]string{"Sec-Fetch-Site": {"Sec-Fetch-Site", "cross-site"}, "Origin": {"Origin", "https://evil.example"}} {
			req, err := http.NewRequest("POST", s.url+path, strings.NewReader("token="+testToken))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set(header[0], header[1])
			if code, _, _ := s.visitor(t).read(http.DefaultClient.Do(req)); code != http.StatusForbidden {
				t.Errorf("POST %s with a foreign %s: %d", path, name, code)
			}
		}
	}
	if code, _, _ := s.visitor(t).read(http.Get(s.url + "/logout")); code != http.StatusMethodNotAllowed && code != http.StatusOK {
		t.Errorf("GET /logout: %d", code)
	}
}

func TestHeaders(t *testing.T) {
	s := newSite(t)
	want := map[string]string{
		"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
	}
	for _, path := range []string{"/login", "/", "/static/app.js", "/static/app.css", "/static/favicon.svg", "/static/none", "/api/v1/alerts"} {
		resp, err := http.Get(s.url + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		for name, value := range want {
			if !strings.HasPrefix(resp.Header.Get(name), value) {
				t.Errorf("%s: %s is %q", path, name, resp.Header.Get(name))
			}
		}
		csp := resp.Header.Get("Content-Security-Policy")
		if strings.Contains(csp, "unsafe") || !strings.Contains(csp, "frame-ancestors 'none'") {
			t.Errorf("%s: %s", path, csp)
		}
		if wantCached := strings.HasPrefix(path, "/static/") && resp.StatusCode == 200; wantCached != (resp.Header.Get("Cache-Control") != "no-store") {
			t.Errorf("%s: Cache-Control %q", path, resp.Header.Get("Cache-Control"))
		}
	}
	big := strings.NewReader("token=" + strings.Repeat("x", 1<<20))
	if code, _, _ := s.visitor(t).read(http.Post(s.url+"/login", "application/x-www-form-urlencoded", big)); code != http.StatusBadRequest {
		t.Errorf("a huge form: %d", code)
	}
}

func TestNewNeedsAToken(t *testing.T) {
	if _, err := New(Options{}); err == nil || !strings.Contains(fmt.Sprint(err), "login token is empty") {
		t.Errorf("have %v", err)
	}
}
