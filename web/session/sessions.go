package session

import (
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"

	"github.com/kubeguardian/kubeguardian/access"
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

func setCookie(w http.ResponseWriter, r *http.Request, value string, age int) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName(r), Value: value, Path: "/", MaxAge: age,
		HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode,
	})
}
