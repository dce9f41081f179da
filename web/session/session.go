// Package session says who asks for a page or for the API, lets only those through
// who may do what it takes, and notes in the log of actions what they do.
//
// Whoever asks does so by a token, or by the cookie of a session, which begins with
// a token or with a login at an issuer of OpenID Connect.
package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/kubeguardian/kubeguardian/access"
	"github.com/kubeguardian/kubeguardian/access/attempt"
	"github.com/kubeguardian/kubeguardian/action"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

// Actions takes what people do here.
type Actions interface {
	// AppendAction adds an entry. It is on the disk when it returns.
	AppendAction(context.Context, action.Entry) (action.Entry, error)
}

// Options are whom to ask. All but OIDC are needed.
type Options struct {
	Access   *access.Gate
	OIDC     *access.OIDC // nil: no issuer
	Sessions Sessions
	Actions  Actions
	Log      *slog.Logger
}

// A Guard knows who has logged in. It is safe for concurrent use.
type Guard struct {
	Options
	limiter  *attempt.Limiter
	failures *rate.Limiter // of logins, that all replicas are told of
	refusals *rate.Limiter // that the log of actions keeps
	unkept   atomic.Int64  // refusals since the last that was kept
}

// New returns a guard.
func New(opts Options) *Guard {
	return &Guard{
		Options:  opts,
		limiter:  attempt.NewLimiter(),
		failures: rate.NewLimiter(failuresShared, failuresShared),
		refusals: rate.NewLimiter(rate.Every(time.Minute/refusalsKept), refusalsKept),
	}
}

var (
	// ErrLoggedOut says that a request has no session and no token.
	ErrLoggedOut = &rest.Error{Code: http.StatusUnauthorized, Text: "log in, or send the header Authorization: Bearer <token>"}

	errInvalidToken = &rest.Error{Code: http.StatusUnauthorized, Text: access.ErrInvalid.Error()}
	errUnknown      = &rest.Error{Code: http.StatusServiceUnavailable, Text: "who asks, or what they may do, cannot be checked now; the server's log says why"}
	errLimited      = &rest.Error{Code: http.StatusTooManyRequests, Text: "too many failed logins from this address: wait a minute"}
)

// A visit is a request by somebody who may do what it takes.
type visit struct {
	identity access.Identity
	needs    access.Permission
}

type visitKey struct{}

// Who returns who asks, on a route that needs a permission.
func Who(r *http.Request) access.Identity {
	v, _ := r.Context().Value(visitKey{}).(visit)
	return v.identity
}

// Require lets only those through to a handler who may do what it needs. Its error
// is [ErrLoggedOut] for who has to log in first. What changes something is noted
// before it is done.
func (g *Guard) Require(needs access.Permission, handle rest.Handler) rest.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := g.identify(r, true)
		if err != nil {
			return err
		}
		if err := g.allow(r, id, needs); err != nil {
			g.refused(r, action.Entry{User: id.User, Action: string(needs), Object: r.URL.Path, Result: action.Denied})
			return err
		}
		r = r.WithContext(context.WithValue(r.Context(), visitKey{}, visit{id, needs}))
		if needs.Changes() {
			return g.logged(handle, w, r, id, needs)
		}
		return handle(w, r)
	}
}

// Known returns the request with who asks, if that is known, of which [Who] and
// [Guard.May] then tell also where no permission is needed.
func (g *Guard) Known(r *http.Request) *http.Request {
	id, err := g.identify(r, false)
	if err != nil {
		return r
	}
	return r.WithContext(context.WithValue(r.Context(), visitKey{}, visit{identity: id}))
}

// identify returns who asks: by "Authorization: Bearer <token>", or by a session.
func (g *Guard) identify(r *http.Request, using bool) (access.Identity, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") {
		_, id, err := g.check(r, strings.TrimSpace(token))
		return id, err
	}
	id, err := g.session(r.Context(), cookie(r), time.Now(), using)
	if errors.Is(err, ErrLoggedOut) {
		return id, ErrLoggedOut
	}
	return id, g.unknown(r, err)
}

