package image

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"math/big"
	"net/url"
	"testing"
	"time"

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
	}}, map[string]*root.TransparencyLog{fmt.Sprintf("%x", id): log}, a.TimestampingAuthorities(), nil)
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
func (a transparent) certificate(holder key, by key) []byte {
	a.t.Helper()
	uri, err := url.Parse(subject)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), URIs: []*url.URL{uri}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(issuer)}},
	}
	before := a.issue(template, holder)
	promise, err := asn1.Marshal(a.promiseOf(before.RawTBSCertificate, by))
	if err != nil {
		a.t.Fatal(err)
	}
	template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: promise})
	return a.issue(template, holder).Raw
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

// TestCertificateTransparency wants certificates to be in a log, which it does
// unless told otherwise.
func TestCertificateTransparency(t *testing.T) {
	h, a := newHub(t, true), newTransparent(t)
	set := a.load(a.trusted(), Options{}, doc("signed", fmt.Sprintf(
		"attestors: [{name: release, keyless: {trustedRoot: {file: trusted_root.json}, insecureIgnoreTlog: true, identities: [{issuer: %q, subject: %q}]}}]", issuer, subject)))
	for name, test := range map[string]struct {
		by   key
		want string
	}{
		"promised by the log":     {a.log, ""},
		"promised by another log": {newKeyOn(t, elliptic.P256()), "only able to verify 0 SCT entries"},
	} {
		t.Run(name, func(t *testing.T) {
			image, holder := h.push("shop/"+fmt.Sprint(test.want == "")+":1"), newKey(t)
			envelope := holder.envelope(inToto(t, image.DigestStr(), cosignSign, map[string]any{}))
			sig := envelope["signatures"].([]any)[0].(map[string]any)["sig"].([]byte)
			stamp, err := a.TimestampResponse(sig)
			if err != nil {
				t.Fatal(err)
			}
			h.refer(image, mustJSON(t, map[string]any{
				"mediaType": bundleType + ".v0.3+json",
				"verificationMaterial": map[string]any{
					"certificate":               map[string]any{"rawBytes": a.certificate(holder, test.by)},
					"timestampVerificationData": map[string]any{"rfc3161Timestamps": []any{map[string]any{"signedTimestamp": stamp}}},
				},
				"dsseEnvelope": envelope,
			}))
			found := evaluate(t, set, podOf(image.String()))
			if test.want == "" {
				wantNone(t, found)
			} else {
				wantOne(t, found, test.want)
			}
		})
	}
}
