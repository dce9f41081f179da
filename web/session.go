package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/kubeguardian/kubeguardian/access"
	"github.com/kubeguardian/kubeguardian/action"
)

// A session ends after its age, and after it was idle for so long. Live updates
// do not keep it from being idle.
const (
	sessionAge  = 12 * time.Hour
	sessionIdle = 2 * time.Hour
	maxSessions = 1000
)

// sessions are the logged-in browsers. They live in memory: a restart asks for a
// login again.
type sessions struct {
	mu   sync.Mutex
	byID map[[sha256.Size]byte]session // by the digest of the cookie
}

type session struct {
	credential access.Credential
	began, use time.Time
}

func (s *session) over(now time.Time) bool {
	return now.Sub(s.began) >= sessionAge || now.Sub(s.use) >= sessionIdle
}

func newSessions() *sessions { return &sessions{byID: map[[sha256.Size]byte]session{}} }

// start returns the cookie of a new session.
func (s *sessions) start(c access.Credential, now time.Time) string {
	cookie := rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.byID) >= maxSessions {
		s.evict(now)
	}
	s.byID[sha256.Sum256([]byte(cookie))] = session{c, now, now}
	return cookie
}

// evict removes the sessions that are over, or else the one that was idle for
// longest.
func (s *sessions) evict(now time.Time) {
	var idlest [sha256.Size]byte
	last, before := now.Add(time.Hour), len(s.byID)
	for id, session := range s.byID {
		if session.over(now) {
			delete(s.byID, id)
		} else if session.use.Before(last) {
			idlest, last = id, session.use
		}
	}
	if len(s.byID) == before {
		delete(s.byID, idlest)
	}
}

// get returns the credential of a session, or nil when there is none or it is
// over. By using it, it is no longer idle.
func (s *sessions) get(cookie string, now time.Time, using bool) access.Credential {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := sha256.Sum256([]byte(cookie))
	session, ok := s.byID[id]
	if !ok {
		return nil
	}
	if session.over(now) {
		delete(s.byID, id)
		return nil
	}
	if using {
		session.use = now
		s.byID[id] = session
	}
	return session.credential
}

func (s *sessions) end(cookie string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, sha256.Sum256([]byte(cookie)))
}

// cookieName has the prefix that binds a cookie to TLS and to this host, where
// there is TLS.
func cookieName(r *http.Request) string {
	if r.TLS != nil {
		return "__Host-kubeguardian"
	}
	return "kubeguardian"
}

// cookie returns the cookie of the session that a request belongs to, or "".
func cookie(r *http.Request) string {
	c, err := r.Cookie(cookieName(r))
	if err != nil {
		return ""
	}
	return c.Value
}

var (
	errLoggedOut    = &statusError{http.StatusUnauthorized, "log in, or send the header Authorization: Bearer <token>"}
	errInvalidToken = &statusError{http.StatusUnauthorized, access.ErrInvalid.Error()}
	errUnknown      = &statusError{http.StatusServiceUnavailable, "who asks, or what they may do, cannot be checked now; the server's log says why"}
)

// A visit is a request by somebody who may do what it takes.
type visit struct {
	identity access.Identity
	needs    access.Permission
}

type visitKey struct{}

// who returns who asks, on a route that needs a permission.
func who(r *http.Request) access.Identity {
	v, _ := r.Context().Value(visitKey{}).(visit)
	return v.identity
}

// guard lets only those through to a route who may do what it needs.
func (s *Server) guard(rt route) http.Handler {
	wrap := s.page
	if rt.api() {
		wrap = s.api
	}
	if rt.needs == "" {
		return wrap(rt.handle)
	}
	return wrap(func(w http.ResponseWriter, r *http.Request) error {
		id, err := s.identify(r, true)
		if !rt.api() && errors.Is(err, errLoggedOut) {
			http.Redirect(w, r, with("/login", nil, "next", r.URL.RequestURI()), http.StatusSeeOther)
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.allow(r, id, rt.needs); err != nil {
			s.refused(r, action.Entry{User: id.User, Action: string(rt.needs), Object: r.URL.Path, Result: action.Denied})
			return err
		}
		r = r.WithContext(context.WithValue(r.Context(), visitKey{}, visit{id, rt.needs}))
		if rt.needs.Changes() {
			return s.logged(rt.handle, w, r, id, rt.needs)
		}
		return rt.handle(w, r)
	})
}

// identify returns who asks: by "Authorization: Bearer <token>", or by a session.
func (s *Server) identify(r *http.Request, using bool) (access.Identity, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") {
		_, id, err := s.check(r, strings.TrimSpace(token))
		return id, err
	}
	credential := s.sessions.get(cookie(r), time.Now(), using)
	if credential == nil {
		return access.Identity{}, errLoggedOut
	}
	id, err := credential.Identity(r.Context())
	if errors.Is(err, access.ErrInvalid) {
		s.sessions.end(cookie(r))
		return id, errLoggedOut
	}
	return id, s.unknown(r, err)
}