// check returns whose a token is, and counts failures.
func (g *Guard) check(r *http.Request, token string) (c access.Credential, id access.Identity, err error) {
	from := sender(r)
	if !g.mayTry(r, from) {
		return nil, id, errLimited
	}
	if c, err = g.Access.Token(r.Context(), token); err == nil {
		id, err = c.Identity(r.Context())
	}
	invalid := errors.Is(err, access.ErrInvalid)
	g.tried(r, from, invalid)
	if invalid {
		g.refused(r, action.Entry{Action: logIn, Result: action.Failed + ": " + err.Error()})
		return nil, id, errInvalidToken
	}
	return c, id, g.unknown(r, err)
}

// allow returns nil, that somebody may not do something, or that this is not
// known.
func (g *Guard) allow(r *http.Request, id access.Identity, p access.Permission) error {
	err := g.Access.Allow(r.Context(), id, p)
	if denied := (*access.Denied)(nil); errors.As(err, &denied) {
		return err
	}
	return g.unknown(r, err)
}

// unknown logs why something could not be checked. The client may be anybody,
// and is not told.
func (g *Guard) unknown(r *http.Request, err error) error {
	if err == nil {
		return nil
	}
	if r.Context().Err() == nil {
		g.Log.Error("check access", "from", r.RemoteAddr, "error", err)
	}
	return errUnknown
}

// StillAllowed returns an error when a request that takes long may not go on.
func (g *Guard) StillAllowed(r *http.Request) error {
	id, err := g.identify(r, false)
	if err != nil {
		return err
	}
	v, _ := r.Context().Value(visitKey{}).(visit)
	return g.allow(r, id, v.needs)
}

// May returns what decides which parts of a page are shown. After it could not be
// told once it is not asked again, and nothing more is shown.
func (g *Guard) May(r *http.Request) func(access.Permission) bool {
	id, broken := Who(r), false
	return func(p access.Permission) bool {
		if broken {
			return false
		}
		err := g.allow(r, id, p)
		broken = errors.Is(err, errUnknown)
		return err == nil
	}
}

// What the log of actions calls the beginning and the end of a session.
const (
	logIn  = "log in"
	logOut = "log out"
)

// LoggedIn reports whether a request needs no login any more.
func (g *Guard) LoggedIn(r *http.Request) bool {
	_, err := g.identify(r, true)
	return err == nil
}

// LogIn begins a session for the bearer of a token. A [rest.Error] is why it is
// refused.
func (g *Guard) LogIn(w http.ResponseWriter, r *http.Request, token string) error {
	credential, id, err := g.check(r, strings.TrimSpace(token))
	if known := (*rest.Error)(nil); errors.As(err, &known) {
		g.Log.Warn("login refused", "from", r.RemoteAddr, "reason", known.Text)
	}
	if err != nil {
		return err
	}
	return g.begin(w, r, credential, id)
}

// begin starts a session, in place of the one that the browser has.
func (g *Guard) begin(w http.ResponseWriter, r *http.Request, c access.Credential, id access.Identity) error {
	if err := g.note(r, action.Entry{User: id.User, Action: logIn, Result: action.Done}); err != nil {
		return err
	}
	if err := g.end(r.Context(), cookie(r)); err != nil {
		return g.unknown(r, err)
	}
	secret, err := g.start(r.Context(), c, time.Now())
	if err != nil {
		return g.unknown(r, err)
	}
	setCookie(w, r, secret, int(MaxAge.Seconds()))
	g.Log.Info("logged in", "user", id.User, "from", r.RemoteAddr)
	return nil
}

// LogOut ends the session of a browser, at all replicas. After an error it may go
// on, and the browser has its cookie still, to try again.
func (g *Guard) LogOut(w http.ResponseWriter, r *http.Request) error {
	if id, err := g.identify(r, false); err == nil {
		g.note(r, action.Entry{User: id.User, Action: logOut, Result: action.Done}) //nolint:errcheck // it ends all the same
	}
	if err := g.end(r.Context(), cookie(r)); err != nil {
		return g.unknown(r, err)
	}
	setCookie(w, r, "", -1)
	return nil
}

// Key tells those who ask apart, by session or token, without saying which it is.
func Key(r *http.Request) string {
	key := r.Header.Get("Authorization")
	if value := cookie(r); value != "" {
		key = value
	}
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:8])
}

// LocalPath keeps a redirect on this site: it returns next if it is a path here,
// or else "/".
func LocalPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.Opaque != "" ||
		!strings.HasPrefix(u.Path, "/") || strings.HasPrefix(u.Path, "//") || strings.Contains(u.Path, `\`) {
		return "/"
	}
	return u.RequestURI()
}
