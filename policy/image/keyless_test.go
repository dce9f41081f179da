package image

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/kubeguardian/kubeguardian/policy"
)

const (
	issuer  = "https://token.example.com"
	subject = "https://git.example.com/shop/.ci/release.yml"
)

// An authority is a certificate authority, a timestamp authority and a
// transparency log of its own.
type authority struct {
	*ca.VirtualSigstore
	t *testing.T
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	made, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	return authority{made, t}
}

// root returns the trusted root as a file.
func (a authority) root() []byte {
	a.t.Helper()
	made, err := root.NewTrustedRoot(root.TrustedRootMediaType01, a.FulcioCertificateAuthorities(), nil, a.TimestampingAuthorities(), a.logs())
	if err != nil {
		a.t.Fatal(err)
	}
	return mustJSON(a.t, made)
}

// logs returns the transparency logs.
func (a authority) logs() map[string]*root.TransparencyLog {
	logs := a.RekorLogs()
	for id, l := range logs {
		raw, err := hex.DecodeString(id) // what it has for an ID is the text
		if err != nil {
			a.t.Fatal(err)
		}
		l.ID = raw
	}
	return logs
}

// attest signs a statement under an identity, as if at a time.
func (a authority) attest(who, vouching string, text []byte, at time.Time, proof bool) *ca.TestEntity {
	a.t.Helper()
	entity, err := a.AttestAtTime(who, vouching, text, at, proof)
	if err != nil {
		a.t.Fatal(err)
	}
	return entity
}

// bundle returns a signed statement as a bundle; its log entry only on demand.
func (a authority) bundle(e *ca.TestEntity, log bool) []byte {
	a.t.Helper()
	content, err := e.SignatureContent()
	if err != nil {
		a.t.Fatal(err)
	}
	envelope := content.EnvelopeContent().RawEnvelope()
	stamps, err := e.Timestamps()
	if err != nil {
		a.t.Fatal(err)
	}
	material := map[string]any{
		"certificate":               map[string]any{"rawBytes": a.certificate(e)},
		"timestampVerificationData": map[string]any{"rfc3161Timestamps": []any{map[string]any{"signedTimestamp": stamps[0]}}},
	}
	if log {
		material["tlogEntries"] = []any{a.entry(a.logged(e))}
	}
	return mustJSON(a.t, map[string]any{
		"mediaType":            bundleType + ".v0.3+json",
		"verificationMaterial": material,
		"dsseEnvelope": map[string]any{
			"payloadType": envelope.PayloadType, "payload": envelope.Payload,
			"signatures": []any{map[string]any{"sig": envelope.Signatures[0].Sig}},
		},
	})
}

func (a authority) certificate(e verify.SignedEntity) []byte {
	a.t.Helper()
	content, err := e.VerificationContent()
	if err != nil {
		a.t.Fatal(err)
	}
	return content.Certificate().Raw
}

// logged returns the entry of the log that comes with a signature.
func (a authority) logged(e verify.SignedEntity) *tlog.Entry {
	a.t.Helper()
	entries, err := e.TlogEntries()
	if err != nil {
		a.t.Fatal(err)
	}
	return entries[0]
}

// entry returns the entry of the log as it stands in a bundle.
func (a authority) entry(of *tlog.Entry) map[string]any {
	a.t.Helper()
	entry := of.TransparencyLogEntry()
	var kind map[string]any
	if err := json.Unmarshal(entry.GetCanonicalizedBody(), &kind); err != nil {
		a.t.Fatal(err)
	}
	proof := entry.GetInclusionProof()
	return map[string]any{
		"logIndex": entry.GetLogIndex(), "logId": map[string]any{"keyId": entry.GetLogId().GetKeyId()},
		"kindVersion":    map[string]any{"kind": kind["kind"], "version": kind["apiVersion"]},
		"integratedTime": entry.GetIntegratedTime(), "canonicalizedBody": entry.GetCanonicalizedBody(),
		"inclusionPromise": map[string]any{"signedEntryTimestamp": a.promise(of)},
		"inclusionProof": map[string]any{
			"logIndex": proof.GetLogIndex(), "treeSize": proof.GetTreeSize(), "rootHash": proof.GetRootHash(),
			"hashes": proof.GetHashes(), "checkpoint": map[string]any{"envelope": proof.GetCheckpoint().GetEnvelope()},
		},
	}
}

