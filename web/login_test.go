package web

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/access/attempt"
)

func TestLoginAndLogout(t *testing.T) {
	s := newSite(t)
	v := s.visitor(t)
	code, body, _ := v.login("wrong", "/alerts")
	if code != http.StatusUnauthorized || !strings.Contains(body, "this token is not valid") || !strings.Contains(body, `value="/alerts"`) {
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
	for range attempt.MaxFailures {
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
