package image

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"golang.org/x/sync/errgroup"

	"github.com/kubeguardian/kubeguardian/registry"
)

// What registries call signatures and attestations: bundles of sigstore, which
// refer to the image, and layers of images at the tags of cosign.
const (
	bundleType        = "application/vnd.dev.sigstore.bundle"
	simpleSigningType = "application/vnd.dev.cosign.simplesigning.v1+json"
	envelopeType      = "application/vnd.dsse.envelope.v1+json"

	signatureKey   = "dev.cosignproject.cosign/signature"
	certificateKey = "dev.sigstore.cosign/certificate"
	logEntryKey    = "dev.sigstore.cosign/bundle"
	timestampKey   = "dev.sigstore.cosign/rfc3161timestamp"
	predicateKey   = "dev.sigstore.bundle.predicateType"
	createdKey     = "org.opencontainers.image.created"

	cosignSign = "https://sigstore.dev/cosign/sign/v1" // says nothing but "signed"
)

// Attached is what a registry holds beside an image. Nothing of it is verified.
type attached struct {
	signatures []signed
	statements []statementOf
	faults     []string // what could not be read, and does not count
}

// A statementOf is a signed statement with what it says.
type statementOf struct {
	signed
	predicateType string
	predicate     json.RawMessage
}

// wanted says what of it a policy needs.
type wanted struct {
	signatures bool
	predicates map[string]bool
}

// attached reads what is attached to an image. An error is one of reaching the
// registry; what is there and broken becomes a fault.
func (r *reader) attached(image name.Digest, want wanted) (*attached, error) {
	var a attached
	if err := r.referrers(&a, image, want); err != nil {
		return nil, err
	}
	base := strings.Replace(image.DigestStr(), ":", "-", 1)
	if want.signatures {
		if err := r.layers(image.Context().Tag(base+".sig"), simpleSigningType, a.addSimple, &a); err != nil {
			return nil, err
		}
	}
	if len(want.predicates) > 0 {
		if err := r.layers(image.Context().Tag(base+".att"), envelopeType, a.addEnvelope, &a); err != nil {
			return nil, err
		}
	}
	return &a, nil
}

// fault keeps what is wrong with a thing that is there, and returns what is wrong
// with the registry.
func (a *attached) fault(err error) error {
	var bound *registry.BoundError
	var broken *brokenError
	switch {
	case err == nil:
		return nil
	case missing(err), errors.As(err, &bound), errors.As(err, &broken):
		a.faults = append(a.faults, oneLine(err))
		return nil
	}
	return err
}

// A brokenError is content that cannot be what it is called.
type brokenError struct{ error }

