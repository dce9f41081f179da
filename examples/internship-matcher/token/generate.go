package token

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
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
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("generate keys: %w", err)
	}
	defer root.Close()
	f, err := root.OpenFile(PublicFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("generate keys: %w", err)
	}
	defer f.Close()
	if err := pem.Encode(f, &pem.Block{Type: "PUBLIC KEY", Bytes: pkix}); err != nil {
		return fmt.Errorf("generate keys: %w", err)
	}
	return root.WriteFile(PrivateFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600)
}