// check returns whose a token is, and counts failures.
func (s *Server) check(r *http.Request, token string) (c access.Credential, id access.Identity, err error) {
	from := sender(r)
	if !s.limiter.Begin(from, time.Now()) {
		return nil, id, errLimited
	}
	if c, err = s.Access.Token(r.Context(), token); err == nil {
		id, err = c.Identity(r.Context())
	}
	invalid := errors.Is(err, access.ErrInvalid)
	s.limiter.End(from, invalid)
	if invalid {
		s.refused(r, action.Entry{Action: logIn, Result: action.Failed + ": " + err.Error()})
		return nil, id, errInvalidToken
	}
	return c, id, s.unknown(r, err)
}

// allow returns nil, that somebody may not do something, or that this is not
// known.
func (s *Server) allow(r *http.Request, id access.Identity, p access.Permission) error {
	err := s.Access.Allow(r.Context(), id, p)
	if denied := (*access.Denied)(nil); errors.As(err, &denied) {
		return err
	}
	return s.unknown(r, err)
}

// unknown logs why something could not be checked. The client may be anybody,
// and is not told.
func (s *Server) unknown(r *http.Request, err error) error {
	if err == nil {
		return nil
	}
	if r.Context().Err() == nil {
		s.Log.Error("check access", "from", r.RemoteAddr, "error", err)
	}
	return errUnknown
}

// stillAllowed reports whether a request that takes long may go on.
func (s *Server) stillAllowed(r *http.Request) error {
	id, err := s.identify(r, false)
	if err != nil {
		return err
	}
	v, _ := r.Context().Value(visitKey{}).(visit)
	return s.allow(r, id, v.needs)
}

// may returns what decides which parts of a page are shown. After it could not be
// told once it is not asked again, and nothing more is shown.
func (s *Server) may(r *http.Request) func(access.Permission) bool {
	id, broken := who(r), false
	return func(p access.Permission) bool {
		if broken {
			return false
		}
		err := s.allow(r, id, p)
		broken = errors.Is(err, errUnknown)
		return err == nil
	}
}

type loginData struct {
	Login
	Next, Error string
}

func (s *Server) loginPage(w http.ResponseWriter, r *http.Request) error {
	next := localPath(r.URL.Query().Get("next"))
	if _, err := s.identify(r, true); err == nil {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return nil
	}
	return s.render(w, http.StatusOK, "login", layout{Title: "Log in", Page: loginData{Login: s.Login, Next: next}})
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return badRequest(fmt.Errorf("read login form: %w", err))
	}
	next := localPath(r.PostForm.Get("next"))
	credential, id, err := s.check(r, strings.TrimSpace(r.PostForm.Get("token")))
	if err != nil {
		known := s.status(r, err)
		s.Log.Warn("login refused", "from", r.RemoteAddr, "reason", known.text)
		if known.code == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "60")
		}
		return s.render(w, known.code, "login", layout{Title: "Log in", Page: loginData{s.Login, next, known.text}})
	}
	if err := s.begin(w, r, credential, id); err != nil {
		return err
	}
	http.Redirect(w, r, next, http.StatusSeeOther)
	return nil
}

// What the log of actions calls the beginning and the end of a session.
const (
	logIn  = "log in"
	logOut = "log out"
)

// begin starts a session, in place of the one that the browser has.
func (s *Server) begin(w http.ResponseWriter, r *http.Request, c access.Credential, id access.Identity) error {
	if err := s.note(r, action.Entry{User: id.User, Action: logIn, Result: action.Done}); err != nil {
		return err
	}
	s.sessions.end(cookie(r))
	s.setCookie(w, r, s.sessions.start(c, time.Now()), int(sessionAge.Seconds()))
	s.Log.Info("logged in", "user", id.User, "from", r.RemoteAddr)
	return nil
}

func (s *Server) logout(w http.ResponseWriter, r *http.Request) error {
	if id, err := s.identify(r, false); err == nil {
		s.note(r, action.Entry{User: id.User, Action: logOut, Result: action.Done}) //nolint:errcheck // it ends all the same
	}
	s.sessions.end(cookie(r))
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
