// Package access says who asks and what they may do.
//
// Who asks is told by a token: the login token of the server, which is an
// administrator's, or one that the cluster or an OpenID Connect issuer vouches
// for. What they may do is decided by the rights they have in the cluster on
// resources of kubeguardian.dev, or where there is no such cluster by roles that
// the configuration gives to users and groups. Whatever cannot be asked is
// refused.
package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// An Identity is somebody who asks, as the API server describes users.
type Identity struct {
	User   string
	UID    string
	Groups []string
	Extra  map[string][]string
	// Role is what a login token or the configuration gives; when it is empty the
	// cluster is asked.
	Role Role
}

// ErrInvalid is what a token is that nobody vouches for, or no longer.
var ErrInvalid = errors.New("this token is not valid")

// A Denied error says what somebody may not do.
type Denied struct {
	User       string
	Permission Permission
}

// Error names who, what and the role that it takes.
func (e *Denied) Error() string {
	return fmt.Sprintf("%s may not %s: this takes the role %s", e.User, e.Permission, e.Permission.Role())
}

// ErrStale is what a credential is that says no more before it was renewed: it is
// a [Renewer].
var ErrStale = errors.New("this login has to be renewed")

// A Credential is what somebody has logged in with.
type Credential interface {
	// Identity returns whose it is. The error is [ErrInvalid] once it is no longer
	// valid, [ErrStale], and any other when that cannot be told now.
	Identity(context.Context) (Identity, error)
	// Keep returns what [Gate.Restore] makes the same credential of.
	Keep() Kept
}

// A Renewer is a credential for which its issuer is asked again now and then.
type Renewer interface {
	Credential
	// Renew returns the credential to go on with. The error is [ErrInvalid], or that
	// the issuer cannot be asked now. An issuer may take a refresh token only once:
	// no two may renew the same credential.
	Renew(context.Context) (Credential, error)
}

// Kept is a credential as replicas of a server hand it on. It holds secrets, and
// what it takes to ask anew who somebody is, not the answer: who can change it
// becomes nobody else by that.
type Kept struct {
	Login   []byte    `json:"login,omitempty"`   // digest of a login token
	Token   string    `json:"token,omitempty"`   // of an issuer
	Subject string    `json:"subject,omitempty"` // of a login at an OpenID Connect issuer, whose ID token the token is
	Refresh string    `json:"refresh,omitempty"` // its refresh token
	Checked time.Time `json:"checked,omitzero"`  // when the issuer was asked last
}

// A Token is the login token of somebody who is known to nobody else. Its value
// is a secret.
type Token struct {
	User  string
	Role  Role
	Value string
}

// An Authorizer decides what those may do who have no role of their own.
type Authorizer interface {
	// Allowed reports whether somebody may do something. An error says that this
	// cannot be told now.
	Allowed(context.Context, Identity, Permission) (bool, error)
}

// An Issuer knows tokens. [Cluster] and [OIDC] are issuers.
type Issuer interface {
	// Token returns who holds a token. The error is [ErrInvalid], or that this
	// cannot be told now.
	Token(ctx context.Context, token string) (Credential, error)
}

// Options are what a [Gate] asks.
type Options struct {
	// Tokens are compared first.
	Tokens []Token
	// Issuers are asked about all other tokens, in order.
	Issuers []Issuer
	// Authorizer may be nil: nobody without a role of their own may do anything.
	Authorizer Authorizer
}

// A Gate knows tokens and rights. It is safe for concurrent use.
type Gate struct {
	tokens     []hashed
	issuers    []Issuer
	authorizer Authorizer
}

type hashed struct {
	digest   [sha256.Size]byte
	identity Identity
}

// New returns a gate. Tokens must not be empty.
func New(o Options) (*Gate, error) {
	g := &Gate{issuers: o.Issuers, authorizer: o.Authorizer}
	for _, t := range o.Tokens {
		if t.Value == "" {
			return nil, fmt.Errorf("login token of %s: it is empty", t.User)
		}
		g.tokens = append(g.tokens, hashed{sha256.Sum256([]byte(t.Value)), Identity{User: t.User, Role: t.Role}})
	}
	return g, nil
}

