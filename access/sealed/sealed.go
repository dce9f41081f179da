// Package sealed has sessions of browsers as they are kept for all replicas of a
// server: each is found and opened by its cookie alone, which is not kept. Who
// reads where they are kept can neither use nor open one.
package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// maxBody bounds a credential: an ID token and a refresh token.
const maxBody = 64 << 10

// A Session is a login of a browser.
type Session struct {
	ID          string // follows from the cookie, and not the other way round
	Began, Used time.Time
	Body        []byte // the credential, encrypted by a key that follows from the cookie
}

// NewCookie returns a secret of 130 random bits that a browser is to keep.
func NewCookie() string { return rand.Text() }

// ID returns which session a cookie is of.
func ID(cookie string) (string, error) {
	id, err := hkdf.Key(sha256.New, []byte(cookie), nil, "kubeguardian session id 1", sha256.Size)
	if err != nil {
		return "", fmt.Errorf("name a session: %w", err)
	}
	return hex.EncodeToString(id), nil
}

func seal(cookie string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(cookie), nil, "kubeguardian session key 1", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Close encrypts a credential for who has the cookie.
func Close(cookie string, credential []byte) ([]byte, error) {
	if len(credential) > maxBody {
		return nil, fmt.Errorf("keep the login: its tokens take %d bytes, at most %d", len(credential), maxBody)
	}
	s, err := seal(cookie)
	if err != nil {
		return nil, fmt.Errorf("keep the login: %w", err)
	}
	return s.Seal(nil, nil, credential, nil), nil
}

// Open returns the credential that [Close] has encrypted. An error says that it is
// not what was kept for this cookie.
func Open(cookie string, body []byte) (credential []byte, err error) {
	s, err := seal(cookie)
	if err != nil {
		return nil, fmt.Errorf("open a session: %w", err)
	}
	if credential, err = s.Open(nil, nil, body, nil); err != nil {
		return nil, fmt.Errorf("open a session: it was changed where it is kept: %w", err)
	}
	return credential, nil
}
