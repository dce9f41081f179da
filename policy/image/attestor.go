package image

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
)

// minRSABits is the shortest RSA key that is accepted.
const minRSABits = 2048

// An attestor is trusted to sign. It is safe for concurrent use.
type attestor struct {
	name string
	// verifiers are tried in turn: for a key there is a second one, because cosign
	// used SHA-256 with keys of every length.
	verifiers []*verify.Verifier
	demands   []verify.PolicyOption // a key, or one of these identities
}

// A signed is a signature or an attestation as a registry holds it: not verified.
type signed struct {
	bundle *bundle.Bundle
	// payload is what cosign signed in the place of the image, and which names it;
	// nil where the signature is of the image itself.
	payload []byte
}

// verify checks that this attestor signed. The digest is of the image. So many
// signatures that there is no time for them are a fault of the image: an error
// like others.
func (a *attestor) verify(ctx context.Context, s signed, digest string) (*verify.VerificationResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("no time is left to verify it: %w", err)
	}
	var errs []error
	for _, v := range a.verifiers {
		artifact := verify.WithArtifact(bytes.NewReader(s.payload))
		if s.payload == nil {
			raw, err := hex.DecodeString(strings.TrimPrefix(digest, "sha256:"))
			if err != nil {
				return nil, fmt.Errorf("read digest %s: %w", digest, err)
			}
			artifact = verify.WithArtifactDigest("sha256", raw)
		}
		result, err := v.Verify(s.bundle, verify.NewPolicy(artifact, a.demands...))
		if err == nil {
			return result, nil
		}
		errs = append(errs, err)
	}
	return nil, errs[0]
}

// root returns where the trusted root of a document comes from.
func (a *attestorDoc) root() *content {
	if a.Keyless == nil {
		return nil
	}
	return &a.Keyless.TrustedRoot
}

func (l *loader) attestors(c *checker, p *Policy) {
	c.most("spec.attestors", len(c.Spec.Attestors), maxAttestors)
	seen := map[string]bool{}
	for i, doc := range c.Spec.Attestors {
		path := fmt.Sprintf("spec.attestors[%d]", i)
		c.unique(path+".name", doc.Name, seen)
		a := &attestor{name: doc.Name}
		switch {
		case (doc.Key == nil) == (doc.Keyless == nil):
			c.bad(path, "one of key and keyless is required")
		case doc.Key != nil:
			l.key(c, path+".key", doc.Key, a)
		default:
			l.keyless(c, path+".keyless", doc.Keyless, a)
		}
		p.attestors = append(p.attestors, a)
	}
}

// text returns what a content holds, and whether there is any.
func (l *loader) text(c *checker, path string, from content) ([]byte, bool) {
	if (from.Data == "") == (from.File == "") {
		c.bad(path, "one of data and file is required")
		return nil, false
	}
	if from.Data != "" {
		return []byte(from.Data), true
	}
	data, ok := l.beside[from.File]
	if !ok {
		c.bad(path+".file", "file %q is not among those given with the policies, or holds neither a public key nor a trusted root", from.File)
	}
	return data, ok
}

// key makes an attestor of a public key.
func (l *loader) key(c *checker, path string, from *content, a *attestor) {
	text, ok := l.text(c, path, *from)
	if !ok {
		return
	}
	key, err := publicKey(text)
	if err != nil {
		c.bad(path, "%v", err)
		return
	}
	loads := []func() (signature.Verifier, error){func() (signature.Verifier, error) { return signature.LoadDefaultVerifier(key) }}
	if ec, ok := key.(*ecdsa.PublicKey); ok && ec.Curve.Params().BitSize > 256 {
		loads = append(loads, func() (signature.Verifier, error) { return signature.LoadVerifier(key, crypto.SHA256) })
	}
	for _, load := range loads {
		loaded, err := load()
		if err != nil {
			c.bad(path, "%v", err)
			return
		}
		held := root.NewExpiringKey(loaded, time.Time{}, time.Time{})
		trusted := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return held, nil })
		v, err := verify.NewVerifier(trusted, verify.WithNoObserverTimestamps(), verify.WithoutStatementPredicate())
		if err != nil {
			c.bad(path, "%v", err)
			return
		}
		a.verifiers = append(a.verifiers, v)
	}
	a.demands = []verify.PolicyOption{verify.WithKey()}
}

