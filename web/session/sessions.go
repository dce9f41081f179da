package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/kubeguardian/kubeguardian/access"
	"github.com/kubeguardian/kubeguardian/access/sealed"
)

// A session ends after its age, and after it was idle for so long. Live updates
// do not keep it from being idle.
const (
	MaxAge  = 12 * time.Hour
	MaxIdle = 2 * time.Hour

	// usedEvery is how exactly it is kept when a session was used last: not each
	// request writes.
	usedEvery = time.Minute
)

// How long renewing a login takes at most, after which another request or replica
// tries; and how often one that waits for another looks.
const (
	renewWithin = 20 * time.Second
	lookEvery   = 50 * time.Millisecond
)

// Sessions keeps the sessions of all replicas of the server, a bounded number, and
// who has failed to log in at any of them.
type Sessions interface {
	Failures
	// Add keeps a new session, and makes room for it. It forgets those that are over:
	// that began or were used last before the times.
	Add(ctx context.Context, s sealed.Session, began, used time.Time) error
	// Session returns a session, and whether there is one.
	Session(ctx context.Context, id string) (sealed.Session, bool, error)
	// Use says that a session was used.
	Use(ctx context.Context, id string, at time.Time) error
	// Claim returns a session as it is now to the one who may renew its credential
	// until a time, and false to all others, also if there is no session.
	Claim(ctx context.Context, id string, until time.Time) (sealed.Session, bool, error)
	// Renew keeps a renewed credential, or with nil the one there is, and ends the
	// claim.
	Renew(ctx context.Context, id string, body []byte) error
	// End forgets a session, if there is one.
	End(ctx context.Context, id string) error
}

func over(s *sealed.Session, now time.Time) bool {
	return now.Sub(s.Began) >= MaxAge || now.Sub(s.Used) >= MaxIdle
}

// start keeps a new session, and returns its cookie.
func (g *Guard) start(ctx context.Context, c access.Credential, now time.Time) (cookie string, err error) {
	cookie = sealed.NewCookie()
	s := sealed.Session{Began: now, Used: now}
	if s.ID, err = sealed.ID(cookie); err != nil {
		return "", err
	}
	if s.Body, err = closed(cookie, c); err != nil {
		return "", err
	}
	return cookie, g.Sessions.Add(ctx, s, now.Add(-MaxAge), now.Add(-MaxIdle))
}

// session returns who has a session. Its error is [ErrLoggedOut] when there is none
// or it is over. By using it, it is no longer idle.
func (g *Guard) session(ctx context.Context, cookie string, now time.Time, using bool) (id access.Identity, err error) {
	if cookie == "" {
		return id, ErrLoggedOut
	}
	name, err := sealed.ID(cookie)
	if err != nil {
		return id, err
	}
	s, found, err := g.Sessions.Session(ctx, name)
	if err != nil {
		return id, err
	}
	if !found || over(&s, now) {
		return id, ErrLoggedOut
	}
	c, err := g.open(cookie, &s)
	if err == nil {
		id, err = c.Identity(ctx)
	}
	if errors.Is(err, access.ErrStale) {
		id, err = g.renewed(ctx, cookie, name)
	}
	if errors.Is(err, access.ErrInvalid) {
		if err := g.Sessions.End(ctx, name); err != nil {
			g.Log.Error("end a session that is no longer valid", "error", err)
		}
		return id, ErrLoggedOut
	}
	if err == nil && using && now.Sub(s.Used) >= usedEvery {
		err = g.Sessions.Use(ctx, name, now)
	}
	return id, err
}

// open returns the credential of a session. One that does not open is not valid:
// somebody has changed it.
func (g *Guard) open(cookie string, s *sealed.Session) (access.Credential, error) {
	var kept access.Kept
	text, err := sealed.Open(cookie, s.Body)
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err != nil {
		g.Log.Error("a session is refused", "error", err)
		return nil, access.ErrInvalid
	}
	return g.Access.Restore(kept)
}

// closed returns a credential for who has the cookie of its session.
func closed(cookie string, c access.Credential) ([]byte, error) {
	text, err := json.Marshal(c.Keep())
	if err != nil {
		return nil, fmt.Errorf("keep the login: %w", err)
	}
	return sealed.Close(cookie, text)
}

// renewed returns who has a session whose credential has to be renewed, which one
// replica does for all.
func (g *Guard) renewed(ctx context.Context, cookie, name string) (id access.Identity, err error) {
	// Whoever asked first may go: what the issuer has answered is kept all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewWithin)
	defer cancel()
	for {
		s, mine, err := g.Sessions.Claim(ctx, name, time.Now().Add(renewWithin))
		if err != nil {
			return id, err
		}
		if mine {
			return g.renew(ctx, cookie, &s)
		}
		timer := time.NewTimer(lookEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			return id, ctx.Err()
		case <-timer.C:
		}
		s, found, err := g.Sessions.Session(ctx, name)
		if err != nil {
			return id, err
		}
		if !found {
			return id, ErrLoggedOut
		}
		c, err := g.open(cookie, &s)
		if err != nil {
			return id, err
		}
		if id, err = c.Identity(ctx); !errors.Is(err, access.ErrStale) {
			return id, err
		}
	}
}

// renew renews the credential of a session that is claimed.
func (g *Guard) renew(ctx context.Context, cookie string, s *sealed.Session) (id access.Identity, err error) {
	var body []byte // nil: as it was
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewWithin)
		defer cancel()
		err = errors.Join(err, g.Sessions.Renew(ctx, s.ID, body))
	}()
	c, err := g.open(cookie, s)
	if err != nil {
		return id, err
	}
	if id, err = c.Identity(ctx); !errors.Is(err, access.ErrStale) {
		return id, err // another one was faster
	}
	stale, ok := c.(access.Renewer)
	if !ok {
		return id, access.ErrInvalid
	}
	if c, err = stale.Renew(ctx); err != nil {
		return id, err
	}
	if body, err = closed(cookie, c); err != nil {
		return id, err
	}
	return c.Identity(ctx)
}

// end forgets the session of a cookie.
func (g *Guard) end(ctx context.Context, cookie string) error {
	if cookie == "" {
		return nil
	}
	name, err := sealed.ID(cookie)
	if err != nil {
		return err
	}
	return g.Sessions.End(ctx, name)
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
