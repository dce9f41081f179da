// Package token signs and checks logins: JWTs with Ed25519. The service auth
// signs them, and every service checks them for itself, so that none has to
// believe another about who is calling.
package token

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// Lifetime is how long a login lasts.
const Lifetime = 15 * time.Minute

const (
	issuer   = "internship-matcher/auth"
	audience = "internship-matcher"
	leeway   = 5 * time.Second // between the clocks of two machines
	recheck  = time.Second     // how long a file is taken to be what it was
)

// ErrInvalid is what every refused token comes with.
var ErrInvalid = errors.New("token: not valid")

// A User is the person that a token is of. Nothing personal is in it.
type User struct {
	ID   string // a UUID
	Role string // student, company or admin
}

type claims struct {
	jwt.RegisteredClaims
	Role string `json:"role"`
}

// A file is a PEM file, read again when it changes. While a changed file does
// not parse, what was read before stays.
type file[T any] struct {
	path  string
	parse func([]byte) (T, error)

	mu      sync.Mutex
	checked time.Time
	changed time.Time
	value   T
}

func openFile[T any](path string, parse func([]byte) (T, error)) (*file[T], error) {
	f := &file[T]{path: path, parse: parse}
	return f, f.read()
}

func (f *file[T]) read() error {
	info, err := os.Stat(f.path)
	if err != nil {
		return fmt.Errorf("token: %w", err)
	}
	f.checked = time.Now()
	if info.ModTime().Equal(f.changed) {
		return nil
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return fmt.Errorf("token: %w", err)
	}
	value, err := f.parse(data)
	if err != nil {
		return fmt.Errorf("token: %s: %w", f.path, err)
	}
	f.changed, f.value = info.ModTime(), value
	return nil
}

// get returns the file's content, as it was at most so long ago.
func (f *file[T]) get(age time.Duration) T {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.checked) > age {
		f.checked = time.Now()
		_ = f.read() // the old value stays; a half-written file is whole a second later
	}
	return f.value
}

// A Signer makes tokens.
type Signer struct{ key *file[ed25519.PrivateKey] }

// NewSigner reads a private key, PKCS#8 in PEM. To replace it, first give its
// public key to everybody who checks tokens.
func NewSigner(path string) (*Signer, error) {
	f, err := openFile(path, parsePrivate)
	return &Signer{f}, err
}

func parsePrivate(data []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("not an Ed25519 key")
	}
	return private, nil
}

// Sign returns a token for a user, and when it ends.
func (s *Signer) Sign(user User, now time.Time) (token string, expires time.Time, err error) {
	key := s.key.get(recheck)
	expires = now.Add(Lifetime).Truncate(time.Second)
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: issuer, Audience: jwt.ClaimStrings{audience}, Subject: user.ID, ID: uuid.NewString(),
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(expires),
		},
		Role: user.Role,
	})
	t.Header["kid"] = keyID(key.Public().(ed25519.PublicKey))
	token, err = t.SignedString(key)
	return token, expires, err
}

// keyID names a key by its hash.
func keyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// A Verifier checks tokens.
type Verifier struct {
	keys *file[map[string]ed25519.PublicKey]
}

// NewVerifier reads public keys, PKIX in PEM: as many as are in use, while one
// replaces another.
func NewVerifier(path string) (*Verifier, error) {
	f, err := openFile(path, parsePublic)
	return &Verifier{f}, err
}

func parsePublic(data []byte) (map[string]ed25519.PublicKey, error) {
	keys := map[string]ed25519.PublicKey{}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		public, ok := key.(ed25519.PublicKey)
		if !ok {
			return nil, errors.New("not an Ed25519 key")
		}
		keys[keyID(public)] = public
	}
	if len(keys) == 0 {
		return nil, errors.New("no PEM block")
	}
	return keys, nil
}

// Verify returns whose a token is, and when it ends. Its errors are
// [ErrInvalid].
func (v *Verifier) Verify(token string) (User, time.Time, error) {
	var c claims
	_, err := jwt.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		id, _ := t.Header["kid"].(string)
		key, ok := v.keys.get(recheck)[id]
		if !ok { // perhaps it has just come
			key, ok = v.keys.get(0)[id]
		}
		if !ok {
			return nil, errors.New("unknown key")
		}
		return key, nil
	}, jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithIssuer(issuer), jwt.WithAudience(audience),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(leeway))
	if err != nil {
		return User{}, time.Time{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return User{ID: c.Subject, Role: c.Role}, c.ExpiresAt.Time, nil
}

type key struct{}

// A Caller is the person on whose behalf something is done, with the token
// that proves it.
type Caller struct {
	User
	Token string
}

// With returns a context in which the caller is known.
func With(ctx context.Context, c Caller) context.Context { return context.WithValue(ctx, key{}, c) }

// From returns the caller, the zero Caller if nobody is logged in.
func From(ctx context.Context) Caller {
	c, _ := ctx.Value(key{}).(Caller)
	return c
}

// Bearer returns the token of an Authorization header.
func Bearer(header string) (string, bool) {
	scheme, token, ok := strings.Cut(header, " ")
	return token, ok && strings.EqualFold(scheme, "Bearer") && token != ""
}
