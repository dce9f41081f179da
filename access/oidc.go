package access

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"
)

const (
	maxAnswer  = 1 << 20     // of the issuer, in bytes
	maxGroups  = 1000        // of a user
	clockSkew  = time.Minute // that the issuer's clock may be ahead or behind
	issuerWait = 10 * time.Second
	// discoveredFor is how long a key counts that the issuer no longer has.
	discoveredFor = 10 * time.Minute
	// recheckAfter is how long a session goes on without asking the issuer, where it
	// can be asked.
	recheckAfter = 5 * time.Minute
)

// An OIDCConfig names an OpenID Connect issuer, and how its users are called here.
// Claims and prefixes mean what the flags --oidc-* of an API server do.
type OIDCConfig struct {
	Issuer       string // the URL, by HTTPS
	ClientID     string
	ClientSecret string // "": a public client
	RedirectURL  string // of our page that the issuer sends browsers back to
	Scopes       []string
	// UsernameClaim is the claim with the user's name; "" means sub. Of email,
	// which may change hands, email_verified must not be false.
	UsernameClaim string
	// UsernamePrefix is put before the name; "" means the issuer and a #, but nothing
	// for email, and "-" nothing.
	UsernamePrefix string
	GroupsClaim    string // a text or a list of texts; "": no groups
	GroupsPrefix   string
	CA             []byte // authorities of the issuer in PEM; nil: those of the system
}

// OIDC lets users of an OpenID Connect issuer log in: browsers by the
// authorization code flow with PKCE, programs by an ID token. It is safe for
// concurrent use.
type OIDC struct {
	config     OIDCConfig
	client     *http.Client
	discovered cachedProvider
	asking     singleflight.Group
}

type cachedProvider struct {
	sync.Mutex
	provider *oidc.Provider
	until    time.Time
}