// promise returns the signature of the log over an entry.
func (a authority) promise(e *tlog.Entry) []byte {
	a.t.Helper()
	promise, err := a.RekorSignPayload(tlog.RekorPayload{
		Body: e.Body(), IntegratedTime: e.IntegratedTime().Unix(), LogIndex: e.LogIndex(), LogID: hex.EncodeToString([]byte(e.LogKeyID())),
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return promise
}

// simple returns a signature in the first form of cosign, with its certificate
// and log entry in annotations.
func (a authority) simple(who, vouching string, payload []byte, at time.Time) mutate.Addendum {
	a.t.Helper()
	e, err := a.SignAtTime(who, vouching, payload, at)
	if err != nil {
		a.t.Fatal(err)
	}
	content, err := e.SignatureContent()
	if err != nil {
		a.t.Fatal(err)
	}
	logged := a.logged(e)
	fields := map[string]any{
		"body": logged.Body(), "integratedTime": at.Unix(), "logIndex": logged.LogIndex(), "logID": hex.EncodeToString([]byte(logged.LogKeyID())),
	}
	promise := a.promise(logged)
	stamps, err := e.Timestamps()
	if err != nil {
		a.t.Fatal(err)
	}
	return mutate.Addendum{
		Layer: static.NewLayer(payload, simpleSigningType),
		Annotations: map[string]string{
			signatureKey:   base64.StdEncoding.EncodeToString(content.Signature()),
			certificateKey: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate(e)})),
			logEntryKey:    string(mustJSON(a.t, map[string]any{"SignedEntryTimestamp": promise, "Payload": fields})),
			timestampKey:   string(mustJSON(a.t, map[string]any{"SignedRFC3161Timestamp": stamps[0]})),
		},
	}
}

// keylessDoc returns an attestor by identity.
func keylessAttestor(identity string, more ...string) string {
	return "- name: release\n  keyless:\n    trustedRoot: {file: trusted_root.json}\n    identities:\n    - " + identity + "\n    insecureIgnoreSCT: true\n" +
		indent(strings.Join(more, "\n"), 4)
}

func (a authority) load(trusted []byte, options Options, text string) *Set {
	a.t.Helper()
	options.AllowLoopback = true
	set, err := New(options).Load(policy.File{Name: "keys/trusted_root.json", Data: trusted}, policy.File{Name: "p.yaml", Data: []byte(text)})
	if err != nil {
		a.t.Fatal(err)
	}
	return set
}

