package web

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/access"
	"github.com/kubeguardian/kubeguardian/action"
)

// flowAge is how long a login at the issuer may take.
const flowAge = 10 * time.Minute

// A pendingLogin is what a browser keeps while it is at the issuer, sealed: nobody
// can read it, or make one.
type pendingLogin struct {
	access.Flow
	Next  string
	Until time.Time
}

// newSeal returns a cipher with a key that is forgotten when the server ends.
func newSeal() (cipher.AEAD, error) {
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func flowCookie(r *http.Request) string { return cookieName(r) + "-login" }

// setFlowCookie keeps a login in the browser. Coming back from the issuer is a
// request across sites, which a strict cookie would not be sent with.
func setFlowCookie(w http.ResponseWriter, r *http.Request, value string, age int) {
	http.SetCookie(w, &http.Cookie{
		Name: flowCookie(r), Value: value, Path: "/", MaxAge: age,
		HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteLaxMode,
	})
}

// oidcLogin sends the browser to the issuer.
func (s *Server) oidcLogin(w http.ResponseWriter, r *http.Request) error {
	if s.Login.OIDC == nil {
		return errNotFound
	}
	address, flow, err := s.Login.OIDC.Begin(r.Context())
	if err != nil {
		return s.unknown(r, err)
	}
	text, err := json.Marshal(pendingLogin{flow, localPath(r.URL.Query().Get("next")), time.Now().Add(flowAge)})
	if err != nil {
		return fmt.Errorf("keep the login: %w", err)
	}
	setFlowCookie(w, r, base64.RawURLEncoding.EncodeToString(s.seal.Seal(nil, nil, text, nil)), int(flowAge.Seconds()))
	http.Redirect(w, r, address, http.StatusSeeOther)
	return nil
}

// pending returns the login that the browser has begun; one without a state if
// there is none.
func (s *Server) pending(r *http.Request) (p pendingLogin) {
	c, err := r.Cookie(flowCookie(r))
	if err != nil {
		return p
	}
	sealed, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil {
		return p
	}
	text, err := s.seal.Open(nil, nil, sealed, nil)
	if err != nil || json.Unmarshal(text, &p) != nil || time.Now().After(p.Until) {
		return pendingLogin{}
	}
	return p
}

// oidcCallback takes what the browser comes back with from the issuer. It answers
// with a page that goes on by itself, and not with a redirect: a browser does not
// send the new cookie with a redirect that began on another site.
func (s *Server) oidcCallback(w http.ResponseWriter, r *http.Request) error {
	if s.Login.OIDC == nil {
		return errNotFound
	}
	pending := s.pending(r)
	setFlowCookie(w, r, "", -1)
	from := sender(r)
	if !s.limiter.Begin(from, time.Now()) {
		return errLimited
	}
	credential, id, err := s.finish(r.Context(), pending, r)
	invalid := errors.Is(err, access.ErrInvalid)
	s.limiter.End(from, invalid)
	if invalid {
		s.Log.Warn("login refused", "from", r.RemoteAddr, "reason", err)
		s.refused(r, action.Entry{Action: logIn, Result: action.Failed + ": " + err.Error()})
		return s.render(w, http.StatusUnauthorized, "login", layout{
			Title: "Log in", Page: loginData{s.Login, localPath(pending.Next), "the login at the issuer is not valid, or took too long: try again"},
		})
	}
	if err != nil {
		return s.unknown(r, err)
	}
	if err := s.begin(w, r, credential, id); err != nil {
		return err
	}
	next := localPath(pending.Next)
	return s.render(w, http.StatusOK, "welcome", layout{Title: "Logged in", Refresh: next, Page: next})
}

func (s *Server) finish(ctx context.Context, p pendingLogin, r *http.Request) (c access.Credential, id access.Identity, err error) {
	q := r.URL.Query()
	if reason := q.Get("error"); reason != "" {
		return nil, id, fmt.Errorf("%w: the issuer says %q", access.ErrInvalid, strings.ToValidUTF8(reason[:min(len(reason), 100)], ""))
	}
	if c, err = s.Login.OIDC.Finish(ctx, p.Flow, q.Get("state"), q.Get("code")); err != nil {
		return nil, id, err
	}
	id, err = c.Identity(ctx)
	return c, id, err
}