// NewOIDC checks a configuration. It does not speak to the issuer, which may be
// down when a server starts.
func NewOIDC(c OIDCConfig) (*OIDC, error) {
	for name, text := range map[string]string{"issuer": c.Issuer, "redirect URL": c.RedirectURL} {
		if u, err := url.Parse(text); err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
			return nil, fmt.Errorf("OpenID Connect: %s: want an https:// URL, have %q", name, text)
		}
	}
	if c.ClientID == "" {
		return nil, errors.New("OpenID Connect: the client id is empty")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != nil {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(c.CA) {
			return nil, errors.New("OpenID Connect: the authorities hold no certificate")
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	c.UsernameClaim = cmp.Or(c.UsernameClaim, "sub")
	switch {
	case c.UsernamePrefix == "-":
		c.UsernamePrefix = ""
	case c.UsernamePrefix == "" && c.UsernameClaim != "email":
		c.UsernamePrefix = c.Issuer + "#"
	}
	return &OIDC{config: c, client: &http.Client{
		Transport:     bounded{transport},
		Timeout:       issuerWait,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// bounded bounds what an issuer may answer.
type bounded struct{ next http.RoundTripper }

// RoundTrip is http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}

// provider asks the issuer where everything is, again after a while: only then are
// keys forgotten that it no longer has.
func (o *OIDC) provider(ctx context.Context) (*oidc.Provider, error) {
	o.discovered.Lock()
	known, until := o.discovered.provider, o.discovered.until
	o.discovered.Unlock()
	if time.Now().Before(until) {
		return known, nil
	}
	return once(ctx, &o.asking, "provider", func(ctx context.Context) (*oidc.Provider, error) {
		p, err := oidc.NewProvider(oidc.ClientContext(ctx, o.client), o.config.Issuer)
		if err != nil {
			return nil, fmt.Errorf("discover the OpenID Connect issuer: %w", err)
		}
		o.discovered.Lock()
		defer o.discovered.Unlock()
		o.discovered.provider, o.discovered.until = p, time.Now().Add(discoveredFor)
		return p, nil
	})
}

func (o *OIDC) oauth(p *oidc.Provider) *oauth2.Config {
	scopes := o.config.Scopes
	if !slices.Contains(scopes, oidc.ScopeOpenID) {
		scopes = append([]string{oidc.ScopeOpenID}, scopes...)
	}
	return &oauth2.Config{
		ClientID: o.config.ClientID, ClientSecret: o.config.ClientSecret, RedirectURL: o.config.RedirectURL,
		Endpoint: p.Endpoint(), Scopes: scopes,
	}
}

// A Flow is the login of one browser between leaving for the issuer and coming
// back. Nobody but the browser may learn it or choose it.
type Flow struct{ State, Nonce, Verifier string }

// Begin returns where to send a browser.
func (o *OIDC) Begin(ctx context.Context) (address string, f Flow, err error) {
	p, err := o.provider(ctx)
	if err != nil {
		return "", f, err
	}
	f = Flow{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier()}
	return o.oauth(p).AuthCodeURL(f.State, oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)), f, nil
}

// Finish takes what the browser came back with. The error is [ErrInvalid], or that
// the issuer cannot be asked now.
func (o *OIDC) Finish(ctx context.Context, f Flow, state, code string) (Credential, error) {
	if f.State == "" || subtle.ConstantTimeCompare([]byte(state), []byte(f.State)) != 1 || code == "" {
		return nil, fmt.Errorf("%w: the login was not begun by this browser, or too long ago", ErrInvalid)
	}
	p, err := o.provider(ctx)
	if err != nil {
		return nil, err
	}
	tokens, err := o.oauth(p).Exchange(oidc.ClientContext(ctx, o.client), code, oauth2.VerifierOption(f.Verifier))
	if err != nil {
		return nil, refusal("exchange the code", err)
	}
	return o.session(ctx, p, tokens, func(t *oidc.IDToken) bool {
		return subtle.ConstantTimeCompare([]byte(t.Nonce), []byte(f.Nonce)) == 1
	})
}

// session checks what the issuer has answered. Which login an ID token is of, ours
// tells.
func (o *OIDC) session(ctx context.Context, p *oidc.Provider, tokens *oauth2.Token, ours func(*oidc.IDToken) bool) (Credential, error) {
	raw, _ := tokens.Extra("id_token").(string)
	token, _, err := o.verify(ctx, p, raw)
	if err != nil {
		return nil, err
	}
	if !ours(token) {
		return nil, fmt.Errorf("%w: the issuer's ID token is of another login", ErrInvalid)
	}
	return &oidcSession{o, Kept{Token: raw, Subject: token.Subject, Refresh: tokens.RefreshToken, Checked: time.Now()}}, nil
}

// refusal tells the issuer's no from its not answering. Its words may hold tokens,
// and are not repeated.
func refusal(doing string, err error) error {
	var answer *oauth2.RetrieveError
	if !errors.As(err, &answer) {
		return fmt.Errorf("%s at the OpenID Connect issuer: %w", doing, err)
	}
	if answer.Response != nil && answer.Response.StatusCode >= 500 {
		return fmt.Errorf("%s at the OpenID Connect issuer: it answers %s", doing, answer.Response.Status)
	}
	return fmt.Errorf("%w: the issuer does not %s: %q", ErrInvalid, doing, answer.ErrorCode)
}

// An oidcSession is what a browser logged in with. Its ID token says who it is; the
// issuer is asked again by the refresh token, if there is one.
type oidcSession struct {
	oidc *OIDC
	kept Kept
}

// Keep is of [Credential].
func (s *oidcSession) Keep() Kept { return s.kept }

// Identity returns who logged in.
func (s *oidcSession) Identity(ctx context.Context) (id Identity, err error) {
	renewable := s.kept.Refresh != ""
	if renewable && time.Since(s.kept.Checked) >= recheckAfter {
		return id, ErrStale
	}
	p, err := s.oidc.provider(ctx)
	if err != nil {
		return id, err
	}
	if _, id, err = s.oidc.verify(ctx, p, s.kept.Token); renewable && errors.Is(err, ErrInvalid) {
		err = ErrStale
	}
	return id, err
}

// Renew is of [Renewer].
func (s *oidcSession) Renew(ctx context.Context) (Credential, error) {
	ctx, cancel := context.WithTimeout(ctx, issuerWait)
	defer cancel()
	p, err := s.oidc.provider(ctx)
	if err != nil {
		return nil, err
	}
	tokens, err := s.oidc.oauth(p).TokenSource(oidc.ClientContext(ctx, s.oidc.client), &oauth2.Token{RefreshToken: s.kept.Refresh}).Token()
	if err != nil {
		return nil, refusal("refresh the login", err)
	}
	return s.oidc.session(ctx, p, tokens, func(t *oidc.IDToken) bool { return t.Subject == s.kept.Subject })
}

// Token returns whose ID token it is, if it is one of the issuer for our client.
func (o *OIDC) Token(ctx context.Context, token string) (Credential, error) {
	if !o.issued(token) {
		return nil, ErrInvalid
	}
	credential := idToken{o, token}
	_, err := credential.Identity(ctx)
	return credential, err
}

// issued reports whether a token says that it is the issuer's. It need not be true.
func (o *OIDC) issued(token string) bool {
	parts := strings.Split(token[:min(len(token), maxToken+1)], ".")
	if len(token) > maxToken || len(parts) != 3 {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Issuer string `json:"iss"`
	}
	return err == nil && json.Unmarshal(payload, &claims) == nil && claims.Issuer == o.config.Issuer
}

// An idToken is a credential by itself, until it expires.
type idToken struct {
	oidc  *OIDC
	value string
}

// Identity returns whose it is.
func (t idToken) Identity(ctx context.Context) (Identity, error) {
	p, err := t.oidc.provider(ctx)
	if err != nil {
		return Identity{}, err
	}
	_, id, err := t.oidc.verify(ctx, p, t.value)
	return id, err
}

// Keep is of [Credential].
func (t idToken) Keep() Kept { return Kept{Token: t.value} }

// verify checks an ID token: signature, issuer, audience and time.
func (o *OIDC) verify(ctx context.Context, p *oidc.Provider, raw string) (*oidc.IDToken, Identity, error) {
	verifier := p.Verifier(&oidc.Config{ClientID: o.config.ClientID, Now: func() time.Time { return time.Now().Add(-clockSkew) }})
	token, err := verifier.Verify(oidc.ClientContext(ctx, o.client), raw)
	if broken := (*url.Error)(nil); errors.As(err, &broken) {
		return nil, Identity{}, fmt.Errorf("fetch the keys of the OpenID Connect issuer: %w", err)
	}
	if err != nil {
		return nil, Identity{}, fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	id, err := o.identity(token)
	if err != nil {
		return nil, Identity{}, fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	return token, id, nil
}

// reserved begins the names that only the cluster itself gives.
const reserved = "system:"

// identity reads the claims of a verified token. It has no name that the cluster
// gives itself: an issuer does not make somebody one of its administrators.
func (o *OIDC) identity(token *oidc.IDToken) (id Identity, err error) {
	claims := map[string]any{}
	if err := token.Claims(&claims); err != nil {
		return id, fmt.Errorf("read the claims: %w", err)
	}
	name, ok := claims[o.config.UsernameClaim].(string)
	if !ok || name == "" || len(name) > 512 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' }) {
		return id, fmt.Errorf("the claim %s is no name", o.config.UsernameClaim)
	}
	if verified, given := claims["email_verified"]; o.config.UsernameClaim == "email" && given && verified != true {
		return id, errors.New("the email address is not verified")
	}
	if id.User = o.config.UsernamePrefix + name; strings.HasPrefix(id.User, reserved) {
		return id, fmt.Errorf("users of the issuer are not called %s…", reserved)
	}
	if o.config.GroupsClaim != "" {
		if id.Groups, err = o.groups(claims[o.config.GroupsClaim]); err != nil {
			return id, fmt.Errorf("the claim %s: %w", o.config.GroupsClaim, err)
		}
	}
	return id, nil
}

func (o *OIDC) groups(claim any) (out []string, err error) {
	list, isList := claim.([]any)
	switch {
	case claim == nil:
		return nil, nil
	case !isList:
		list = []any{claim}
	case len(list) > maxGroups:
		return nil, fmt.Errorf("it has more than %d groups", maxGroups)
	}
	for _, item := range list {
		name, ok := item.(string)
		if !ok {
			return nil, errors.New("want names of groups")
		}
		if name = o.config.GroupsPrefix + name; !strings.HasPrefix(name, reserved) {
			out = append(out, name)
		}
	}
	return out, nil
}
