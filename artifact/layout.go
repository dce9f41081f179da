package artifact

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"

	"github.com/kubeguardian/kubeguardian/policy"
)

// Bounds of an artifact.
const (
	maxManifest = 4 << 20
	maxLayers   = 1000
	maxBytes    = 32 << 20 // of all layers, and of all that archives hold
	maxFile     = 3 << 20  // as for any policy file
	maxFiles    = 10_000
	maxName     = 500
	maxDepth    = 20 // of folders
	maxParallel = 8  // layers that are fetched together
)

// What oras says of a layer.
const (
	titleKey  = "org.opencontainers.image.title"
	unpackKey = "io.deis.oras.content.unpack"
)

// A reading is that of one artifact.
type reading struct {
	client  *Client
	at      name.Digest
	options []remote.Option
}

// files returns the YAML files of the artifact, in the order of their names.
func (r *reading) files() ([]policy.File, error) {
	data, err := r.client.cache.content(r.at.DigestStr(), maxManifest, func() ([]byte, error) {
		found, err := remote.Get(r.at, r.options...)
		if err != nil {
			return nil, err
		}
		return found.Manifest, nil
	})
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", r.at.DigestStr(), err)
	}
	layers, err := parseManifest(data)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", r.at.DigestStr(), err)
	}
	contents := make([][]byte, len(layers))
	group := errgroup.Group{}
	group.SetLimit(maxParallel)
	for i, layer := range layers {
		group.Go(func() (err error) {
			contents[i], err = r.layer(layer)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return unpack(layers, contents)
}

func (r *reading) layer(d v1.Descriptor) ([]byte, error) {
	data, err := r.client.cache.content(d.Digest.String(), maxBytes, func() ([]byte, error) {
		layer, err := remote.Layer(r.at.Digest(d.Digest.String()), r.options...)
		if err != nil {
			return nil, err
		}
		content, err := layer.Compressed()
		if err != nil {
			return nil, err
		}
		defer content.Close()
		return io.ReadAll(content)
	})
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	return data, nil
}

// parseManifest returns the layers of an artifact.
func parseManifest(data []byte) ([]v1.Descriptor, error) {
	var m struct {
		SchemaVersion int             `json:"schemaVersion"`
		Layers        []v1.Descriptor `json:"layers"`
		Manifests     []v1.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	switch {
	case len(m.Manifests) > 0:
		var digests []string
		for _, one := range m.Manifests[:min(10, len(m.Manifests))] {
			digests = append(digests, one.Digest.String())
		}
		return nil, fmt.Errorf("it is an index of several; name the digest of one of them: %s", strings.Join(digests, ", "))
	case m.SchemaVersion != 2 || len(m.Layers) == 0:
		return nil, errors.New("it is not that of an OCI artifact with layers")
	case len(m.Layers) > maxLayers:
		return nil, fmt.Errorf("%d layers are more than the limit of %d", len(m.Layers), maxLayers)
	}
	left := int64(maxBytes)
	for _, layer := range m.Layers {
		if layer.Size < 0 || layer.Size > left {
			return nil, fmt.Errorf("its layers have more than the limit of %d MiB", maxBytes>>20)
		}
		left -= layer.Size
	}
	return m.Layers, nil
}

// A tree is what layers hold.
type tree struct {
	files []policy.File
	names map[string]bool
	left  int64 // bytes
	seen  int   // entries
}

// unpack returns the YAML files in layers.
func unpack(layers []v1.Descriptor, contents [][]byte) ([]policy.File, error) {
	t := &tree{names: map[string]bool{}, left: maxBytes}
	for i, layer := range layers {
		if err := t.addLayer(layer, contents[i]); err != nil {
			return nil, fmt.Errorf("layer %s: %w", layer.Digest, err)
		}
	}
	if len(t.files) == 0 {
		return nil, errors.New("no YAML files in it")
	}
	slices.SortFunc(t.files, func(a, b policy.File) int { return cmp.Compare(a.Name, b.Name) })
	return t.files, nil
}

// addLayer adds a layer that is a file, or an archive. Tools give a file whatever
// media type comes first, so that its title says more.
func (t *tree) addLayer(d v1.Descriptor, data []byte) error {
	title, kind := d.Annotations[titleKey], string(d.MediaType)
	archive := strings.Contains(kind, "tar") || strings.Contains(kind, "rootfs.diff")
	switch {
	case archive && (title == "" || d.Annotations[unpackKey] == "true" || isArchive(title)):
		return t.addArchive(data)
	case title != "":
		return t.addFile(title, int64(len(data)), bytes.NewReader(data))
	case strings.Contains(kind, "yaml"):
		return t.addFile(strings.ReplaceAll(d.Digest.String(), ":", "-")+".yaml", int64(len(data)), bytes.NewReader(data))
	}
	return fmt.Errorf("media type %q is not supported: want a file with a title, or an archive (tar, tar+gzip)", kind)
}

func isArchive(title string) bool {
	return slices.ContainsFunc([]string{".tar", ".tar.gz", ".tgz"}, func(end string) bool { return strings.HasSuffix(title, end) })
}

// addArchive adds what a tar archive holds, which may be compressed.
func (t *tree) addArchive(data []byte) error {
	var content io.Reader = bytes.NewReader(data)
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		unzipped, err := gzip.NewReader(content)
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		content = unzipped
	}
	content = &bounded{content, 2 * maxBytes} // with what is left out
	for archive := tar.NewReader(content); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		switch header.Typeflag {
		case tar.TypeXGlobalHeader:
		case tar.TypeDir:
			if _, err := t.check(header.Name); err != nil {
				return err
			}
		case tar.TypeReg:
			if err := t.addFile(header.Name, header.Size, archive); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%q is neither a file nor a folder: links and devices are not read", clip(header.Name))
		}
	}
}

// A bounded reader fails when it has passed on as much as it may.
type bounded struct {
	io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("unpacked it is over the limit of %d MiB", 2*maxBytes>>20)
	}
	return n, err
}

