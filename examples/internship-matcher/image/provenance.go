package image

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// The types of what is said of images.
const (
	provenanceType = "https://slsa.dev/provenance/v1"
	signedType     = "https://sigstore.dev/cosign/sign/v1" // says nothing but "signed"
)

// A Run is one run of the program that makes images.
type Run struct {
	Builder           string // who vouches for it, as a URI
	Started, Finished time.Time
}

// A statement is one about an image, in the form of in-toto.
type statement struct {
	Type          string     `json:"_type"`
	Subject       []resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     any        `json:"predicate"`
}

type resource struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`
}

func (i *Image) statement(predicateType string, predicate any) ([]byte, error) {
	subject := resource{Name: i.Tag.Context().Name(), Digest: map[string]string{i.Digest.Algorithm: i.Digest.Hex}}
	return json.MarshalIndent(statement{"https://in-toto.io/Statement/v1", []resource{subject}, predicateType, predicate}, "", "  ")
}

// A provenance says how an image was made, in the form of SLSA v1.
type provenance struct {
	BuildDefinition struct {
		BuildType            string            `json:"buildType"`
		ExternalParameters   map[string]string `json:"externalParameters"`
		InternalParameters   map[string]string `json:"internalParameters"`
		ResolvedDependencies []resource        `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID      string            `json:"id"`
			Version map[string]string `json:"version"`
		} `json:"builder"`
		Metadata struct {
			StartedOn  time.Time `json:"startedOn"`
			FinishedOn time.Time `json:"finishedOn"`
		} `json:"metadata"`
		Byproducts []resource `json:"byproducts"`
	} `json:"runDetails"`
}

// Provenance says how the image was made, and of what. It names a commit only
// where the binary is of one.
func (i *Image) Provenance(run Run) ([]byte, error) {
	sbom, err := i.SBOM()
	if err != nil {
		return nil, err
	}
	var p provenance
	build := &p.BuildDefinition
	build.BuildType = i.Manual + "#images"
	build.ExternalParameters = map[string]string{"program": i.Name, "arch": i.Arch}
	build.InternalParameters = map[string]string{}
	for _, s := range i.Binary.Settings {
		build.InternalParameters[s.Key] = s.Value
	}
	if build.ResolvedDependencies, err = i.materials(); err != nil {
		return nil, err
	}
	details := &p.RunDetails
	details.Builder.ID = run.Builder
	details.Builder.Version = map[string]string{"go": i.Binary.GoVersion}
	details.Metadata.StartedOn, details.Metadata.FinishedOn = run.Started.UTC().Truncate(time.Second), run.Finished.UTC().Truncate(time.Second)
	sum := sha256.Sum256(sbom)
	details.Byproducts = []resource{{Name: "SBOM", Digest: map[string]string{"sha256": hex.EncodeToString(sum[:])}}}
	return i.statement(provenanceType, p)
}

// materials are the source of the image and the modules in it.
func (i *Image) materials() ([]resource, error) {
	var out []resource
	if revision, _ := i.Commit(); revision != "" {
		out = append(out, resource{URI: "git+" + Source, Digest: map[string]string{"gitCommit": revision}})
	}
	for _, m := range i.modules() {
		r := resource{URI: m.purl()}
		if m.sum != "" {
			sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.sum, "h1:"))
			if err != nil {
				return nil, fmt.Errorf("image %s: sum of module %s: %w", i.Name, m.path, err)
			}
			r.Digest = map[string]string{"dirHash": hex.EncodeToString(sum)}
		}
		out = append(out, r)
	}
	return out, nil
}