func TestKeyless(t *testing.T) {
	h, a, stranger := newHub(t, true), newAuthority(t), newAuthority(t)
	exact := keylessAttestor(fmt.Sprintf("{issuer: %q, subject: %q}", issuer, subject))
	soon := func() time.Time { return time.Now().Add(5 * time.Minute) }
	signedAs := func(a authority, who, vouching string, at func() time.Time) func(digest string) []byte {
		return func(digest string) []byte {
			return a.bundle(a.attest(who, vouching, inToto(t, digest, cosignSign, map[string]any{}), at(), true), true)
		}
	}
	for name, test := range map[string]struct {
		attestor string
		bundle   func(digest string) []byte
		want     string
	}{
		"right":             {exact, signedAs(a, subject, issuer, soon), ""},
		"another subject":   {exact, signedAs(a, subject+"x", issuer, soon), "no matching CertificateIdentity"},
		"another issuer":    {exact, signedAs(a, subject, issuer+".evil.com", soon), "no matching CertificateIdentity"},
		"another authority": {exact, signedAs(stranger, subject, issuer, soon), "verify"},
		"expired":           {exact, signedAs(a, subject, issuer, func() time.Time { return time.Now().Add(30 * time.Minute) }), "integrated time outside certificate validity"},
		"expression": {
			keylessAttestor(`{issuerRegExp: 'https://token\.example\.com', subjectRegExp: 'https://git\.example\.com/shop/.*'}`),
			signedAs(a, subject, issuer, soon), "",
		},
		"expression, text before": {
			keylessAttestor(`{issuerRegExp: 'https://token\.example\.com', subjectRegExp: 'https://git\.example\.com/shop/.*'}`),
			signedAs(a, "https://evil.com/?"+subject, issuer, soon), "no matching CertificateIdentity",
		},
		"expression, text behind": {
			keylessAttestor(`{issuerRegExp: 'https://token\.example\.com', subjectRegExp: '.*'}`),
			signedAs(a, subject, issuer+".evil.com", soon), "no matching CertificateIdentity",
		},
		"expression with a choice": {
			keylessAttestor(`{issuerRegExp: 'https://a|https://token', subjectRegExp: '.*'}`),
			signedAs(a, subject, issuer, soon), "no matching CertificateIdentity",
		},
		"not in the log": {exact, func(digest string) []byte {
			return a.bundle(a.attest(subject, issuer, inToto(t, digest, cosignSign, map[string]any{}), soon(), true), false)
		}, "log"},
		"by a key": {exact, func(digest string) []byte {
			return newKey(t).bundle(inToto(t, digest, cosignSign, map[string]any{}))
		}, "log"},
		"without certificate transparency": {
			strings.Replace(exact, "insecureIgnoreSCT: true", "insecureIgnoreSCT: false", 1),
			signedAs(a, subject, issuer, soon), "no certificate transparency log",
		},
		"of a private authority without log": {
			keylessAttestor(fmt.Sprintf("{issuer: %q, subject: %q}", issuer, subject), "insecureIgnoreTlog: true"),
			func(digest string) []byte {
				return a.bundle(a.attest(subject, issuer, inToto(t, digest, cosignSign, map[string]any{}), soon(), true), false)
			}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			image := h.push("shop/" + strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), ",", "") + ":1")
			h.refer(image, test.bundle(image.DigestStr()))
			text := doc("signed", "attestors:\n"+test.attestor)
			if strings.Contains(text, "insecureIgnoreSCT: false") { // the root has no such log: said at load
				_, err := Load(policy.File{Name: "trusted_root.json", Data: a.root()}, policy.File{Name: "p.yaml", Data: []byte(text)})
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v, want %s", err, test.want)
				}
				return
			}
			found := evaluate(t, a.load(a.root(), Options{}, text), podOf(image.String()))
			if test.want == "" {
				wantNone(t, found)
			} else {
				wantOne(t, found, "it is not signed by release", test.want)
			}
		})
	}
}

func TestKeylessOfCosign(t *testing.T) {
	h, a := newHub(t, true), newAuthority(t)
	set := a.load(a.root(), Options{}, doc("signed", "attestors:\n"+keylessAttestor(fmt.Sprintf("{issuer: %q, subject: %q}", issuer, subject))))
	soon := time.Now().Add(5 * time.Minute)

	image := h.push("shop/right:1")
	h.cosign(image, ".sig", a.simple(subject, issuer, claim(image.DigestStr()), soon))
	wantNone(t, evaluate(t, set, podOf(image.String())))

	image = h.push("shop/subject:1")
	h.cosign(image, ".sig", a.simple("somebody", issuer, claim(image.DigestStr()), soon))
	wantOne(t, evaluate(t, set, podOf(image.String())), "no matching CertificateIdentity")

	image = h.push("shop/expired:1")
	h.cosign(image, ".sig", a.simple(subject, issuer, claim(image.DigestStr()), time.Now().Add(30*time.Minute)))
	wantOne(t, evaluate(t, set, podOf(image.String())), "integrated time outside certificate validity")

	image = h.push("shop/unlogged:1")
	add := a.simple(subject, issuer, claim(image.DigestStr()), soon)
	delete(add.Annotations, logEntryKey)
	h.cosign(image, ".sig", add)
	wantOne(t, evaluate(t, set, podOf(image.String())), "log")

	image = h.push("shop/forged:1") // the time of the log is not what the log signed
	add = a.simple(subject, issuer, claim(image.DigestStr()), soon)
	add.Annotations[logEntryKey] = string(bytes.Replace([]byte(add.Annotations[logEntryKey]), fmt.Append(nil, soon.Unix()), fmt.Append(nil, soon.Unix()-1), 1))
	h.cosign(image, ".sig", add)
	wantOne(t, evaluate(t, set, podOf(image.String())), "log")
}