// addFile adds a file if it is one of YAML.
func (t *tree) addFile(at string, size int64, content io.Reader) error {
	at, err := t.check(at)
	if err != nil || !slices.Contains([]string{".yaml", ".yml"}, path.Ext(at)) {
		return err
	}
	switch {
	case t.names[at]:
		return fmt.Errorf("%q is there twice", at)
	case size > maxFile:
		return fmt.Errorf("%q has %d bytes, more than the limit of %d", at, size, maxFile)
	case size > t.left:
		return fmt.Errorf("its files have more than the limit of %d MiB", maxBytes>>20)
	}
	data, err := io.ReadAll(io.LimitReader(content, maxFile))
	if err != nil {
		return fmt.Errorf("read %q: %w", at, err)
	}
	t.names[at], t.left = true, t.left-int64(len(data))
	t.files = append(t.files, policy.File{Name: at, Data: data})
	return nil
}

// check returns the name of a file or folder below the artifact, and refuses what
// is not below it.
func (t *tree) check(at string) (string, error) {
	if t.seen++; t.seen > maxFiles {
		return "", fmt.Errorf("more than %d files and folders", maxFiles)
	}
	clean := strings.TrimSuffix(strings.TrimPrefix(at, "./"), "/")
	switch {
	case clean == "" || clean == ".":
		return ".", nil
	case len(clean) > maxName || strings.Count(clean, "/") > maxDepth:
		return "", fmt.Errorf("the name %q is too long or too deep", clip(at))
	case !fs.ValidPath(clean) || strings.ContainsFunc(clean, func(r rune) bool { return r == '\\' || !unicode.IsPrint(r) }):
		return "", fmt.Errorf("the name %q does not stay below the artifact", clip(at))
	case strings.HasPrefix(path.Base(clean), ".wh."):
		return "", fmt.Errorf("%q takes away a file of another layer: make an artifact without that file", clip(at))
	}
	return clean, nil
}

// clip keeps an error readable whatever an archive holds.
func clip(s string) string {
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "…"
	}
	return s
}
