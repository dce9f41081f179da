package artifact

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kubeguardian/kubeguardian/policy"
)

// The types of what [Client.Push] makes.
const (
	artifactType = "application/vnd.kubeguardian.policies.v1"
	fileType     = types.MediaType("application/yaml")
	emptyType    = types.MediaType("application/vnd.oci.empty.v1+json")
)

// A packed artifact has a layer for each file, as it is: so its digest depends on
// no version of a compressor, no clock and no user, and files that stay the same
// are not stored again. It implements [partial.CompressedImageCore].
type packed struct {
	manifest []byte
	layers   map[v1.Hash]partial.CompressedLayer
}

// pack makes an artifact of files.
func pack(files []policy.File) (v1.Image, error) {
	files = slices.SortedFunc(slices.Values(files), func(a, b policy.File) int { return cmp.Compare(a.Name, b.Name) })
	p := &packed{layers: map[v1.Hash]partial.CompressedLayer{}}
	config, err := describe(static.NewLayer([]byte("{}"), emptyType))
	if err != nil {
		return nil, err
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: artifactType, Config: config, Layers: []v1.Descriptor{}}
	var contents [][]byte
	for _, f := range files {
		layer := static.NewLayer(f.Data, fileType)
		d, err := describe(layer)
		if err != nil {
			return nil, err
		}
		d.Annotations = map[string]string{titleKey: f.Name}
		m.Layers, contents, p.layers[d.Digest] = append(m.Layers, d), append(contents, f.Data), layer
	}
	if p.manifest, err = json.Marshal(m); err != nil {
		return nil, fmt.Errorf("pack policies: %w", err)
	}
	if err := readable(p.manifest, contents, len(files)); err != nil {
		return nil, fmt.Errorf("pack policies: %w", err)
	}
	return partial.CompressedToImage(p)
}

// readable makes sure that what is pushed can be pulled.
func readable(manifest []byte, contents [][]byte, files int) error {
	layers, err := parseManifest(manifest)
	if err != nil {
		return err
	}
	found, err := unpack(layers, contents)
	if err == nil && len(found) != files {
		err = errors.New("a file is not one of YAML")
	}
	return err
}

func describe(layer v1.Layer) (v1.Descriptor, error) {
	d, err := partial.Descriptor(layer)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("pack policies: %w", err)
	}
	return *d, nil
}

// RawConfigFile implements [partial.CompressedImageCore].
func (p *packed) RawConfigFile() ([]byte, error) { return []byte("{}"), nil }

// MediaType implements [partial.CompressedImageCore].
func (p *packed) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// RawManifest implements [partial.CompressedImageCore].
func (p *packed) RawManifest() ([]byte, error) { return bytes.Clone(p.manifest), nil }

// LayerByDigest implements [partial.CompressedImageCore].
func (p *packed) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	if layer := p.layers[h]; layer != nil {
		return layer, nil
	}
	return nil, fmt.Errorf("no layer %s", h)
}
