package image

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
)

// A transparent authority puts its certificates into a log of certificates, as
// the public one does.
type transparent struct {
	authority
	issuer    *x509.Certificate
	issuerKey *ecdsa.PrivateKey
	anchor    *x509.Certificate
	log       key
}

func newTransparent(t *testing.T) transparent {
	t.Helper()
	anchor, anchorKey, err := ca.GenerateRootCa()
	if err != nil {
		t.Fatal(err)
	}
	issuer, issuerKey, err := ca.GenerateFulcioIntermediate(anchor, anchorKey)
	if err != nil {
		t.Fatal(err)
	}
	return transparent{newAuthority(t), issuer, issuerKey, anchor, newKey(t)}
}

// trusted returns the trusted root.
func (a transparent) trusted() []byte {
	a.t.Helper()
	id := a.logID()
	log := &root.TransparencyLog{
		BaseURL: "https://ct.example.com", ID: id[:], PublicKey: a.log.Public(), HashFunc: crypto.SHA256,
		ValidityPeriodStart: time.Now().Add(-time.Hour), ValidityPeriodEnd: time.Now().Add(time.Hour),
	}
	made, err := root.NewTrustedRoot(root.TrustedRootMediaType01, []root.CertificateAuthority{&root.FulcioCertificateAuthority{
		Root: a.anchor, Intermediates: []*x509.Certificate{a.issuer}, URI: "https://ca.example.com",
		ValidityPeriodStart: time.Now().Add(-time.Hour), ValidityPeriodEnd: time.Now().Add(time.Hour),
	}}, map[string]*root.TransparencyLog{fmt.Sprintf("%x", id): log}, a.TimestampingAuthorities(), a.logs())
	if err != nil {
		a.t.Fatal(err)
	}
	return mustJSON(a.t, made)
}

func (a transparent) logID() [32]byte {
	der, err := x509.MarshalPKIXPublicKey(a.log.Public())
	if err != nil {
		a.t.Fatal(err)
	}
	return sha256.Sum256(der)
}

// certificate issues a certificate with the promise of a log, signed by it.
func (a transparent) certificate(who, vouching string, holder, by key) *x509.Certificate {
	a.t.Helper()
	uri, err := url.Parse(who)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), URIs: []*url.URL{uri}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(vouching)}},
	}
	before := a.issue(template, holder)
	promise, err := asn1.Marshal(a.promiseOf(before.RawTBSCertificate, by))
	if err != nil {
		a.t.Fatal(err)
	}
	template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: promise})
	return a.issue(template, holder)
}

func (a transparent) issue(template *x509.Certificate, holder key) *x509.Certificate {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, a.issuer, holder.Public(), a.issuerKey)
	if err != nil {
		a.t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return made
}

// promiseOf returns a list of one signed certificate timestamp (RFC 6962, 3.2).
func (a transparent) promiseOf(certificate []byte, by key) []byte {
	be := binary.BigEndian
	at := be.AppendUint64(nil, uint64(time.Now().UnixMilli()))
	issuerHash := sha256.Sum256(a.issuer.RawSubjectPublicKeyInfo)
	size := be.AppendUint32(nil, uint32(len(certificate)))[1:] // 24 bits

	message := append([]byte{0, 0}, at...) // version 1, a timestamp
	message = append(message, 0, 1)        // of a certificate before it is issued
	message = append(message, issuerHash[:]...)
	message = append(append(message, size...), certificate...)
	message = append(message, 0, 0) // no extensions
	signed := by.sign(message)

	id := a.logID()
	stamp := append([]byte{0}, id[:]...)
	stamp = append(append(stamp, at...), 0, 0)
	stamp = append(stamp, 4, 3) // SHA-256 with ECDSA
	stamp = append(be.AppendUint16(stamp, uint16(len(signed))), signed...)
	list := append(be.AppendUint16(nil, uint16(len(stamp))), stamp...)
	return append(be.AppendUint16(nil, uint16(len(list))), list...)
}

// bundle returns a signed statement with all that the public authority gives: a
// certificate that is in a log, an entry in a log of signatures, and a timestamp.
func (a transparent) bundle(who, vouching string, by key, statement []byte) []byte {
	a.t.Helper()
	holder := newKey(a.t)
	leaf := a.certificate(who, vouching, holder, by)
	content := holder.envelope(statement)
	var envelope bundle.Envelope
	if err := json.Unmarshal(mustJSON(a.t, content), &envelope.Envelope); err != nil {
		a.t.Fatal(err)
	}
	entry, err := a.GenerateTlogEntry(leaf, envelope.Envelope, envelope.Signature(), time.Now().Unix(), true)
	if err != nil {
		a.t.Fatal(err)
	}
	stamp, err := a.TimestampResponse(envelope.Signature())
	if err != nil {
		a.t.Fatal(err)
	}
	return mustJSON(a.t, map[string]any{
		"mediaType": bundleType + ".v0.3+json",
		"verificationMaterial": map[string]any{
			"certificate":               map[string]any{"rawBytes": leaf.Raw},
			"tlogEntries":               []any{a.entry(entry)},
			"timestampVerificationData": map[string]any{"rfc3161Timestamps": []any{map[string]any{"signedTimestamp": stamp}}},
		},
		"dsseEnvelope": content,
	})
}

// TestCertificateTransparency wants all that the public authority gives, as it is
// unless told otherwise.
func TestCertificateTransparency(t *testing.T) {
	h, a := newHub(t, true), newTransparent(t)
	set := a.load(a.trusted(), Options{}, doc("signed", fmt.Sprintf(
		"attestors: [{name: release, keyless: {trustedRoot: {file: trusted_root.json}, identities: [{issuer: %q, subject: %q}]}}]", issuer, subject)))
	for name, test := range map[string]struct {
		by   key
		want string
	}{
		"promised-by-the-log":     {a.log, ""},
		"promised-by-another-log": {newKey(t), "only able to verify 0 SCT entries"},
	} {
		t.Run(name, func(t *testing.T) {
			image := h.push("shop/" + name + ":1")
			h.refer(image, a.bundle(subject, issuer, test.by, inToto(t, image.DigestStr(), cosignSign, map[string]any{})))
			found := evaluate(t, set, podOf(image.String()))
			if test.want == "" {
				wantNone(t, found)
			} else {
				wantOne(t, found, test.want)
			}
		})
	}
}
