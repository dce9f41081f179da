package web

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/kubeguardian/kubeguardian/access"
	"github.com/kubeguardian/kubeguardian/access/issuertest"
)

// withIssuer lets users of an issuer log in, by what their groups may do. Browsers
// reach the site as localhost, and the issuer as 127.0.0.1: these are two sites.
func withIssuer(t *testing.T, s *site) *issuertest.Issuer {
	t.Helper()
	i := issuertest.New(t)
	s.url = strings.Replace(s.url, "127.0.0.1", "localhost", 1)
	oidc, err := access.NewOIDC(access.OIDCConfig{
		Issuer: i.URL, ClientID: issuertest.ClientID, ClientSecret: issuertest.ClientSecret, RedirectURL: s.url + "/login/oidc/callback",
		UsernameClaim: "name", UsernamePrefix: "sso:", GroupsClaim: "groups",
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Login.OIDC, s.sessions.OIDC = oidc, oidc
	s.sessions.Access, err = access.New(access.Options{
		Tokens: testTokens(), Issuers: []access.Issuer{oidc},
		Authorizer: access.Grants{{Role: access.Viewer, Groups: []string{"staff"}}, {Role: access.Admin, Users: []string{"sso:ada"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	i.User(map[string]any{"name": "ada", "sub": "1"})
	return i
}

func TestSingleSignOn(t *testing.T) {
	s := newSite(t, full(t))
	i := withIssuer(t, s)
	v := s.visitor(t)
	if _, body := v.get("/login?next=/alerts"); !strings.Contains(body, `href="/login/oidc?next=%2Falerts"`) {
		t.Errorf("the login page: %s", body)
	}
	code, body, path := v.read(v.Get(s.url + "/login/oidc?next=/alerts%3Frule=a"))
	if code != http.StatusOK || !strings.HasPrefix(path, "/login/oidc/callback?") || !strings.Contains(body, `content="0;url=/alerts?rule=a"`) {
		t.Fatalf("the way back: %d %s %s", code, path, body)
	}
	if _, body := v.get("/alerts"); !strings.Contains(body, `title="logged in">sso:ada`) {
		t.Errorf("ada sees %s", body)
	}
	// The same answer of the issuer, in another browser and again in this one.
	for name, again := range map[string]*visitor{"another browser": s.visitor(t), "the same browser": v} {
		if code, body, _ := again.read(again.Get(s.url + path)); code != http.StatusUnauthorized || !strings.Contains(body, "try again") {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
	if code, body, _ := v.read(v.Get(s.url + "/login/oidc/callback?error=access_denied&state=" + strings.Repeat("<b>", 100))); code != http.StatusUnauthorized || strings.Contains(body, "<b>") {
		t.Errorf("an issuer that refuses: %d %s", code, body)
	}
	for _, next := range []string{"https://evil.example/", "//evil.example", `/\evil.example`, "javascript:alert(1)"} {
		v := s.visitor(t)
		if _, body, _ := v.read(v.Get(s.url + "/login/oidc?next=" + url.QueryEscape(next))); !strings.Contains(body, `content="0;url=/"`) {
			t.Errorf("next=%s leads to %s", next, body)
		}
	}
	for token, want := range map[string]int{
		i.Sign(map[string]any{"name": "ben", "groups": "staff"}):                                           http.StatusOK,
		i.Sign(map[string]any{"name": "eve", "groups": "system:masters"}):                                  http.StatusForbidden,
		i.Sign(map[string]any{"name": "ben", "groups": "staff", "aud": "other"}):                           http.StatusUnauthorized,
		i.Sign(map[string]any{"name": "ben", "groups": "staff", "exp": time.Now().Add(-time.Hour).Unix()}): http.StatusUnauthorized,
	} {
		if code, answer := s.bearer(t, "/api/v1/alerts", token); code != want {
			t.Errorf("an ID token: %d %v, want %d", code, answer, want)
		}
	}
	log := said(s.actionLog(t))
	if !strings.Contains(log, "sso:ada: log in  : done") || !strings.Contains(log, `: log in  : failed: this token is not valid: the issuer says "access_denied"`) || strings.Contains(log, "eyJ") {
		t.Errorf("the log of actions:\n%s", log)
	}
	if log := s.log.String(); strings.Contains(log, "eyJ") || strings.Contains(log, issuertest.ClientSecret) {
		t.Errorf("the log has a token:\n%s", log)
	}
	i.Down(true)
	i2 := withIssuer(t, s)
	i2.Down(true)
	if code, body, _ := s.visitor(t).read(http.Get(s.url + "/login/oidc")); code != http.StatusServiceUnavailable || strings.Contains(body, i2.URL) {
		t.Errorf("an issuer that is down: %d %s", code, body)
	}
}

// TestWithoutIssuer: there is no way that leads nowhere.
func TestWithoutIssuer(t *testing.T) {
	v := newSite(t).visitor(t)
	if _, body := v.get("/login"); strings.Contains(body, "/login/oidc") {
		t.Errorf("the login page: %s", body)
	}
	for _, path := range []string{"/login/oidc", "/login/oidc/callback?state=a&code=b"} {
		if code, _ := v.get(path); code != http.StatusNotFound {
			t.Errorf("%s: %d", path, code)
		}
	}
}

// TestBrowserSingleSignOn goes to the issuer and back in a browser that gets no
// script of ours.
func TestBrowserSingleSignOn(t *testing.T) {
	s := newSite(t, full(t))
	withIssuer(t, s)
	b := newBrowser(t, s.url)
	b.run(t, network.SetBlockedURLs([]string{"*.js"}))
	b.open(t, "/findings")
	b.run(t, chromedp.Click(`a[href^="/login/oidc"]`))
	b.until(t, `location.pathname === "/findings" && document.querySelector("nav") !== null`)
	if user := eval[string](t, b, `document.querySelector('[title="logged in"]').textContent`); user != "sso:ada" {
		t.Errorf("the page is shown to %s", user)
	}
	b.run(t, chromedp.Click(".where button"), chromedp.WaitVisible("#token"))
}
