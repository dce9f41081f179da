package web

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	sessionAge  = 12 * time.Hour
	maxSessions = 1000

	// An address may fail this often in a window; then it has to wait for the
	// next one. Sessions that exist are not touched by that.
	maxFailures   = 10
	failureWindow = time.Minute
	maxAddresses  = 10_000
)

var errLimited = &statusError{http.StatusTooManyRequests, "too many failed logins from this address: wait a minute"}

// sessions are the logged-in browsers and the failed logins. Both live in
// memory: a restart asks for the token again.
type sessions struct {
	token [sha256.Size]byte

	mu       sync.Mutex
	expiry   map[[sha256.Size]byte]time.Time // by the digest of the cookie
	failures map[netip.Prefix]failures
}

type failures struct {
	count int
	until time.Time
}

func newSessions(token string) *sessions {
	return &sessions{
		token:    sha256.Sum256([]byte(token)),
		expiry:   map[[sha256.Size]byte]time.Time{},
		failures: map[netip.Prefix]failures{},
	}
}

// check compares a token in constant time, and counts failures.
func (s *sessions) check(token string, from netip.Prefix, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.failures[from]
	if now.After(f.until) {
		f = failures{until: now.Add(failureWindow)}
	}
	if f.count >= maxFailures {
		return errLimited
	}
	digest := sha256.Sum256([]byte(token))
	if subtle.ConstantTimeCompare(digest[:], s.token[:]) == 1 {
		return nil
	}
	f.count++
	if _, known := s.failures[from]; !known && len(s.failures) >= maxAddresses {
		s.forget(now)
	}
	s.failures[from] = f
	return errWrongToken
}

var errWrongToken = &statusError{http.StatusUnauthorized, "this is not the login token"}

// forget makes room: for addresses whose window is over, or else for one.
func (s *sessions) forget(now time.Time) {
	before := len(s.failures)
	for from, f := range s.failures {
		if now.After(f.until) {
			delete(s.failures, from)
		}
	}
	for from := range s.failures {
		if len(s.failures) < before {
			return
		}
		delete(s.failures, from)
	}
}

// start returns the cookie of a new session.
func (s *sessions) start(now time.Time) string {
	cookie := rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.expiry) >= maxSessions {
		s.evict(now)
	}
	s.expiry[sha256.Sum256([]byte(cookie))] = now.Add(sessionAge)
	return cookie
}

// evict removes the sessions that are over, and the oldest.
func (s *sessions) evict(now time.Time) {
	var oldest [sha256.Size]byte
	first := now.Add(2 * sessionAge)
	for key, expiry := range s.expiry {
		if now.After(expiry) {
			delete(s.expiry, key)
		} else if expiry.Before(first) {
			oldest, first = key, expiry
		}
	}
	delete(s.expiry, oldest)
}

func (s *sessions) valid(cookie string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	expiry, ok := s.expiry[sha256.Sum256([]byte(cookie))]
	return ok && now.Before(expiry)
}

func (s *sessions) end(cookie string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.expiry, sha256.Sum256([]byte(cookie)))
}

// cookieName has the prefix that binds a cookie to TLS and to this host, where
// there is TLS.
func cookieName(r *http.Request) string {
	if r.TLS != nil {
		return "__Host-kubeguardian"
	}
	return "kubeguardian"
}

func (s *Server) loggedIn(r *http.Request) bool {
	c, err := r.Cookie(cookieName(r))
	return err == nil && s.sessions.valid(c.Value, time.Now())
}

// authorize accepts a session or "Authorization: Bearer <token>".
func (s *Server) authorize(r *http.Request) error {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") {
		return s.sessions.check(strings.TrimSpace(token), sender(r), time.Now())
	}
	if s.loggedIn(r) {
		return nil
	}
	return &statusError{http.StatusUnauthorized, "log in, or send the header Authorization: Bearer <login token>"}
}

// sender is the network that counts as one client: an IPv4 address or an IPv6
// /64, which one machine can use as a whole.
func sender(r *http.Request) netip.Prefix {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	ip, bits := addr.Addr().Unmap(), 32
	if ip.Is6() {
		bits = 64
	}
	prefix, err := ip.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

type loginData struct{ Next, Error string }

func (s *Server) loginPage(w http.ResponseWriter, r *http.Request) error {
	next := localPath(r.URL.Query().Get("next"))
	if s.loggedIn(r) {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return nil
	}
	return s.render(w, http.StatusOK, "login", layout{Title: "Log in", Page: loginData{Next: next}})
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return badRequest(fmt.Errorf("read login form: %w", err))
	}
	next := localPath(r.PostForm.Get("next"))
	err := s.sessions.check(strings.TrimSpace(r.PostForm.Get("token")), sender(r), time.Now())
	if err != nil {
		known := s.status(r, err)
		s.Log.Warn("login refused", "from", r.RemoteAddr, "reason", known.text)
		if known.code == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "60")
		}
		return s.render(w, known.code, "login", layout{Title: "Log in", Page: loginData{Next: next, Error: known.text}})
	}
	s.setCookie(w, r, s.sessions.start(time.Now()), int(sessionAge.Seconds()))
	http.Redirect(w, r, next, http.StatusSeeOther)
	return nil
}

func (s *Server) logout(w http.ResponseWriter, r *http.Request) error {
	if c, err := r.Cookie(cookieName(r)); err == nil {
		s.sessions.end(c.Value)
	}
	s.setCookie(w, r, "", -1)
	http.Redirect(w, r, "/login", http.StatusSeeOther)
	return nil
}

func (s *Server) setCookie(w http.ResponseWriter, r *http.Request, value string, age int) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName(r), Value: value, Path: "/", MaxAge: age,
		HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode,
	})
}

// localPath keeps a redirect on this site.
func localPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.Opaque != "" ||
		!strings.HasPrefix(u.Path, "/") || strings.HasPrefix(u.Path, "//") || strings.Contains(u.Path, `\`) {
		return "/"
	}
	return u.RequestURI()
}
