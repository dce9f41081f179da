package evidence

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// A Provenance is what a builder states of how an artifact was made, in the
// form of SLSA. What is said of a digest stays true: it does not age.
type Provenance struct {
	Origin
	Digests    []string // of what was built, "sha256:…"
	Predicate  string   // the type of the statement
	Builder    string
	Repository string
	Commit     string
	Finished   time.Time
	Enveloped  bool // it came in an envelope, which has the signatures
	Signatures int  // in the envelope; none of them was verified here
	Verified   bool // the tool that wrote the document says that it verified one
}

// A Signature is the result of verifying the signature of an image.
type Signature struct {
	Origin
	Name     string // of the image, without tag
	Digest   string
	Identity string // who signed, "" for a bare key
}

// A predicate of SLSA provenance, in the forms of v0.2 and of v1.
type slsaPredicate struct {
	Builder struct {
		ID string `json:"id"`
	} `json:"builder"`
	Invocation struct {
		ConfigSource material `json:"configSource"`
	} `json:"invocation"`
	Materials []material `json:"materials"`
	Metadata  struct {
		Finished string `json:"buildFinishedOn"`
		BuildKit struct {
			VCS struct {
				Source   string `json:"source"`
				Revision string `json:"revision"`
			} `json:"vcs"`
		} `json:"https://mobyproject.org/buildkit@v1#metadata"`
	} `json:"metadata"`

	BuildDefinition struct {
		Dependencies []material `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
		Metadata struct {
			Finished string `json:"finishedOn"`
		} `json:"metadata"`
	} `json:"runDetails"`
}

type material struct {
	URI    string            `json:"uri"`
	Digest map[string]string `json:"digest"`
}

// commit returns the commit of a source, "" if the material is none.
func (m material) commit() string {
	return cmp.Or(m.Digest["gitCommit"], m.Digest["sha1"])
}

func isStatement(h head) bool {
	return strings.HasPrefix(h.text("_type"), "https://in-toto.io/Statement/")
}

// inToto reads a statement that stands without its envelope, and so unsigned.
func inToto(d document) (*Set, error) { return inTotoStatement(d, Provenance{}) }

// inTotoStatement reads a statement; from says how it came. An SBOM in it is one of
// the image that it speaks of; other predicates are counted.
func inTotoStatement(d document, from Provenance) (*Set, error) {
	var s struct {
		Subject []struct {
			Name   string            `json:"name"`
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
		Type      string          `json:"predicateType"`
		Predicate json.RawMessage `json:"predicate"`
	}
	if err := d.json(&s); err != nil {
		return nil, err
	}
	from.Origin = Origin{Kind: Registry, Tool: cmp.Or(from.Tool, "in-toto"), Source: d.name}
	from.Predicate = s.Type
	for _, subject := range s.Subject {
		if digest := hash("sha256", subject.Digest["sha256"]); digestForm.MatchString(digest) {
			from.Digests = append(from.Digests, digest)
		}
	}
	inner := document{d.name, s.Predicate}
	switch {
	case strings.HasPrefix(s.Type, "https://slsa.dev/provenance/"):
		return from.slsa(inner)
	case strings.HasPrefix(s.Type, "https://cyclonedx.org/bom"), strings.HasPrefix(s.Type, "https://spdx.dev/Document"):
		return from.sbom(inner)
	}
	set := &Set{}
	set.skip(from.Origin, 1, "a statement that is neither provenance nor an SBOM")
	return set, nil
}

func (p Provenance) slsa(d document) (*Set, error) {
	var s slsaPredicate
	if err := d.json(&s); err != nil {
		return nil, err
	}
	p.Builder = cmp.Or(s.RunDetails.Builder.ID, s.Builder.ID)
	p.Finished = instant(cmp.Or(s.RunDetails.Metadata.Finished, s.Metadata.Finished))
	p.SeenAt = p.Finished
	sources := append([]material{s.Invocation.ConfigSource}, s.BuildDefinition.Dependencies...)
	for _, m := range append(sources, s.Materials...) {
		if p.Commit == "" && m.commit() != "" && purlType(m.URI) == "" {
			p.Repository, p.Commit = m.URI, m.commit()
		}
	}
	if vcs := s.Metadata.BuildKit.VCS; p.Commit == "" {
		p.Repository, p.Commit = vcs.Source, vcs.Revision
	}
	return &Set{Provenances: []Provenance{p}}, nil
}

// sbom reads the SBOM in a statement.
func (p Provenance) sbom(d document) (*Set, error) {
	var set *Set
	var err error
	if strings.HasPrefix(p.Predicate, "https://spdx.dev/") {
		set, err = spdx(d)
	} else {
		set, err = cycloneDX(d)
	}
	if err != nil {
		return nil, err
	}
	for i := range set.Images {
		set.Images[i].Digests = append(set.Images[i].Digests, p.Digests...)
	}
	return set, nil
}

// An envelope is the form DSSE of a signed statement.
type envelope struct {
	PayloadType string            `json:"payloadType"`
	Payload     string            `json:"payload"`
	Signatures  []json.RawMessage `json:"signatures"`
}

func isEnvelope(h head) bool { return h.has("payloadType", "payload", "signatures") }

// dsse reads a signed statement. The signature is not verified: no key is at
// hand, and the record says so.
func dsse(d document) (*Set, error) {
	var e envelope
	if err := d.json(&e); err != nil {
		return nil, err
	}
	return e.open(d, Provenance{})
}

func (e *envelope) open(d document, from Provenance) (*Set, error) {
	if e.PayloadType != "application/vnd.in-toto+json" {
		return nil, d.errorf(0, "payloadType is %q: want application/vnd.in-toto+json", e.PayloadType)
	}
	payload, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil {
		return nil, d.errorf(0, "payload: %v", err)
	}
	if depth(payload) > maxDepth {
		return nil, d.errorf(0, "payload: nested more than %d levels deep", maxDepth)
	}
	from.Enveloped, from.Signatures = true, len(e.Signatures)
	return inTotoStatement(document{d.name, payload}, from)
}

func isBundle(h head) bool {
	return strings.HasPrefix(h.text("mediaType"), "application/vnd.dev.sigstore.bundle") && h.has("dsseEnvelope")
}

// bundle reads a sigstore bundle with a statement, unverified.
func bundle(d document) (*Set, error) {
	var b struct {
		Envelope envelope `json:"dsseEnvelope"`
	}
	if err := d.json(&b); err != nil {
		return nil, err
	}
	return b.Envelope.open(d, Provenance{Origin: Origin{Tool: "sigstore bundle"}})
}

func isVerification(h head) bool { return h.has("attestation", "verificationResult") }

// verification reads an item of what gh attestation verify --format json prints,
// which it does only for what it verified.
func verification(d document) (*Set, error) {
	var v struct {
		Attestation struct {
			Bundle struct {
				Envelope envelope `json:"dsseEnvelope"`
			} `json:"bundle"`
		} `json:"attestation"`
	}
	if err := d.json(&v); err != nil {
		return nil, err
	}
	return v.Attestation.Bundle.Envelope.open(d, Provenance{Origin: Origin{Tool: "gh attestation verify"}, Verified: true})
}

func isCosign(h head) bool { return h.has("critical", "optional") }

// cosign reads an item of what cosign verify --output json prints, which it
// does only for what it verified. The format does not say when that was. A
// signature is of a digest, and stays valid as long as the digest is the one
// that runs: it does not age.
func cosign(d document) (*Set, error) {
	var v struct {
		Critical struct {
			Identity struct {
				Reference string `json:"docker-reference"`
			} `json:"identity"`
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
		Optional map[string]json.RawMessage `json:"optional"`
	}
	if err := d.json(&v); err != nil {
		return nil, err
	}
	if !digestForm.MatchString(v.Critical.Image.Digest) {
		return nil, d.errorf(0, "critical.image.docker-manifest-digest is no SHA-256 digest")
	}
	var who string
	if json.Unmarshal(v.Optional["Subject"], &who) != nil {
		who = ""
	}
	return &Set{Signatures: []Signature{{
		Origin: Origin{Kind: Registry, Tool: "cosign verify", Source: d.name},
		Name:   ParseReference(v.Critical.Identity.Reference).Name, Digest: v.Critical.Image.Digest, Identity: who,
	}}}, nil
}
