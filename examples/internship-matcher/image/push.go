package image

import (
	"context"
	"fmt"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Signature is the name of the attachment that says nothing but that the key's
// owner signed the image. It is of use in a registry only.
const Signature = "signature"

// An Attachment is what is said of an image, as registries keep it beside it.
type Attachment struct {
	Name      string // what it is: sbom, provenance or [Signature]
	MediaType types.MediaType
	Predicate string // the type of a statement, else ""
	Data      []byte
}

// Attachments are what can be said of the image: its SBOM and its provenance;
// with a key, the provenance is signed, and so is the image.
func (i *Image) Attachments(run Run, key *Key) ([]Attachment, error) {
	sbom, err := i.SBOM()
	if err != nil {
		return nil, err
	}
	made, err := i.Provenance(run)
	if err != nil {
		return nil, err
	}
	out := []Attachment{{"sbom", sbomType, "", sbom}}
	if key == nil {
		return append(out, Attachment{"provenance", payloadType, provenanceType, made}), nil
	}
	signed, err := i.statement(signedType, struct{}{})
	if err != nil {
		return nil, err
	}
	for _, a := range []Attachment{{"provenance", bundleType, provenanceType, made}, {Signature, bundleType, signedType, signed}} {
		if a.Data, err = key.sign(a.Data); err != nil {
			return nil, fmt.Errorf("sign %s of %s: %w", a.Name, i.Name, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// Push puts an image and what is said of it into a registry, with the
// credentials of "docker login". Attachments refer to the image: they are found
// by its digest.
func (i *Image) Push(ctx context.Context, attachments ...Attachment) error {
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	if err := remote.Write(i.Tag, i.OCI, options...); err != nil {
		return fmt.Errorf("push %s: %w", i.Tag, err)
	}
	for _, a := range attachments {
		if err := i.attach(a, options); err != nil {
			return fmt.Errorf("push %s of %s: %w", a.Name, i.Tag, err)
		}
	}
	return nil
}

func (i *Image) attach(a Attachment, options []remote.Option) error {
	referrer, err := i.referrer(a)
	if err != nil {
		return err
	}
	digest, err := referrer.Digest()
	if err != nil {
		return err
	}
	return remote.Write(i.Tag.Digest(digest.String()), referrer, options...)
}

// referrer is an artifact that refers to the image.
func (i *Image) referrer(a Attachment) (v1.Image, error) {
	subject, err := partial.Descriptor(i.OCI)
	if err != nil {
		return nil, err
	}
	artifact := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), a.MediaType)
	artifact, err = mutate.Append(artifact, mutate.Addendum{Layer: static.NewLayer(a.Data, a.MediaType)})
	if err != nil {
		return nil, err
	}
	if a.Predicate != "" {
		annotated := map[string]string{"dev.sigstore.bundle.predicateType": a.Predicate}
		artifact = mutate.Annotations(artifact, annotated).(v1.Image)
	}
	return mutate.Subject(artifact, *subject).(v1.Image), nil
}
