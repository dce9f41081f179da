package image

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// The forms of what is said of images.
const (
	bundleType  = "application/vnd.dev.sigstore.bundle.v0.3+json"
	payloadType = "application/vnd.in-toto+json"
	sbomType    = "application/vnd.cyclonedx+json"
)

// A Key signs statements.
type Key struct{ signer crypto.Signer }

// ReadKey reads a private key in PEM: PKCS #8 with ECDSA or Ed25519, as "openssl
// genpkey" writes it.
func ReadKey(file string) (*Key, error) {
	text, err := os.ReadFile(file) // #nosec G304 -- whoever signs says with which key
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%s: want a PRIVATE KEY in PEM (PKCS #8)", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		if key.Params().BitSize != 256 {
			return nil, fmt.Errorf("%s: a key on %s: want P-256", file, key.Params().Name)
		}
		return &Key{key}, nil
	case ed25519.PrivateKey:
		return &Key{key}, nil
	}
	return nil, errors.New(file + ": want a key of ECDSA or Ed25519")
}

// sign returns a signed statement as a bundle of sigstore.
func (k *Key) sign(statement []byte) ([]byte, error) {
	signature, err := k.signature(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(statement), statement))
	if err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(k.signer.Public())
	if err != nil {
		return nil, err
	}
	hint := sha256.Sum256(public)
	type object = map[string]any
	return json.MarshalIndent(object{
		"mediaType":            bundleType,
		"verificationMaterial": object{"publicKey": object{"hint": base64.StdEncoding.EncodeToString(hint[:])}},
		"dsseEnvelope": object{
			"payloadType": payloadType,
			"payload":     statement, // base64
			"signatures":  []object{{"sig": signature}},
		},
	}, "", "  ")
}

func (k *Key) signature(message []byte) ([]byte, error) {
	if _, ok := k.signer.(ed25519.PrivateKey); ok {
		return k.signer.Sign(rand.Reader, message, crypto.Hash(0))
	}
	digest := sha256.Sum256(message)
	return k.signer.Sign(rand.Reader, digest[:], crypto.SHA256)
}
