package session

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/access"
	"github.com/kubeguardian/kubeguardian/action"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

// flowAge is how long a login at the issuer may take.
const flowAge = 10 * time.Minute

// A pendingLogin is what a browser keeps while it is at the issuer. The server keeps
// nothing of it: anybody may begin a login, and may end it at another replica. It is
// of use to nobody but who gets the code for it from the issuer, which is the same
// browser.
type pendingLogin struct {
	access.Flow
	Next  string
	Until time.Time
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

// SignOn begins a login at the issuer, and returns where the browser is to go. From
// there it comes back to [Guard.SignedOn], which leads on to next.
func (g *Guard) SignOn(w http.ResponseWriter, r *http.Request, next string) (address string, err error) {
	if g.OIDC == nil {
		return "", rest.ErrNotFound
	}
	address, flow, err := g.OIDC.Begin(r.Context())
	if err != nil {
		return "", g.unknown(r, err)
	}
	text, err := json.Marshal(pendingLogin{flow, LocalPath(next), time.Now().Add(flowAge)})
	if err != nil {
		return "", fmt.Errorf("keep the login: %w", err)
	}
	setFlowCookie(w, r, base64.RawURLEncoding.EncodeToString(text), int(flowAge.Seconds()))
	return address, nil
}

// pending returns the login that the browser has begun; one without a state if
// there is none.
func pending(r *http.Request) (p pendingLogin) {
	c, err := r.Cookie(flowCookie(r))
	if err != nil {
		return p
	}
	text, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil || json.Unmarshal(text, &p) != nil || time.Now().After(p.Until) {
		return pendingLogin{}
	}
	return p
}

// ErrSignOn says that what the browser came back with is of no use.
var ErrSignOn = &rest.Error{Code: http.StatusUnauthorized, Text: "the login at the issuer is not valid, or took too long: try again"}

// SignedOn takes what the browser comes back with from the issuer, begins a
// session, and returns where the login leads, a path here. The answer must be a
// page and no redirect: a browser does not send the new cookie with a redirect that
// began on another site.
func (g *Guard) SignedOn(w http.ResponseWriter, r *http.Request) (next string, err error) {
	if g.OIDC == nil {
		return "", rest.ErrNotFound
	}
	begun := pending(r)
	next = LocalPath(begun.Next)
	setFlowCookie(w, r, "", -1)
	from := sender(r)
	if !g.limiter.Begin(from, time.Now()) {
		return next, errLimited
	}
	credential, id, err := g.finish(r.Context(), begun, r)
	invalid := errors.Is(err, access.ErrInvalid)
	g.limiter.End(from, invalid)
	if invalid {
		g.Log.Warn("login refused", "from", r.RemoteAddr, "reason", err)
		g.refused(r, action.Entry{Action: logIn, Result: action.Failed + ": " + err.Error()})
		return next, ErrSignOn
	}
	if err != nil {
		return next, g.unknown(r, err)
	}
	return next, g.begin(w, r, credential, id)
}

func (g *Guard) finish(ctx context.Context, p pendingLogin, r *http.Request) (c access.Credential, id access.Identity, err error) {
	q := r.URL.Query()
	if reason := q.Get("error"); reason != "" {
		return nil, id, fmt.Errorf("%w: the issuer says %q", access.ErrInvalid, strings.ToValidUTF8(reason[:min(len(reason), 100)], ""))
	}
	if c, err = g.OIDC.Finish(ctx, p.Flow, q.Get("state"), q.Get("code")); err != nil {
		return nil, id, err
	}
	id, err = c.Identity(ctx)
	return c, id, err
}