// referrers reads the bundles that refer to an image, by the referrers API or its
// fallback tag.
func (r *reader) referrers(a *attached, image name.Digest, want wanted) error {
	index, err := remote.Referrers(image, r.options...)
	if err != nil {
		return a.fault(err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		return a.fault(&brokenError{fmt.Errorf("read list of referrers: %w", err)})
	}
	slices.SortStableFunc(list.Manifests, func(x, y v1.Descriptor) int { // newest first, as far as it is said
		return cmp.Compare(y.Annotations[createdKey], x.Annotations[createdKey])
	})
	found := slices.DeleteFunc(list.Manifests, func(d v1.Descriptor) bool {
		return !strings.HasPrefix(d.ArtifactType, bundleType) || !want.holds(d.Annotations[predicateKey])
	})
	if len(found) > maxSignatures {
		a.faults = append(a.faults, fmt.Sprintf("more than %d bundles refer to it, and the others were not read", maxSignatures))
		found = found[:maxSignatures]
	}
	return a.read(len(found),
		func(i int) ([]byte, error) { return r.bundle(image.Context().Digest(found[i].Digest.String())) },
		func(_ int, text []byte) error { return a.addBundle(text) })
}

// read reads n things, several at a time, and adds them in their order.
func (a *attached) read(n int, read func(i int) ([]byte, error), add func(i int, text []byte) error) error {
	texts, errs := make([][]byte, n), make([]error, n)
	var group errgroup.Group
	group.SetLimit(maxReads)
	for i := range n {
		group.Go(func() error {
			texts[i], errs[i] = read(i)
			return nil // one that is missing leaves the others
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, text := range texts {
		err := errs[i]
		if err == nil {
			err = add(i, text)
		}
		if err := a.fault(err); err != nil {
			return err
		}
	}
	return nil
}

// holds reports whether a bundle with this predicate type is needed. The type is
// a hint of the registry: where it is missing the bundle decides.
func (w wanted) holds(predicateType string) bool {
	return predicateType == "" || w.signatures && predicateType == cosignSign || w.predicates[predicateType]
}

// bundle reads one bundle.
func (r *reader) bundle(at name.Digest) ([]byte, error) {
	image, err := remote.Image(at, r.options...)
	if err != nil {
		return nil, err
	}
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		return nil, &brokenError{fmt.Errorf("bundle %s has %d layers, want 1", at.DigestStr(), len(layers))}
	}
	return blob(layers[0])
}

// layers reads the layers of one type of the image at a tag.
func (r *reader) layers(tag name.Tag, mediaType string, add func(layer v1.Descriptor, content []byte) error, a *attached) error {
	image, err := remote.Image(tag, r.options...)
	if missing(err) {
		return nil
	}
	if err != nil {
		return a.fault(err)
	}
	manifest, err := image.Manifest()
	if err != nil {
		return a.fault(&brokenError{fmt.Errorf("read manifest of %s: %w", tag.TagStr(), err)})
	}
	layers := slices.DeleteFunc(manifest.Layers, func(d v1.Descriptor) bool { return string(d.MediaType) != mediaType })
	if extra := len(layers) - maxSignatures; extra > 0 { // the newest are last
		a.faults = append(a.faults, fmt.Sprintf("%s has more than %d layers, and the others were not read", tag.TagStr(), maxSignatures))
		layers = layers[extra:]
	}
	return a.read(len(layers),
		func(i int) ([]byte, error) {
			found, err := image.LayerByDigest(layers[i].Digest)
			if err != nil {
				return nil, &brokenError{err}
			}
			return blob(found)
		},
		func(i int, content []byte) error { return add(layers[i], content) })
}

// addBundle adds a signature or a statement.
func (a *attached) addBundle(text []byte) error {
	b := &bundle.Bundle{}
	if err := b.UnmarshalJSON(text); err != nil {
		return &brokenError{fmt.Errorf("parse bundle: %w", err)}
	}
	return a.add(signed{bundle: b})
}

func (a *attached) add(s signed) error {
	envelope := s.bundle.GetDsseEnvelope()
	if envelope == nil {
		a.signatures = append(a.signatures, s)
		return nil
	}
	predicateType, predicate, err := parseStatement(envelope.GetPayload())
	if err != nil {
		return &brokenError{err}
	}
	if predicateType == cosignSign {
		a.signatures = append(a.signatures, s)
	} else {
		a.statements = append(a.statements, statementOf{s, predicateType, predicate})
	}
	return nil
}

// addSimple adds a signature of cosign: content is what was signed, and the rest
// stands in annotations.
func (a *attached) addSimple(layer v1.Descriptor, content []byte) error {
	sum, err := hex.DecodeString(layer.Digest.Hex)
	if err != nil {
		return &brokenError{err}
	}
	return a.addLegacy(layer.Annotations, content, "messageSignature", map[string]any{
		"messageDigest": map[string]any{"algorithm": "SHA2_256", "digest": sum},
		"signature":     layer.Annotations[signatureKey],
	})
}

// addEnvelope adds an attestation of cosign.
func (a *attached) addEnvelope(layer v1.Descriptor, content []byte) error {
	var envelope struct {
		PayloadType string `json:"payloadType"`
		Payload     string `json:"payload"`
		Signatures  []struct {
			KeyID string `json:"keyid"`
			Sig   string `json:"sig"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(content, &envelope); err != nil {
		return &brokenError{fmt.Errorf("parse envelope: %w", err)}
	}
	return a.addLegacy(layer.Annotations, nil, "dsseEnvelope", envelope)
}

// addLegacy puts what cosign wrote in the form of a bundle, so that there is one
// way to verify.
func (a *attached) addLegacy(annotations map[string]string, payload []byte, kind string, content any) error {
	material := map[string]any{}
	if err := signer(material, annotations[certificateKey]); err != nil {
		return &brokenError{err}
	}
	if err := witnesses(material, annotations); err != nil {
		return &brokenError{err}
	}
	text, err := json.Marshal(map[string]any{
		"mediaType":            bundleType + "+json;version=0.1",
		"verificationMaterial": material,
		kind:                   content,
	})
	if err != nil {
		return &brokenError{err}
	}
	b := &bundle.Bundle{}
	if err := b.UnmarshalJSON(text); err != nil {
		return &brokenError{fmt.Errorf("parse signature of cosign: %w", err)}
	}
	return a.add(signed{bundle: b, payload: payload})
}

// signer adds who signed: the holder of a certificate, or else of a key.
func signer(material map[string]any, certificate string) error {
	if certificate == "" {
		material["publicKey"] = map[string]any{}
		return nil
	}
	block, _ := pem.Decode([]byte(certificate))
	if block == nil || block.Type != "CERTIFICATE" {
		return errors.New("parse certificate: want a PEM block of type CERTIFICATE")
	}
	material["x509CertificateChain"] = map[string]any{"certificates": []any{map[string]any{"rawBytes": block.Bytes}}}
	return nil
}

// witnesses adds the entry of a transparency log and the timestamp.
func witnesses(material map[string]any, annotations map[string]string) error {
	if text := annotations[logEntryKey]; text != "" {
		entry, err := logEntry(text)
		if err != nil {
			return fmt.Errorf("parse log entry: %w", err)
		}
		material["tlogEntries"] = []any{entry}
	}
	if text := annotations[timestampKey]; text != "" {
		var stamp struct{ SignedRFC3161Timestamp []byte }
		if err := json.Unmarshal([]byte(text), &stamp); err != nil {
			return fmt.Errorf("parse timestamp: %w", err)
		}
		material["timestampVerificationData"] = map[string]any{
			"rfc3161Timestamps": []any{map[string]any{"signedTimestamp": stamp.SignedRFC3161Timestamp}},
		}
	}
	return nil
}

// logEntry puts the entry of a log, as cosign writes it, in the form of a bundle.
func logEntry(text string) (map[string]any, error) {
	var entry struct {
		SignedEntryTimestamp []byte
		Payload              struct {
			Body           string `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogIndex       int64  `json:"logIndex"`
			LogID          string `json:"logID"`
		}
	}
	if err := json.Unmarshal([]byte(text), &entry); err != nil {
		return nil, err
	}
	body, err := base64.StdEncoding.DecodeString(entry.Payload.Body)
	if err != nil {
		return nil, err
	}
	var kind struct {
		Kind    string `json:"kind"`
		Version string `json:"apiVersion"`
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&kind); err != nil {
		return nil, err
	}
	id, err := hex.DecodeString(entry.Payload.LogID)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"logIndex":          entry.Payload.LogIndex,
		"logId":             map[string]any{"keyId": id},
		"kindVersion":       map[string]any{"kind": kind.Kind, "version": kind.Version},
		"integratedTime":    entry.Payload.IntegratedTime,
		"inclusionPromise":  map[string]any{"signedEntryTimestamp": entry.SignedEntryTimestamp},
		"canonicalizedBody": body,
	}, nil
}
