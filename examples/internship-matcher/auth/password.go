package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// What a hash costs: the second set of parameters of the OWASP Password Storage
// Cheat Sheet.
const (
	memory  = 19 << 10 // KiB
	passes  = 2
	threads = 1
	saltLen = 16
	hashLen = 32
)

// A hasher bounds how many passwords are hashed at once, and with that the
// memory it takes.
type hasher chan struct{}

func newHasher(atOnce int) hasher { return make(hasher, atOnce) }

func (h hasher) derive(ctx context.Context, password string, salt []byte) ([]byte, error) {
	select {
	case h <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-h }()
	return argon2.IDKey([]byte(password), salt, passes, memory, threads, hashLen), nil
}

// hash returns a PHC string: $argon2id$v=19$m=…,t=…,p=…$SALT$HASH.
func (h hasher) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltLen)
	rand.Read(salt) // never fails, says crypto/rand
	key, err := h.derive(ctx, password, salt)
	return parameters + enc(salt) + "$" + enc(key), err
}

var parameters = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, memory, passes, threads)

func enc(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }

// matches reports whether a password is the one of a hash. Without a hash it
// takes as long and is false, so that time tells nobody who has an account.
func (h hasher) matches(ctx context.Context, password, hash string) (bool, error) {
	if hash == "" {
		_, err := h.derive(ctx, password, make([]byte, saltLen))
		return false, err
	}
	rest, ok := strings.CutPrefix(hash, parameters)
	salt, key, both := strings.Cut(rest, "$")
	if !ok || !both {
		return false, errors.New("auth: a stored password has other parameters than ours")
	}
	s, err := base64.RawStdEncoding.DecodeString(salt)
	if err != nil {
		return false, err
	}
	want, err := base64.RawStdEncoding.DecodeString(key)
	if err != nil {
		return false, err
	}
	have, err := h.derive(ctx, password, s)
	return subtle.ConstantTimeCompare(have, want) == 1, err
}
