package web

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/access"
	"github.com/kubeguardian/kubeguardian/access/attempt"
	"github.com/kubeguardian/kubeguardian/access/issuertest"
	"github.com/kubeguardian/kubeguardian/access/sealed"
	"github.com/kubeguardian/kubeguardian/store"
	"github.com/kubeguardian/kubeguardian/store/postgrestest"
)

// onDatabases runs a test on SQLite and on PostgreSQL.
func onDatabases(t *testing.T, test func(t *testing.T, address string)) {
	t.Run("SQLite", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "kubeguardian.db")) })
	t.Run("PostgreSQL", func(t *testing.T) {
		_, address := postgrestest.ForTest(t)
		test(t, address)
	})
}

// replica starts a server on a database that others may share.
func replica(t *testing.T, address string, configure ...func(*site)) *site {
	return newSite(t, append([]func(*site){func(s *site) {
		db, err := store.Open(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		s.sessions.Sessions, s.sessions.Actions = db.Sessions(), db
		s.store, s.Actions, s.Alerts = db, db, db
	}}, configure...)...)
}

// at is the same browser, led to a replica: its cookies know no ports.
func (v *visitor) at(s *site) *visitor {
	here := *v
	here.url = s.url
	return &here
}

func TestSessionsOfReplicas(t *testing.T) {
	onDatabases(t, func(t *testing.T, address string) {
		a, b := replica(t, address), replica(t, address)
		v := a.visitor(t)
		v.login("responder", "/")
		here := mustParse(t, a.url)
		cookie := v.Jar.Cookies(here)[0].Value
		header := []string{"Cookie", "kubeguardian=" + cookie}
		list, change := route{method: "GET", path: "/api/v1/alerts"}, route{method: "GET", path: "/api/v1/actions"}
		expect := func(when string, want int, sites ...*site) {
			t.Helper()
			for i, s := range sites {
				if code, _ := s.ask(t, list, header...); code != want {
					t.Errorf("%s, at replica %d: %d, want %d", when, i, code, want)
				}
			}
		}
		expect("after the login", http.StatusOK, a, b)
		if code, _ := b.ask(t, change, header...); code != http.StatusForbidden {
			t.Errorf("a responder reads the log of actions at the other replica: %d", code)
		}
		expect("at one that was restarted", http.StatusOK, replica(t, address))

		// A login at another replica takes a new session and ends the one before.
		v.at(b).login("viewer", "/")
		second := v.Jar.Cookies(here)[0].Value
		if second == cookie {
			t.Error("a second login keeps the session")
		}
		expect("after the second login", http.StatusUnauthorized, a, b)
		header[1] = "kubeguardian=" + second
		expect("after the second login", http.StatusOK, a, b)
		if code, _, path := v.read(v.PostForm(b.url+"/logout", nil)); code != http.StatusOK || path != "/login" {
			t.Errorf("the logout: %d %s", code, path)
		}
		expect("after the logout", http.StatusUnauthorized, a, b)

		header[1] = "kubeguardian=planted"
		expect("a cookie that was planted", http.StatusUnauthorized, a, b)
		log := said(a.actionLog(t))
		if !strings.Contains(log, "responder: log in  : done") || !strings.Contains(log, "viewer: log out  : done") || strings.Contains(log, cookie) || strings.Contains(log, second) {
			t.Errorf("the log of actions:\n%s", log)
		}
		for _, s := range []*site{a, b} {
			if log := s.log.String(); strings.Contains(log, cookie) || strings.Contains(log, second) {
				t.Errorf("the log has a cookie:\n%s", log)
			}
		}
	})
}

// stale makes the issuer to be asked again for the session of a browser, as time
// does.
func stale(t *testing.T, s *site, v *visitor) {
	t.Helper()
	cookie := v.Jar.Cookies(mustParse(t, s.url))[0].Value
	id, err := sealed.ID(cookie)
	if err != nil {
		t.Fatal(err)
	}
	kept, found, err := s.sessions.Sessions.Session(t.Context(), id)
	if err != nil || !found {
		t.Fatalf("the session is not found: %v", err)
	}
	text, err := sealed.Open(cookie, kept.Body)
	if err != nil {
		t.Fatal(err)
	}
	var credential access.Kept
	if err := json.Unmarshal(text, &credential); err != nil {
		t.Fatal(err)
	}
	credential.Checked = credential.Checked.Add(-time.Hour)
	if text, err = json.Marshal(credential); err != nil {
		t.Fatal(err)
	}
	if kept.Body, err = sealed.Close(cookie, text); err != nil {
		t.Fatal(err)
	}
	if err := s.sessions.Sessions.Renew(t.Context(), id, kept.Body); err != nil {
		t.Fatal(err)
	}
}

// TestSignOnAtReplicas: a login at the issuer that begins at one replica ends at
// another, and is renewed once for all.
func TestSignOnAtReplicas(t *testing.T) {
	onDatabases(t, func(t *testing.T, address string) {
		a, b := replica(t, address), replica(t, address)
		i := issuertest.New(t)
		i.Tokens(time.Hour, true)
		i.User(map[string]any{"name": "ada", "sub": "1"})
		both := []*site{a, b}
		for _, s := range both {
			oidc, err := access.NewOIDC(access.OIDCConfig{
				Issuer: i.URL, ClientID: issuertest.ClientID, ClientSecret: issuertest.ClientSecret, RedirectURL: b.url + "/login/oidc/callback",
				UsernameClaim: "name", UsernamePrefix: "sso:", GroupsClaim: "groups",
			})
			if err != nil {
				t.Fatal(err)
			}
			s.sessions.OIDC, s.Login.OIDC = oidc, oidc
			if s.sessions.Access, err = access.New(access.Options{Issuers: []access.Issuer{oidc}, Authorizer: access.Grants{{Role: access.Viewer, Groups: []string{"staff"}}, {Role: access.Admin, Users: []string{"sso:ada"}}}}); err != nil {
				t.Fatal(err)
			}
		}
		v := a.visitor(t)
		code, body, path := v.read(v.Get(a.url + "/login/oidc?next=/alerts"))
		if code != http.StatusOK || !strings.Contains(body, `content="0;url=/alerts"`) || !strings.HasPrefix(path, "/login/oidc/callback?") {
			t.Fatalf("a login that begins at one replica and ends at another: %d %s %s", code, path, body)
		}
		ask := func(s *site) int {
			code, _ := v.at(s).get("/api/v1/alerts")
			return code
		}
		for n, s := range both {
			if code := ask(s); code != http.StatusOK {
				t.Errorf("replica %d: %d", n, code)
			}
		}
		// What the browser comes back with is of no use to another one.
		if code, _ := a.visitor(t).get(path); code != http.StatusUnauthorized {
			t.Errorf("another browser: %d", code)
		}

		// All ask at once when the login has to be renewed: the issuer takes a refresh
		// token once.
		for round := range 3 {
			stale(t, a, v)
			var wg sync.WaitGroup
			codes := make([]int, 8)
			for n := range codes {
				wg.Go(func() {
					r := httptest.NewRequest("GET", "/api/v1/alerts", nil)
					for _, c := range v.Jar.Cookies(mustParse(t, a.url)) {
						r.AddCookie(c)
					}
					w := httptest.NewRecorder()
					both[n%2].ServeHTTP(w, r)
					codes[n] = w.Code
				})
			}
			wg.Wait()
			for n, code := range codes {
				if code != http.StatusOK {
					t.Errorf("round %d, request %d: %d", round, n, code)
				}
			}
		}
		stale(t, a, v)
		i.Down(true)
		if code := ask(b); code != http.StatusServiceUnavailable {
			t.Errorf("while the issuer is down: %d", code)
		}
		i.Down(false)
		if code := ask(a); code != http.StatusOK {
			t.Errorf("after it came back: %d", code)
		}
		stale(t, b, v)
		i.Revoke()
		if a, b := ask(a), ask(b); a != http.StatusUnauthorized || b != http.StatusUnauthorized {
			t.Errorf("after the issuer took the login back: %d and %d", a, b)
		}
	})
}

// TestFailedLoginsOfReplicas: failed logins of an address count at all replicas
// together, and a replica that does not reach the database counts by itself.
func TestFailedLoginsOfReplicas(t *testing.T) {
	onDatabases(t, func(t *testing.T, address string) {
		a, b := replica(t, address), replica(t, address)
		both := []*site{a, b}
		try := func(s *site, token string) int {
			code, _ := s.bearer(t, "/api/v1/alerts", token)
			return code
		}
		// A window that ends while this is slow begins another: it is tried again.
		for {
			began := time.Now()
			codes := map[int]int{}
			for n := range attempt.MaxFailures {
				codes[try(both[n%2], "wrong")]++
			}
			after := []int{try(a, "wrong"), try(b, testToken), try(replica(t, address), testToken)}
			if took := time.Since(began); took > attempt.Window/2 {
				t.Logf("%d requests took %s: once more", attempt.MaxFailures+3, took)
				time.Sleep(attempt.Window)
				continue
			}
			if codes[http.StatusUnauthorized] != attempt.MaxFailures || slices.Max(after) != slices.Min(after) || after[0] != http.StatusTooManyRequests {
				t.Errorf("%v, then %d, want %d times 401, then 429 at each replica", codes, after, attempt.MaxFailures)
			}
			break
		}
		gone, err := store.Open(t.Context(), address)
		if err != nil || gone.Close() != nil {
			t.Fatal(err)
		}
		alone := replica(t, address, func(s *site) { s.sessions.Sessions = gone.Sessions() })
		if code := try(alone, testToken); code != http.StatusOK {
			t.Errorf("where the others' count is not known: %d", code)
		}
		if !strings.Contains(alone.log.String(), "do not count") {
			t.Errorf("the log:\n%s", alone.log)
		}
	})
}
