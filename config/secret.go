package config

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
)

const redacted = "<secret>"

// A Secret never prints its value: not with fmt, not in a log, not as JSON or
// YAML. string(s) is the only way to it.
type Secret string

// String returns a fixed word.
func (Secret) String() string { return redacted }

// GoString returns a fixed word.
func (Secret) GoString() string { return redacted }

// Format writes a fixed word for every verb.
func (Secret) Format(s fmt.State, _ rune) { io.WriteString(s, redacted) }

// LogValue returns a fixed word.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns a fixed word.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// The bounds of a login token. Shorter ones can be guessed.
const (
	minToken = 16
	maxToken = 4096
)

// Token reads the login token in a file, without the white space around it.
// When the file does not exist, Token creates it with 256 random bits, readable
// by its owner only, and reports that it did.
func Token(file string) (token Secret, created bool, err error) {
	token, err = readToken(file)
	if errors.Is(err, fs.ErrNotExist) {
		token, err = createToken(file)
		created = err == nil
	}
	if errors.Is(err, fs.ErrExist) { // another process was faster
		token, err = readToken(file)
	}
	if err != nil {
		return "", false, fmt.Errorf("read login token: %w", err)
	}
	return token, created, nil
}

// DatabaseURL reads the URL of a database in PostgreSQL from a file, without the
// white space around it: postgresql://USER:PASSWORD@HOST/DATABASE, with what
// pgx takes as parameters. No error shows it.
func DatabaseURL(file string) (Secret, error) {
	data, err := readShort(file)
	if err != nil {
		return "", fmt.Errorf("read database.urlFile: %w", err)
	}
	text := string(bytes.TrimSpace(data))
	if !strings.HasPrefix(text, "postgresql://") && !strings.HasPrefix(text, "postgres://") || len(data) > maxToken || strings.ContainsAny(text, "\r\n") {
		return "", fmt.Errorf("read database.urlFile: %s: want one line, postgresql://USER:PASSWORD@HOST/DATABASE", file)
	}
	return Secret(text), nil
}

// ClientSecret reads the secret of an OpenID Connect client from a file, without
// the white space around it.
func ClientSecret(file string) (Secret, error) {
	data, err := readShort(file)
	if err != nil {
		return "", fmt.Errorf("read web.login.oidc.clientSecretFile: %w", err)
	}
	secret := bytes.TrimSpace(data)
	if len(secret) == 0 || len(data) > maxToken || bytes.ContainsAny(secret, "\r\n") {
		return "", fmt.Errorf("read web.login.oidc.clientSecretFile: %s: want one line of 1 to %d characters", file, maxToken)
	}
	return Secret(secret), nil
}

// readShort reads a file, or one byte more than a token may have.
func readShort(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxToken+1))
}

func readToken(file string) (Secret, error) {
	data, err := readShort(file)
	if err != nil {
		return "", err
	}
	token := bytes.TrimSpace(data)
	if len(token) < minToken || len(data) > maxToken {
		return "", fmt.Errorf("%s: want %d to %d characters, have %d: remove the file to have a new one made", file, minToken, maxToken, len(token))
	}
	return Secret(token), nil
}

// createToken writes a temporary file first and links it into place, so that
// the file is whole or absent, and an existing one is never replaced.
func createToken(file string) (Secret, error) {
	random := make([]byte, 32)
	rand.Read(random)
	token := base64.RawURLEncoding.EncodeToString(random)
	tmp := fmt.Sprintf("%s.%d.tmp", file, os.Getpid())
	if err := os.WriteFile(tmp, []byte(token+"\n"), 0o600); err != nil {
		return "", err
	}
	defer os.Remove(tmp)
	if err := os.Link(tmp, file); err != nil {
		return "", err
	}
	return Secret(token), nil
}
