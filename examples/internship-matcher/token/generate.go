package token

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
)

// The files that [Generate] writes.
const (
	PrivateFile = "private.pem"
	PublicFile  = "public.pem"
)

// Generate writes a new pair of keys into a folder that exists. Public keys
// that are there stay, so that earlier logins remain valid.
func Generate(dir string) error {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	pkix, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, PublicFile), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("generate keys: %w", err)
	}
	defer f.Close()
	if err := pem.Encode(f, &pem.Block{Type: "PUBLIC KEY", Bytes: pkix}); err != nil {
		return fmt.Errorf("generate keys: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, PrivateFile), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600)
}
