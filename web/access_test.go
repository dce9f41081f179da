package web

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/access"
	"github.com/kubeguardian/kubeguardian/incident"
)

// open are the routes that need no login. A route is added here for a reason
// alone: it takes it to log in or out.
var open = []string{"GET /login", "POST /login", "GET /login/oidc", "GET /login/oidc/callback", "POST /logout", "GET /static/{file}"}

// TestRoutesNeedPermissions expects each route to need a permission that a role
// has, and what changes something to need one to change.
func TestRoutesNeedPermissions(t *testing.T) {
	for _, r := range newSite(t).routes() {
		name := r.method + " " + r.path
		switch {
		case slices.Contains(open, name):
			if r.needs != "" {
				t.Errorf("%s is said to be open and needs %q", name, r.needs)
			}
		case r.needs.Role() == "":
			t.Errorf("%s needs %q, which no role has", name, r.needs)
		case r.method != http.MethodGet && !r.needs.Changes() && r.needs != "create evaluations":
			t.Errorf("%s needs %q, which only reads", name, r.needs)
		case r.method == http.MethodGet && r.needs.Changes():
			t.Errorf("%s needs %q, but a link can ask for it", name, r.needs)
		}
	}
}

// ask sends a request to a route with a header, and returns the code and where a
// redirect leads.
func (s *site) ask(t *testing.T, r route, header ...string) (code int, to string) {
	t.Helper()
	path := strings.NewReplacer("{id}", "one", "{destination}", "hook", "{$}", "", "{file}", "app.js", "{kind}", "pod", "{name...}", "shop/offer-service-8", "{name}", "Secrets%20listed").Replace(r.path)
	req, err := http.NewRequestWithContext(t.Context(), r.method, s.url+path, strings.NewReader("state=closed&reason=none"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close() // a stream ends by that
	return resp.StatusCode, resp.Header.Get("Location")
}

func TestNothingWithoutLogin(t *testing.T) {
	s := newSite(t, full(t))
	s.join(t, "one", "ada")
	for _, r := range s.routes() {
		if r.needs == "" {
			continue
		}
		code, to := s.ask(t, r)
		if r.api() && code != http.StatusUnauthorized || !r.api() && (code != http.StatusSeeOther || !strings.HasPrefix(to, "/login?next="+url.QueryEscape("/"))) {
			t.Errorf("%s %s without a login: %d %s", r.method, r.path, code, to)
		}
		for _, value := range []string{"", "wrong", strings.Repeat("x", 5000)} {
			if code, to := s.ask(t, r, "Cookie", "kubeguardian="+value); code != http.StatusUnauthorized && code != http.StatusSeeOther {
				t.Errorf("%s %s with a made-up session: %d %s", r.method, r.path, code, to)
			}
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
	if i, _, err := s.store.Incident(t.Context(), "one"); err != nil || i.State != incident.New {
		t.Errorf("the incident is %s, %v", i.State, err)
	}
}

// TestRoleMatrix walks all routes in each role, by token and by session: what the
// role may not do is refused, and nothing happens.
func TestRoleMatrix(t *testing.T) {
	s := newSite(t, full(t))
	s.join(t, "one", "ada")
	for _, role := range append(access.Roles(), "nobody") {
		session := s.memberBy(t, string(role)).Jar.Cookies(mustParse(t, s.url))[0]
		for _, r := range s.routes() {
			if r.needs == "" {
				continue
			}
			may := role.Allows(r.needs)
			if may && r.needs.Changes() {
				continue // what it does has tests of its own
			}
			for way, header := range map[string][]string{
				"session": {"Cookie", session.String()}, "token": {"Authorization", "Bearer " + string(role)},
			} {
				code, _ := s.ask(t, r, header...)
				if may == (code == http.StatusForbidden) || code == http.StatusUnauthorized || code == http.StatusSeeOther {
					t.Errorf("%s by %s: %s %s, which needs %q: %d", role, way, r.method, r.path, r.needs, code)
				}
			}
		}
	}
	if i, _, err := s.store.Incident(t.Context(), "one"); err != nil || i.State != incident.New {
		t.Errorf("the incident is %s, %v", i.State, err)
	}
}

// TestPagesShowWhatOneMayDo: who has logged in, and no button that would be
// refused.
func TestPagesShowWhatOneMayDo(t *testing.T) {
	s := newSite(t, full(t))
	s.join(t, "one", "ada")
	for role, buttons := range map[access.Role]bool{access.Viewer: false, access.Responder: true} {
		v := s.memberBy(t, string(role))
		_, body := v.get("/incidents/one")
		if strings.Contains(body, "<button>Save") != buttons || !strings.Contains(body, `title="logged in">`+string(role)) {
			t.Errorf("%s sees %s", role, body)
		}
	}
	code, body := s.memberBy(t, "nobody").get("/")
	if code != http.StatusForbidden {
		t.Errorf("nobody: %d", code)
	}
	checkText(t, body, []string{"nobody may not list alerts: this takes the role viewer", `action="/logout"`}, []string{"offer-service", `href="/alerts"`})
}

// TestLoginTakesANewSession: a session that an attacker has planted is not the one
// of who logs in, and a second login ends the first.
func TestLoginTakesANewSession(t *testing.T) {
	s := newSite(t)
	v := s.visitor(t)
	here := mustParse(t, s.url)
	v.Jar.SetCookies(here, []*http.Cookie{{Name: "kubeguardian", Value: "planted", Path: "/"}})
	v.login("viewer", "/")
	first := v.Jar.Cookies(here)[0].Value
	v.login("responder", "/")
	second := v.Jar.Cookies(here)[0].Value
	if first == "planted" || first == second || len(second) < 26 {
		t.Errorf("the sessions are %q and %q", first, second)
	}
	list := route{method: "GET", path: "/api/v1/alerts"}
	for cookie, want := range map[string]int{"planted": 401, first: 401, second: 200} {
		if code, _ := s.ask(t, list, "Cookie", "kubeguardian="+cookie); code != want {
			t.Errorf("session %q: %d, want %d", cookie, code, want)
		}
	}
}