// Token returns who holds a token, as a credential whose Identity asks again.
// The error is [ErrInvalid], or that this cannot be told now.
func (g *Gate) Token(ctx context.Context, token string) (Credential, error) {
	digest := sha256.Sum256([]byte(token))
	if known, ok := g.known(digest[:]); ok {
		return known, nil
	}
	answer := ErrInvalid
	for _, issuer := range g.issuers {
		credential, err := issuer.Token(ctx, token)
		if err == nil {
			return credential, nil
		}
		if !errors.Is(err, ErrInvalid) {
			answer = err // unless another one knows it
		}
	}
	return nil, answer
}

// Restore returns a credential that was kept. Whether it is still valid, its
// Identity says.
func (g *Gate) Restore(k Kept) (Credential, error) {
	switch {
	case k.Login != nil:
		if known, ok := g.known(k.Login); ok {
			return known, nil
		}
	case k.Subject != "":
		for _, issuer := range g.issuers {
			if o, ok := issuer.(*OIDC); ok && o.issued(k.Token) {
				return &oidcSession{o, k}, nil
			}
		}
	case k.Token != "":
		return bearer{g, k.Token}, nil
	}
	return nil, ErrInvalid
}

// known compares with the digests of all login tokens in constant time.
func (g *Gate) known(digest []byte) (known hashed, ok bool) {
	for _, t := range g.tokens {
		if subtle.ConstantTimeCompare(digest, t.digest[:]) == 1 {
			known, ok = t, true
		}
	}
	return known, ok
}

// Identity returns whose login token it is. It is valid for as long as the server
// has it.
func (h hashed) Identity(context.Context) (Identity, error) { return h.identity, nil }

// Keep is of [Credential].
func (h hashed) Keep() Kept { return Kept{Login: h.digest[:]} }

// bearer is a token of an issuer that has to be found.
type bearer struct {
	gate  *Gate
	token string
}

// Identity asks the issuers whose it is.
func (b bearer) Identity(ctx context.Context) (Identity, error) {
	c, err := b.gate.Token(ctx, b.token)
	if err != nil {
		return Identity{}, err
	}
	return c.Identity(ctx)
}

// Keep is of [Credential].
func (b bearer) Keep() Kept { return Kept{Token: b.token} }

// Allow returns nil when somebody may do something, a [Denied] error when they
// may not, and any other error when that cannot be told now.
func (g *Gate) Allow(ctx context.Context, id Identity, p Permission) error {
	allowed := id.Role.Allows(p)
	if id.Role == "" && g.authorizer != nil {
		var err error
		if allowed, err = g.authorizer.Allowed(ctx, id, p); err != nil {
			return fmt.Errorf("ask whether %s may %s: %w", id.User, p, err)
		}
	}
	if !allowed {
		return &Denied{id.User, p}
	}
	return nil
}

// A Grant gives a role to users and groups by their names.
type Grant struct {
	Role          Role
	Users, Groups []string
}

// Grants are an [Authorizer] for where no cluster is asked.
type Grants []Grant

// Allowed reports whether a grant to somebody allows something.
func (g Grants) Allowed(_ context.Context, id Identity, p Permission) (bool, error) {
	return slices.ContainsFunc(g, func(g Grant) bool { return g.Role.Allows(p) && g.to(id) }), nil
}

func (g *Grant) to(id Identity) bool {
	return slices.Contains(g.Users, id.User) ||
		slices.ContainsFunc(id.Groups, func(group string) bool { return slices.Contains(g.Groups, group) })
}

// A Permission is a verb and a resource of kubeguardian.dev, such as "update
// incidents". The verbs get and list only read.
type Permission string

func (p Permission) split() (verb, resource string) {
	verb, resource, _ = strings.Cut(string(p), " ")
	return verb, resource
}

// Changes reports whether it is to change something, rather than to read or to
// try something out.
func (p Permission) Changes() bool {
	verb, resource := p.split()
	return verb != "get" && verb != "list" && resource != "evaluations"
}