// publicKey reads one key in PEM.
func publicKey(text []byte) (crypto.PublicKey, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("want one PEM block of type PUBLIC KEY")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse public key: %w", err)
	}
	switch key := key.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < minRSABits {
			return nil, fmt.Errorf("an RSA key of %d bits is too short: want at least %d", key.N.BitLen(), minRSABits)
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return nil, fmt.Errorf("keys of type %T are not supported: want ECDSA, RSA or Ed25519", key)
	}
	return key, nil
}

// keyless makes an attestor of identities.
func (l *loader) keyless(c *checker, path string, doc *keylessDoc, a *attestor) {
	for i, id := range doc.Identities {
		if matcher, ok := c.identityOf(fmt.Sprintf("%s.identities[%d]", path, i), id); ok {
			a.demands = append(a.demands, verify.WithCertificateIdentity(matcher))
		}
	}
	if len(doc.Identities) == 0 {
		c.bad(path+".identities", "at least one identity is required: anybody can get a certificate")
	}
	c.most(path+".identities", len(doc.Identities), maxIdentities)
	text, ok := l.text(c, path+".trustedRoot", doc.TrustedRoot)
	if !ok {
		return
	}
	trusted, err := root.NewTrustedRootFromJSON(text)
	if err != nil {
		c.bad(path+".trustedRoot", "parse trusted root: %v", err)
		return
	}
	c.bears(path, doc, trusted)
	options := []verify.VerifierOption{verify.WithoutStatementPredicate(), verify.WithObserverTimestamps(1)}
	if !doc.InsecureIgnoreTlog {
		options = append(options, verify.WithTransparencyLog(1))
	}
	if !doc.InsecureIgnoreSCT {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	v, err := verify.NewVerifier(trusted, options...)
	if err != nil {
		c.bad(path, "%v", err)
		return
	}
	a.verifiers = append(a.verifiers, v)
}

// bears reports what a trusted root lacks, so that no signature could be valid.
func (c *checker) bears(path string, doc *keylessDoc, trusted *root.TrustedRoot) {
	if len(trusted.FulcioCertificateAuthorities()) == 0 {
		c.bad(path+".trustedRoot", "it has no certificate authority")
	}
	if !doc.InsecureIgnoreTlog && len(trusted.RekorLogs()) == 0 {
		c.bad(path+".trustedRoot", "it has no transparency log: set insecureIgnoreTlog if signatures are in none")
	}
	if doc.InsecureIgnoreTlog && len(trusted.TimestampingAuthorities()) == 0 {
		c.bad(path+".trustedRoot", "it has no timestamp authority, and insecureIgnoreTlog leaves no other witness of the time")
	}
	if !doc.InsecureIgnoreSCT && len(trusted.CTLogs()) == 0 {
		c.bad(path+".trustedRoot", "it has no certificate transparency log: set insecureIgnoreSCT if certificates are in none")
	}
}

// identityOf compiles an identity: who signed, and who vouches for that.
func (c *checker) identityOf(path string, doc identityDoc) (verify.CertificateIdentity, bool) {
	before := len(c.errs)
	issuer := c.oneText(path, "issuer", doc.Issuer, doc.IssuerRegExp)
	subject := c.oneText(path, "subject", doc.Subject, doc.SubjectRegExp)
	if len(c.errs) > before {
		return verify.CertificateIdentity{}, false
	}
	id, err := verify.NewShortCertificateIdentity(doc.Issuer, issuer, doc.Subject, subject)
	if err != nil {
		c.bad(path, "%v", err)
	}
	return id, err == nil
}

// oneText wants either an exact value or an expression, and returns the
// expression with anchors, "" if there is none.
func (c *checker) oneText(path, field, exact, expr string) string {
	if (exact == "") == (expr == "") {
		c.bad(path, "one of %s and %sRegExp is required", field, field)
		return ""
	}
	if expr == "" {
		return ""
	}
	compiled, err := anchored(expr)
	if err != nil {
		c.bad(path+"."+field+"RegExp", "%q is not a regular expression: %v", expr, err)
		return ""
	}
	return compiled.String()
}
